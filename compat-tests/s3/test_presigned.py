"""Presigned URLs: reading and writing with no other credentials, response overrides, and what ends them."""

from datetime import datetime, timedelta, timezone

import pytest

from support.endpoint import Identity
from support.keys import UNUSUAL_KEYS
from support.raw import Raw, assert_refused
from support.refusal import refused

pytestmark = pytest.mark.op("GetObject", "PutObject", "HeadObject")


@pytest.mark.parametrize("name", UNUSUAL_KEYS)
def test_put_and_get_by_url(s3, raw, bucket, rng, name):
    key, body = UNUSUAL_KEYS[name], rng.randbytes(1000)
    place = {"Bucket": bucket, "Key": key}
    assert raw.open_url("PUT", s3.generate_presigned_url("put_object", place), body).status == 200
    assert raw.open_url("GET", s3.generate_presigned_url("get_object", place)).body == body
    head = raw.open_url("HEAD", s3.generate_presigned_url("head_object", place))
    assert head.status == 200 and head.headers["content-length"] == "1000"
    assert raw.open_url("DELETE", s3.generate_presigned_url("delete_object", place)).status == 204
    with refused("404"):
        s3.head_object(**place)


def test_signed_headers_must_be_sent(s3, raw, bucket):
    url = s3.generate_presigned_url(
        "put_object", {"Bucket": bucket, "Key": "k", "ContentType": "text/plain", "Metadata": {"a": "1"}}
    )
    assert_refused(raw.open_url("PUT", url, b"x"), {"SignatureDoesNotMatch", "AccessDenied"}, 403)
    headers = {"content-type": "text/plain", "x-amz-meta-a": "1"}
    assert raw.open_url("PUT", url, b"x", headers).status == 200
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ContentType"], head["Metadata"]) == ("text/plain", {"a": "1"})


@pytest.mark.op("GetObjectAcl", "GetObjectTagging")
def test_headers_may_travel_in_the_query(raw, s3, bucket):
    # As the JavaScript SDK presigns: what it would send as headers is in the query.
    query = {
        "x-amz-acl": "public-read",
        "x-amz-server-side-encryption": "AES256",
        "x-amz-meta-note": "a b",
        "x-amz-tagging": "t=1",
        "x-amz-checksum-crc32": "AAAAAA==",
    }
    assert raw.presigned("PUT", f"/{bucket}/k", query, body=b"x").status == 200
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ServerSideEncryption"], head["Metadata"]) == ("AES256", {"note": "a b"})
    grants = s3.get_object_acl(Bucket=bucket, Key="k")["Grants"]
    assert any(grant["Grantee"].get("URI", "").endswith("AllUsers") for grant in grants)
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "t", "Value": "1"}]
    # Another value beside the signed one was added on the way.
    answer = raw.presigned(
        "PUT", f"/{bucket}/k", {"x-amz-acl": "private"}, body=b"x", unsigned={"x-amz-acl": "public-read-write"}
    )
    assert_refused(answer, "AccessDenied", 403)


def test_amz_header_that_was_not_signed_is_refused(raw, s3, bucket):
    answer = raw.presigned("PUT", f"/{bucket}/k", body=b"x", unsigned={"x-amz-meta-a": "1"})
    assert_refused(answer, "AccessDenied", 403)
    with refused("404"):
        s3.head_object(Bucket=bucket, Key="k")


def test_response_headers_can_be_overridden(s3, raw, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ContentType="text/plain")
    overrides = {
        "ResponseContentType": "application/x-other",
        "ResponseContentDisposition": 'attachment; filename="a b.txt"',
        "ResponseCacheControl": "no-store",
        "ResponseContentLanguage": "de",
        "ResponseContentEncoding": "identity",
        "ResponseExpires": datetime(2031, 1, 1, tzinfo=timezone.utc),
    }
    answer = raw.open_url("GET", s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"} | overrides))
    assert answer.status == 200 and answer.body == b"hello"
    assert answer.headers["content-type"] == "application/x-other"
    assert answer.headers["content-disposition"] == 'attachment; filename="a b.txt"'
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-language"] == "de"
    assert answer.headers["content-encoding"] == "identity"
    assert answer.headers["expires"] == "Wed, 01 Jan 2031 00:00:00 GMT"
    got = s3.get_object(Bucket=bucket, Key="k", ResponseContentType="text/x-third")
    assert got["ContentType"] == "text/x-third"
    assert s3.get_object(Bucket=bucket, Key="k")["ContentType"] == "text/plain"


@pytest.mark.parametrize(
    "name, method, options",
    [
        ("list_objects_v2", "GET", {"Prefix": "a"}),
        ("create_multipart_upload", "POST", {"Key": "k"}),
        ("head_bucket", "HEAD", {}),
    ],
)
def test_other_operations_by_url(s3, raw, bucket, name, method, options):
    url = s3.generate_presigned_url(name, {"Bucket": bucket} | options, HttpMethod=method)
    assert raw.open_url(method, url).status == 200


# --- what ends a URL ---


def at(raw, **offset):
    return raw.signer(now=datetime.now(timezone.utc) + timedelta(**offset))


def test_expired_url_is_refused(s3, raw, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    path = f"/{bucket}/k"
    assert raw.presigned("GET", path, expires=120, signer=at(raw, seconds=-60)).status == 200
    assert_refused(raw.presigned("GET", path, expires=60, signer=at(raw, seconds=-120)), "AccessDenied", 403)
    assert_refused(
        raw.presigned("PUT", path, body=b"new", expires=60, signer=at(raw, seconds=-120)), "AccessDenied", 403
    )
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"hello"


def test_url_from_the_future_is_refused(s3, raw, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    assert_refused(
        raw.presigned("GET", f"/{bucket}/k", signer=at(raw, hours=2)), {"AccessDenied", "RequestTimeTooSkewed"}, 403
    )


@pytest.mark.parametrize("expires", ["604801", "-1", "0x10", "soon"])
def test_lifetime_out_of_range_is_refused(raw, bucket, expires):
    assert_refused(raw.presigned("GET", f"/{bucket}/k", expires=expires), "AuthorizationQueryParametersError", 400)


def without(name):
    return lambda query: [(n, v) for n, v in query if n != name]


@pytest.mark.parametrize(
    "name",
    ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"],
)
def test_missing_parameter_is_refused(raw, bucket, name):
    answer = raw.presigned("GET", f"/{bucket}/k", edit=without(name))
    assert_refused(answer, {"AuthorizationQueryParametersError", "AccessDenied"}, {400, 403})


def test_changed_url_is_refused(s3, raw, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    changes = [
        lambda query: [(n, "0" * 64 if n == "X-Amz-Signature" else v) for n, v in query],
        lambda query: [(n, "901" if n == "X-Amz-Expires" else v) for n, v in query],
        lambda query: [*query, ("response-content-type", "text/html")],
    ]
    for change in changes:
        assert_refused(raw.presigned("GET", f"/{bucket}/k", edit=change), "SignatureDoesNotMatch", 403)
    target, pairs = raw.presign("GET", f"/{bucket}/k")
    assert_refused(raw.send("GET", target.replace("/k?", "/other?"), pairs), "SignatureDoesNotMatch", 403)
    assert_refused(raw.send("PUT", target, [*pairs, ("content-length", "1")], b"x"), "SignatureDoesNotMatch", 403)


def test_unknown_access_key_is_refused(endpoint, bucket):
    stranger = Raw(endpoint.as_identity(Identity("NOSUCHACCESSKEY00001", "x" * 40)))
    assert_refused(stranger.presigned("GET", f"/{bucket}/k"), "InvalidAccessKeyId", 403)
