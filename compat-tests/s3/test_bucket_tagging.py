"""PutBucketTagging, GetBucketTagging, DeleteBucketTagging."""

import pytest

from support.raw import assert_refused
from support.refusal import refused

pytestmark = pytest.mark.op("PutBucketTagging", "GetBucketTagging", "DeleteBucketTagging")


def tag_set(tags):
    return {"TagSet": [{"Key": key, "Value": value} for key, value in tags]}


def tags_of(s3, bucket):
    return {tag["Key"]: tag["Value"] for tag in s3.get_bucket_tagging(Bucket=bucket)["TagSet"]}


def test_tags_from_put_to_delete(s3, raw, bucket):
    with refused("NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=bucket)
    answer = s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set([("a", "1"), ("ü", "ö +-=._:/@"), ("empty", "")]))
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert tags_of(s3, bucket) == {"a": "1", "ü": "ö +-=._:/@", "empty": ""}
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set([("b", "2")]))
    assert tags_of(s3, bucket) == {"b": "2"}
    for _ in range(2):
        answer = s3.delete_bucket_tagging(Bucket=bucket)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    refusal = raw.request("GET", f"/{bucket}", [("tagging", "")])
    assert assert_refused(refusal, "NoSuchTagSet", 404).xml.findtext("BucketName") == bucket


def test_up_to_fifty_tags(s3, bucket):
    tags = [(f"k{number}", "v") for number in range(51)]
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set(tags[:50]))
    with refused("BadRequest"):
        s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set(tags))
    assert tags_of(s3, bucket) == dict(tags[:50])


@pytest.mark.parametrize(
    "tags",
    [
        [("a", "1"), ("a", "2")],
        [("aws:a", "1")],
        [("k" * 128 + "e", "v")],
        [("k", "v" * 257)],
        [("a*b", "v")],
    ],
    ids=["same key", "system", "long key", "long value", "character"],
)
def test_tags_that_are_refused(s3, bucket, tags):
    with refused("InvalidTag"):
        s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set(tags))
    with refused("NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=bucket)


def test_document_that_is_none(raw, bucket):
    for body in (b"", b"<Tagging>", b"<Tagging><TagSet><Tag><Value>v</Value></Tag></TagSet></Tagging>"):
        answer = raw.request("PUT", f"/{bucket}", [("tagging", "")], body=body)
        assert_refused(answer, {"MalformedXML", "MissingRequestBodyError"}, 400)


def test_tags_are_the_owners(stranger, bucket):
    other = stranger.client()
    with refused("AccessDenied"):
        other.get_bucket_tagging(Bucket=bucket)
    with refused("AccessDenied"):
        other.put_bucket_tagging(Bucket=bucket, Tagging=tag_set([("a", "1")]))
    with refused("AccessDenied"):
        other.delete_bucket_tagging(Bucket=bucket)
