"""PutBucketLogging and GetBucketLogging."""

import pytest

from support.refusal import refused

pytestmark = pytest.mark.op("PutBucketLogging", "GetBucketLogging")


def put(s3, bucket, target, prefix="log/", **more):
    enabled = {"TargetBucket": target, "TargetPrefix": prefix} | more
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={"LoggingEnabled": enabled})


def logging(s3, bucket):
    return s3.get_bucket_logging(Bucket=bucket).get("LoggingEnabled")


@pytest.fixture
def pair(make_bucket):
    return make_bucket(), make_bucket()


def test_a_bucket_has_no_log_until_it_is_given_one(s3, pair):
    bucket, target = pair
    assert logging(s3, bucket) is None
    put(s3, bucket, target)
    assert logging(s3, bucket) == {"TargetBucket": target, "TargetPrefix": "log/"}
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})
    assert logging(s3, bucket) is None


@pytest.mark.parametrize(
    "form",
    [
        {"SimplePrefix": {}},
        {"PartitionedPrefix": {"PartitionDateSource": "EventTime"}},
        {"PartitionedPrefix": {"PartitionDateSource": "DeliveryTime"}},
    ],
    ids=["simple", "by event", "by delivery"],
)
def test_the_form_of_keys_is_answered(s3, pair, form):
    bucket, target = pair
    put(s3, bucket, target, "", TargetObjectKeyFormat=form)
    assert logging(s3, bucket)["TargetObjectKeyFormat"] == form


def test_a_bucket_may_log_into_itself(s3, bucket):
    put(s3, bucket, bucket)
    assert logging(s3, bucket)["TargetBucket"] == bucket
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})


def test_a_target_that_is_not_there_is_refused(s3, pair):
    bucket, target = pair
    for name in (target + "-missing", "No Bucket"):
        with refused("InvalidTargetBucketForLogging"):
            put(s3, bucket, name)
    assert logging(s3, bucket) is None


def test_another_accounts_bucket_is_refused(s3, bucket, stranger, make_bucket):
    foreign = make_bucket(stranger.client())
    with refused({"InvalidTargetBucketForLogging", "AccessDenied"}):
        put(s3, bucket, foreign)
    assert logging(s3, bucket) is None
