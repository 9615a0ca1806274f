//! What AWS says: texts of errors, and what `s3s` calls otherwise. A table.

/// What AWS says.
pub(super) struct Refined {
    pub(super) code: &'static str,
    pub(super) status: u16,
    pub(super) message: &'static str,
}

/// An error that `s3s` names otherwise than AWS, known by its code and the beginning of its text.
pub(super) struct Renamed {
    pub(super) code: &'static str,
    pub(super) text: &'static str,
    /// An empty code: one of the two below, by where the signature is. An empty message: the code's own.
    pub(super) to: Refined,
}

pub(super) const HEADER_MALFORMED: Refined = Refined {
    code: "AuthorizationHeaderMalformed",
    status: 400,
    message: "",
};
pub(super) const QUERY_PARAMETERS: Refined = Refined {
    code: "AuthorizationQueryParametersError",
    status: 400,
    message: "",
};

const fn renamed(
    code: &'static str,
    text: &'static str,
    to: &'static str,
    status: u16,
    message: &'static str,
) -> Renamed {
    Renamed {
        code,
        text,
        to: Refined {
            code: to,
            status,
            message,
        },
    }
}

const NO_DATE: &str = "AWS authentication requires a valid Date or x-amz-date header";
const PAYLOAD_HASH: &str = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD, STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER or a valid sha256 value.";
const PART_NUMBER: &str = "Part number must be an integer between 1 and 10000, inclusive";

#[rustfmt::skip]
pub(super) const RENAMED: &[Renamed] = &[
    renamed("SignatureDoesNotMatch", "invalid header: x-amz-content-sha256", "InvalidArgument", 400, PAYLOAD_HASH),
    renamed("SignatureDoesNotMatch", "credential scope date", "", 400, ""),
    renamed("InvalidRequest", "invalid header: x-amz-content-sha256", "InvalidArgument", 400, PAYLOAD_HASH),
    renamed("InvalidRequest", "missing header: x-amz-content-sha256", "InvalidRequest", 400, "Missing required header for this request: x-amz-content-sha256"),
    renamed("InvalidRequest", "invalid header: authorization", "AuthorizationHeaderMalformed", 400, ""),
    renamed("InvalidRequest", "missing header: x-amz-date", "AccessDenied", 403, NO_DATE),
    renamed("InvalidRequest", "invalid header: x-amz-date", "AccessDenied", 403, NO_DATE),
    renamed("InvalidRequest", "invalid amz date", "AccessDenied", 403, NO_DATE),
    renamed("InvalidRequest", "missing presigned url v4 fields", "AuthorizationQueryParametersError", 400, ""),
    renamed("NotImplemented", "X-Amz-Algorithm", "AuthorizationQueryParametersError", 400, "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256 and AWS4-ECDSA-P256-SHA256\""),
    renamed("NotImplemented", "unknown service", "", 400, ""),
    renamed("NotImplemented", "Unknown operation", "NotImplemented", 501, ""),
    renamed("NotImplemented", "The request appears", "NotImplemented", 501, ""),
    renamed("RequestTimeTooSkewed", "request date is later", "AccessDenied", 403, "Request is not yet valid"),
    renamed("RequestTimeTooSkewed", "request time", "RequestTimeTooSkewed", 403, ""),
    renamed("MissingContentLength", "missing header", "MissingContentLength", 411, ""),
    renamed("InvalidArgument", "invalid query: max-keys", "InvalidArgument", 400, "Provided max-keys not an integer or within integer range"),
    renamed("InvalidArgument", "invalid query: partNumber", "InvalidArgument", 400, PART_NUMBER),
];

/// The text AWS sends with a code, for errors that come without one.
pub(super) fn default_message(code: &str) -> &'static str {
    match code {
        "AccessDenied" => "Access Denied",
        "AuthorizationHeaderMalformed" => {
            "The authorization header that you provided is not valid."
        }
        "AuthorizationQueryParametersError" => {
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
        }
        "BadDigest" => "The Content-MD5 you specified did not match what we received.",
        "EntityTooLarge" => "Your proposed upload exceeds the maximum allowed size",
        "EntityTooSmall" => "Your proposed upload is smaller than the minimum allowed size",
        "IncompleteBody" => {
            "You did not provide the number of bytes specified by the Content-Length HTTP header"
        }
        "InternalError" => "We encountered an internal error. Please try again.",
        "InvalidAccessKeyId" => "The AWS Access Key Id you provided does not exist in our records.",
        "InvalidArgument" => "Invalid Argument",
        "InvalidBucketName" => "The specified bucket is not valid.",
        "InvalidDigest" => "The Content-MD5 you specified is not valid.",
        "InvalidRange" => "The requested range is not satisfiable",
        "InvalidRequest" => "Invalid Request",
        "InvalidURI" => "Couldn't parse the specified URI.",
        "KeyTooLongError" => "Your key is too long",
        "MalformedPOSTRequest" => {
            "The body of your POST request is not well-formed multipart/form-data."
        }
        "MalformedXML" => {
            "The XML you provided was not well-formed or did not validate against our published schema"
        }
        "MaxMessageLengthExceeded" => "Your request was too big.",
        "MethodNotAllowed" => "The specified method is not allowed against this resource.",
        "MissingContentLength" => "You must provide the Content-Length HTTP header.",
        "MissingRequestBodyError" => "Request Body is empty",
        "NoSuchBucket" => "The specified bucket does not exist",
        "NoSuchKey" => "The specified key does not exist.",
        "NoSuchUpload" => {
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
        }
        "NoSuchVersion" => "The specified version does not exist.",
        "NotImplemented" => "A header you provided implies functionality that is not implemented",
        "PreconditionFailed" => "At least one of the pre-conditions you specified did not hold",
        "RequestTimeTooSkewed" => {
            "The difference between the request time and the current time is too large."
        }
        "RequestTimeout" => {
            "Your socket connection to the server was not read from or written to within the timeout period."
        }
        "ServiceUnavailable" => "Service is unable to handle request.",
        "SignatureDoesNotMatch" => {
            "The request signature we calculated does not match the signature you provided. Check your key and signing method."
        }
        "SlowDown" => "Please reduce your request rate.",
        _ => "The request could not be served.",
    }
}
