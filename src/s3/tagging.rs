//! Tags of objects.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

use super::access::{Caller, Named, values_of};
use super::notification::origin_of;
use super::objects::set_uid;
use super::read::shown;
use super::{Gateway, convert, error};
use crate::auth::Action;
use crate::model::names::ObjectKey as Key;
use crate::model::notification::Origin;
use crate::model::object::{Tags, VersionId};
use crate::namespace::Recheck;
use crate::namespace::{ChangeRequest, VersionChange};

/// Names and values of a document's tags. A tag without a key is not what the schema says.
pub(super) fn pairs_of(tagging: Tagging) -> S3Result<Vec<(String, String)>> {
    tagging
        .tag_set
        .into_iter()
        .map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
        .collect::<Option<_>>()
        .ok_or_else(error::malformed_xml)
}

/// Tags as the namespace keeps them.
pub(super) fn tags_of(tagging: Tagging) -> S3Result<Tags> {
    Tags::parse(pairs_of(tagging)?).map_err(error::of_tags)
}

impl Gateway {
    pub(super) async fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        let id = convert::version_id(input.version_id.as_deref())?;
        let key = convert::object_key(&input.key)?;
        let bucket = caller.bucket()?;
        let version = self
            .namespace
            .head(bucket, &key, id)
            .await
            .map_err(|condition| self.not_found(caller, bucket, &input.key, condition))?;
        caller.confirm(self, &version)?;
        let (uid, version_id) = (version.uid, shown(bucket, version.id()));
        let tags = version.tags.0.into_iter().map(|(key, value)| Tag {
            key: Some(key),
            value: Some(value),
        });
        let mut response = S3Response::new(GetObjectTaggingOutput {
            tag_set: tags.collect(),
            version_id,
        });
        set_uid(&mut response, uid);
        Ok(response)
    }

    pub(super) async fn put_object_tagging(
        &self,
        request: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let caller = Caller::of(&request)?.clone();
        let origin = origin_of(&request)?;
        let input = request.input;
        let id = convert::version_id(input.version_id.as_deref())?;
        let key = convert::object_key(&input.key)?;
        let tags = tags_of(input.tagging)?;
        let named = Named {
            key: &input.key,
            version: input.version_id.as_deref(),
        };
        let actions = [Action::PutObjectTagging];
        let recheck = self
            .ask_document(&caller, values_of(&tags), &actions, named)
            .await?;
        let version_id = self
            .set_tags(&caller, key, id, tags, origin, recheck)
            .await?;
        Ok(S3Response::new(PutObjectTaggingOutput { version_id }))
    }

    pub(super) async fn delete_object_tagging(
        &self,
        request: S3Request<DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        let id = convert::version_id(input.version_id.as_deref())?;
        let key = convert::object_key(&input.key)?;
        let recheck = caller.recheck(self);
        let version_id = self
            .set_tags(
                caller,
                key,
                id,
                Tags::default(),
                origin_of(&request)?,
                recheck,
            )
            .await?;
        Ok(S3Response::new(DeleteObjectTaggingOutput { version_id }))
    }

    async fn set_tags(
        &self,
        caller: &Caller,
        key: Key,
        version: Option<VersionId>,
        tags: Tags,
        origin: Origin,
        recheck: Recheck,
    ) -> S3Result<Option<String>> {
        let name = key.as_str().to_owned();
        let changed = self
            .namespace
            .change(ChangeRequest {
                bucket: Arc::clone(caller.bucket()?),
                key,
                origin,
                version,
                change: VersionChange::Tags(tags),
                recheck: Some(recheck),
            })
            .await
            .map_err(|condition| match caller.bucket() {
                Ok(bucket) => self.not_found(caller, bucket, &name, condition),
                Err(error) => error,
            })?;
        Ok(changed.map(|id| id.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagging(tags: &[(Option<&str>, Option<&str>)]) -> Tagging {
        let tag_set = tags.iter().map(|(key, value)| Tag {
            key: key.map(str::to_owned),
            value: value.map(str::to_owned),
        });
        Tagging {
            tag_set: tag_set.collect(),
        }
    }

    #[test]
    fn a_tag_without_a_key_is_malformed_and_one_without_a_value_is_empty() {
        let error = tags_of(tagging(&[(None, Some("v"))])).unwrap_err();
        assert_eq!(error.code().as_str(), "MalformedXML");
        let tags = tags_of(tagging(&[(Some("k"), None)])).unwrap();
        assert_eq!(tags.0, [("k".to_owned(), String::new())]);
    }

    #[test]
    fn tags_over_the_limits_are_invalid() {
        let twice = tagging(&[(Some("k"), Some("1")), (Some("k"), Some("2"))]);
        assert_eq!(tags_of(twice).unwrap_err().code().as_str(), "InvalidTag");
    }
}
