"""Range requests (RFC 9110, section 14) and partNumber, as S3 answers them."""

import io
import random

import pytest

from support.keys import INLINE, PART
from support.raw import assert_refused
from support.refusal import refused

pytestmark = pytest.mark.op("GetObject", "HeadObject")
SIZES = [10, INLINE + 1, 3 * 1024 * 1024]


@pytest.fixture(scope="module", params=SIZES)
def stored(request, s3, bucket_names):
    body = random.Random(request.param).randbytes(request.param)
    bucket = next(bucket_names)
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    yield {"Bucket": bucket, "Key": "k"}, body
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)


def satisfiable(size):
    """(header, start, end): half-open, of what must be answered with 206."""
    middle = size // 2
    return [
        ("bytes=0-0", 0, 1),
        (f"bytes={size - 1}-", size - 1, size),
        ("bytes=0-", 0, size),
        (f"bytes=3-{middle}", 3, middle + 1),
        (f"bytes={middle}-{size * 2}", middle, size),
        ("bytes=-1", size - 1, size),
        ("bytes=-4", size - 4, size),
        (f"bytes=-{size}", 0, size),
        (f"bytes=-{size + 99}", 0, size),
        (f"bytes=0-{size - 1}", 0, size),
    ]


def test_satisfiable_range(s3, stored):
    place, body = stored
    for header, start, end in satisfiable(len(body)):
        got = s3.get_object(**place, Range=header)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206, header
        assert got["ContentRange"] == f"bytes {start}-{end - 1}/{len(body)}", header
        assert got["ContentLength"] == end - start
        assert got["Body"].read() == body[start:end], header
        head = s3.head_object(**place, Range=header)
        assert (head["ResponseMetadata"]["HTTPStatusCode"], head["ContentLength"]) == (206, end - start)


def test_range_beyond_the_end_is_refused(s3, raw, stored):
    place, body = stored
    for header in (f"bytes={len(body)}-", f"bytes={len(body) + 5}-{len(body) + 9}", "bytes=-0"):
        with refused("InvalidRange"):
            s3.get_object(**place, Range=header)
        answer = raw.request("GET", f"/{place['Bucket']}/k", headers={"range": header})
        assert answer.headers.get("content-range", f"bytes */{len(body)}") == f"bytes */{len(body)}"


@pytest.mark.parametrize(
    "header", ["bytes=0-1,3-4", "bytes=5-2", "bytes=a-b", "bytes=", "bytes=-", "lines=0-1", "0-1", "bytes"]
)
def test_range_that_s3_does_not_understand_is_ignored(raw, stored, header):
    place, body = stored
    answer = raw.request("GET", f"/{place['Bucket']}/k", headers={"range": header})
    assert answer.status == 200 and answer.body == body and "content-range" not in answer.headers


def test_no_range_of_an_empty_object_is_satisfiable(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    for header in ("bytes=0-0", "bytes=0-", "bytes=-1"):
        with refused("InvalidRange"):
            s3.get_object(Bucket=bucket, Key="k", Range=header)
        with refused("416"):
            s3.head_object(Bucket=bucket, Key="k", Range=header)


def test_many_ranges_of_a_large_object(s3, bucket, rng):
    size = 2 * PART + 3
    body = rng.randbytes(size)
    s3.upload_fileobj(io.BytesIO(body), bucket, "k")
    for _ in range(30):
        start = rng.randrange(size)
        end = min(size, start + rng.choice([1, 100, 70_000, 5_000_000]))
        assert s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={start}-{end - 1}")["Body"].read() == body[start:end]
    for border in (PART, 2 * PART):  # across parts
        got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={border - 2}-{border + 1}")
        assert got["Body"].read() == body[border - 2 : border + 2]


def test_part_number_of_an_object_in_one_piece(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    got = s3.get_object(Bucket=bucket, Key="k", PartNumber=1)
    assert got["Body"].read() == b"hello" and got["ResponseMetadata"]["HTTPStatusCode"] == 206
    with refused({"InvalidPartNumber", "InvalidPart", "InvalidRange"}, 416):
        s3.get_object(Bucket=bucket, Key="k", PartNumber=2)


def test_range_and_part_number_together_are_refused(s3, raw, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    answer = raw.request("GET", f"/{bucket}/k", {"partNumber": "1"}, {"range": "bytes=0-1"})
    assert_refused(answer, "InvalidRequest", 400)
