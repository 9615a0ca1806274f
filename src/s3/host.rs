//! Which bucket a request's host names, and what a client calls this endpoint.
//!
//! `s3s` takes every host it does not know for a bucket's own domain, and compares ports. Here only what
//! stands before one of the configured domains is a bucket, whatever the port and case; every other host, an
//! address or the name of a machine, is path style.

use http::{HeaderMap, HeaderValue};
use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};

/// The domains under which buckets are addressed as host names.
pub(super) struct Hosts(pub(super) Vec<String>);

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        Ok(match bucket_of_host(host, &self.0) {
            // Names of hosts have no case, names of buckets do.
            Some(bucket) => VirtualHost::new(host).with_bucket(bucket.to_ascii_lowercase()),
            None => VirtualHost::new(host),
        })
    }
}

/// What stands before one of the domains, with or without the domain's port.
pub(super) fn bucket_of_host<'h>(host: &'h str, domains: &[String]) -> Option<&'h str> {
    let bare = host.rsplit_once(':').map_or(host, |(name, _)| name);
    domains.iter().find_map(|domain| {
        [host, bare].into_iter().find_map(|host| {
            let at = host.len().checked_sub(domain.len())?;
            let (front, back) = host.split_at_checked(at)?;
            let bucket = front.strip_suffix('.')?;
            (back.eq_ignore_ascii_case(domain) && !bucket.is_empty()).then_some(bucket)
        })
    })
}

/// How the client speaks to this endpoint or to the proxy before it.
pub(super) fn scheme_of(headers: &HeaderMap) -> &'static str {
    match headers.get("x-forwarded-proto").map(HeaderValue::as_bytes) {
        Some(b"https") => "https",
        _ => "http",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_before_a_domain_is_a_bucket() {
        let hosts = Hosts(vec!["s3.local".to_owned(), "other:9000".to_owned()]);
        for (host, bucket) in [
            ("b.s3.local", Some("b")),
            ("a.b.s3.local:9000", Some("a.b")),
            ("B.S3.Local", Some("b")),
            ("b.other:9000", Some("b")),
            ("b.other:80", None),
            ("s3.local:9000", None),
            (".s3.local", None),
            ("xs3.local", None),
            ("localhost:9000", None),
            ("", None),
        ] {
            let found = hosts.parse_host_header(host).unwrap();
            assert_eq!(found.bucket(), bucket, "{host}");
        }
    }
}
