//! Create, head, list and delete buckets, and where they are.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::Caller;
use super::acl::owner_dto;
use super::listing::Token;
use super::policy::ownership_of;
use super::{Gateway, convert, error};
use crate::auth::Shown;
use crate::model::bucket::Settings;
use crate::namespace::{Condition, NewBucket};

/// The region whose buckets have no location constraint, and where creating an own bucket again succeeds.
const CLASSIC_REGION: &str = "us-east-1";
/// Most buckets of one page.
const PAGE_MAX: usize = 10_000;
/// Buckets read at a time for one who is shown some of them.
const LOOKED_AT: usize = 500;

/// Why a bucket cannot be made where the client wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Misplaced {
    /// A region, but not this endpoint's.
    Elsewhere,
    /// No region at all.
    Nowhere,
}

/// Checks the location a client wants. None and the classic region mean wherever the endpoint is.
fn check_location(wanted: &str, region: &str) -> Result<(), Misplaced> {
    if wanted.is_empty() || wanted == region || wanted == CLASSIC_REGION {
        Ok(())
    } else if is_region(wanted) {
        Err(Misplaced::Elsewhere)
    } else {
        Err(Misplaced::Nowhere)
    }
}

/// Whether a text looks like `eu-west-1` or is the old name of that region.
fn is_region(text: &str) -> bool {
    let mut words = text.rsplit('-');
    let number = words.next().unwrap_or_default();
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let rest: Vec<&str> = words.collect();
    let named = rest
        .iter()
        .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()));
    text == "EU" || (numbered && named && rest.len() >= 2)
}

/// Refuses buckets of another kind: directory buckets are not what an ordinary one can stand for.
fn refuse_settings(input: &CreateBucketInput) -> S3Result<()> {
    let configuration = input.create_bucket_configuration.as_ref();
    if configuration.is_some_and(|wanted| wanted.bucket.is_some() || wanted.location.is_some()) {
        Err(error::not_implemented())
    } else {
        Ok(())
    }
}

impl Gateway {
    /// Changes what is set of a request's bucket, if the caller may still do so when it is changed.
    pub(super) async fn change_bucket<F>(&self, caller: &Caller, change: F) -> S3Result<()>
    where
        F: Fn(&mut crate::model::bucket::Bucket) + Send + Sync + 'static,
    {
        let recheck = Some(caller.recheck(self));
        self.namespace
            .update_bucket(caller.bucket()?, recheck, move |bucket| {
                change(bucket);
                Ok(())
            })
            .await
            .map_err(error::of_condition)
    }

    pub(super) async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        let name = convert::bucket_name(&input.bucket)?;
        refuse_settings(input)?;
        let region = self.config.region.as_str();
        let wanted = input
            .create_bucket_configuration
            .as_ref()
            .and_then(|configuration| configuration.location_constraint.as_ref())
            .map_or("", BucketLocationConstraint::as_str);
        // As Ceph's gateway has it: a region, or none, and behind a colon one of the placements that are open.
        let (place, placement) = match wanted.split_once(':') {
            Some((place, placement)) => (place, Some(placement.to_owned())),
            None => (wanted, None),
        };
        check_location(place, region).map_err(|misplaced| match misplaced {
            Misplaced::Elsewhere => s3_error!(
                IllegalLocationConstraintException,
                "The {place} location constraint is incompatible for the region specific endpoint this request was sent to."
            ),
            Misplaced::Nowhere => error::no_such_location(),
        })?;
        let identity = caller.signed()?;
        let location = match wanted {
            "" => Vec::new(),
            wanted => vec![("s3:locationconstraint".to_owned(), vec![wanted.to_owned()])],
        };
        self.ask_new_bucket(&caller.with_document(location), name.as_str())?;
        let ownership = input.object_ownership.as_ref().map(|wanted| {
            ownership_of(wanted.as_str()).ok_or_else(|| {
                error::invalid_argument(
                    "Invalid x-amz-object-ownership header: its value is not one.",
                )
            })
        });
        let ownership = ownership.transpose()?;
        let owner = caller.owner().ok_or_else(error::access_denied)?;
        let acl = self
            .acl_of_new_bucket(&owner, ownership, &request.headers)
            .await?;
        let new = NewBucket {
            tenant: identity.tenant.id,
            name: name.clone(),
            region: region.to_owned(),
            placement,
            object_lock: input.object_lock_enabled_for_bucket == Some(true),
            settings: Settings {
                acl,
                ownership,
                ..Settings::default()
            },
        };
        match self.namespace.create_bucket(new).await {
            Ok(()) => {}
            Err(Condition::BucketOwned) if region == CLASSIC_REGION => {}
            Err(condition) => return Err(error::of_condition(condition)),
        }
        Ok(S3Response::new(CreateBucketOutput {
            location: Some(format!("/{name}")),
        }))
    }

    pub(super) async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        Caller::of(&request)?.bucket()?;
        Ok(S3Response::new(HeadBucketOutput {
            bucket_region: Some(self.config.region.clone()),
            access_point_alias: Some(false),
            ..HeadBucketOutput::default()
        }))
    }

    /// Every bucket is where the endpoint is, so that clients sign for the region it checks.
    pub(super) async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        Caller::of(&request)?.bucket()?;
        let region = &self.config.region;
        Ok(S3Response::new(GetBucketLocationOutput {
            location_constraint: (region != CLASSIC_REGION)
                .then(|| BucketLocationConstraint::from(region.clone())),
        }))
    }

    pub(super) async fn delete_bucket(
        &self,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        let caller = Caller::of(&request)?;
        self.namespace
            .delete_bucket(caller.bucket()?, Some(caller.recheck(self)))
            .await
            .map_err(error::of_condition)?;
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    pub(super) async fn list_buckets(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        let limit = match input.max_buckets {
            None => PAGE_MAX,
            Some(wanted) => usize::try_from(wanted)
                .ok()
                .filter(|wanted| (1..=PAGE_MAX).contains(wanted))
                .ok_or_else(|| {
                    error::invalid_argument(
                        "Argument max-buckets must be an integer between 1 and 10000",
                    )
                })?,
        };
        let after = Token::read(input.continuation_token.as_deref())?;
        let region = &self.config.region;
        let is_here = input
            .bucket_region
            .as_ref()
            .is_none_or(|wanted| wanted.is_empty() || wanted == region);
        let shown = self.shown_buckets(caller);
        if shown == Shown::None {
            return Err(error::access_denied());
        }
        let owner = caller.owner().ok_or_else(error::access_denied)?;
        let mut output = ListBucketsOutput {
            buckets: Some(Buckets::new()),
            owner: Some(owner_dto(owner)),
            prefix: input.prefix.clone(),
            continuation_token: None,
        };
        if is_here {
            let prefix = input.prefix.as_deref().unwrap_or_default();
            let (page, next) = self
                .page_of_buckets(caller, shown, prefix, after, limit)
                .await?;
            output.continuation_token = next.as_deref().map(Token::write);
            let buckets = page.iter().map(|bucket| Bucket {
                name: Some(bucket.name.to_string()),
                creation_date: Some(convert::timestamp(bucket.created.div_euclid(1000) * 1000)),
                bucket_region: Some(region.clone()),
            });
            output.buckets = Some(buckets.collect());
        }
        Ok(S3Response::new(output))
    }

    /// The buckets of a page that the caller is shown, and the name after which the next page begins. A page of
    /// one who is shown some only may be short, never wrong: the next one goes on where this one stopped
    /// looking.
    async fn page_of_buckets(
        &self,
        caller: &Caller,
        shown: Shown,
        prefix: &str,
        mut after: String,
        limit: usize,
    ) -> S3Result<(Vec<crate::model::bucket::Bucket>, Option<String>)> {
        let tenant = caller.signed()?.tenant.id;
        let mut listed = Vec::new();
        let looked_at = match shown {
            Shown::All => limit + 1,
            Shown::Listable | Shown::None => LOOKED_AT,
        };
        loop {
            let page = self
                .namespace
                .buckets(tenant, prefix, &after, looked_at)
                .await
                .map_err(error::of_condition)?;
            let truncated = page.truncated;
            let mut seen = None;
            for bucket in page.buckets {
                let is_shown = shown == Shown::All || self.may_list(caller, &bucket);
                if is_shown && listed.len() == limit {
                    // There is one more: what came before it has been looked at.
                    return Ok((listed, seen.or(Some(after))));
                }
                seen = Some(bucket.name.to_string());
                if is_shown {
                    listed.push(bucket);
                }
            }
            match seen {
                Some(last) if truncated => after = last,
                _ => return Ok((listed, None)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_here_elsewhere_or_nowhere() {
        for here in ["", "eu-west-1", "us-east-1"] {
            assert_eq!(check_location(here, "eu-west-1"), Ok(()), "{here}");
        }
        for elsewhere in ["us-west-2", "EU", "us-gov-west-1"] {
            assert_eq!(
                check_location(elsewhere, "eu-west-1"),
                Err(Misplaced::Elsewhere),
                "{elsewhere}"
            );
        }
        for nowhere in ["mars", "1", "-1", "us--1", "a b-1", "us-west-"] {
            assert_eq!(
                check_location(nowhere, "eu-west-1"),
                Err(Misplaced::Nowhere),
                "{nowhere}"
            );
        }
    }
}
