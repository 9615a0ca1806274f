"""What errors say beside code and text: the elements that S3 documents with each code."""

import pytest

from support.raw import assert_refused

pytestmark = pytest.mark.op("GetObject", "PutObject")


@pytest.fixture
def kept(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    return bucket


def says(answer, code, status, **details):
    document = assert_refused(answer, code, status).xml
    assert {name: document.findtext(name) for name in details} == details
    assert document.findtext("RequestId") == answer.headers["x-amz-request-id"]
    assert document.findtext("HostId") == answer.headers["x-amz-id-2"] and document.findtext("Message")


def test_what_is_not_there(raw, kept, bucket_names):
    missing = next(bucket_names)
    says(raw.request("GET", f"/{kept}/a&b"), "NoSuchKey", 404, Key="a&b")
    says(raw.request("GET", f"/{missing}/k"), "NoSuchBucket", 404, BucketName=missing)
    answer = raw.request("PUT", f"/{kept}/k", {"partNumber": "1", "uploadId": "none"}, body=b"x")
    says(answer, "NoSuchUpload", 404, UploadId="none")


def test_what_was_asked_for(raw, kept):
    answer = raw.request("GET", f"/{kept}/k", headers={"range": "bytes=9-"})
    says(answer, "InvalidRange", 416, RangeRequested="bytes=9-", ActualObjectSize="5")
    says(raw.request("DELETE", f"/{kept}", {"logging": ""}), "MethodNotAllowed", 405, Method="DELETE", ResourceType="BUCKET")


@pytest.mark.parametrize(
    "method, name, value",
    [
        ("GET", "If-Match", '"none"'),
        ("GET", "If-Unmodified-Since", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ("PUT", "If-None-Match", "*"),
        ("PUT", "If-Match", '"none"'),
    ],
)
def test_the_condition_that_failed(raw, kept, method, name, value):
    body = b"x" if method == "PUT" else b""
    answer = raw.request(method, f"/{kept}/k", headers={name: value}, body=body)
    says(answer, "PreconditionFailed", 412, Condition=name)


def test_who_signed(raw, kept):
    signer = raw.signer()
    spoilt = lambda signature: signature[:-1] + ("1" if signature.endswith("0") else "0")
    sent = []

    def spoil(pairs):
        sent.append(spoilt(dict(pairs)["authorization"]))
        return [(n, sent[-1] if n == "authorization" else v) for n, v in pairs]

    answer = raw.request("GET", f"/{kept}/k", edit=spoil)
    says(answer, "SignatureDoesNotMatch", 403, AWSAccessKeyId=signer.identity.access_key)
    assert answer.xml.findtext("SignatureProvided") == sent[-1][-64:]
    spoil = lambda query: [(n, spoilt(v) if n == "X-Amz-Signature" else v) for n, v in query]
    answer = raw.presigned("GET", f"/{kept}/k", edit=spoil)
    says(answer, "SignatureDoesNotMatch", 403, AWSAccessKeyId=signer.identity.access_key)
    other = lambda pairs: [(n, v.replace(signer.identity.access_key, "NOBODYSKEY0000000001")) for n, v in pairs]
    answer = raw.request("GET", f"/{kept}/k", edit=other)
    says(answer, "InvalidAccessKeyId", 403, AWSAccessKeyId="NOBODYSKEY0000000001")


def test_head_has_only_the_status(raw, kept):
    for path, status in [(f"/{kept}/missing", 404), (f"/{kept}/k", 412)]:
        answer = raw.request("HEAD", path, headers={"if-match": '"none"'})
        assert (answer.status, answer.body) == (status, b"") and answer.headers["x-amz-request-id"]
