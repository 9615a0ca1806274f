"""Instant upload: known content needs no body, for the access key that sent it before, and for no other."""

from contextlib import closing

import pytest

from support.checksums import CRC32, CRC64NVME, SHA1, SHA256, content_md5
from support.endpoint import Identity
from support.keys import MIN_PART
from support.multipart import Upload
from support.proxy import CountingProxy
from support.raw import Raw, assert_refused, read_answer
from support.refusal import refused
from support.sigv4 import UNSIGNED, sha256_hex
from support.wait import wait_until

SIZE = 300_000
HEAD_ONLY = 16_000  # bytes that suffice for any request's head


@pytest.fixture
def sibling(server, endpoint):
    """Another access key of the same tenant."""
    identity = server.create_key("default", "SIBLINGACCESSKEY0001", "siblingsecretkeysiblingsecretkeysibling1")
    raw = Raw(endpoint.as_identity(identity))
    wait_until(lambda: raw.request("GET", "/").status == 200, 30, "the sibling's key")
    yield raw
    server.command("keys", "delete", identity.access_key)


@pytest.fixture
def known(s3, bucket, rng):
    """A content that the main access key has sent in full."""
    body = rng.randbytes(SIZE)
    s3.put_object(Bucket=bucket, Key="known", Body=body)
    return body


def ask(raw, bucket, body, key="again", *, headers=None, payload_hash=None, **options):
    """Sends only the head of a PUT of `body`, which waits for 100 Continue, and returns the socket."""
    headers = (headers or {}) | {"expect": "100-continue"}
    return raw.begin(
        "PUT",
        f"/{bucket}/{key}",
        headers=headers,
        length=len(body),
        payload_hash=payload_hash or sha256_hex(body),
        **options,
    )


def asks_for_the_body(raw, bucket, body, **options):
    """Whether the server wants the body; sends it then and expects success."""
    with closing(ask(raw, bucket, body, **options)) as sock:
        answer = read_answer(sock)
        if answer.status != 100:
            assert answer.status == 200, answer
            return False
        sock.sendall(body)
        assert read_answer(sock).status == 200
        return True


# --- what it saves ---


@pytest.mark.op("PutObject")
@pytest.mark.parametrize("size", [4096, SIZE, 5_000_000])
def test_boto3_puts_known_content_without_sending_it(s3, endpoint, bucket, rng, size, patient):
    body = rng.randbytes(size)
    with CountingProxy(endpoint.address) as proxy:
        client = endpoint.at(proxy.url).client()
        first = client.put_object(Bucket=bucket, Key="first", Body=body)
        assert proxy.to_server >= size
        proxy.reset()
        second = client.put_object(Bucket=bucket, Key="second", Body=body)
        assert proxy.to_server < min(size, HEAD_ONLY), "the body crossed the wire"
        client.list_objects_v2(Bucket=bucket)  # the client goes on as if nothing were special
    assert second["ETag"] == first["ETag"] and second["ChecksumCRC32"] == CRC32.of(body)
    assert s3.get_object(Bucket=bucket, Key="second")["Body"].read() == body


@pytest.mark.op("UploadPart")
def test_known_parts_are_not_sent(s3, endpoint, bucket, rng, patient):
    body = rng.randbytes(MIN_PART)
    s3.put_object(Bucket=bucket, Key="known", Body=body)
    with CountingProxy(endpoint.address) as proxy:
        upload = Upload(endpoint.at(proxy.url).client(), bucket, "parts")
        upload.put(1, body)
        upload.put(2, body)
        assert proxy.to_server < 3 * HEAD_ONLY
        upload.complete()
    assert s3.get_object(Bucket=bucket, Key="parts")["Body"].read() == body + body


def test_answer_closes_the_connection_and_asks_for_nothing(raw, s3, bucket, known):
    with closing(ask(raw, bucket, known)) as sock:
        answer = read_answer(sock)
        assert answer.status == 200 and answer.headers["connection"].lower() == "close"
        assert answer.headers["etag"] == s3.head_object(Bucket=bucket, Key="known")["ETag"]
        assert answer.headers["x-osproxy-uid"]
        assert sock.recv(1) == b""
    assert s3.get_object(Bucket=bucket, Key="again")["Body"].read() == known


def test_metadata_of_the_request_counts(raw, s3, bucket, known):
    headers = {"x-amz-meta-a": "1", "content-type": "text/x-instant"}
    with closing(ask(raw, bucket, known, headers=headers)) as sock:
        assert read_answer(sock).status == 200
    head = s3.head_object(Bucket=bucket, Key="again")
    assert (head["Metadata"], head["ContentType"]) == ({"a": "1"}, "text/x-instant")


def test_right_checksums_pass_without_the_body(raw, bucket, known):
    for number, headers in enumerate(
        (
            {"content-md5": content_md5(known)},
            {CRC32.header: CRC32.of(known)},
            {CRC64NVME.header: CRC64NVME.of(known)},
            {SHA256.header: SHA256.of(known)},
        )
    ):
        assert not asks_for_the_body(raw, bucket, known, key=f"again-{number}", headers=headers), headers


# --- when the body is read all the same ---


def test_without_expect_the_body_is_read_and_the_connection_stays(raw, s3, bucket, known):
    with closing(raw.begin("PUT", f"/{bucket}/again", length=SIZE, payload_hash=sha256_hex(known), body=known)) as sock:
        answer = read_answer(sock)
        assert answer.status == 200 and answer.headers.get("connection", "keep-alive").lower() != "close"
        sock.sendall(b"GET / HTTP/1.1\r\nhost: %s\r\n\r\n" % raw.endpoint.netloc.encode())
        assert read_answer(sock).status == 403
    assert s3.get_object(Bucket=bucket, Key="again")["Body"].read() == known


def test_checksum_that_is_not_stored_needs_the_body(raw, bucket, known):
    assert asks_for_the_body(raw, bucket, known, headers={SHA1.header: SHA1.of(known)})


def test_unsigned_payload_needs_the_body(raw, bucket, known):
    assert asks_for_the_body(raw, bucket, known, payload_hash=UNSIGNED)


def test_unknown_content_needs_the_body(raw, bucket, rng):
    assert asks_for_the_body(raw, bucket, rng.randbytes(SIZE))


def test_length_other_than_the_contents_needs_the_body(raw, s3, bucket, known):
    with closing(
        raw.begin(
            "PUT",
            f"/{bucket}/again",
            headers={"expect": "100-continue"},
            length=SIZE - 1,
            payload_hash=sha256_hex(known),
        )
    ) as sock:
        assert read_answer(sock).status == 100
        sock.sendall(known[:-1])
        assert_refused(read_answer(sock), "XAmzContentSHA256Mismatch", 400)


def test_switched_off_every_body_is_read(own_server, rng):
    server = own_server(env={"OSPROXY_S3__INSTANT": "off"})
    raw, body = Raw(server.endpoint), rng.randbytes(SIZE)
    raw.request("PUT", "/bucket")
    assert raw.request("PUT", "/bucket/k", body=body).status == 200
    assert asks_for_the_body(raw, "bucket", body)


# --- possession: a digest is not enough ---


def test_sibling_key_that_knows_only_the_digest_must_send(sibling, bucket, known):
    assert asks_for_the_body(sibling, bucket, known, key="one")
    assert not asks_for_the_body(sibling, bucket, known, key="two"), "it has sent the bytes itself now"


def test_other_tenant_must_send(stranger, make_bucket, known):
    bucket = make_bucket(stranger.client())
    assert asks_for_the_body(Raw(stranger), bucket, known)


def test_presigned_request_must_send(raw, bucket, known):
    headers = {"x-amz-content-sha256": sha256_hex(known)}
    assert asks_for_the_body(raw, bucket, known, headers=headers, expires=600)


def test_presigned_upload_gives_no_possession(raw, bucket, rng):
    body = rng.randbytes(SIZE)
    assert raw.presigned("PUT", f"/{bucket}/presigned", body=body).status == 200
    assert asks_for_the_body(raw, bucket, body)


def test_copying_gives_no_possession(sibling, bucket, known):
    copied = sibling.request("PUT", f"/{bucket}/copy", headers={"x-amz-copy-source": f"{bucket}/known"})
    assert copied.status == 200
    assert asks_for_the_body(sibling, bucket, known)


def test_possession_ends_with_its_reference(raw, s3, bucket, known):
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "known"})
    s3.delete_object(Bucket=bucket, Key="known")
    assert asks_for_the_body(raw, bucket, known), "the content is known still, but who sent it is not"


# --- refusals on a hit ---


@pytest.mark.parametrize(
    "headers",
    [
        {"content-md5": content_md5(b"other")},
        {CRC32.header: CRC32.of(b"other")},
        {CRC64NVME.header: CRC64NVME.of(b"other")},
        {SHA256.header: SHA256.of(b"other")},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_wrong_checksum_is_refused(raw, s3, bucket, known, headers):
    with closing(ask(raw, bucket, known, headers=headers)) as sock:
        answer = read_answer(sock)
        if answer.status == 100:  # reading the body first is as right
            sock.sendall(known)
            answer = read_answer(sock)
        assert_refused(answer, "BadDigest", 400)
    with refused("404"):
        s3.head_object(Bucket=bucket, Key="again")


def test_failed_precondition_is_refused(raw, s3, bucket, known):
    with closing(ask(raw, bucket, known, key="known", headers={"if-none-match": "*"})) as sock:
        assert_refused(read_answer(sock), "PreconditionFailed", 412)


def test_bad_signature_is_refused(endpoint, bucket, known):
    wrong = Raw(endpoint.as_identity(Identity(endpoint.identity.access_key, "wrong" * 8)))
    with closing(ask(wrong, bucket, known)) as sock:
        assert_refused(read_answer(sock), "SignatureDoesNotMatch", 403)
