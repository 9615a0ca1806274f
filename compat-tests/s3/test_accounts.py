"""Two accounts at one endpoint: neither sees, reads nor changes what the other owns."""

import pytest

from support.multipart import Upload
from support.raw import Raw, assert_refused
from support.refusal import refused


@pytest.fixture(scope="session")
def other(stranger):
    return stranger.client()


@pytest.fixture
def held(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"mine")
    yield bucket
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"mine"
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


@pytest.mark.op("ListBuckets")
def test_owners_differ_and_buckets_are_listed_for_their_owner(s3, other, held, make_bucket):
    theirs = make_bucket(other)
    mine, foreign = s3.list_buckets(), other.list_buckets()
    assert mine["Owner"]["ID"] != foreign["Owner"]["ID"]
    assert held in [b["Name"] for b in mine["Buckets"]] and theirs not in [b["Name"] for b in mine["Buckets"]]
    assert theirs in [b["Name"] for b in foreign["Buckets"]] and held not in [b["Name"] for b in foreign["Buckets"]]


@pytest.mark.op("CreateBucket")
def test_bucket_names_are_global(other, held):
    with refused("BucketAlreadyExists"):
        other.create_bucket(Bucket=held)


CALLS = {
    "GetObject": lambda c, b: c.get_object(Bucket=b, Key="k"),
    "GetObject of nothing": lambda c, b: c.get_object(Bucket=b, Key="missing"),
    "PutObject": lambda c, b: c.put_object(Bucket=b, Key="k", Body=b"theirs"),
    "DeleteObject": lambda c, b: c.delete_object(Bucket=b, Key="k"),
    "GetObjectTagging": lambda c, b: c.get_object_tagging(Bucket=b, Key="k"),
    "PutObjectTagging": lambda c, b: c.put_object_tagging(Bucket=b, Key="k", Tagging={"TagSet": []}),
    "GetObjectAttributes": lambda c, b: c.get_object_attributes(Bucket=b, Key="k", ObjectAttributes=["ETag"]),
    "ListObjects": lambda c, b: c.list_objects(Bucket=b),
    "ListObjectsV2": lambda c, b: c.list_objects_v2(Bucket=b),
    "ListMultipartUploads": lambda c, b: c.list_multipart_uploads(Bucket=b),
    "CreateMultipartUpload": lambda c, b: c.create_multipart_upload(Bucket=b, Key="k"),
    "GetBucketLocation": lambda c, b: c.get_bucket_location(Bucket=b),
    "DeleteBucket": lambda c, b: c.delete_bucket(Bucket=b),
}


@pytest.mark.parametrize("name", CALLS)
def test_foreign_bucket_is_denied(other, held, name):
    with refused("AccessDenied"):
        CALLS[name](other, held)


def test_foreign_bucket_is_denied_to_head(other, held):
    with refused("403"):
        other.head_bucket(Bucket=held)
    with refused("403"):
        other.head_object(Bucket=held, Key="k")


@pytest.mark.op("DeleteObjects")
def test_foreign_keys_are_denied_in_a_batch(other, held):
    try:
        answer = other.delete_objects(Bucket=held, Delete={"Objects": [{"Key": "k"}]})
        assert [error["Code"] for error in answer["Errors"]] == ["AccessDenied"]
    except other.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied"


@pytest.mark.op("CopyObject", "UploadPartCopy")
def test_foreign_source_of_a_copy_is_denied(other, held, make_bucket):
    theirs = make_bucket(other)
    source = {"Bucket": held, "Key": "k"}
    with refused("AccessDenied"):
        other.copy_object(Bucket=theirs, Key="k", CopySource=source)
    with refused("AccessDenied"):
        Upload(other, theirs, "k").copy(1, source)
    with refused("AccessDenied"):
        other.copy_object(Bucket=held, Key="new", CopySource=source)


@pytest.mark.op("UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload", "ListParts")
def test_foreign_upload_is_denied(s3, other, held):
    upload = Upload(s3, held, "new")
    upload.put(1, b"x")
    foreign = Upload.__new__(Upload)
    foreign.__dict__ = upload.__dict__ | {"client": other}
    for call in (lambda: foreign.put(2, b"y"), foreign.complete, foreign.abort, foreign.list):
        with refused("AccessDenied"):
            call()
    assert len(upload.list()["Parts"]) == 1
    upload.abort()


def test_own_link_to_a_foreign_bucket_is_denied(stranger, held):
    assert_refused(Raw(stranger).presigned("GET", f"/{held}/k"), "AccessDenied", 403)
