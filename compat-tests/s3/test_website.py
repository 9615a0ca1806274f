"""PutBucketWebsite, GetBucketWebsite, DeleteBucketWebsite, and buckets served as websites."""

import json

import pytest

from support.refusal import refused

pytestmark = pytest.mark.op("PutBucketWebsite", "GetBucketWebsite", "DeleteBucketWebsite")
PAGES = {"IndexDocument": {"Suffix": "index.html"}, "ErrorDocument": {"Key": "errors/error.html"}}
RULES = [
    {"Condition": {"KeyPrefixEquals": "docs/"}, "Redirect": {"ReplaceKeyPrefixWith": "documents/"}},
    {
        "Condition": {"KeyPrefixEquals": "app/", "HttpErrorCodeReturnedEquals": "404"},
        "Redirect": {"ReplaceKeyPrefixWith": "#!/", "HttpRedirectCode": "302"},
    },
    {
        "Condition": {"KeyPrefixEquals": "old.html"},
        "Redirect": {"HostName": "other.example", "Protocol": "https", "ReplaceKeyWith": "new.html"},
    },
]


# --- the setting ---


def settings_of(s3, bucket):
    answer = s3.get_bucket_website(Bucket=bucket)
    answer.pop("ResponseMetadata")
    return answer


def test_website_from_put_to_delete(s3, bucket):
    with refused("NoSuchWebsiteConfiguration"):
        s3.get_bucket_website(Bucket=bucket)
    for website in [
        {"IndexDocument": {"Suffix": "i"}},
        PAGES | {"RoutingRules": RULES},
        {"RedirectAllRequestsTo": {"HostName": "other.example", "Protocol": "https"}},
        {"RedirectAllRequestsTo": {"HostName": "other.example:8080"}},
    ]:
        s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=website)
        assert settings_of(s3, bucket) == website
    for _ in range(2):
        assert s3.delete_bucket_website(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchWebsiteConfiguration"):
        s3.get_bucket_website(Bucket=bucket)


def rule(condition=None, **redirect):
    return PAGES | {"RoutingRules": [({"Condition": condition} if condition is not None else {}) | {"Redirect": redirect}]}


@pytest.mark.parametrize(
    "code, website",
    [
        ("InvalidArgument", {}),
        ("InvalidArgument", {"ErrorDocument": {"Key": "e"}}),
        ("InvalidArgument", {"IndexDocument": {"Suffix": ""}}),
        ("InvalidArgument", {"IndexDocument": {"Suffix": "a/i"}}),
        ("InvalidArgument", PAGES | {"RedirectAllRequestsTo": {"HostName": "h"}}),
        ("InvalidRequest", {"RedirectAllRequestsTo": {"HostName": "h", "Protocol": "ftp"}}),
        ("InvalidRequest", rule({"HttpErrorCodeReturnedEquals": "300"}, HostName="h")),
        ("InvalidRequest", rule({"HttpErrorCodeReturnedEquals": "none"}, HostName="h")),
        ("InvalidRequest", rule(HostName="h", HttpRedirectCode="300")),
        ("InvalidRequest", rule(HostName="h", HttpRedirectCode="404")),
        ("InvalidRequest", rule(ReplaceKeyWith="a", ReplaceKeyPrefixWith="b")),
        ("InvalidRequest", rule({}, HostName="h")),
    ],
)
def test_website_that_is_refused(s3, bucket, code, website):
    with refused(code):
        s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=website)
    with refused("NoSuchWebsiteConfiguration"):
        s3.get_bucket_website(Bucket=bucket)


def test_website_is_the_owners(stranger, bucket):
    other = stranger.client()
    with refused("AccessDenied"):
        other.get_bucket_website(Bucket=bucket)
    with refused("AccessDenied"):
        other.put_bucket_website(Bucket=bucket, WebsiteConfiguration=PAGES)
    with refused("AccessDenied"):
        other.delete_bucket_website(Bucket=bucket)


# --- pages ---


class Site:
    """A bucket's website, as visitors see it."""

    def __init__(self, raw, name):
        if not raw.endpoint.website_domain:
            pytest.skip("no domain for websites")
        self.raw = raw
        self.host = f"{name}.{raw.endpoint.website_domain}:{raw.endpoint.address[1]}"

    def request(self, method, path, **more):
        return self.raw.request(method, path, host=self.host, anonymous=True, **more)

    def get(self, path, **more):
        return self.request("GET", path, **more)


def make_public(s3, bucket):
    """Anybody may read objects; a key that is not there is then a 404 only for who may also list."""
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    s3.delete_public_access_block(Bucket=bucket)
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


@pytest.fixture
def private_site(s3, raw, bucket):
    site = Site(raw, bucket)
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=PAGES | {"RoutingRules": RULES})
    for key in ["index.html", "a.html", "dir/index.html", "ü b/index.html", "errors/error.html", "app/there"]:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode(), ContentType="text/html")
    return site


@pytest.fixture
def site(s3, private_site, bucket):
    make_public(s3, bucket)
    return private_site


def shows(answer, status, *texts):
    """Whether it is one of S3's own pages."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "text/html; charset=utf-8" and answer.headers["x-amz-request-id"]
    page = answer.body.decode()
    assert page.startswith(f"<html>\n<head><title>{status} ")
    for text in [*texts, f"RequestId: {answer.headers['x-amz-request-id']}"]:
        assert f"<li>{text}</li>" in page, page
    return answer


@pytest.mark.op("GetObject")
def test_index_documents(site):
    for path, key in [
        ("/", "index.html"),
        ("/a.html", "a.html"),
        ("/dir/", "dir/index.html"),
        ("/dir/index.html", "dir/index.html"),
        ("/ü b/", "ü b/index.html"),
    ]:
        answer = site.get(path)
        assert answer.status == 200 and answer.body == key.encode(), answer
        assert answer.headers["content-type"] == "text/html" and answer.headers["etag"]
    assert site.get("/", query=[("acl", ""), ("versionId", "x")]).body == b"index.html"


@pytest.mark.op("GetObject")
def test_missing_slash_is_added(site):
    for path, location in [("/dir", "/dir/"), ("/ü b", "/%C3%BC%20b/")]:
        answer = shows(site.get(path), 302, "Code: Found", "Message: Resource Found")
        assert answer.headers["location"] == location


@pytest.mark.op("GetObject")
def test_error_document_has_the_status_of_the_error(s3, site, bucket):
    answer = site.get("/missing")
    assert answer.status == 404 and answer.body == b"errors/error.html"
    assert answer.headers["x-amz-error-code"] == "NoSuchKey" and answer.headers["content-type"] == "text/html"
    s3.delete_object(Bucket=bucket, Key="errors/error.html")
    answer = shows(site.get("/miss<ing"), 404, "Code: NoSuchKey", "Key: miss&lt;ing", "Key: errors/error.html")
    assert "An Error Occurred While Attempting to Retrieve a Custom Error Document" in answer.body.decode()


@pytest.mark.op("GetObject")
def test_page_of_s3_without_an_error_document(s3, site, bucket):
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}})
    shows(site.get("/missing"), 404, "Code: NoSuchKey", "Message: The specified key does not exist.", "Key: missing")
    shows(site.get("/missing/"), 404, "Key: missing/index.html")


@pytest.mark.op("GetObject")
def test_routing_rules(site):
    for path, status, location in [
        ("/docs/a", 301, f"http://{site.host}/documents/a"),
        ("/docs/a?x=1", 301, f"http://{site.host}/documents/a?x=1"),
        ("/app/none", 302, f"http://{site.host}/#!/none"),
        ("/old.html", 301, "https://other.example/new.html"),
    ]:
        path, _, query = path.partition("?")
        answer = site.get(path, query=[tuple(query.split("="))] if query else [])
        assert (answer.status, answer.headers["location"]) == (status, location)
    assert site.get("/app/there").body == b"app/there"


@pytest.mark.op("GetObject")
def test_everything_redirected(s3, private_site, bucket):
    for protocol, location in [({"Protocol": "https"}, "https://other.example"), ({}, "http://other.example")]:
        website = {"RedirectAllRequestsTo": {"HostName": "other.example"} | protocol}
        s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=website)
        for path in ["/", "/a/b%20c"]:
            answer = private_site.get(path, encoded_path=path)
            assert (answer.status, answer.headers["location"]) == (301, location + path)


@pytest.mark.op("GetObject", "PutObject")
def test_objects_own_redirection(s3, site, bucket):
    for key, to in [("here", "/a.html"), ("away", "https://other.example/x?y=z")]:
        s3.put_object(Bucket=bucket, Key=key, Body=b"never shown", WebsiteRedirectLocation=to)
        answer = site.get(f"/{key}")
        assert (answer.status, answer.headers["location"], answer.body) == (301, to, b"")
        assert s3.get_object(Bucket=bucket, Key=key)["WebsiteRedirectLocation"] == to


@pytest.mark.op("GetObject", "HeadObject")
def test_ranges_and_conditions(site):
    answer = site.get("/a.html", headers={"range": "bytes=2-3"})
    assert (answer.status, answer.body) == (206, b"ht")
    etag = answer.headers["etag"]
    assert site.get("/a.html", headers={"if-none-match": etag}).status == 304
    head = site.request("HEAD", "/a.html")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "6")
    head = site.request("HEAD", "/missing")
    assert (head.status, head.body, head.headers["x-amz-error-code"]) == (404, b"", "NoSuchKey")


@pytest.mark.op("GetObject")
def test_private_objects_are_not_shown(private_site):
    for path in ["/", "/a.html", "/missing", "/dir"]:
        answer = shows(private_site.get(path), 403, "Code: AccessDenied", "Message: Access Denied")
        assert "Custom Error Document" in answer.body.decode()


@pytest.mark.op("GetObject")
def test_a_website_is_read_by_nobody_in_particular(raw, private_site, bucket):
    answer = raw.request("GET", "/a.html", host=private_site.host)
    shows(answer, 400, "Code: InvalidArgument", "Message: Unsupported Authorization Type")
    shows(raw.presigned("GET", "/a.html", host=private_site.host), 403, "Code: AccessDenied")


def test_only_reading(private_site):
    for method in ["PUT", "POST", "DELETE", "PATCH"]:
        shows(private_site.request(method, "/a.html"), 405, "Code: MethodNotAllowed", f"Method: {method}")


def test_bucket_without_a_website(raw, bucket, bucket_names):
    shows(Site(raw, bucket).get("/"), 404, "Code: NoSuchWebsiteConfiguration", f"BucketName: {bucket}")
    missing = next(bucket_names)
    shows(Site(raw, missing).get("/"), 404, "Code: NoSuchBucket", f"BucketName: {missing}")


@pytest.mark.op("PutBucketCors", "OptionsObject")
def test_pages_for_other_origins(s3, private_site, bucket):
    cors = {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["http://a.test"]}]}
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=cors)
    answer = private_site.get("/a.html", headers={"origin": "http://a.test"})
    assert answer.headers["access-control-allow-origin"] == "http://a.test"
    asked = {"origin": "http://a.test", "access-control-request-method": "GET"}
    assert private_site.request("OPTIONS", "/a.html", headers=asked).status == 200
