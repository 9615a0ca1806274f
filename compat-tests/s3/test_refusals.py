"""What must be refused before an operation is even looked at: identity, signature, time, body, document."""

import socket
from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest

from support.endpoint import Identity
from support.multipart import Upload
from support.raw import Raw, assert_refused, read_answer
from support.refusal import refused
from support.sigv4 import UNSIGNED, sha256_hex

PATHS = [
    ("GET", "/{}/k"),
    ("PUT", "/{}/k"),
    ("DELETE", "/{}/k"),
    ("GET", "/{}"),
    ("PUT", "/{}"),
    ("DELETE", "/{}"),
    ("GET", "/"),
]
over_all_operations = pytest.mark.parametrize("method, path", PATHS)


@pytest.fixture
def kept(s3, bucket):
    """A bucket with one object that no refused request may change."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"kept")
    yield bucket
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"kept"
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


# --- who asks ---


@over_all_operations
def test_no_credentials(raw, kept, method, path):
    assert_refused(raw.request(method, path.format(kept), anonymous=True), "AccessDenied", 403)


@over_all_operations
def test_unknown_access_key(endpoint, kept, method, path):
    unknown = Raw(endpoint.as_identity(Identity("NOSUCHACCESSKEY00001", "x" * 40)))
    assert_refused(unknown.request(method, path.format(kept)), "InvalidAccessKeyId", 403)


@over_all_operations
def test_wrong_secret(endpoint, kept, method, path):
    wrong = Raw(endpoint.as_identity(Identity(endpoint.identity.access_key, "wrong" * 8)))
    assert_refused(wrong.request(method, path.format(kept)), "SignatureDoesNotMatch", 403)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=x",
        "Basic dXNlcjpwYXNz",
        "Bearer x",
        "AWS4-HMAC-SHA256 Credential=a/b/c,SignedHeaders=host,Signature=x",
    ],
)
def test_malformed_authorization(raw, kept, value):
    edit = lambda pairs: [(n, value if n == "authorization" else v) for n, v in pairs]
    answer = raw.request("GET", f"/{kept}/k", edit=edit)
    assert answer.status in (400, 403) and answer.code, answer


def test_signature_for_another_service(raw, kept):
    answer = raw.request("GET", f"/{kept}/k", signer=raw.signer(service="sqs"))
    assert_refused(answer, {"AuthorizationHeaderMalformed", "SignatureDoesNotMatch"}, {400, 403})


# --- what is signed ---


def replace(name, value):
    return lambda pairs: [(n, value if n == name else v) for n, v in pairs]


@pytest.mark.parametrize(
    "edit",
    [
        replace("x-amz-meta-a", "2"),
        replace("host", "elsewhere.example"),
        lambda pairs: [
            (n, v.replace("Signature=", "Signature=0")[:-1] if n == "authorization" else v) for n, v in pairs
        ],
    ],
    ids=["metadata", "host", "signature"],
)
def test_request_changed_after_signing(raw, kept, edit):
    answer = raw.request("PUT", f"/{kept}/new", headers={"x-amz-meta-a": "1"}, body=b"x", edit=edit)
    assert_refused(answer, "SignatureDoesNotMatch", 403)


def test_query_or_path_changed_after_signing(raw, kept):
    signer = raw.signer()
    target, pairs = (
        f"/{kept}/k",
        [("host", raw.endpoint.netloc), ("x-amz-date", signer.moment), ("x-amz-content-sha256", UNSIGNED)],
    )
    authorization, _ = signer.authorization("DELETE", target, [], pairs, UNSIGNED)
    pairs.append(("authorization", authorization))
    for method, changed in (("DELETE", f"/{kept}/k?versionId=null"), ("DELETE", f"/{kept}/K"), ("PUT", target)):
        assert_refused(raw.send(method, changed, pairs), "SignatureDoesNotMatch", 403)


@pytest.mark.parametrize("name", ["x-amz-meta-a", "x-amz-copy-source", "x-amz-tagging", "x-amz-storage-class"])
def test_amz_header_that_is_not_signed(raw, kept, name):
    value = {"x-amz-copy-source": f"{kept}/k", "x-amz-tagging": "a=1", "x-amz-storage-class": "STANDARD"}.get(name, "1")
    assert_refused(raw.request("PUT", f"/{kept}/new", body=b"x", unsigned={name: value}), "AccessDenied", 403)


# --- when ---


@pytest.mark.parametrize("offset", [timedelta(minutes=-16), timedelta(minutes=16), timedelta(days=-3650)], ids=str)
def test_skewed_clock(raw, kept, offset):
    signer = raw.signer(now=datetime.now(timezone.utc) + offset)
    assert_refused(raw.request("GET", f"/{kept}/k", signer=signer), "RequestTimeTooSkewed", 403)
    assert_refused(raw.request("PUT", f"/{kept}/new", body=b"x", signer=signer), "RequestTimeTooSkewed", 403)


def test_clock_within_the_tolerance(raw, kept):
    for offset in (timedelta(minutes=-14), timedelta(minutes=14)):
        signer = raw.signer(now=datetime.now(timezone.utc) + offset)
        assert raw.request("GET", f"/{kept}/k", signer=signer).status == 200


@pytest.mark.parametrize("value", ["", "yesterday", "20260101", "20261399T000000Z"])
def test_malformed_date(raw, kept, value):
    answer = raw.request("GET", f"/{kept}/k", edit=replace("x-amz-date", value))
    assert answer.status in (400, 403) and answer.code, answer


# --- the body ---


def test_body_other_than_its_sha256(raw, kept):
    answer = raw.request("PUT", f"/{kept}/new", body=b"x" * 100_000, payload_hash="0" * 64)
    assert_refused(answer, "XAmzContentSHA256Mismatch", 400)


def test_part_other_than_its_sha256(s3, raw, kept):
    upload = Upload(s3, kept, "new")
    answer = raw.request(
        "PUT", f"/{kept}/new", {"partNumber": "1", "uploadId": upload.id}, body=b"x", payload_hash="0" * 64
    )
    assert_refused(answer, "XAmzContentSHA256Mismatch", 400)
    assert "Parts" not in upload.list()
    upload.abort()


@pytest.mark.parametrize("value", ["", "short", "STREAMING-SOMETHING-ELSE", "Z" * 64])
def test_malformed_sha256(raw, kept, value):
    answer = raw.request("PUT", f"/{kept}/new", body=b"x", payload_hash=value)
    assert_refused(
        answer, {"InvalidArgument", "InvalidRequest", "XAmzContentSHA256Mismatch", "SignatureDoesNotMatch"}, {400, 403}
    )


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("sent", [0, 10, 70_000])
def test_body_that_ends_early(raw, kept, signed, sent):
    # Whether the refusal can still be read depends on how the client hangs up; that nothing is kept does not.
    payload_hash = sha256_hex(b"x" * 100_000) if signed else UNSIGNED
    with closing(raw.begin("PUT", f"/{kept}/new", length=100_000, payload_hash=payload_hash, body=b"x" * sent)) as sock:
        sock.shutdown(socket.SHUT_WR)
        try:
            answer = read_answer(sock)
        except ConnectionError:
            return
        assert_refused(answer, {"IncompleteBody", "RequestTimeout"}, {400, 408})


@pytest.mark.parametrize("query", ["", "part"])
def test_body_over_5_gib_is_refused_unread(s3, raw, kept, query):
    """Only the head is sent: the refusal must come without the body."""
    upload = Upload(s3, kept, "new") if query else None
    parameters = {"partNumber": "1", "uploadId": upload.id} if upload else {}
    with closing(
        raw.begin("PUT", f"/{kept}/new", parameters, {"expect": "100-continue"}, length=5 * 1024**3 + 1)
    ) as sock:
        assert_refused(read_answer(sock), "EntityTooLarge", 400)
    if upload:
        upload.abort()


# --- documents ---

DEEP = b"<a>" * 20_000 + b"</a>" * 20_000
DOCUMENTS = {
    "nothing": b"",
    "no xml": b"hello",
    "cut off": b"<Tagging><TagSet><Tag><Key>a</Key>",
    "deep": DEEP,
    "entities": b'<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;&x;">]>'
    b"<Tagging><TagSet><Tag><Key>a</Key><Value>&z;</Value></Tag></TagSet></Tagging>",
    "wrong root": b"<Other></Other>",
    "binary": bytes(range(256)),
}


@pytest.mark.op("PutObjectTagging")
@pytest.mark.parametrize("name", DOCUMENTS)
def test_malformed_document(s3, raw, kept, name):
    answer = raw.request("PUT", f"/{kept}/k", {"tagging": ""}, body=DOCUMENTS[name])
    assert_refused(answer, {"MalformedXML", "MissingRequestBodyError"}, 400)
    assert s3.get_object_tagging(Bucket=kept, Key="k")["TagSet"] == []


@pytest.mark.op("PutObjectTagging")
def test_document_of_many_megabytes(raw, kept):
    body = b"<Tagging><TagSet>" + b"<Tag><Key>a</Key><Value>b</Value></Tag>" * 1_000_000
    answer = raw.request("PUT", f"/{kept}/k", {"tagging": ""}, body=body)
    assert 400 <= answer.status < 500, answer


# --- where and what ---


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_bucket_name_against_the_rules(raw, method):
    for name in ("A_B", "ab", "a..b"):
        answer = raw.request(method, f"/{name}/k", body=b"x" if method == "PUT" else b"")
        assert_refused(answer, {"InvalidBucketName", "NoSuchBucket"}, {400, 404})


def test_unknown_method(raw, kept):
    answer = raw.request("PATCH", f"/{kept}/k")
    assert_refused(answer, {"MethodNotAllowed", "NotImplemented"}, {405, 501})


# --- every answer ---


def test_every_answer_has_a_request_id_of_its_own(raw, kept):
    requests = [
        ("GET", f"/{kept}/k"),
        ("HEAD", f"/{kept}/k"),
        ("GET", f"/{kept}/missing"),
        ("HEAD", f"/{kept}/missing"),
        ("GET", "/"),
        ("GET", f"/{kept}"),
        ("DELETE", f"/{kept}/missing"),
        ("GET", "/A_B/k"),
        ("PATCH", f"/{kept}/k"),
    ]
    answers = [raw.request(*request) for request in requests] + [raw.request("GET", f"/{kept}/k", anonymous=True)]
    ids = [answer.headers.get("x-amz-request-id") for answer in answers]
    assert all(ids) and len(set(ids)) == len(ids), list(zip(requests, ids))


def test_error_document_says_what_and_where(raw, kept):
    answer = raw.request("GET", f"/{kept}/missing key")
    document = answer.xml
    assert answer.headers["content-type"] == "application/xml" and document.tag == "Error"
    assert document.findtext("Code") == "NoSuchKey" and document.findtext("Message")
    assert document.findtext("RequestId") == answer.headers["x-amz-request-id"]
    assert document.findtext("Key") == "missing key"


def test_head_errors_have_no_body(raw, kept):
    signer = raw.signer(now=datetime.now(timezone.utc) - timedelta(hours=1))
    for answer in (
        raw.request("HEAD", f"/{kept}/missing"),
        raw.request("HEAD", f"/{kept}/k", anonymous=True),
        raw.request("HEAD", f"/{kept}/k", signer=signer),
    ):
        assert answer.status in (403, 404) and answer.body == b"" and answer.headers["x-amz-request-id"]


@pytest.mark.op("PutObject")
def test_refused_put_leaves_the_old_object(s3, raw, kept):
    for options in (
        {"payload_hash": "0" * 64},
        {"headers": {"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}},
        {"headers": {"x-amz-checksum-crc32": "AAAAAA=="}},
        {"headers": {"if-none-match": "*"}},
    ):
        answer = raw.request("PUT", f"/{kept}/k", body=b"other", **options)
        assert answer.status in (400, 412), answer
    with refused("PreconditionFailed"):
        s3.put_object(Bucket=kept, Key="k", Body=b"other", IfNoneMatch="*")
