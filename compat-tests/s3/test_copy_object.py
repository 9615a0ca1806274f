"""CopyObject: directives, conditions on source and destination, and what it refuses."""

from datetime import timedelta

import pytest

from support.keys import PART, UNUSUAL_KEYS
from support.refusal import refused

pytestmark = pytest.mark.op("CopyObject")


@pytest.fixture
def source(s3, bucket, rng):
    """An object with everything a copy may keep or replace."""
    body = rng.randbytes(50_000)
    put = s3.put_object(
        Bucket=bucket,
        Key="source",
        Body=body,
        ContentType="text/x-first",
        CacheControl="no-cache",
        Metadata={"a": "1"},
        Tagging="t=1&u=2",
    )
    return {"Bucket": bucket, "Key": "source", "Body": body, "ETag": put["ETag"]}


def place(source):
    return {"Bucket": source["Bucket"], "Key": source["Key"]}


def test_copy_keeps_bytes_headers_metadata_and_tags(s3, make_bucket, source):
    target = make_bucket()
    answer = s3.copy_object(Bucket=target, Key="copy", CopySource=place(source))
    assert answer["CopyObjectResult"]["ETag"] == source["ETag"] and answer["CopyObjectResult"]["LastModified"]
    got = s3.get_object(Bucket=target, Key="copy")
    assert got["Body"].read() == source["Body"]
    assert (got["ContentType"], got["CacheControl"], got["Metadata"]) == ("text/x-first", "no-cache", {"a": "1"})
    tags = s3.get_object_tagging(Bucket=target, Key="copy")["TagSet"]
    assert sorted((tag["Key"], tag["Value"]) for tag in tags) == [("t", "1"), ("u", "2")]


def test_copy_is_its_own_object(s3, bucket, source):
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=place(source))
    s3.put_object(Bucket=bucket, Key="source", Body=b"changed")
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == source["Body"]
    s3.delete_object(Bucket=bucket, Key="source")
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == source["Body"]


def test_replace_takes_everything_from_the_request(s3, bucket, source):
    s3.copy_object(
        Bucket=bucket,
        Key="copy",
        CopySource=place(source),
        MetadataDirective="REPLACE",
        Metadata={"b": "2"},
        ContentType="text/x-second",
        TaggingDirective="REPLACE",
        Tagging="v=3",
    )
    got = s3.get_object(Bucket=bucket, Key="copy")
    assert got["Body"].read() == source["Body"]
    assert (got["ContentType"], got["Metadata"]) == ("text/x-second", {"b": "2"}) and "CacheControl" not in got
    assert s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"] == [{"Key": "v", "Value": "3"}]


def test_metadata_in_the_request_is_ignored_without_replace(s3, bucket, source):
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=place(source), Metadata={"b": "2"})
    assert s3.head_object(Bucket=bucket, Key="copy")["Metadata"] == {"a": "1"}


def test_copy_to_itself_needs_a_change(s3, bucket, source):
    with refused("InvalidRequest"):
        s3.copy_object(Bucket=bucket, Key="source", CopySource=place(source))
    s3.copy_object(
        Bucket=bucket, Key="source", CopySource=place(source), MetadataDirective="REPLACE", Metadata={"b": "2"}
    )
    got = s3.get_object(Bucket=bucket, Key="source")
    assert got["Body"].read() == source["Body"] and got["Metadata"] == {"b": "2"}


@pytest.mark.parametrize("name", UNUSUAL_KEYS)
def test_copy_from_and_to_unusual_key(s3, bucket, rng, name):
    key, body = UNUSUAL_KEYS[name], rng.randbytes(10)
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    s3.copy_object(Bucket=bucket, Key="plain", CopySource={"Bucket": bucket, "Key": key})
    s3.delete_object(Bucket=bucket, Key=key)
    s3.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": bucket, "Key": "plain"})
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body


def test_copy_source_with_a_leading_slash(raw, bucket, source):
    answer = raw.request("PUT", f"/{bucket}/copy", headers={"x-amz-copy-source": f"/{bucket}/source"})
    assert answer.status == 200 and answer.xml.tag == "CopyObjectResult", answer


def test_copy_of_a_large_and_an_empty_object(s3, bucket, rng):
    for key, body in (("large", rng.randbytes(PART + 1)), ("empty", b"")):
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        s3.copy_object(Bucket=bucket, Key=key + "-copy", CopySource={"Bucket": bucket, "Key": key})
        assert s3.get_object(Bucket=bucket, Key=key + "-copy")["Body"].read() == body


def test_missing_source_is_refused(s3, bucket, bucket_names):
    with refused("NoSuchKey"):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "missing"})
    with refused("NoSuchBucket"):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": next(bucket_names), "Key": "k"})
    with refused("404"):
        s3.head_object(Bucket=bucket, Key="copy")


def test_missing_target_bucket_is_refused(s3, bucket_names, source):
    with refused("NoSuchBucket"):
        s3.copy_object(Bucket=next(bucket_names), Key="copy", CopySource=place(source))


def test_malformed_copy_source_is_refused(raw, bucket):
    for value in ("", "nokey", "/"):
        answer = raw.request("PUT", f"/{bucket}/copy", headers={"x-amz-copy-source": value})
        assert answer.status == 400 and answer.code in ("InvalidArgument", "InvalidRequest"), (value, answer)


def source_conditions(head):
    """(arguments, allowed): the table in CopyObject's documentation."""
    etag, modified = head["ETag"], head["LastModified"]
    earlier, later = modified - timedelta(hours=1), modified + timedelta(seconds=1)
    wrong = '"' + "0" * 32 + '"'
    return [
        ({"CopySourceIfMatch": etag}, True),
        ({"CopySourceIfMatch": wrong}, False),
        ({"CopySourceIfNoneMatch": wrong}, True),
        ({"CopySourceIfNoneMatch": etag}, False),
        ({"CopySourceIfModifiedSince": earlier}, True),
        ({"CopySourceIfUnmodifiedSince": earlier}, False),
        ({"CopySourceIfUnmodifiedSince": later}, True),
        # If-Match holds: If-Unmodified-Since is not asked. If-None-Match fails: If-Modified-Since is not asked.
        ({"CopySourceIfMatch": etag, "CopySourceIfUnmodifiedSince": earlier}, True),
        ({"CopySourceIfNoneMatch": etag, "CopySourceIfModifiedSince": earlier}, False),
    ]


def test_conditions_on_the_source(s3, bucket, source):
    for number, (conditions, allowed) in enumerate(source_conditions(s3.head_object(**place(source)))):
        key = f"copy-{number}"
        if allowed:
            s3.copy_object(Bucket=bucket, Key=key, CopySource=place(source), **conditions)
            s3.head_object(Bucket=bucket, Key=key)
        else:
            with refused("PreconditionFailed"):
                s3.copy_object(Bucket=bucket, Key=key, CopySource=place(source), **conditions)
            with refused("404"):
                s3.head_object(Bucket=bucket, Key=key)


def test_conditions_on_the_target(s3, bucket, source):
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=place(source), IfNoneMatch="*")
    with refused("PreconditionFailed"):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=place(source), IfNoneMatch="*")
    other = s3.put_object(Bucket=bucket, Key="copy", Body=b"other")["ETag"]
    with refused("PreconditionFailed"):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=place(source), IfMatch=source["ETag"])
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == b"other"
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=place(source), IfMatch=other)
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == source["Body"]
    with refused("NoSuchKey"):
        s3.copy_object(Bucket=bucket, Key="missing", CopySource=place(source), IfMatch=other)


@pytest.mark.parametrize("algorithm, field", [("SHA256", "ChecksumSHA256"), ("CRC32", "ChecksumCRC32")])
def test_copy_can_add_a_checksum(s3, bucket, source, algorithm, field):
    answer = s3.copy_object(Bucket=bucket, Key="copy", CopySource=place(source), ChecksumAlgorithm=algorithm)
    expected = s3.put_object(Bucket=bucket, Key="again", Body=source["Body"], ChecksumAlgorithm=algorithm)[field]
    assert answer["CopyObjectResult"][field] == expected
    assert s3.head_object(Bucket=bucket, Key="copy", ChecksumMode="ENABLED")[field] == expected
