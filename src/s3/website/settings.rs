//! How a bucket is served as a website: read, set and deleted.

use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::NO_WEBSITE;
use crate::model::website::{self, NewKey, Scheme, Website, WebsiteError};
use crate::s3::access::Caller;
use crate::s3::{Gateway, error};

fn website_of(wanted: WebsiteConfiguration) -> S3Result<Website> {
    if let Some(to) = wanted.redirect_all_requests_to {
        if wanted.index_document.is_some()
            || wanted.error_document.is_some()
            || wanted.routing_rules.is_some()
        {
            return Err(error::invalid_argument(
                "RedirectAllRequestsTo cannot be provided in conjunction with other Routing Rules.",
            ));
        }
        return Ok(Website::Elsewhere {
            host: to.host_name,
            scheme: scheme_of(to.protocol.as_ref())?,
        });
    }
    let index = wanted.index_document.ok_or_else(|| {
        error::invalid_argument(
            "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty",
        )
    })?;
    let rules = match wanted.routing_rules {
        Some(rules) if rules.is_empty() => return Err(error::malformed_xml()),
        rules => rules.unwrap_or_default(),
    };
    Ok(Website::Pages {
        index: index.suffix,
        error: wanted.error_document.map(|document| document.key),
        rules: rules.into_iter().map(rule_of).collect::<S3Result<_>>()?,
    })
}

fn scheme_of(protocol: Option<&Protocol>) -> S3Result<Option<Scheme>> {
    protocol
        .map(|protocol| {
            Scheme::parse(protocol.as_str()).ok_or_else(|| {
                s3_error!(
                    InvalidRequest,
                    "Invalid protocol, protocol can be http or https. If not defined the protocol will be selected automatically."
                )
            })
        })
        .transpose()
}

fn rule_of(rule: RoutingRule) -> S3Result<website::RoutingRule> {
    let redirect = rule.redirect;
    let (key_prefix, error_status) = match rule.condition {
        None => (None, None),
        Some(condition) => {
            let status = condition.http_error_code_returned_equals;
            if status.is_none() && condition.key_prefix_equals.is_none() {
                return Err(s3_error!(
                    InvalidRequest,
                    "Condition cannot be empty. To redirect all requests without a condition, the condition element shouldn't be present."
                ));
            }
            (condition.key_prefix_equals, status)
        }
    };
    let error_status = error_status
        .map(|text| text.parse().map_err(|_| no_error_status(&text)))
        .transpose()?;
    let status = redirect.http_redirect_code;
    let status = status
        .map(|text| text.parse().map_err(|_| no_redirect_status(&text)))
        .transpose()?;
    let key = match (redirect.replace_key_with, redirect.replace_key_prefix_with) {
        (Some(_), Some(_)) => {
            return Err(s3_error!(
                InvalidRequest,
                "You can only define ReplaceKeyPrefix or ReplaceKey but not both."
            ));
        }
        (Some(whole), None) => Some(NewKey::Whole(whole)),
        (None, Some(prefix)) => Some(NewKey::Prefix(prefix)),
        (None, None) => None,
    };
    Ok(website::RoutingRule {
        key_prefix,
        error_status,
        host: redirect.host_name,
        scheme: scheme_of(redirect.protocol.as_ref())?,
        key,
        status,
    })
}

fn no_error_status(text: &str) -> S3Error {
    s3_error!(
        InvalidRequest,
        "The provided HTTP error code ({text}) is not valid. Valid codes are 4XX or 5XX."
    )
}

fn no_redirect_status(text: &str) -> S3Error {
    s3_error!(
        InvalidRequest,
        "The provided HTTP redirect code ({text}) is not valid. Valid codes are 3XX except 300."
    )
}

fn of_website_error(error: WebsiteError) -> S3Error {
    match error {
        WebsiteError::Index => {
            error::invalid_argument("The IndexDocument Suffix is not well formed")
        }
        WebsiteError::Incomplete => error::malformed_xml(),
        WebsiteError::TooMany => s3_error!(
            InvalidRequest,
            "The number of routing rules in the website configuration should not exceed the limit of 50."
        ),
        WebsiteError::ErrorStatus(status) => no_error_status(&status.to_string()),
        WebsiteError::Status(status) => no_redirect_status(&status.to_string()),
    }
}

fn of_rule(rule: &website::RoutingRule) -> RoutingRule {
    let (whole, prefix) = match &rule.key {
        None => (None, None),
        Some(NewKey::Whole(whole)) => (Some(whole.clone()), None),
        Some(NewKey::Prefix(prefix)) => (None, Some(prefix.clone())),
    };
    let conditional = rule.key_prefix.is_some() || rule.error_status.is_some();
    RoutingRule {
        condition: conditional.then(|| Condition {
            http_error_code_returned_equals: rule.error_status.map(|status| status.to_string()),
            key_prefix_equals: rule.key_prefix.clone(),
        }),
        redirect: Redirect {
            host_name: rule.host.clone(),
            http_redirect_code: rule.status.map(|status| status.to_string()),
            protocol: rule.scheme.map(of_scheme),
            replace_key_prefix_with: prefix,
            replace_key_with: whole,
        },
    }
}

fn of_scheme(scheme: Scheme) -> Protocol {
    Protocol::from_static(scheme.as_str())
}

impl Gateway {
    pub(in crate::s3) async fn get_bucket_website(
        &self,
        request: S3Request<GetBucketWebsiteInput>,
    ) -> S3Result<S3Response<GetBucketWebsiteOutput>> {
        let output = match &Caller::of(&request)?.bucket()?.settings.website {
            None => {
                return Err(error::custom(NO_WEBSITE.0, 404, NO_WEBSITE.1));
            }
            Some(Website::Elsewhere { host, scheme }) => GetBucketWebsiteOutput {
                redirect_all_requests_to: Some(RedirectAllRequestsTo {
                    host_name: host.clone(),
                    protocol: scheme.map(of_scheme),
                }),
                ..GetBucketWebsiteOutput::default()
            },
            Some(Website::Pages {
                index,
                error,
                rules,
            }) => GetBucketWebsiteOutput {
                index_document: Some(IndexDocument {
                    suffix: index.clone(),
                }),
                error_document: error.clone().map(|key| ErrorDocument { key }),
                routing_rules: (!rules.is_empty()).then(|| rules.iter().map(of_rule).collect()),
                redirect_all_requests_to: None,
            },
        };
        Ok(S3Response::new(output))
    }

    pub(in crate::s3) async fn put_bucket_website(
        &self,
        request: S3Request<PutBucketWebsiteInput>,
    ) -> S3Result<S3Response<PutBucketWebsiteOutput>> {
        let caller = Caller::of(&request)?.clone();
        let website = website_of(request.input.website_configuration)?;
        website.check().map_err(of_website_error)?;
        self.change_bucket(&caller, move |bucket| {
            bucket.settings.website = Some(website.clone());
        })
        .await?;
        Ok(S3Response::new(PutBucketWebsiteOutput::default()))
    }

    pub(in crate::s3) async fn delete_bucket_website(
        &self,
        request: S3Request<DeleteBucketWebsiteInput>,
    ) -> S3Result<S3Response<DeleteBucketWebsiteOutput>> {
        self.change_bucket(Caller::of(&request)?, |bucket| {
            bucket.settings.website = None;
        })
        .await?;
        Ok(S3Response::new(DeleteBucketWebsiteOutput::default()))
    }
}
