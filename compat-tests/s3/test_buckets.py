"""CreateBucket, HeadBucket, ListBuckets, DeleteBucket, GetBucketLocation."""

import pytest

from support.raw import assert_refused
from support.refusal import refused


@pytest.mark.op("CreateBucket", "HeadBucket", "DeleteBucket")
def test_bucket_exists_from_create_to_delete(s3, bucket_names):
    name = next(bucket_names)
    with refused("404"):
        s3.head_bucket(Bucket=name)
    created = s3.create_bucket(Bucket=name)
    assert created["Location"].endswith(f"/{name}")
    assert s3.head_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 200
    deleted = s3.delete_bucket(Bucket=name)
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("404"):
        s3.head_bucket(Bucket=name)


@pytest.mark.op("CreateBucket")
def test_creating_own_bucket_again_changes_nothing(s3, bucket):
    # In us-east-1 S3 answers 200 for compatibility, elsewhere 409.
    s3.put_object(Bucket=bucket, Key="kept", Body=b"x")
    try:
        s3.create_bucket(Bucket=bucket)
    except s3.exceptions.BucketAlreadyOwnedByYou as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 409
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"x"


@pytest.mark.op("DeleteBucket")
def test_delete_bucket_that_holds_an_object_is_refused(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    with refused("BucketNotEmpty"):
        s3.delete_bucket(Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)


@pytest.mark.op("DeleteBucket")
def test_delete_missing_bucket_is_refused(s3, bucket_names):
    with refused("NoSuchBucket"):
        s3.delete_bucket(Bucket=next(bucket_names))


@pytest.mark.op("GetBucketLocation", "HeadBucket")
def test_location_names_the_region(s3, bucket, endpoint):
    location = s3.get_bucket_location(Bucket=bucket)["LocationConstraint"]
    assert (location or "us-east-1") == endpoint.region
    headers = s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amz-bucket-region"] == endpoint.region


@pytest.mark.op("GetBucketLocation")
def test_location_of_missing_bucket_is_refused(s3, bucket_names):
    with refused("NoSuchBucket"):
        s3.get_bucket_location(Bucket=next(bucket_names))


@pytest.mark.op("ListBuckets")
def test_list_buckets_shows_owner_and_creation_date(s3, bucket):
    answer = s3.list_buckets()
    assert answer["Owner"]["ID"]
    found = [entry for entry in answer["Buckets"] if entry["Name"] == bucket]
    assert len(found) == 1 and found[0]["CreationDate"]
    names = [entry["Name"] for entry in answer["Buckets"]]
    assert names == sorted(names)


@pytest.mark.op("ListBuckets")
def test_list_buckets_by_prefix_and_pages(s3, make_bucket, bucket_names):
    made = sorted(make_bucket() for _ in range(5))
    prefix = made[0].rsplit("-", 1)[0]
    seen, token = [], None
    while True:
        page = s3.list_buckets(Prefix=prefix, MaxBuckets=2, **({"ContinuationToken": token} if token else {}))
        assert page["Prefix"] == prefix and len(page["Buckets"]) <= 2
        seen += [entry["Name"] for entry in page["Buckets"]]
        token = page.get("ContinuationToken")
        if not token:
            break
    assert seen == sorted(set(seen)) and set(made) <= set(seen)
    assert s3.list_buckets(Prefix="no-such-prefix-")["Buckets"] == []


@pytest.mark.op("CreateBucket")
@pytest.mark.parametrize(
    "name",
    [
        "ab",
        "a" * 64,
        "Upper",
        "under_score",
        "dot..dot",
        "dot.-dash",
        "dash-.dot",
        "-start",
        "end-",
        "192.168.5.4",
        "xn--punycode",
        "name-s3alias",
        "a b",
    ],
)
def test_bucket_name_against_the_rules_is_refused(raw, name):
    assert_refused(raw.request("PUT", f"/{name}"), "InvalidBucketName", 400)


@pytest.mark.op("CreateBucket")
@pytest.mark.parametrize("name", ["{}-b", "{}.b.c", "{}" + "x" * 40])
def test_bucket_name_within_the_rules_is_accepted(s3, bucket_names, name):
    name = name.format(next(bucket_names))[:63]
    s3.create_bucket(Bucket=name)
    s3.delete_bucket(Bucket=name)


@pytest.mark.op("CreateBucket")
def test_create_bucket_with_broken_xml_is_refused(raw, s3, bucket_names):
    name = next(bucket_names)
    assert_refused(raw.request("PUT", f"/{name}", body=b"<CreateBucketConfiguration><Location"), "MalformedXML", 400)
    with refused("404"):
        s3.head_bucket(Bucket=name)
