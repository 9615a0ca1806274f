"""If-None-Match and If-Match on writes: one atomic decision, whoever else writes.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

import pytest
from botocore.exceptions import ClientError

from support.multipart import Upload
from support.refusal import refused

pytestmark = pytest.mark.op("PutObject", "CompleteMultipartUpload", "CopyObject", "DeleteObject")

WRONG = '"' + "0" * 32 + '"'


@pytest.fixture
def place(bucket):
    return {"Bucket": bucket, "Key": "k"}


def body_of(s3, place):
    return s3.get_object(**place)["Body"].read()


def test_put_only_if_absent(s3, place):
    s3.put_object(**place, Body=b"first", IfNoneMatch="*")
    with refused("PreconditionFailed"):
        s3.put_object(**place, Body=b"second", IfNoneMatch="*")
    assert body_of(s3, place) == b"first"
    s3.delete_object(**place)
    s3.put_object(**place, Body=b"third", IfNoneMatch="*")
    assert body_of(s3, place) == b"third"


def test_put_only_over_this_etag(s3, place):
    with refused("NoSuchKey"):
        s3.put_object(**place, Body=b"x", IfMatch=WRONG)
    etag = s3.put_object(**place, Body=b"first")["ETag"]
    with refused("PreconditionFailed"):
        s3.put_object(**place, Body=b"x", IfMatch=WRONG)
    assert body_of(s3, place) == b"first"
    s3.put_object(**place, Body=b"second", IfMatch=etag)
    with refused("PreconditionFailed"):
        s3.put_object(**place, Body=b"x", IfMatch=etag)
    assert body_of(s3, place) == b"second"


def test_etag_in_if_none_match_of_a_write_is_not_implemented(s3, place):
    with refused("NotImplemented"):
        s3.put_object(**place, Body=b"x", IfNoneMatch=WRONG)
    with refused("404"):
        s3.head_object(**place)


def test_complete_only_if_absent_or_over_this_etag(s3, bucket, place):
    upload = Upload(s3, bucket, "k")
    upload.put(1, b"first")
    first = upload.complete(IfNoneMatch="*")["ETag"]
    upload = Upload(s3, bucket, "k")
    upload.put(1, b"second")
    with refused("PreconditionFailed"):
        upload.complete(IfNoneMatch="*")
    with refused("PreconditionFailed"):
        upload.complete(IfMatch=WRONG)
    assert body_of(s3, place) == b"first"
    upload.complete(IfMatch=first)
    assert body_of(s3, place) == b"second"
    upload = Upload(s3, bucket, "missing")
    upload.put(1, b"x")
    with refused("NoSuchKey"):
        upload.complete(IfMatch=first)


def test_delete_only_this_etag(s3, place):
    etag = s3.put_object(**place, Body=b"x")["ETag"]
    with refused("PreconditionFailed"):
        s3.delete_object(**place, IfMatch=WRONG)
    s3.head_object(**place)
    s3.delete_object(**place, IfMatch=etag)
    with refused("404"):
        s3.head_object(**place)
    s3.put_object(**place, Body=b"y")
    s3.delete_object(**place, IfMatch="*")
    with refused("404"):
        s3.head_object(**place)


# --- races: exactly one of many wins ---


def winners(pool, call, count=16):
    """The answers of those calls that succeeded; all others must have been refused as S3 documents."""

    def attempt(number):
        try:
            return number, call(number)
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"), error
            return None

    return [won for won in pool.map(attempt, range(count)) if won]


@pytest.mark.parametrize("size", [5, 200_000])
def test_one_of_sixteen_racing_creators_wins(s3, bucket, pool, size):
    for round_number in range(5):
        place = {"Bucket": bucket, "Key": f"k{round_number}"}
        won = winners(pool, lambda n: s3.put_object(**place, Body=b"%02d" % n * size, IfNoneMatch="*"))
        assert len(won) == 1
        assert body_of(s3, place) == b"%02d" % won[0][0] * size


def test_one_of_sixteen_racing_updates_wins(s3, place, pool):
    etag = s3.put_object(**place, Body=b"start")["ETag"]
    for _ in range(5):
        won = winners(pool, lambda n: s3.put_object(**place, Body=f"{n} after {etag}".encode(), IfMatch=etag))
        assert len(won) == 1
        assert body_of(s3, place) == f"{won[0][0]} after {etag}".encode()
        etag = won[0][1]["ETag"]


def test_one_of_sixteen_racing_completions_wins(s3, bucket, pool):
    uploads = [Upload(s3, bucket, "k") for _ in range(16)]
    for number, upload in enumerate(uploads):
        upload.put(1, b"%d" % number)
    won = winners(pool, lambda n: uploads[n].complete(IfNoneMatch="*"))
    assert len(won) == 1
    assert body_of(s3, {"Bucket": bucket, "Key": "k"}) == b"%d" % won[0][0]


def test_one_of_sixteen_racing_copies_wins(s3, bucket, pool):
    for number in range(16):
        s3.put_object(Bucket=bucket, Key=f"source-{number}", Body=b"%d" % number)
    won = winners(
        pool,
        lambda n: s3.copy_object(
            Bucket=bucket, Key="k", IfNoneMatch="*", CopySource={"Bucket": bucket, "Key": f"source-{n}"}
        ),
    )
    assert len(won) == 1
    assert body_of(s3, {"Bucket": bucket, "Key": "k"}) == b"%d" % won[0][0]


def test_counter_by_compare_and_swap_loses_no_step(s3, place, pool):
    s3.put_object(**place, Body=b"0")

    def add_one(_):
        while True:
            got = s3.get_object(**place)
            try:
                return s3.put_object(**place, Body=b"%d" % (int(got["Body"].read()) + 1), IfMatch=got["ETag"])
            except ClientError as error:
                assert error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"), error

    list(pool.map(add_one, range(24)))
    assert body_of(s3, place) == b"24"
