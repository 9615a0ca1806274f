"""UploadPartCopy: parts out of objects that exist already."""

from datetime import timedelta

import pytest

from support.keys import MIN_PART
from support.multipart import Upload, etag_of_parts
from support.refusal import refused

pytestmark = pytest.mark.op("UploadPartCopy")


@pytest.fixture
def source(s3, bucket, rng):
    body = rng.randbytes(MIN_PART + 1000)
    s3.put_object(Bucket=bucket, Key="source", Body=body)
    return body


@pytest.fixture
def upload(s3, bucket):
    return Upload(s3, bucket, "target")


@pytest.fixture
def place(bucket):
    return {"Bucket": bucket, "Key": "source"}


def test_whole_object_and_ranges(s3, upload, source, place):
    upload.copy(1, place)
    upload.copy(2, place, CopySourceRange=f"bytes=10-{MIN_PART + 9}")
    upload.copy(3, place, CopySourceRange="bytes=0-0")
    parts = [source, source[10 : MIN_PART + 10], source[:1]]
    assert upload.complete()["ETag"] == etag_of_parts(parts)
    assert s3.get_object(**upload.place)["Body"].read() == b"".join(parts)


def test_copied_and_sent_parts_mix(s3, upload, source, place, rng):
    tail = rng.randbytes(99)
    upload.copy(1, place)
    upload.put(2, tail)
    upload.complete()
    assert s3.get_object(**upload.place)["Body"].read() == source + tail


def test_source_made_of_parts_across_their_border(s3, bucket, upload, rng):
    body = [rng.randbytes(MIN_PART), rng.randbytes(MIN_PART)]
    made = Upload(s3, bucket, "source")
    for number, part in enumerate(body, 1):
        made.put(number, part)
    made.complete()
    upload.copy(1, made.place, CopySourceRange=f"bytes=1000-{MIN_PART + 1999}")
    upload.copy(2, made.place, CopySourceRange=f"bytes={2 * MIN_PART - 5}-{2 * MIN_PART - 1}")
    upload.complete()
    whole = b"".join(body)
    assert s3.get_object(**upload.place)["Body"].read() == whole[1000 : MIN_PART + 2000] + whole[-5:]


def test_source_may_go_once_copied(s3, upload, source, place):
    upload.copy(1, place)
    s3.delete_object(**place)
    upload.complete()
    assert s3.get_object(**upload.place)["Body"].read() == source


@pytest.mark.parametrize("text", ["bytes=0-99999999", "bytes=99999999-100000000"])
def test_range_outside_the_source_is_refused(upload, source, place, text):
    # Documented as InvalidRequest, answered by S3 as InvalidArgument; other servers say InvalidRange.
    with refused({"InvalidRange", "InvalidArgument", "InvalidRequest"}):
        upload.copy(1, place, CopySourceRange=text)
    assert "Parts" not in upload.list()


@pytest.mark.parametrize("text", ["0-5", "bytes=5", "bytes=5-", "bytes=-5", "bytes=5-2", "bytes=0-1,3-4"])
def test_malformed_range_is_refused(upload, source, place, text):
    with refused({"InvalidArgument", "InvalidRange"}):
        upload.copy(1, place, CopySourceRange=text)
    assert "Parts" not in upload.list()


def test_missing_source_and_missing_upload_are_refused(s3, bucket, upload, source, place):
    with refused("NoSuchKey"):
        upload.copy(1, {"Bucket": bucket, "Key": "missing"})
    with refused("NoSuchUpload"):
        s3.upload_part_copy(**upload.place, UploadId="no-such-upload", PartNumber=1, CopySource=place)


def test_conditions_on_the_source(s3, upload, source, place):
    head = s3.head_object(**place)
    earlier = head["LastModified"] - timedelta(hours=1)
    for condition in (
        {"CopySourceIfMatch": '"' + "0" * 32 + '"'},
        {"CopySourceIfNoneMatch": head["ETag"]},
        {"CopySourceIfUnmodifiedSince": earlier},
    ):
        with refused("PreconditionFailed"):
            upload.copy(1, place, **condition)
    assert "Parts" not in upload.list()
    upload.copy(1, place, CopySourceIfMatch=head["ETag"], CopySourceIfModifiedSince=earlier)
    upload.complete()
