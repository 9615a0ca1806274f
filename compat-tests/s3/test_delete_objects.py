"""DeleteObjects: many keys in one request."""

import base64
import hashlib

import pytest

from support.keys import UNUSUAL_KEYS
from support.raw import assert_refused
from support.refusal import refused

pytestmark = pytest.mark.op("DeleteObjects")


def body_of(keys):
    return ("<Delete>" + "".join(f"<Object><Key>{key}</Key></Object>" for key in keys) + "</Delete>").encode()


def content_md5(body):
    return base64.b64encode(hashlib.md5(body).digest()).decode()


def test_deletes_what_exists_and_reports_the_missing_as_deleted(s3, bucket):
    for key in ("a", "b", "kept"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in ("a", "missing", "b")]})
    assert sorted(entry["Key"] for entry in answer["Deleted"]) == ["a", "b", "missing"]
    assert "Errors" not in answer
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["kept"]


def test_quiet_reports_only_errors(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}], "Quiet": True})
    assert "Deleted" not in answer and "Errors" not in answer
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_unusual_keys(s3, bucket):
    keys = list(UNUSUAL_KEYS.values())
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
    assert {entry["Key"] for entry in answer["Deleted"]} == set(keys)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_1000_keys_at_once_and_one_more_is_refused(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k0", Body=b"x")
    objects = [{"Key": f"k{n}"} for n in range(1001)]
    with refused("MalformedXML"):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    s3.head_object(Bucket=bucket, Key="k0")
    assert len(s3.delete_objects(Bucket=bucket, Delete={"Objects": objects[:1000]})["Deleted"]) == 1000
    with refused("404"):
        s3.head_object(Bucket=bucket, Key="k0")


def test_key_too_long_is_an_error_of_its_own_and_the_rest_is_deleted(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k" * 1025}, {"Key": "a"}]})
    assert [error["Code"] for error in answer["Errors"]] == ["KeyTooLongError"]
    assert [entry["Key"] for entry in answer["Deleted"]] == ["a"]


def test_etag_condition_is_decided_per_key(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"x")["ETag"]
    s3.put_object(Bucket=bucket, Key="b", Body=b"y")
    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "a", "ETag": etag}, {"Key": "b", "ETag": etag}]}
    )
    assert [entry["Key"] for entry in answer["Deleted"]] == ["a"]
    assert [(error["Key"], error["Code"]) for error in answer["Errors"]] == [("b", "PreconditionFailed")]
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["b"]


def test_content_md5_is_enough_and_is_checked(raw, s3, bucket):
    for key in ("a", "b"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    body = body_of(["a"])
    wrong = raw.request("POST", f"/{bucket}", [("delete", "")], {"content-md5": content_md5(b"other")}, body)
    assert_refused(wrong, "BadDigest", 400)
    s3.head_object(Bucket=bucket, Key="a")
    right = raw.request("POST", f"/{bucket}", [("delete", "")], {"content-md5": content_md5(body)}, body)
    assert right.status == 200 and right.xml.findtext("Deleted/Key") == "a"


def test_without_md5_or_checksum_is_refused(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    assert_refused(raw.request("POST", f"/{bucket}", [("delete", "")], body=body_of(["a"])), "InvalidRequest", 400)
    s3.head_object(Bucket=bucket, Key="a")


@pytest.mark.parametrize(
    "body",
    [b"", b"<Delete>", b"<Delete></Delete>", b"<Wrong></Wrong>", b"not xml", b"<Delete><Object></Object></Delete>"],
)
def test_malformed_document_is_refused(raw, bucket, body):
    answer = raw.request("POST", f"/{bucket}", [("delete", "")], {"content-md5": content_md5(body)}, body)
    assert_refused(answer, {"MalformedXML", "MissingRequestBodyError"}, 400)


def test_missing_bucket_is_refused(s3, bucket_names):
    with refused("NoSuchBucket"):
        s3.delete_objects(Bucket=next(bucket_names), Delete={"Objects": [{"Key": "a"}]})
