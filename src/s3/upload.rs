//! The body of a put or part, with all that its request says of it.

use std::sync::Arc;

use http::{HeaderMap, header};
use s3s::dto::StreamingBlob;
use s3s::{S3Request, S3Result, TrailingHeaders, s3_error};

use super::access::{self, Caller};
use super::body::Counted;
use super::{Gateway, convert, error, signed};
use crate::model::digest::{
    Checksum as Digest, ChecksumAlgorithm as Algorithm, ObjectChecksum, Sha256Digest,
};
use crate::namespace::{BodyHint, PUT_MAX_BYTES, Received, Target, UploadRow};
use crate::telemetry::RequestContext;

/// How long an answer without a body may take to find: clients wait a second for `100 Continue`.
const INSTANT_WAIT: std::time::Duration = std::time::Duration::from_millis(300);
/// A body of a put or part, with all that its request says of it.
pub(super) struct Upload {
    pub(super) length: Option<u64>,
    pub(super) limit: u64,
    pub(super) md5: Option<[u8; 16]>,
    /// The checksum given in a header.
    pub(super) checksum: Option<Digest>,
    /// The checksum announced as a trailer.
    pub(super) trailer: Option<Algorithm>,
    /// The checksum wanted without a value, to be computed here.
    pub(super) wanted: Option<Algorithm>,
    /// The SHA-256 the signature covers; `true`: verified while the body streams.
    signed: Option<(Sha256Digest, bool)>,
    waits: bool,
    trailers: Option<TrailingHeaders>,
    context: Option<Arc<RequestContext>>,
}

impl Upload {
    pub(super) fn of<T>(request: &S3Request<T>) -> S3Result<Self> {
        let headers = &request.headers;
        // Of a body in signed chunks the length without its framing counts.
        let length = match convert::header(headers, "x-amz-decoded-content-length")? {
            Some(decoded) => Some(decoded),
            None => convert::header(headers, "content-length")?,
        };
        let length = length
            .ok_or_else(error::length_required)?
            .parse::<u64>()
            .map_err(|_| error::invalid_argument("The Content-Length is not a number."))?;
        let proof = Caller::of(request)?.proof();
        Ok(Self {
            length: Some(length),
            limit: PUT_MAX_BYTES,
            md5: convert::content_md5(headers)?,
            checksum: convert::checksum_of(headers)?,
            trailer: convert::trailer_algorithm(headers)?,
            wanted: convert::algorithm_header(headers)?,
            signed: signed::signed_sha256(headers).filter(|_| proof == access::Proof::Header),
            waits: headers
                .get(header::EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")),
            trailers: request.trailing_headers.clone(),
            context: request.extensions.get::<Arc<RequestContext>>().cloned(),
        })
    }

    /// The file of a browser's form, whose fields say what headers would. Its length is not known, and its
    /// sender gains and uses no possession.
    pub(super) fn of_form(
        fields: &HeaderMap,
        limit: u64,
        context: Option<Arc<RequestContext>>,
    ) -> S3Result<Self> {
        Ok(Self {
            length: None,
            limit,
            md5: convert::content_md5(fields)?,
            checksum: convert::checksum_of(fields)?,
            trailer: None,
            wanted: convert::algorithm_header(fields)?,
            signed: None,
            waits: false,
            trailers: None,
            context,
        })
    }

    /// The checksum algorithm the object is stored with, if the client chose one.
    fn algorithm(&self) -> Option<Algorithm> {
        let given = self.checksum.as_ref().map(|checksum| checksum.algorithm);
        given.or(self.trailer).or(self.wanted)
    }

    fn wants_sha1(&self) -> bool {
        self.algorithm() == Some(Algorithm::Sha1)
    }

    /// Reads the body, and compares all that the client said of it.
    pub(super) async fn receive(
        &self,
        gateway: &Gateway,
        target: &Target,
        body: Option<StreamingBlob>,
    ) -> S3Result<Received> {
        let hint = BodyHint {
            length: self.length,
            limit: self.limit,
            verified_sha256: self
                .signed
                .and_then(|(digest, verified)| verified.then_some(digest)),
            sha1: self.wants_sha1(),
        };
        let body = body.unwrap_or_else(|| StreamingBlob::from(s3s::Body::empty()));
        let mut body = std::pin::pin!(Counted::new(body, self.context.clone()));
        let received = gateway
            .namespace
            .receive(target, hint, body.as_mut())
            .await
            .map_err(error::of_receive)?;
        self.verify(&received)?;
        Ok(received)
    }

    fn verify(&self, received: &Received) -> S3Result<()> {
        let digests = &received.digests;
        if self.md5.is_some_and(|md5| md5 != digests.md5) {
            return Err(error::bad_digest());
        }
        let same = |wanted: &Digest| digests.checksum(wanted.algorithm).as_ref() == Some(wanted);
        if self.checksum.as_ref().is_some_and(|wanted| !same(wanted)) {
            return Err(error::bad_digest());
        }
        if let Some(algorithm) = self.trailer {
            let trailers = self.trailers.as_ref().and_then(TrailingHeaders::take);
            let given = convert::checksum_of(&trailers.unwrap_or_default())?;
            match given {
                Some(given) if given.algorithm == algorithm && same(&given) => {}
                Some(_) => return Err(error::bad_digest()),
                None => {
                    return Err(s3_error!(
                        InvalidRequest,
                        "The trailer named in x-amz-trailer is missing."
                    ));
                }
            }
        }
        Ok(())
    }

    /// A part is stored with the algorithm its upload announced; another one is refused.
    pub(super) fn for_part(mut self, upload: &UploadRow) -> S3Result<Self> {
        let announced = upload.checksum.map(|(algorithm, _)| algorithm);
        let given = self.checksum.as_ref().map(|checksum| checksum.algorithm);
        if let (Some(announced), Some(given)) = (announced, given.or(self.trailer))
            && announced != given
        {
            return Err(s3_error!(
                InvalidRequest,
                "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                announced.as_str().to_ascii_lowercase(),
                given.as_str().to_ascii_lowercase()
            ));
        }
        self.wanted = announced;
        Ok(self)
    }

    /// The checksum to store: the client's, over bytes that were compared with it.
    pub(super) fn stored_checksum(&self, received: &Received) -> Option<ObjectChecksum> {
        self.algorithm()
            .and_then(|algorithm| received.digests.checksum(algorithm))
            .map(ObjectChecksum::full)
    }

    /// What the body would make, when the client waits before it sends it and this access key has sent
    /// exactly these bytes before.
    pub(super) async fn instant(
        &self,
        gateway: &Gateway,
        caller: &Caller,
        target: &Target,
    ) -> S3Result<Option<Received>> {
        let (Some((sha256, _)), Some(length), Some(sender)) =
            (self.signed, self.length, caller.sender())
        else {
            return Ok(None);
        };
        // A trailer comes only with the body; an empty body is no saving.
        if !gateway.config.instant || !self.waits || self.trailer.is_some() || length == 0 {
            return Ok(None);
        }
        let checksums: Vec<Digest> = self.checksum.clone().into_iter().collect();
        let lookup = gateway
            .namespace
            .possessed(target, sha256, length, sender, self.md5, &checksums);
        let found = match tokio::time::timeout(INSTANT_WAIT, lookup).await {
            Ok(found) => found.map_err(error::of_condition)?,
            Err(_) => None,
        };
        // A checksum wanted without a value must be one that is stored.
        Ok(found.filter(|received| {
            self.algorithm()
                .is_none_or(|algorithm| received.digests.checksum(algorithm).is_some())
        }))
    }
}
