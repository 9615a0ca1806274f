"""PutBucketCors, GetBucketCors, DeleteBucketCors, preflights, and what pages of other origins get."""

import pytest

from support.raw import assert_refused
from support.refusal import refused

pytestmark = pytest.mark.op("PutBucketCors", "GetBucketCors", "DeleteBucketCors")
RULES = [
    {
        "ID": "app",
        "AllowedMethods": ["GET", "PUT"],
        "AllowedOrigins": ["https://app.example", "http://*.test"],
        "AllowedHeaders": ["x-amz-*", "Content-Type"],
        "ExposeHeaders": ["ETag", "x-amz-request-id"],
        "MaxAgeSeconds": 3000,
    },
    {"AllowedMethods": ["HEAD"], "AllowedOrigins": ["*"]},
]
VARY = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"
NOT_ALLOWED = (
    "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / "
    "Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec."
)


@pytest.fixture
def shared(s3, bucket):
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    return bucket


def allowed(answer):
    prefix = "access-control-"
    return {name.removeprefix(prefix): value for name, value in answer.headers.items() if name.startswith(prefix)}


def preflight(raw, path, origin=None, method=None, headers=None, **more):
    given = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": headers,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return raw.request("OPTIONS", path, headers=given, anonymous=True, **more)


# --- the rules ---


def test_rules_from_put_to_delete(s3, raw, bucket):
    with refused("NoSuchCORSConfiguration"):
        s3.get_bucket_cors(Bucket=bucket)
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == RULES
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES[1:]})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == RULES[1:]
    for _ in range(2):
        assert s3.delete_bucket_cors(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    refusal = raw.request("GET", f"/{bucket}", [("cors", "")])
    assert assert_refused(refusal, "NoSuchCORSConfiguration", 404).xml.findtext("BucketName") == bucket


@pytest.mark.parametrize(
    "code, change",
    [
        ("InvalidRequest", {"AllowedMethods": ["GET", "PATCH"]}),
        ("InvalidRequest", {"AllowedMethods": ["OPTIONS"]}),
        ("InvalidRequest", {"AllowedMethods": ["get"]}),
        ("InvalidRequest", {"AllowedOrigins": ["http://*.*"]}),
        ("InvalidRequest", {"AllowedHeaders": ["*a*"]}),
        ("InvalidRequest", {"ExposeHeaders": ["x-*"]}),
        ("MalformedXML", {"AllowedMethods": []}),
        ("MalformedXML", {"AllowedOrigins": []}),
    ],
)
def test_rules_that_are_refused(s3, bucket, code, change):
    with refused(code):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [RULES[0] | change]})
    with refused("NoSuchCORSConfiguration"):
        s3.get_bucket_cors(Bucket=bucket)


def test_one_to_a_hundred_rules(s3, bucket):
    with refused("MalformedXML"):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": []})
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES[1:] * 100})
    assert len(s3.get_bucket_cors(Bucket=bucket)["CORSRules"]) == 100
    with refused({"InvalidRequest", "MalformedXML"}):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES[1:] * 101})


def test_rules_are_the_owners(stranger, shared):
    other = stranger.client()
    with refused("AccessDenied"):
        other.get_bucket_cors(Bucket=shared)
    with refused("AccessDenied"):
        other.put_bucket_cors(Bucket=shared, CORSConfiguration={"CORSRules": RULES})
    with refused("AccessDenied"):
        other.delete_bucket_cors(Bucket=shared)


# --- preflights ---


@pytest.mark.op("OptionsObject")
@pytest.mark.parametrize("path", ["", "/", "/k", "/no/such key"])
def test_preflight_says_what_the_rule_allows(raw, shared, path):
    answer = preflight(raw, f"/{shared}{path}", "https://app.example", "PUT", "Content-Type,X-Amz-Date, x-amz-acl")
    assert answer.status == 200 and answer.body == b"" and answer.headers["vary"] == VARY
    assert allowed(answer) == {
        "allow-origin": "https://app.example",
        "allow-credentials": "true",
        "allow-methods": "GET, PUT",
        "allow-headers": "content-type, x-amz-date, x-amz-acl",
        "expose-headers": "ETag, x-amz-request-id",
        "max-age": "3000",
    }


@pytest.mark.op("OptionsObject")
def test_preflight_for_any_origin_names_none(raw, shared):
    answer = preflight(raw, f"/{shared}/k", "https://else.example", "HEAD")
    assert answer.status == 200
    assert allowed(answer) == {"allow-origin": "*", "allow-methods": "HEAD"}


@pytest.mark.op("OptionsObject")
def test_preflight_by_host(raw, endpoint, shared):
    if not endpoint.domain:
        pytest.skip("no domain for virtual hosts: give --domain")
    host = f"{shared}.{endpoint.domain}:{endpoint.address[1]}"
    assert preflight(raw, "/k", "http://a.test", "GET", host=host).status == 200
    assert_refused(preflight(raw, "/k", "http://a.test", "DELETE", host=host), "AccessForbidden", 403)


@pytest.mark.op("OptionsObject")
@pytest.mark.parametrize(
    "origin, method, headers",
    [
        ("http://a.test.example", "GET", None),
        ("HTTPS://APP.EXAMPLE", "GET", None),
        ("https://app.example", "DELETE", None),
        ("https://app.example", "GET", "x-amz-date, authorization"),
        ("https://else.example", "HEAD", "range"),
    ],
)
def test_preflight_that_no_rule_allows(raw, shared, origin, method, headers):
    answer = assert_refused(
        preflight(raw, f"/{shared}/k", origin, method, headers), "AccessForbidden", 403
    )
    assert answer.xml.findtext("Message") == NOT_ALLOWED
    assert answer.xml.findtext("Method") == method and answer.xml.findtext("ResourceType") == "OBJECT"
    assert answer.headers["x-amz-request-id"] and not allowed(answer)


@pytest.mark.op("OptionsObject")
def test_preflight_without_rules_or_bucket(raw, bucket, bucket_names):
    answer = assert_refused(preflight(raw, f"/{bucket}", "http://a.test", "GET"), "AccessForbidden", 403)
    assert answer.xml.findtext("Message") == "CORSResponse: CORS is not enabled for this bucket."
    assert answer.xml.findtext("ResourceType") == "BUCKET"
    missing = preflight(raw, f"/{next(bucket_names)}/k", "http://a.test", "GET")
    assert assert_refused(missing, "AccessForbidden", 403).xml.findtext("Message") == "CORSResponse: Bucket not found"


@pytest.mark.op("OptionsObject")
@pytest.mark.parametrize(
    "origin, method, message",
    [
        (None, "GET", "Insufficient information. Origin request header needed."),
        (None, None, "Insufficient information. Origin request header needed."),
        ("http://a.test", None, "Invalid Access-Control-Request-Method: null"),
        ("http://a.test", "PATCH", "Invalid Access-Control-Request-Method: PATCH"),
    ],
)
def test_preflight_that_asks_nothing(raw, shared, origin, method, message):
    answer = assert_refused(preflight(raw, f"/{shared}/k", origin, method), "BadRequest", 400)
    assert answer.xml.findtext("Message") == message


# --- requests ---


@pytest.mark.op("GetObject", "HeadObject", "PutObject", "ListObjectsV2")
def test_answers_carry_what_the_rule_allows(raw, shared):
    origin = {"origin": "http://a.test"}
    expected = {
        "allow-origin": "http://a.test",
        "allow-credentials": "true",
        "allow-methods": "GET, PUT",
        "expose-headers": "ETag, x-amz-request-id",
        "max-age": "3000",
    }
    for method, path, status in [
        ("GET", "/k", 200),
        ("PUT", "/k2", 200),
        ("GET", "/missing", 404),
        ("GET", "?list-type=2", 200),
    ]:
        path, _, query = path.partition("?")
        query = [tuple(query.split("="))] if query else []
        answer = raw.request(method, f"/{shared}{path}", query, unsigned=origin)
        assert answer.status == status and allowed(answer) == expected and answer.headers["vary"] == VARY
    answer = raw.presigned("GET", f"/{shared}/k", unsigned=origin)
    assert answer.status == 200 and allowed(answer) == expected
    answer = raw.request("GET", f"/{shared}/k", unsigned=origin, anonymous=True)
    assert answer.status == 403 and allowed(answer) == expected
    answer = raw.request("HEAD", f"/{shared}/k", unsigned=origin)
    assert answer.status == 200 and allowed(answer) == {"allow-origin": "*", "allow-methods": "HEAD"}


@pytest.mark.op("GetObject", "DeleteObject")
def test_answers_that_no_rule_allows_carry_nothing(s3, raw, shared):
    for method, headers in [("GET", {"origin": "http://b.example"}), ("DELETE", {"origin": "http://a.test"}), ("GET", {})]:
        answer = raw.request(method, f"/{shared}/k2", unsigned=headers)
        assert not allowed(answer) and "vary" not in answer.headers
    s3.delete_bucket_cors(Bucket=shared)
    assert not allowed(raw.request("GET", f"/{shared}/k", unsigned={"origin": "http://a.test"}))
