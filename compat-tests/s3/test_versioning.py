"""Versioning: what puts, gets, copies and deletes do in buckets that keep versions, do not, or did."""

import pytest

from support.refusal import refused

pytestmark = pytest.mark.op("PutBucketVersioning", "GetBucketVersioning")


@pytest.fixture
def versioned(s3, bucket):
    set_versioning(s3, bucket, "Enabled")
    return bucket


def set_versioning(s3, bucket, status):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def put(s3, bucket, body, key="k"):
    return s3.put_object(Bucket=bucket, Key=key, Body=body).get("VersionId")


def body_of(s3, bucket, version=None, key="k"):
    named = {"VersionId": version} if version else {}
    return s3.get_object(Bucket=bucket, Key=key, **named)["Body"].read()


def versions_of(s3, bucket):
    """(id, latest) of every version and marker, newest first per key."""
    page = s3.list_object_versions(Bucket=bucket)
    entries = [(v, False) for v in page.get("Versions", [])] + [(m, True) for m in page.get("DeleteMarkers", [])]
    return {(entry["Key"], entry["VersionId"]): (entry["IsLatest"], marker) for entry, marker in entries}


def test_status_is_absent_until_it_is_set(s3, bucket):
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    for status in ("Enabled", "Suspended", "Enabled"):
        set_versioning(s3, bucket, status)
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == status


def test_unversioned_buckets_show_no_version_id(s3, bucket):
    assert put(s3, bucket, b"one") is None
    assert "VersionId" not in s3.head_object(Bucket=bucket, Key="k")
    assert body_of(s3, bucket, "null") == b"one"
    listed = s3.list_object_versions(Bucket=bucket)["Versions"]
    assert [(v["VersionId"], v["IsLatest"]) for v in listed] == [("null", True)]


def test_every_version_stays_readable(s3, versioned):
    ids = [put(s3, versioned, b"%d" % n) for n in range(4)]
    assert len(set(ids)) == 4 and "null" not in ids
    assert body_of(s3, versioned) == b"3"
    for n, version in enumerate(ids):
        answer = s3.get_object(Bucket=versioned, Key="k", VersionId=version)
        assert answer["Body"].read() == b"%d" % n and answer["VersionId"] == version
        assert s3.head_object(Bucket=versioned, Key="k", VersionId=version)["VersionId"] == version


@pytest.mark.op("DeleteObject")
def test_delete_leaves_a_marker_and_undelete_brings_back(s3, versioned):
    first = put(s3, versioned, b"one")
    answer = s3.delete_object(Bucket=versioned, Key="k")
    assert answer["DeleteMarker"] is True
    marker = answer["VersionId"]
    with refused("NoSuchKey") as caught:
        body_of(s3, versioned)
    headers = caught.value.response["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amz-delete-marker"] == "true" and headers["x-amz-version-id"] == marker
    assert body_of(s3, versioned, first) == b"one"
    answer = s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)
    assert answer["DeleteMarker"] is True and answer["VersionId"] == marker
    assert body_of(s3, versioned) == b"one"


def test_a_marker_cannot_be_read_by_its_id(s3, versioned):
    marker = s3.delete_object(Bucket=versioned, Key="never-there")["VersionId"]
    with refused("MethodNotAllowed", status=405) as caught:
        body_of(s3, versioned, marker, key="never-there")
    headers = caught.value.response["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amz-delete-marker"] == "true" and "last-modified" in headers
    with refused("405"):
        s3.head_object(Bucket=versioned, Key="never-there", VersionId=marker)


def test_deleting_the_current_version_uncovers_the_one_before(s3, versioned):
    ids = [put(s3, versioned, b"%d" % n) for n in range(3)]
    s3.delete_object(Bucket=versioned, Key="k", VersionId=ids[2])
    assert body_of(s3, versioned) == b"1"
    s3.delete_object(Bucket=versioned, Key="k", VersionId=ids[0])
    assert body_of(s3, versioned) == b"1"
    s3.delete_object(Bucket=versioned, Key="k", VersionId=ids[1])
    with refused("NoSuchKey"):
        body_of(s3, versioned)
    assert versions_of(s3, versioned) == {}
    # Gone twice is as good as gone once.
    assert s3.delete_object(Bucket=versioned, Key="k", VersionId=ids[1])["VersionId"] == ids[1]


def test_the_null_version_survives_enabling_and_is_replaced_when_suspended(s3, bucket):
    put(s3, bucket, b"before")
    set_versioning(s3, bucket, "Enabled")
    kept = put(s3, bucket, b"kept")
    assert body_of(s3, bucket, "null") == b"before"
    set_versioning(s3, bucket, "Suspended")
    assert put(s3, bucket, b"after") is None
    assert versions_of(s3, bucket) == {("k", "null"): (True, False), ("k", kept): (False, False)}
    assert body_of(s3, bucket) == b"after" and body_of(s3, bucket, kept) == b"kept"
    answer = s3.delete_object(Bucket=bucket, Key="k")
    assert answer["DeleteMarker"] is True and answer["VersionId"] == "null"
    assert versions_of(s3, bucket) == {("k", "null"): (True, True), ("k", kept): (False, False)}
    set_versioning(s3, bucket, "Enabled")
    newest = put(s3, bucket, b"newest")
    assert set(versions_of(s3, bucket)) == {("k", "null"), ("k", kept), ("k", newest)}
    s3.delete_object(Bucket=bucket, Key="k", VersionId="null")
    assert set(versions_of(s3, bucket)) == {("k", kept), ("k", newest)}


@pytest.mark.op("CopyObject")
def test_copy_restores_an_old_version(s3, versioned):
    old = put(s3, versioned, b"old")
    put(s3, versioned, b"new")
    answer = s3.copy_object(
        Bucket=versioned, Key="k", CopySource={"Bucket": versioned, "Key": "k", "VersionId": old}
    )
    assert answer["CopySourceVersionId"] == old and answer["VersionId"] not in (old, None)
    assert body_of(s3, versioned) == b"old"
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    with refused("NoSuchKey"):
        s3.copy_object(Bucket=versioned, Key="c", CopySource={"Bucket": versioned, "Key": "k"})
    with refused("InvalidRequest"):
        s3.copy_object(Bucket=versioned, Key="c", CopySource={"Bucket": versioned, "Key": "k", "VersionId": marker})


@pytest.mark.op("GetObjectTagging", "PutObjectTagging", "DeleteObjectTagging")
def test_each_version_has_its_own_tags(s3, versioned):
    first, second = put(s3, versioned, b"1"), put(s3, versioned, b"2")

    def tag(version, value):
        return s3.put_object_tagging(
            Bucket=versioned, Key="k", VersionId=version, Tagging={"TagSet": [{"Key": "t", "Value": value}]}
        )

    def tags(version):
        answer = s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=version)
        assert answer["VersionId"] == version
        return [t["Value"] for t in answer["TagSet"]]

    assert tag(first, "one")["VersionId"] == first
    tag(second, "two")
    assert (tags(first), tags(second)) == (["one"], ["two"])
    s3.delete_object_tagging(Bucket=versioned, Key="k", VersionId=first)
    assert (tags(first), tags(second)) == ([], ["two"])


@pytest.mark.op("CreateMultipartUpload", "CompleteMultipartUpload")
def test_multipart_makes_a_version(s3, versioned):
    before = put(s3, versioned, b"before")
    upload = s3.create_multipart_upload(Bucket=versioned, Key="k")["UploadId"]
    part = s3.upload_part(Bucket=versioned, Key="k", UploadId=upload, PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    done = s3.complete_multipart_upload(Bucket=versioned, Key="k", UploadId=upload, MultipartUpload=parts)
    assert done["VersionId"] not in (before, "null")
    again = s3.complete_multipart_upload(Bucket=versioned, Key="k", UploadId=upload, MultipartUpload=parts)
    assert again["VersionId"] == done["VersionId"]
    assert body_of(s3, versioned, done["VersionId"]) == b"part" and body_of(s3, versioned, before) == b"before"


@pytest.mark.op("DeleteObjects")
def test_batch_delete_tells_markers_from_versions(s3, versioned):
    first = put(s3, versioned, b"1", "a")
    answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "a"}, {"Key": "b"}]})
    made = {entry["Key"]: entry for entry in answer["Deleted"]}
    assert all(entry["DeleteMarker"] and "VersionId" not in entry for entry in made.values())
    marker = made["a"]["DeleteMarkerVersionId"]
    answer = s3.delete_objects(
        Bucket=versioned, Delete={"Objects": [{"Key": "a", "VersionId": marker}, {"Key": "a", "VersionId": first}]}
    )
    gone = {entry["VersionId"]: entry for entry in answer["Deleted"]}
    assert gone[marker]["DeleteMarker"] is True and gone[marker]["DeleteMarkerVersionId"] == marker
    assert "DeleteMarker" not in gone[first]


def test_conditions_are_decided_on_the_current_version(s3, versioned):
    put(s3, versioned, b"one")
    etag = s3.head_object(Bucket=versioned, Key="k")["ETag"]
    with refused("PreconditionFailed"):
        s3.put_object(Bucket=versioned, Key="k", Body=b"two", IfNoneMatch="*")
    s3.put_object(Bucket=versioned, Key="k", Body=b"two", IfMatch=etag)
    with refused("PreconditionFailed"):
        s3.put_object(Bucket=versioned, Key="k", Body=b"three", IfMatch=etag)
    s3.delete_object(Bucket=versioned, Key="k")
    # Under a delete marker there is no key.
    with refused("NoSuchKey"):
        s3.put_object(Bucket=versioned, Key="k", Body=b"four", IfMatch=etag)
    s3.put_object(Bucket=versioned, Key="k", Body=b"four", IfNoneMatch="*")
    assert body_of(s3, versioned) == b"four"


@pytest.mark.op("DeleteBucket")
def test_a_bucket_with_noncurrent_versions_is_not_empty(s3, versioned):
    put(s3, versioned, b"one")
    s3.delete_object(Bucket=versioned, Key="k")
    assert "Contents" not in s3.list_objects_v2(Bucket=versioned)
    with refused("BucketNotEmpty"):
        s3.delete_bucket(Bucket=versioned)


@pytest.mark.parametrize("version, code", [("", "InvalidArgument"), ("no-id", "InvalidArgument")])
def test_malformed_version_ids_are_refused(raw, versioned, s3, version, code):
    put(s3, versioned, b"one")
    answer = raw.request("GET", f"/{versioned}/k", query={"versionId": version})
    assert (answer.status, answer.code) == (400, code)


def test_a_version_that_never_was_is_not_found(s3, versioned):
    put(s3, versioned, b"one")
    with refused("NoSuchVersion", status=404):
        body_of(s3, versioned, "0123456789abcdef")
    with refused("NoSuchVersion", status=404):
        body_of(s3, versioned, "null")


def test_mfa_delete_is_refused_clearly(s3, bucket):
    with refused("NotImplemented") as caught:
        s3.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Enabled", "MFADelete": "Enabled"}, MFA="serial 123456"
        )
    assert "MFA" in caught.value.response["Error"]["Message"]
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)


@pytest.mark.op("PutObject")
def test_concurrent_puts_all_become_versions(s3, versioned, pool):
    ids = list(pool.map(lambda n: put(s3, versioned, b"%d" % n), range(32)))
    assert len(set(ids)) == 32
    assert {version for _, version in versions_of(s3, versioned)} == set(ids)
    assert sum(latest for latest, _ in versions_of(s3, versioned).values()) == 1
