"""PutObject, GetObject, HeadObject, DeleteObject: bytes in, the same bytes out, under any key."""

import hashlib
from datetime import datetime, timedelta, timezone

import pytest

from support.keys import PART, SMALL_SIZES, UNUSUAL_KEYS
from support.raw import assert_refused
from support.refusal import refused

pytestmark = pytest.mark.op("PutObject", "GetObject", "HeadObject", "DeleteObject")


def md5(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


@pytest.mark.parametrize("size", [*SMALL_SIZES, 65537, PART - 1, PART, PART + 1])
def test_bytes_come_back(s3, bucket, rng, size):
    body = rng.randbytes(size)
    before = datetime.now(timezone.utc) - timedelta(seconds=2)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert put["ETag"] == md5(body)
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == body
    head = s3.head_object(Bucket=bucket, Key="k")
    for answer in (got, head):
        assert answer["ContentLength"] == size
        assert answer["ETag"] == md5(body)
        assert answer["AcceptRanges"] == "bytes"
        assert answer["ContentType"] == "binary/octet-stream"
        assert before <= answer["LastModified"] <= datetime.now(timezone.utc) + timedelta(seconds=2)
        assert answer["Metadata"] == {}
        assert "StorageClass" not in answer  # S3 names every class but STANDARD


@pytest.mark.parametrize("name", UNUSUAL_KEYS)
def test_unusual_key(s3, bucket, rng, name):
    key, body = UNUSUAL_KEYS[name], rng.randbytes(100)
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    s3.put_object(Bucket=bucket, Key=key + "x" if len(key.encode()) < 1024 else "x", Body=b"a neighbour")
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body
    assert key in [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    s3.delete_object(Bucket=bucket, Key=key)
    with refused("404"):
        s3.head_object(Bucket=bucket, Key=key)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def test_keys_that_differ_only_in_form_are_different(s3, bucket):
    # Bytes are compared: no normalization of unicode, case, slashes or dots.
    keys = ["a/b", "a//b", "/a/b", "a/./b", "A/b", "a/b/", "\u00e9", "e\u0301", "a%2Fb", "a+b", "a b", " a b"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in keys:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert [e["Key"] for e in s3.list_objects_v2(Bucket=bucket)["Contents"]] == sorted(keys, key=str.encode)


def test_key_over_1024_bytes_is_refused(s3, bucket):
    for key in ("k" * 1025, "ü" * 512 + "k"):
        with refused("KeyTooLongError"):
            s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_key_that_is_not_utf8_is_refused(raw, bucket):
    answer = raw.request("PUT", encoded_path=f"/{bucket}/%FF%FE", body=b"x")
    assert 400 <= answer.status < 500, answer


def test_overwrite_replaces_everything(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"first", ContentType="text/plain", Metadata={"a": "1"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"second!")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == b"second!"
    assert got["ContentType"] == "binary/octet-stream" and got["Metadata"] == {}


def test_key_may_be_both_object_and_prefix(s3, bucket):
    for key in ("a", "a/", "a/b", "a/b/c"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    s3.delete_object(Bucket=bucket, Key="a/b")
    for key in ("a", "a/", "a/b/c"):
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()


def test_missing_key_is_refused(s3, bucket):
    with refused("NoSuchKey") as caught:
        s3.get_object(Bucket=bucket, Key="missing")
    assert caught.value.response["Error"]["Key"] == "missing"
    with refused("404"):
        s3.head_object(Bucket=bucket, Key="missing")


def test_missing_bucket_is_refused(s3, bucket_names):
    name = next(bucket_names)
    with refused("NoSuchBucket"):
        s3.put_object(Bucket=name, Key="k", Body=b"x")
    with refused("NoSuchBucket"):
        s3.get_object(Bucket=name, Key="k")
    with refused("404"):
        s3.head_object(Bucket=name, Key="k")
    with refused("NoSuchBucket"):
        s3.delete_object(Bucket=name, Key="k")


def test_delete_is_idempotent(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for _ in range(2):
        answer = s3.delete_object(Bucket=bucket, Key="k")
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_put_without_a_length_is_refused(raw, bucket):
    def without_length(pairs):
        return [(n, v) for n, v in pairs if n != "content-length"]

    answer = raw.request("PUT", f"/{bucket}/k", payload_hash="UNSIGNED-PAYLOAD", edit=without_length)
    assert_refused(answer, "MissingContentLength", 411)


def test_unknown_storage_class_is_refused(raw, s3, bucket):
    answer = raw.request("PUT", f"/{bucket}/k", headers={"x-amz-storage-class": "BOGUS"}, body=b"x")
    assert_refused(answer, "InvalidStorageClass", 400)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_head_error_has_no_body(raw, bucket):
    for path in (f"/{bucket}/missing", "/no-such-bucket-at-all-0000/k"):
        answer = raw.request("HEAD", path)
        assert answer.status == 404 and answer.body == b""


def test_read_after_overwrite_and_delete_is_fresh(s3, bucket):
    for round_number in range(30):
        body = b"%d" % round_number
        s3.put_object(Bucket=bucket, Key="k", Body=body)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body
        if round_number % 3 == 0:
            s3.delete_object(Bucket=bucket, Key="k")
            with refused("404"):
                s3.head_object(Bucket=bucket, Key="k")
            assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
