"""Object lock: retention, legal hold and default retention, against every way to remove or replace a version."""

import datetime

import pytest

from support.refusal import refused
from support.wait import wait_until

pytestmark = pytest.mark.op(
    "PutObjectLockConfiguration",
    "GetObjectLockConfiguration",
    "PutObjectRetention",
    "GetObjectRetention",
    "PutObjectLegalHold",
    "GetObjectLegalHold",
)


def in_seconds(seconds):
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(seconds=seconds)


@pytest.fixture
def locked(s3, bucket_names, request):
    """A bucket made with object lock. Emptied afterwards as far as retention allows."""
    name = next(bucket_names)
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


def put(s3, bucket, **more):
    return s3.put_object(Bucket=bucket, Key="k", Body=b"x", **more)["VersionId"]


def retain(s3, bucket, version, mode, seconds, **more):
    s3.put_object_retention(
        Bucket=bucket,
        Key="k",
        VersionId=version,
        Retention={"Mode": mode, "RetainUntilDate": in_seconds(seconds)},
        **more,
    )


def test_a_bucket_made_with_lock_keeps_versions_and_cannot_stop(s3, locked):
    assert s3.get_bucket_versioning(Bucket=locked)["Status"] == "Enabled"
    configuration = s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"]
    assert configuration == {"ObjectLockEnabled": "Enabled"}
    with refused("InvalidBucketState", status=409):
        s3.put_bucket_versioning(Bucket=locked, VersioningConfiguration={"Status": "Suspended"})


def test_configuration_needs_versioning(s3, bucket):
    with refused("ObjectLockConfigurationNotFoundError", status=404):
        s3.get_object_lock_configuration(Bucket=bucket)
    with refused("InvalidBucketState", status=409):
        s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    assert s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]["ObjectLockEnabled"] == "Enabled"


@pytest.mark.parametrize(
    "rule, code",
    [
        ({"Mode": "GOVERNANCE", "Days": 0}, "InvalidRetentionPeriod"),
        ({"Mode": "GOVERNANCE", "Years": -1}, "InvalidRetentionPeriod"),
        ({"Mode": "GOVERNANCE", "Days": 1, "Years": 1}, "MalformedXML"),
        ({"Mode": "governance", "Days": 1}, "MalformedXML"),
        ({"Days": 1}, "MalformedXML"),
    ],
)
def test_bad_default_retention_is_refused(s3, locked, rule, code):
    with refused(code):
        s3.put_object_lock_configuration(
            Bucket=locked,
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": rule}},
        )


def test_default_retention_is_given_to_new_versions(s3, locked):
    rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 2}}}
    s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=rule)
    assert s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"] == rule
    version = put(s3, locked)
    retention = s3.get_object_retention(Bucket=locked, Key="k", VersionId=version)["Retention"]
    assert retention["Mode"] == "GOVERNANCE"
    left = retention["RetainUntilDate"] - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(days=1.9) < left < datetime.timedelta(days=2.1)
    head = s3.head_object(Bucket=locked, Key="k")
    assert head["ObjectLockMode"] == "GOVERNANCE" and head["ObjectLockRetainUntilDate"] == retention["RetainUntilDate"]
    # Copies and uploads in parts are new versions too.
    copied = s3.copy_object(Bucket=locked, Key="copy", CopySource={"Bucket": locked, "Key": "k"})["VersionId"]
    with refused("AccessDenied"):
        s3.delete_object(Bucket=locked, Key="copy", VersionId=copied)
    upload = s3.create_multipart_upload(Bucket=locked, Key="parts")["UploadId"]
    part = s3.upload_part(Bucket=locked, Key="parts", UploadId=upload, PartNumber=1, Body=b"p")
    done = s3.complete_multipart_upload(
        Bucket=locked,
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    with refused("AccessDenied"):
        s3.delete_object(Bucket=locked, Key="parts", VersionId=done["VersionId"])


def test_governance_gives_way_to_who_may_bypass_it(s3, locked):
    version = put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=in_seconds(3600))
    with refused("AccessDenied"):
        s3.delete_object(Bucket=locked, Key="k", VersionId=version)
    with refused("AccessDenied"):
        retain(s3, locked, version, "GOVERNANCE", 60)
    with refused("AccessDenied"):
        retain(s3, locked, version, "COMPLIANCE", 7200)
    retain(s3, locked, version, "GOVERNANCE", 7200)
    retain(s3, locked, version, "GOVERNANCE", 60, BypassGovernanceRetention=True)
    s3.delete_object(Bucket=locked, Key="k", VersionId=version, BypassGovernanceRetention=True)
    with refused("NoSuchKey"):
        s3.get_object(Bucket=locked, Key="k")


def test_compliance_gives_way_to_nobody(s3, locked):
    version = put(s3, locked, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=in_seconds(3600))
    with refused("AccessDenied"):
        s3.delete_object(Bucket=locked, Key="k", VersionId=version, BypassGovernanceRetention=True)
    with refused("AccessDenied"):
        retain(s3, locked, version, "COMPLIANCE", 60, BypassGovernanceRetention=True)
    with refused("AccessDenied"):
        retain(s3, locked, version, "GOVERNANCE", 7200, BypassGovernanceRetention=True)
    retain(s3, locked, version, "COMPLIANCE", 7200)
    answer = s3.delete_objects(
        Bucket=locked, Delete={"Objects": [{"Key": "k", "VersionId": version}]}, BypassGovernanceRetention=True
    )
    assert [error["Code"] for error in answer["Errors"]] == ["AccessDenied"]
    assert s3.get_object(Bucket=locked, Key="k", VersionId=version)["Body"].read() == b"x"


def test_retention_ends_with_its_time(s3, locked):
    until = in_seconds(10)
    version = put(s3, locked, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
    with refused("AccessDenied"):
        s3.delete_object(Bucket=locked, Key="k", VersionId=version)

    def is_deleted():
        try:
            s3.delete_object(Bucket=locked, Key="k", VersionId=version)
        except s3.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDenied", error
            return False
        return True

    wait_until(is_deleted, 60, "the end of the retention")
    assert in_seconds(2) >= until  # the clock of the endpoint may differ a little


def test_a_locked_version_is_covered_and_hidden_but_stays(s3, locked):
    version = put(s3, locked, ObjectLockLegalHoldStatus="ON")
    newer = put(s3, locked)
    marker = s3.delete_object(Bucket=locked, Key="k")["VersionId"]
    assert s3.get_object(Bucket=locked, Key="k", VersionId=version)["Body"].read() == b"x"
    for gone in (marker, newer):
        s3.delete_object(Bucket=locked, Key="k", VersionId=gone)
    with refused("AccessDenied"):
        s3.delete_object(Bucket=locked, Key="k", VersionId=version, BypassGovernanceRetention=True)
    with refused("BucketNotEmpty"):
        s3.delete_bucket(Bucket=locked)
    s3.put_object_legal_hold(Bucket=locked, Key="k", VersionId=version, LegalHold={"Status": "OFF"})
    assert s3.get_object_legal_hold(Bucket=locked, Key="k")["LegalHold"]["Status"] == "OFF"
    s3.delete_object(Bucket=locked, Key="k", VersionId=version)
    s3.delete_bucket(Bucket=locked)


def test_nothing_set_is_not_found(s3, locked):
    put(s3, locked)
    with refused("NoSuchObjectLockConfiguration", status=404):
        s3.get_object_retention(Bucket=locked, Key="k")
    with refused("NoSuchObjectLockConfiguration", status=404):
        s3.get_object_legal_hold(Bucket=locked, Key="k")


def test_locks_need_a_bucket_made_for_them(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    until = in_seconds(3600)
    with refused("InvalidRequest"):
        s3.put_object(
            Bucket=bucket, Key="k", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until
        )
    with refused("InvalidRequest"):
        s3.put_object_retention(Bucket=bucket, Key="k", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until})
    with refused("InvalidRequest"):
        s3.get_object_retention(Bucket=bucket, Key="k")
    with refused("InvalidRequest"):
        s3.put_object_legal_hold(Bucket=bucket, Key="k", LegalHold={"Status": "ON"})
    with refused("InvalidRequest"):
        s3.create_multipart_upload(
            Bucket=bucket, Key="k", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until
        )


@pytest.mark.parametrize(
    "headers",
    [
        {"ObjectLockMode": "GOVERNANCE"},
        {"ObjectLockRetainUntilDate": "later"},
        {"ObjectLockMode": "STRICT", "ObjectLockRetainUntilDate": "later"},
        {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": "earlier"},
        {"ObjectLockLegalHoldStatus": "MAYBE"},
    ],
)
def test_bad_lock_headers_are_refused(s3, locked, headers):
    dates = {"later": in_seconds(3600), "earlier": in_seconds(-3600)}
    headers = {name: dates.get(value, value) for name, value in headers.items()}
    with refused("InvalidArgument"):
        put(s3, locked, **headers)


def test_bad_documents_are_refused(s3, locked):
    put(s3, locked)
    with refused("InvalidArgument"):
        s3.put_object_retention(
            Bucket=locked, Key="k", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": in_seconds(-60)}
        )
    for retention in ({"Mode": "GOVERNANCE"}, {"Mode": "abc", "RetainUntilDate": in_seconds(60)}):
        with refused("MalformedXML"):
            s3.put_object_retention(Bucket=locked, Key="k", Retention=retention)
    with refused("MalformedXML"):
        s3.put_object_legal_hold(Bucket=locked, Key="k", LegalHold={"Status": "abc"})
