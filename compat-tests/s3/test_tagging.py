"""PutObjectTagging, GetObjectTagging, DeleteObjectTagging, and tags sent along with other requests."""

import pytest

from support.refusal import refused

pytestmark = pytest.mark.op("PutObjectTagging", "GetObjectTagging", "DeleteObjectTagging")


def tag_set(tags):
    return {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}


def tags_of(s3, bucket, key="k"):
    return {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]}


@pytest.fixture
def tagged(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=1&b=two%20words&empty=")
    return bucket


def test_tags_sent_with_put(s3, tagged):
    assert tags_of(s3, tagged) == {"a": "1", "b": "two words", "empty": ""}
    assert s3.get_object(Bucket=tagged, Key="k")["TagCount"] == 3
    assert (
        s3.head_object(Bucket=tagged, Key="k")["ResponseMetadata"]["HTTPHeaders"].get("x-amz-tagging-count", "3") == "3"
    )


def test_put_replaces_and_delete_removes_all(s3, tagged):
    before = s3.head_object(Bucket=tagged, Key="k")
    s3.put_object_tagging(Bucket=tagged, Key="k", Tagging=tag_set({"c": "3", "ü": "ö+ -=._:/@"}))
    assert tags_of(s3, tagged) == {"c": "3", "ü": "ö+ -=._:/@"}
    answer = s3.delete_object_tagging(Bucket=tagged, Key="k")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert tags_of(s3, tagged) == {}
    after = s3.head_object(Bucket=tagged, Key="k")
    assert (after["ETag"], after["LastModified"]) == (before["ETag"], before["LastModified"])
    assert "TagCount" not in s3.get_object(Bucket=tagged, Key="k")


def test_overwriting_the_object_drops_its_tags(s3, tagged):
    s3.put_object(Bucket=tagged, Key="k", Body=b"y")
    assert tags_of(s3, tagged) == {}


@pytest.mark.op("CreateMultipartUpload")
def test_tags_sent_with_a_multipart_upload(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", Tagging="a=1")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    assert tags_of(s3, bucket) == {"a": "1"}


def test_ten_tags_of_the_largest_size_are_accepted(s3, tagged):
    tags = {f"{n}" + "k" * 127: "v" * 256 for n in range(10)}
    s3.put_object_tagging(Bucket=tagged, Key="k", Tagging=tag_set(tags))
    assert tags_of(s3, tagged) == tags


@pytest.mark.parametrize(
    "tags",
    [
        {f"k{n}": "v" for n in range(11)},
        {"k" * 129: "v"},
        {"k": "v" * 257},
        {"k": "<>"},
        {"aws:reserved": "v"},
    ],
    ids=["eleven", "long key", "long value", "forbidden character", "reserved prefix"],
)
def test_tags_over_the_limits_are_refused_and_the_old_stay(s3, tagged, tags):
    with refused({"InvalidTag", "BadRequest", "MalformedXML"}):
        s3.put_object_tagging(Bucket=tagged, Key="k", Tagging=tag_set(tags))
    assert tags_of(s3, tagged) == {"a": "1", "b": "two words", "empty": ""}


def test_one_key_twice_is_refused(s3, tagged):
    with refused("InvalidTag"):
        s3.put_object_tagging(
            Bucket=tagged, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]}
        )
    with refused({"InvalidTag", "InvalidArgument"}):
        s3.put_object(Bucket=tagged, Key="new", Body=b"x", Tagging="a=1&a=2")
    with refused("404"):
        s3.head_object(Bucket=tagged, Key="new")


@pytest.mark.parametrize(
    "header",
    ["&".join(f"k{n}=v" for n in range(11)), "k" * 129 + "=v", "k=" + "v" * 257],
    ids=["eleven", "long key", "long value"],
)
def test_tags_in_the_header_over_the_limits_are_refused(s3, bucket, header):
    with refused({"InvalidTag", "BadRequest", "InvalidArgument"}):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging=header)
    with refused("404"):
        s3.head_object(Bucket=bucket, Key="k")


def test_missing_key_is_refused(s3, bucket):
    with refused("NoSuchKey"):
        s3.get_object_tagging(Bucket=bucket, Key="missing")
    with refused("NoSuchKey"):
        s3.put_object_tagging(Bucket=bucket, Key="missing", Tagging=tag_set({"a": "1"}))
