"""Lifecycle rules at work, on a server whose day is two seconds long."""

import datetime
import time

import pytest

from support.wait import wait_until

pytestmark = pytest.mark.op("PutBucketLifecycleConfiguration")

SHORT = {"OSPROXY_LIFECYCLE__DAY_SECONDS": "2", "OSPROXY_LIFECYCLE__INTERVAL_SECONDS": "1"}
DAY = 2.0


@pytest.fixture
def lived(own_server):
    server = own_server(env=SHORT | {"OSPROXY_NOTIFICATION__TARGET__QUEUE__KIND": "queue"})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    return server, s3


def put(s3, *rules, bucket="bucket"):
    filled = [{"ID": f"r{n}", "Status": "Enabled", "Filter": {"Prefix": ""}} | rule for n, rule in enumerate(rules)]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": filled})


def keys(s3, bucket="bucket"):
    return {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])}


def versions(s3, bucket="bucket"):
    """Bodies of the versions by key, from the newest on, and the keys that have markers."""
    page = s3.list_object_versions(Bucket=bucket)
    found = {}
    for version in page.get("Versions", []):
        place = {"Bucket": bucket, "Key": version["Key"], "VersionId": version["VersionId"]}
        try:
            body = s3.get_object(**place)["Body"].read().decode()
        except s3.exceptions.ClientError:
            body = "gone since it was listed"
        found.setdefault(version["Key"], []).append(body)
    return found, sorted(marker["Key"] for marker in page.get("DeleteMarkers", []))


def keep_versions(s3, status="Enabled"):
    s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": status})


def test_what_is_due_goes_and_nothing_else(lived):
    server, s3 = lived
    for key, tags in [("go/1", ""), ("go/2", ""), ("keep/1", ""), ("tagged", "a=1"), ("other", "a=2")]:
        s3.put_object(Bucket="bucket", Key=key, Body=b"x", Tagging=tags)
    s3.put_object(Bucket="bucket", Key="large", Body=b"x" * 2000)
    put(
        s3,
        {"Filter": {"Prefix": "go/"}, "Expiration": {"Days": 1}},
        {"Filter": {"Tag": {"Key": "a", "Value": "1"}}, "Expiration": {"Days": 1}},
        {"Filter": {"ObjectSizeGreaterThan": 1999}, "Expiration": {"Days": 1}},
        {"Filter": {"Prefix": "keep/"}, "Expiration": {"Days": 1000}},
        {"Filter": {"Prefix": "other"}, "Status": "Disabled", "Expiration": {"Days": 1}},
    )
    wait_until(lambda: keys(s3) == {"keep/1", "other"}, what="the expiry")
    wait_until(lambda: server.metric("osproxy_lifecycle_total", action="expire") == 4, what="the count")
    assert server.stats()["objects"] == 2


def test_a_date_that_has_passed_expires_at_once(lived):
    server, s3 = lived
    for key in ("past/1", "future/1"):
        s3.put_object(Bucket="bucket", Key=key, Body=b"x")
    date = lambda year: datetime.datetime(year, 1, 1, tzinfo=datetime.timezone.utc)
    put(
        s3,
        {"Filter": {"Prefix": "past/"}, "Expiration": {"Date": date(2015)}},
        {"Filter": {"Prefix": "future/"}, "Expiration": {"Date": date(2090)}},
    )
    wait_until(lambda: keys(s3) == {"future/1"}, what="the expiry")


def test_more_than_a_page_of_keys_goes(lived):
    server, s3 = lived
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as threads:
        names = [f"k{number:04}" for number in range(1100)]
        list(threads.map(lambda key: s3.put_object(Bucket="bucket", Key=key, Body=key.encode()), names))
    put(s3, {"Expiration": {"Days": 1}})
    wait_until(lambda: not keys(s3), deadline=60, what="the expiry")


def test_where_versions_are_kept_a_marker_is_put(lived):
    server, s3 = lived
    keep_versions(s3)
    s3.put_object(Bucket="bucket", Key="k", Body=b"old")
    s3.put_object(Bucket="bucket", Key="k", Body=b"new")
    put(s3, {"Expiration": {"Days": 1}})
    wait_until(lambda: versions(s3)[1] == ["k"], what="the marker")
    time.sleep(3 * DAY)  # a marker that hides versions stays, however old it is
    assert versions(s3) == ({"k": ["new", "old"]}, ["k"])


def test_replaced_versions_go_but_the_newest_of_them(lived):
    server, s3 = lived
    keep_versions(s3)
    for number in range(6):
        s3.put_object(Bucket="bucket", Key="k", Body=str(number).encode())
    s3.put_object(Bucket="bucket", Key="l", Body=b"only")
    put(s3, {"NoncurrentVersionExpiration": {"NoncurrentDays": 1, "NewerNoncurrentVersions": 2}})
    wait_until(lambda: versions(s3)[0] == {"k": ["5", "4", "3"], "l": ["only"]}, what="the expiry")


@pytest.mark.parametrize(
    "expiration", [{"ExpiredObjectDeleteMarker": True}, {"Days": 2}], ids=["by its own rule", "by age"]
)
def test_a_marker_goes_when_nothing_is_left_behind_it(lived, expiration):
    server, s3 = lived
    keep_versions(s3)
    s3.put_object(Bucket="bucket", Key="gone/k", Body=b"x")
    s3.delete_object(Bucket="bucket", Key="gone/k")
    s3.put_object(Bucket="bucket", Key="stay/k", Body=b"x")
    s3.delete_object(Bucket="bucket", Key="stay/k")
    put(
        s3,
        {
            "Filter": {"Prefix": "gone/"},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            "Expiration": expiration,
        },
    )
    wait_until(lambda: versions(s3) == ({"stay/k": ["x"]}, ["stay/k"]), what="the expiry")


def test_in_a_suspended_bucket_the_null_version_is_replaced_by_a_marker(lived):
    server, s3 = lived
    keep_versions(s3)
    s3.put_object(Bucket="bucket", Key="k", Body=b"kept")
    keep_versions(s3, "Suspended")
    s3.put_object(Bucket="bucket", Key="k", Body=b"null")
    put(s3, {"Expiration": {"Days": 1}})
    wait_until(lambda: versions(s3) == ({"k": ["kept"]}, ["k"]), what="the marker")


def test_an_upload_is_aborted_when_its_time_is_over(lived):
    server, s3 = lived
    for key in ("u/1", "v/1"):
        s3.create_multipart_upload(Bucket="bucket", Key=key)
    put(s3, {"Filter": {"Prefix": "u/"}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}})
    open_uploads = lambda: [upload["Key"] for upload in s3.list_multipart_uploads(Bucket="bucket").get("Uploads", [])]
    wait_until(lambda: open_uploads() == ["v/1"], what="the abort")


def test_a_locked_version_stays(lived):
    server, s3 = lived
    s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    for body in (b"held", b"free", b"current"):
        s3.put_object(Bucket="locked", Key="k", Body=body, ObjectLockLegalHoldStatus="ON" if body == b"held" else "OFF")
    put(s3, {"NoncurrentVersionExpiration": {"NoncurrentDays": 1}}, bucket="locked")
    wait_until(lambda: versions(s3, "locked")[0] == {"k": ["current", "held"]}, what="the expiry")
    before = server.metric("osproxy_lifecycle_total", action="keep")
    wait_until(lambda: server.metric("osproxy_lifecycle_total", action="keep") > before, what="another pass")
    assert versions(s3, "locked")[0] == {"k": ["current", "held"]}


def test_rules_outlive_the_process_that_was_given_them(own_server):
    server = own_server()
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    put(s3, {"Expiration": {"Days": 1}})
    server.kill()
    server.env |= SHORT
    server.start()
    s3 = server.endpoint.client()
    wait_until(lambda: not keys(s3), what="the expiry")
