"""The five checksums: verified, stored and returned, on objects and on parts; and Content-MD5."""

import pytest

from support.checksums import ALL, CRC32, CRC64NVME, SHA256, content_md5
from support.keys import MIN_PART
from support.multipart import Upload
from support.raw import assert_refused
from support.refusal import refused

pytestmark = pytest.mark.op("PutObject", "GetObject", "HeadObject", "UploadPart", "CompleteMultipartUpload")

every = pytest.mark.parametrize("checksum", ALL, ids=lambda checksum: checksum.name)
COMPOSITE = [checksum for checksum in ALL if checksum.composite]
FULL_OBJECT = [checksum for checksum in ALL if checksum.full_object]


def assert_missing(s3, bucket, key="k"):
    with refused("404"):
        s3.head_object(Bucket=bucket, Key=key)


@every
@pytest.mark.parametrize("size", [0, 1, 20_000, MIN_PART + 1])
def test_checksum_in_the_header_is_stored_and_returned(s3, bucket, rng, checksum, size):
    body = rng.randbytes(size)
    value = checksum.of(body)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, **{checksum.field: value})
    assert put[checksum.field] == value and put["ChecksumType"] == "FULL_OBJECT"
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == body
    for answer in (got, s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")):
        assert answer[checksum.field] == value and answer["ChecksumType"] == "FULL_OBJECT"
    plain = s3.head_object(Bucket=bucket, Key="k")
    assert not any(c.field in plain for c in ALL), "checksums are answered only when asked for"
    entry = s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert entry["ChecksumAlgorithm"] == [checksum.name] and entry["ChecksumType"] == "FULL_OBJECT"


@every
def test_wrong_checksum_is_refused(s3, bucket, checksum):
    with refused("BadDigest"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"hello", **{checksum.field: checksum.of(b"other")})
    assert_missing(s3, bucket)


@every
@pytest.mark.parametrize("value", ["", "AAAA", "not base64!", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="])
def test_malformed_checksum_is_refused(raw, s3, bucket, checksum, value):
    answer = raw.request("PUT", f"/{bucket}/k", headers={checksum.header: value}, body=b"x")
    assert_refused(answer, "InvalidRequest", 400)
    assert_missing(s3, bucket)


def test_two_checksums_at_once_are_refused(raw, s3, bucket):
    headers = {CRC32.header: CRC32.of(b"x"), SHA256.header: SHA256.of(b"x")}
    assert_refused(raw.request("PUT", f"/{bucket}/k", headers=headers, body=b"x"), "InvalidRequest", 400)
    assert_missing(s3, bucket)


def test_object_without_a_checksum_gets_crc64nvme(raw, s3, bucket, rng):
    body = rng.randbytes(1000)
    assert raw.request("PUT", f"/{bucket}/k", body=body).status == 200
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head["ChecksumCRC64NVME"], head["ChecksumType"]) == (CRC64NVME.of(body), "FULL_OBJECT")


def test_partial_read_has_no_checksum_of_the_whole(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ChecksumAlgorithm="SHA256")
    part = s3.get_object(Bucket=bucket, Key="k", Range="bytes=1-2", ChecksumMode="ENABLED")
    assert part["Body"].read() == b"el" and "ChecksumSHA256" not in part


@every
@pytest.mark.op("CopyObject")
def test_copy_keeps_the_checksum(s3, bucket, checksum):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ChecksumAlgorithm=checksum.name)
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k"})
    assert copied["CopyObjectResult"][checksum.field] == checksum.of(b"hello")
    assert s3.head_object(Bucket=bucket, Key="copy", ChecksumMode="ENABLED")[checksum.field] == checksum.of(b"hello")


# --- multipart ---


def upload_parts(s3, bucket, checksum, kind, bodies):
    upload = Upload(s3, bucket, "k", ChecksumAlgorithm=checksum.name, ChecksumType=kind)
    assert (upload.created["ChecksumAlgorithm"], upload.created["ChecksumType"]) == (checksum.name, kind)
    parts = []
    for number, body in enumerate(bodies, 1):
        etag = upload.put(number, body, **{checksum.field: checksum.of(body)})
        parts.append({"PartNumber": number, "ETag": etag, checksum.field: checksum.of(body)})
    return upload, parts


@pytest.fixture
def bodies(rng):
    return [rng.randbytes(MIN_PART), rng.randbytes(MIN_PART + 3), rng.randbytes(5)]


@pytest.mark.parametrize("checksum", COMPOSITE, ids=lambda checksum: checksum.name)
def test_composite_checksum(s3, bucket, bodies, checksum):
    upload, parts = upload_parts(s3, bucket, checksum, "COMPOSITE", bodies)
    listed = upload.list()
    assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == (checksum.name, "COMPOSITE")
    assert [part[checksum.field] for part in listed["Parts"]] == [checksum.of(body) for body in bodies]
    done = upload.complete(parts)
    for answer in (done, s3.head_object(**upload.place, ChecksumMode="ENABLED")):
        assert (answer[checksum.field], answer["ChecksumType"]) == (checksum.of_parts(bodies), "COMPOSITE")
    got = s3.get_object(**upload.place, ChecksumMode="ENABLED")
    assert got["Body"].read() == b"".join(bodies) and got[checksum.field] == checksum.of_parts(bodies)


@pytest.mark.parametrize("checksum", FULL_OBJECT, ids=lambda checksum: checksum.name)
def test_full_object_checksum(s3, bucket, bodies, checksum):
    whole = checksum.of(b"".join(bodies))
    upload, parts = upload_parts(s3, bucket, checksum, "FULL_OBJECT", bodies)
    with refused("BadDigest"):
        upload.complete(parts, ChecksumType="FULL_OBJECT", **{checksum.field: checksum.of(b"other")})
    assert_missing(s3, bucket)
    done = upload.complete(parts, ChecksumType="FULL_OBJECT", **{checksum.field: whole})
    for answer in (done, s3.head_object(**upload.place, ChecksumMode="ENABLED")):
        assert (answer[checksum.field], answer["ChecksumType"]) == (whole, "FULL_OBJECT")


@pytest.mark.parametrize(
    "checksum, kind",
    [(c, "FULL_OBJECT") for c in ALL if not c.full_object] + [(c, "COMPOSITE") for c in ALL if not c.composite],
    ids=lambda v: getattr(v, "name", v),
)
def test_kind_that_the_algorithm_cannot_have_is_refused(s3, bucket, checksum, kind):
    with refused("InvalidRequest"):
        Upload(s3, bucket, "k", ChecksumAlgorithm=checksum.name, ChecksumType=kind)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize("checksum", ALL, ids=lambda checksum: checksum.name)
def test_default_kind_of_each_algorithm(s3, bucket, checksum):
    upload = Upload(s3, bucket, "k", ChecksumAlgorithm=checksum.name)
    assert upload.created["ChecksumType"] == ("COMPOSITE" if checksum.composite else "FULL_OBJECT")
    upload.abort()


def test_wrong_checksum_of_a_part_is_refused(s3, bucket):
    upload = Upload(s3, bucket, "k", ChecksumAlgorithm="SHA256")
    with refused("BadDigest"):
        upload.put(1, b"hello", ChecksumSHA256=SHA256.of(b"other"))
    assert "Parts" not in upload.list()


def test_part_with_another_algorithm_than_the_upload_is_refused(s3, bucket):
    upload = Upload(s3, bucket, "k", ChecksumAlgorithm="SHA256")
    with refused("InvalidRequest"):
        upload.put(1, b"hello", ChecksumCRC32=CRC32.of(b"hello"))
    assert "Parts" not in upload.list()


def test_wrong_checksum_in_the_part_list_is_refused(s3, bucket):
    upload, parts = upload_parts(s3, bucket, SHA256, "COMPOSITE", [b"hello"])
    with refused({"InvalidPart", "BadDigest"}):
        upload.complete([parts[0] | {"ChecksumSHA256": SHA256.of(b"other")}])
    assert_missing(s3, bucket)


def test_wrong_composite_checksum_on_completion_is_refused(s3, bucket):
    upload, parts = upload_parts(s3, bucket, SHA256, "COMPOSITE", [b"hello"])
    with refused({"BadDigest", "InvalidRequest"}):
        upload.complete(parts, ChecksumSHA256=SHA256.of_parts([b"other"]))
    assert_missing(s3, bucket)


# --- Content-MD5 ---


@pytest.mark.parametrize("size", [0, 100, MIN_PART])
def test_content_md5_is_verified(raw, s3, bucket, rng, size):
    body = rng.randbytes(size)
    right = raw.request("PUT", f"/{bucket}/right", headers={"content-md5": content_md5(body)}, body=body)
    assert right.status == 200, right
    wrong = raw.request("PUT", f"/{bucket}/k", headers={"content-md5": content_md5(body + b"x")}, body=body)
    assert_refused(wrong, "BadDigest", 400)
    assert_missing(s3, bucket)


@pytest.mark.parametrize("value", ["", "x", "AAAA", "not base64 at all!!!!!!!"])
def test_malformed_content_md5_is_refused(raw, s3, bucket, value):
    answer = raw.request("PUT", f"/{bucket}/k", headers={"content-md5": value}, body=b"x")
    assert_refused(answer, "InvalidDigest", 400)
    assert_missing(s3, bucket)


def test_content_md5_of_a_part_is_verified(raw, s3, bucket):
    upload = Upload(s3, bucket, "k")
    query = {"partNumber": "1", "uploadId": upload.id}
    answer = raw.request("PUT", f"/{bucket}/k", query, {"content-md5": content_md5(b"other")}, b"x")
    assert_refused(answer, "BadDigest", 400)
    assert "Parts" not in upload.list()
