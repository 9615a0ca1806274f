"""Bodies signed chunk by chunk, with and without trailing checksums.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
"""

import pytest

from support.checksums import ALL, CRC32
from support.multipart import Upload
from support.raw import assert_refused
from support.refusal import refused
from support.sigv4 import UNSIGNED, StreamedBody

pytestmark = pytest.mark.op("PutObject", "UploadPart")

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
CHUNK = 64 * 1024


def chunks(body, size=CHUNK):
    return [body[at : at + size] for at in range(0, len(body), size)]


def streamed(mode, body, checksum=CRC32, **options):
    trailer = (checksum.header, checksum.of(body)) if mode.endswith("TRAILER") else None
    return StreamedBody(chunks(body), options.pop("trailer", trailer), **options)


def put(raw, bucket, mode, body, **options):
    return raw.request("PUT", f"/{bucket}/k", body=body, payload_hash=mode, **options)


def assert_nothing_stored(s3, bucket):
    with refused("404"):
        s3.head_object(Bucket=bucket, Key="k")


modes = pytest.mark.parametrize("mode", [SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER])


@modes
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 40 * CHUNK + 7])
def test_body_arrives_without_its_framing(raw, s3, bucket, rng, mode, size):
    body = rng.randbytes(size)
    answer = put(raw, bucket, mode, streamed(mode, body))
    assert answer.status == 200, answer
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == body and got["ContentLength"] == size
    assert "aws-chunked" not in got.get("ContentEncoding", "")
    if mode.endswith("TRAILER"):
        assert got["ChecksumCRC32"] == CRC32.of(body)


@pytest.mark.parametrize("payload_hash", [None, UNSIGNED])
def test_body_in_one_piece_signed_or_not(raw, s3, bucket, rng, payload_hash):
    body = rng.randbytes(100_000)
    assert put(raw, bucket, payload_hash, body).status == 200
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body


@pytest.mark.parametrize("checksum", ALL, ids=lambda checksum: checksum.name)
@pytest.mark.parametrize("mode", [SIGNED_TRAILER, UNSIGNED_TRAILER])
def test_every_checksum_may_trail(raw, s3, bucket, rng, mode, checksum):
    body = rng.randbytes(CHUNK + 5)
    answer = put(raw, bucket, mode, streamed(mode, body, checksum))
    assert answer.status == 200 and answer.headers[checksum.header] == checksum.of(body), answer
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")[checksum.field] == checksum.of(body)


def test_parts_may_be_streamed(raw, s3, bucket, rng):
    upload, body = Upload(s3, bucket, "k"), rng.randbytes(3 * CHUNK + 1)
    query = {"partNumber": "1", "uploadId": upload.id}
    answer = raw.request("PUT", f"/{bucket}/k", query, body=streamed(SIGNED, body), payload_hash=SIGNED)
    assert answer.status == 200, answer
    upload.complete([(1, answer.headers["etag"])])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body


def test_other_content_encodings_are_kept_without_aws_chunked(raw, s3, bucket):
    answer = put(raw, bucket, SIGNED, streamed(SIGNED, b"x"), headers={"content-encoding": "aws-chunked,gzip"})
    assert answer.status == 200, answer
    assert s3.head_object(Bucket=bucket, Key="k")["ContentEncoding"] == "gzip"


def test_one_chunk_may_be_large(raw, s3, bucket, rng):
    body = rng.randbytes(9 * 1024 * 1024)
    assert put(raw, bucket, SIGNED, StreamedBody([body])).status == 200
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body


# --- refusals ---


def flipped(data):
    return bytes([data[0] ^ 1]) + data[1:]


def other_data(signed):
    return [(flipped(signed[0][0]), signed[0][1]), *signed[1:]]


def other_signature(signed):
    data, signature = signed[0]
    return [(data, flipped(signature.encode()).decode()), *signed[1:]]


def swapped(signed):
    return [signed[1], signed[0], *signed[2:]]


def last_signature_wrong(signed):
    return [*signed[:-1], (b"", "0" * 64)]


@pytest.mark.parametrize("mode", [SIGNED, SIGNED_TRAILER])
@pytest.mark.parametrize("tamper", [other_data, other_signature, swapped, last_signature_wrong])
def test_tampered_chunk_is_refused(raw, s3, bucket, rng, mode, tamper):
    body = rng.randbytes(3 * CHUNK)
    answer = put(raw, bucket, mode, streamed(mode, body, tamper=tamper))
    assert_refused(answer, "SignatureDoesNotMatch", 403)
    assert_nothing_stored(s3, bucket)


def test_tampered_trailer_signature_is_refused(raw, s3, bucket, rng):
    body = streamed(SIGNED_TRAILER, rng.randbytes(100))
    body.trailer_signature = "0" * 64
    assert_refused(put(raw, bucket, SIGNED_TRAILER, body), "SignatureDoesNotMatch", 403)
    assert_nothing_stored(s3, bucket)


@pytest.mark.parametrize("mode", [SIGNED_TRAILER, UNSIGNED_TRAILER])
@pytest.mark.parametrize("checksum", ALL, ids=lambda checksum: checksum.name)
def test_wrong_trailing_checksum_is_refused(raw, s3, bucket, rng, mode, checksum):
    body = streamed(mode, rng.randbytes(100), trailer=(checksum.header, checksum.of(b"other")))
    assert_refused(put(raw, bucket, mode, body), "BadDigest", 400)
    assert_nothing_stored(s3, bucket)


def test_trailer_other_than_announced_is_refused(raw, s3, bucket):
    body = streamed(UNSIGNED_TRAILER, b"hello")
    body.announced = "x-amz-checksum-sha256"
    assert_refused(
        put(raw, bucket, UNSIGNED_TRAILER, body), {"MalformedTrailerError", "InvalidRequest", "BadDigest"}, 400
    )
    assert_nothing_stored(s3, bucket)


class Misdeclared(StreamedBody):
    """Names a length that its chunks do not have."""

    difference = 0

    @property
    def decoded_length(self):
        return super().decoded_length + self.difference


@pytest.mark.parametrize("difference", [5, -5])
@modes
def test_decoded_length_that_does_not_fit_is_refused(raw, s3, bucket, rng, mode, difference):
    body = rng.randbytes(1000)
    trailer = (CRC32.header, CRC32.of(body)) if mode.endswith("TRAILER") else None
    misdeclared = Misdeclared([body], trailer)
    misdeclared.difference = difference
    assert_refused(put(raw, bucket, mode, misdeclared), {"IncompleteBody", "InvalidRequest"}, 400)
    assert_nothing_stored(s3, bucket)


class Broken(StreamedBody):
    """Chunk framing replaced by something else."""

    framing = b""

    def encode(self, signer=None, seed=None):
        return self.framing


@pytest.mark.parametrize(
    "framing",
    [b"zz\r\nhello\r\n0\r\n\r\n", b"5\r\nhello", b"5\r\nhelloXX0\r\n\r\n", b"FFFFFFFFFFFFFFFFFF\r\nhello", b"5" * 5000],
)
def test_broken_framing_is_refused(raw, s3, bucket, framing):
    body = Broken([b"hello"], (CRC32.header, CRC32.of(b"hello")))
    body.framing = framing
    answer = put(raw, bucket, UNSIGNED_TRAILER, body)
    assert 400 <= answer.status < 500, answer
    assert_nothing_stored(s3, bucket)


def test_missing_decoded_length_is_refused(raw, s3, bucket):
    without = lambda pairs: [(n, v) for n, v in pairs if n != "x-amz-decoded-content-length"]
    answer = put(raw, bucket, UNSIGNED_TRAILER, streamed(UNSIGNED_TRAILER, b"hello"), edit=without)
    assert 400 <= answer.status < 500, answer
    assert_nothing_stored(s3, bucket)
