//! Tags of buckets.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::Caller;
use super::answer::NoContent;
use super::{Gateway, error, tagging};
use crate::model::object::{TagError, Tags};

/// The tags of a document.
fn tags_of(tagging: Tagging) -> S3Result<Tags> {
    let pairs = tagging::pairs_of(tagging)?;
    let reserved = |name: &str| {
        name.get(..4)
            .is_some_and(|front| front.eq_ignore_ascii_case("aws:"))
    };
    if pairs.iter().any(|(name, _)| reserved(name)) {
        return Err(s3_error!(
            InvalidTag,
            "System tags cannot be added/updated by requester"
        ));
    }
    Tags::parse_of_bucket(pairs).map_err(|error| match error {
        TagError::TooMany => error::custom(
            "BadRequest",
            400,
            "Bucket tag count cannot be greater than 50",
        ),
        other => error::of_tags(other),
    })
}

impl Gateway {
    pub(super) async fn get_bucket_tagging(
        &self,
        request: S3Request<GetBucketTaggingInput>,
    ) -> S3Result<S3Response<GetBucketTaggingOutput>> {
        let tags = &Caller::of(&request)?.bucket()?.settings.tags;
        if tags.is_empty() {
            return Err(error::custom(
                "NoSuchTagSet",
                404,
                "The TagSet does not exist",
            ));
        }
        let tag_set = tags.iter().map(|(key, value)| Tag {
            key: Some(key.clone()),
            value: Some(value.clone()),
        });
        Ok(S3Response::new(GetBucketTaggingOutput {
            tag_set: tag_set.collect(),
        }))
    }

    pub(super) async fn put_bucket_tagging(
        &self,
        request: S3Request<PutBucketTaggingInput>,
    ) -> S3Result<S3Response<PutBucketTaggingOutput>> {
        let caller = Caller::of(&request)?.clone();
        let tags = tags_of(request.input.tagging)?;
        self.change_bucket(&caller, move |bucket| bucket.settings.tags = tags.0.clone())
            .await?;
        let mut response = S3Response::new(PutBucketTaggingOutput::default());
        response.extensions.insert(NoContent);
        Ok(response)
    }

    pub(super) async fn delete_bucket_tagging(
        &self,
        request: S3Request<DeleteBucketTaggingInput>,
    ) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
        self.change_bucket(Caller::of(&request)?, |bucket| bucket.settings.tags.clear())
            .await?;
        Ok(S3Response::new(DeleteBucketTaggingOutput::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_up_to_fifty_tags_of_its_own() {
        let tagging = |names: &[String]| Tagging {
            tag_set: names
                .iter()
                .map(|name| Tag {
                    key: Some(name.clone()),
                    value: None,
                })
                .collect(),
        };
        let names: Vec<String> = (0..51).map(|number| format!("k{number}")).collect();
        assert_eq!(tags_of(tagging(&names[..50])).unwrap().0.len(), 50);
        for (names, code) in [
            (&names[..], "BadRequest"),
            (&["aws:x".to_owned()][..], "InvalidTag"),
            (&["a".to_owned(), "a".to_owned()][..], "InvalidTag"),
            (&[String::new()][..], "InvalidTag"),
        ] {
            let error = tags_of(tagging(names)).unwrap_err();
            assert_eq!(error.code().as_str(), code);
        }
    }
}
