//! Server-side encryption: what requests ask for, what answers tell, and the default of a bucket.
//!
//! A customer's key is taken out of its headers once, compared with its MD5, and handed down as a
//! [`CustomerKey`]; nothing here prints or keeps it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use zeroize::Zeroizing;

use super::access::Caller;
use super::{Gateway, error};
use crate::model::bucket::DefaultEncryption;
use crate::model::object::Encryption;
use crate::namespace::{CustomerKey, KeyProblem, Wanted};

const METHOD: &str = "x-amz-server-side-encryption";
const KMS_KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CONTEXT: &str = "x-amz-server-side-encryption-context";
const BUCKET_KEY: &str = "x-amz-server-side-encryption-bucket-key-enabled";
const CUSTOMER_ALGORITHM: &str = "x-amz-server-side-encryption-customer-algorithm";
const CUSTOMER_KEY_MD5: &str = "x-amz-server-side-encryption-customer-key-md5";
/// Headers that say how new bytes are encrypted, and that no read takes.
const OF_WRITES: [&str; 4] = [METHOD, KMS_KEY, CONTEXT, BUCKET_KEY];

const AES256: &str = "AES256";
const AWS_KMS: &str = "aws:kms";
const AWS_KMS_DSSE: &str = "aws:kms:dsse";

/// Which customer's key of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Of the object that is written or read.
    Object,
    /// Of the source of a copy.
    Source,
}

impl Side {
    fn prefix(self) -> &'static str {
        match self {
            Self::Object => "x-amz-server-side-encryption-customer-",
            Self::Source => "x-amz-copy-source-server-side-encryption-customer-",
        }
    }
}

/// Whether a proxy says that the client's connection to it is encrypted.
pub(super) fn is_https(headers: &HeaderMap) -> bool {
    headers
        .get("x-forwarded-proto")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> S3Result<Option<&'h str>> {
    headers
        .get(name)
        .map(|value| {
            value
                .to_str()
                .map_err(|_| s3_error!(InvalidArgument, "The header {name} is not text."))
        })
        .transpose()
}

/// The customer's key among the headers. AWS names the missing parts in this order.
fn customer_key(headers: &HeaderMap, side: Side) -> S3Result<Option<CustomerKey>> {
    let field = |name: &str| text(headers, &format!("{}{name}", side.prefix()));
    let (algorithm, key, md5) = (field("algorithm")?, field("key")?, field("key-md5")?);
    let Some(algorithm) = algorithm else {
        return match (key, md5) {
            (None, None) => Ok(None),
            _ => Err(error::invalid_argument(
                "Requests specifying Server Side Encryption with Customer provided keys must provide a valid encryption algorithm.",
            )),
        };
    };
    if algorithm != AES256 {
        return Err(s3_error!(
            InvalidEncryptionAlgorithmError,
            "The encryption request you specified is not valid. The valid value is AES256."
        ));
    }
    let key = key.ok_or_else(|| {
        error::invalid_argument(
            "Requests specifying Server Side Encryption with Customer provided keys must provide an appropriate secret key.",
        )
    })?;
    let md5 = md5.ok_or_else(|| {
        error::invalid_argument(
            "Requests specifying Server Side Encryption with Customer provided keys must provide the client calculated MD5 of the secret key.",
        )
    })?;
    let bytes = BASE64.decode(key).map(Zeroizing::new).ok();
    let key = bytes
        .and_then(|bytes| CustomerKey::new(&bytes))
        .ok_or_else(|| {
            error::invalid_argument("The secret key was invalid for the specified algorithm.")
        })?;
    if BASE64.decode(md5).ok().as_deref() != Some(&key.md5()[..]) {
        return Err(error::invalid_argument(
            "The calculated MD5 hash of the key did not match the hash that was provided.",
        ));
    }
    Ok(Some(key))
}

/// A read cannot choose how bytes are encrypted.
pub(super) fn refuse_on_read(headers: &HeaderMap) -> S3Result<()> {
    match OF_WRITES.iter().find(|name| headers.contains_key(**name)) {
        None => Ok(()),
        Some(name) => Err(s3_error!(
            InvalidArgument,
            "{name} header is not supported for this operation."
        )),
    }
}

impl Gateway {
    /// The customer's key among the headers, if it may come over this connection.
    pub(super) fn customer_key(
        &self,
        headers: &HeaderMap,
        side: Side,
        https: bool,
    ) -> S3Result<Option<CustomerKey>> {
        let key = customer_key(headers, side)?;
        if key.is_some() && self.config.customer_keys_need_https && !https {
            return Err(s3_error!(
                InvalidRequest,
                "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure connection."
            ));
        }
        Ok(key)
    }

    /// How the headers of a write want its bytes to be encrypted.
    pub(super) fn wanted(&self, headers: &HeaderMap, https: bool) -> S3Result<Wanted> {
        let customer = self.customer_key(headers, Side::Object, https)?;
        let method = text(headers, METHOD)?;
        let kms_key = text(headers, KMS_KEY)?.filter(|key| !key.is_empty());
        let context = text(headers, CONTEXT)?;
        let bucket_key = match text(headers, BUCKET_KEY)? {
            None => None,
            Some(value) if value.eq_ignore_ascii_case("true") => Some(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Some(false),
            Some(_) => {
                return Err(error::invalid_argument(
                    "The value of x-amz-server-side-encryption-bucket-key-enabled must be true or false.",
                ));
            }
        };
        if customer.is_some() && (method.is_some() || kms_key.is_some()) {
            return Err(error::invalid_argument(
                "Server Side Encryption with Customer provided key is incompatible with the encryption method specified",
            ));
        }
        match (customer, method) {
            (Some(key), _) => Ok(Wanted::Customer(key)),
            (None, Some(AWS_KMS)) => Ok(Wanted::Kms {
                key: kms_key.map(str::to_owned),
                context: context.map(check_context).transpose()?,
                bucket_key,
            }),
            (None, Some(AWS_KMS_DSSE)) => Err(error::not_implemented()),
            (None, Some(AES256) | None) if kms_key.is_some() || context.is_some() => {
                Err(error::invalid_argument(
                    "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms",
                ))
            }
            (None, None) => Ok(Wanted::Default),
            (None, Some(AES256)) => Ok(Wanted::S3),
            (None, Some(_)) => Err(error::invalid_argument(
                "The encryption method specified is not supported",
            )),
        }
    }
}

/// A context is the Base64 of a JSON object.
fn check_context(context: &str) -> S3Result<String> {
    let is_object = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap_or_default();
        text.trim().starts_with('{') && text.trim().ends_with('}')
    };
    match BASE64.decode(context).is_ok_and(is_object) {
        true => Ok(context.to_owned()),
        false => Err(error::invalid_argument(
            "The header 'x-amz-server-side-encryption-context' shall be Base64-encoded UTF-8 string holding JSON which represents a string-string map",
        )),
    }
}

/// Tells in an answer's headers how a version's bytes are encrypted.
pub(super) fn tell(headers: &mut HeaderMap, encryption: Option<&Encryption>) {
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    match encryption {
        None => {}
        Some(Encryption::S3) => set(METHOD, AES256),
        Some(Encryption::Kms {
            key, bucket_key, ..
        }) => {
            set(METHOD, AWS_KMS);
            set(KMS_KEY, key);
            if *bucket_key {
                set(BUCKET_KEY, "true");
            }
        }
        Some(Encryption::Customer { key_md5 }) => {
            set(CUSTOMER_ALGORITHM, AES256);
            set(CUSTOMER_KEY_MD5, &BASE64.encode(key_md5));
        }
    }
}

/// The same in the answer to a write that chose it, which tells the context too.
pub(super) fn tell_writer(headers: &mut HeaderMap, encryption: Option<&Encryption>) {
    tell(headers, encryption);
    if let Some(Encryption::Kms {
        context: Some(context),
        ..
    }) = encryption
        && let Ok(context) = HeaderValue::from_str(context)
    {
        headers.insert(CONTEXT, context);
    }
}

/// Translates what is wrong with the keys of a request.
pub(super) fn of_problem(problem: KeyProblem) -> S3Error {
    match problem {
        KeyProblem::Missing => s3_error!(
            InvalidRequest,
            "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object."
        ),
        KeyProblem::NotApplicable => s3_error!(
            InvalidRequest,
            "The encryption parameters are not applicable to this object."
        ),
        KeyProblem::Wrong => error::access_denied(),
        KeyProblem::PartWithout => s3_error!(
            InvalidRequest,
            "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate encryption parameters."
        ),
        KeyProblem::PartWithOther => s3_error!(
            InvalidRequest,
            "The provided encryption parameters did not match the ones used originally."
        ),
        KeyProblem::NoSuchKmsKey(key) => of_kms(
            "KMS.NotFoundException",
            format!("Key '{key}' does not exist"),
        ),
        KeyProblem::KmsKeyDisabled(key) => {
            of_kms("KMS.DisabledException", format!("{key} is disabled."))
        }
    }
}

fn of_kms(code: &'static str, message: String) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(http::StatusCode::BAD_REQUEST);
    error
}

/// The default a configuration sets: it has exactly one rule.
fn default_of(configuration: ServerSideEncryptionConfiguration) -> S3Result<DefaultEncryption> {
    let mut rules = configuration.rules.into_iter();
    let (Some(rule), None) = (rules.next(), rules.next()) else {
        return Err(error::malformed_xml());
    };
    let by_default = rule
        .apply_server_side_encryption_by_default
        .ok_or_else(error::malformed_xml)?;
    let key = by_default.kms_master_key_id.filter(|key| !key.is_empty());
    let kms = match by_default.sse_algorithm.as_str() {
        AES256 if key.is_some() => {
            return Err(error::invalid_argument(
                "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse",
            ));
        }
        AES256 => false,
        AWS_KMS => true,
        AWS_KMS_DSSE => return Err(error::not_implemented()),
        _ => return Err(error::malformed_xml()),
    };
    Ok(DefaultEncryption {
        kms,
        key,
        bucket_key: rule.bucket_key_enabled == Some(true),
    })
}

impl Gateway {
    pub(super) async fn get_bucket_encryption(
        &self,
        request: S3Request<GetBucketEncryptionInput>,
    ) -> S3Result<S3Response<GetBucketEncryptionOutput>> {
        let caller = Caller::of(&request)?;
        let bucket = caller.bucket()?;
        let default = bucket.settings.encryption.clone().ok_or_else(|| {
            let mut error = s3_error!(
                ServerSideEncryptionConfigurationNotFoundError,
                "The server side encryption configuration was not found"
            );
            error.set_status_code(http::StatusCode::NOT_FOUND);
            error
        })?;
        let rule = ServerSideEncryptionRule {
            apply_server_side_encryption_by_default: Some(ServerSideEncryptionByDefault {
                kms_master_key_id: default.key,
                sse_algorithm: ServerSideEncryption::from_static(match default.kms {
                    true => AWS_KMS,
                    false => AES256,
                }),
            }),
            bucket_key_enabled: Some(default.bucket_key),
        };
        Ok(S3Response::new(GetBucketEncryptionOutput {
            server_side_encryption_configuration: Some(ServerSideEncryptionConfiguration {
                rules: vec![rule],
            }),
        }))
    }

    pub(super) async fn put_bucket_encryption(
        &self,
        request: S3Request<PutBucketEncryptionInput>,
    ) -> S3Result<S3Response<PutBucketEncryptionOutput>> {
        let caller = Caller::of(&request)?.clone();
        let default = default_of(request.input.server_side_encryption_configuration)?;
        self.change_bucket(&caller, move |bucket| {
            bucket.settings.encryption = Some(default.clone());
        })
        .await?;
        Ok(S3Response::new(PutBucketEncryptionOutput::default()))
    }

    pub(super) async fn delete_bucket_encryption(
        &self,
        request: S3Request<DeleteBucketEncryptionInput>,
    ) -> S3Result<S3Response<DeleteBucketEncryptionOutput>> {
        let caller = Caller::of(&request)?;
        self.change_bucket(caller, |bucket| bucket.settings.encryption = None)
            .await?;
        Ok(S3Response::new(DeleteBucketEncryptionOutput::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "pO3upElrwuEXSoFwCfnZPdSsmt/xWeFa0N9KgDijwVs=";
    const MD5: &str = "DWygnHRtgiJ77HCm+1rvHw==";

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = format!("x-amz-server-side-encryption-customer-{name}");
            headers.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn code(fields: &[(&str, &str)]) -> String {
        let error = customer_key(&headers(fields), Side::Object).unwrap_err();
        assert!(!error.message().unwrap().contains(KEY));
        error.code().as_str().to_owned()
    }

    #[test]
    fn a_customers_key_comes_whole_or_not_at_all() {
        let whole = [("algorithm", "AES256"), ("key", KEY), ("key-md5", MD5)];
        assert!(
            customer_key(&headers(&whole), Side::Object)
                .unwrap()
                .is_some()
        );
        assert!(
            customer_key(&headers(&whole), Side::Source)
                .unwrap()
                .is_none()
        );
        assert!(customer_key(&headers(&[]), Side::Object).unwrap().is_none());
        for part in 0..3 {
            let mut fields = whole.to_vec();
            fields.remove(part);
            assert_eq!(code(&fields), "InvalidArgument");
        }
        let algorithm = [("algorithm", "AES128"), ("key", KEY), ("key-md5", MD5)];
        assert_eq!(code(&algorithm), "InvalidEncryptionAlgorithmError");
        let short = [("algorithm", "AES256"), ("key", "AAAA"), ("key-md5", MD5)];
        assert_eq!(code(&short), "InvalidArgument");
        let other = "AAAAAAAAAAAAAAAAAAAAAA==";
        let other = [("algorithm", "AES256"), ("key", KEY), ("key-md5", other)];
        assert_eq!(code(&other), "InvalidArgument");
    }

    #[test]
    fn a_context_is_a_json_object_in_base64() {
        assert!(check_context(&BASE64.encode(r#"{"a":"b"}"#)).is_ok());
        for wrong in ["", "{}", "!", &BASE64.encode("text")] {
            assert!(check_context(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_default_has_one_rule_and_a_key_only_for_kms() {
        let rule = |algorithm: &'static str, key: Option<&str>| ServerSideEncryptionRule {
            apply_server_side_encryption_by_default: Some(ServerSideEncryptionByDefault {
                kms_master_key_id: key.map(str::to_owned),
                sse_algorithm: ServerSideEncryption::from_static(algorithm),
            }),
            ..ServerSideEncryptionRule::default()
        };
        let read = |rules| default_of(ServerSideEncryptionConfiguration { rules });
        let found = read(vec![rule(AWS_KMS, Some("k"))]).unwrap();
        assert_eq!(found.kms_key().as_deref(), Some("k"));
        assert!(!read(vec![rule(AES256, None)]).unwrap().kms);
        assert!(read(vec![rule(AES256, Some("k"))]).is_err());
        assert!(read(vec![rule("rot13", None)]).is_err());
        assert!(read(vec![]).is_err());
        assert!(read(vec![rule(AES256, None), rule(AES256, None)]).is_err());
        assert!(read(vec![ServerSideEncryptionRule::default()]).is_err());
    }
}
