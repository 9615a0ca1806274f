"""PutBucketNotificationConfiguration and GetBucketNotificationConfiguration."""

import pytest

from support.refusal import refused

pytestmark = pytest.mark.op("PutBucketNotificationConfiguration", "GetBucketNotificationConfiguration")


def put(s3, bucket, *queues, **more):
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": list(queues)} | more
    )


def configuration(s3, bucket):
    answer = s3.get_bucket_notification_configuration(Bucket=bucket)
    del answer["ResponseMetadata"]
    return answer


def filtered(*rules):
    return {"Key": {"FilterRules": [{"Name": name, "Value": value} for name, value in rules]}}


@pytest.fixture
def queue(queue_arn):
    def make(*events, **more):
        return {"QueueArn": queue_arn, "Events": list(events or ["s3:ObjectCreated:*"])} | more

    return make


def test_a_bucket_has_none_until_it_is_given_one(s3, bucket):
    assert configuration(s3, bucket) == {}


def test_what_is_given_is_answered(s3, bucket, queue):
    given = [
        queue("s3:ObjectCreated:*", Id="one", Filter=filtered(("Prefix", "a/"), ("Suffix", ".jpg"))),
        queue("s3:ObjectRemoved:Delete", "s3:ObjectTagging:*", Id="two"),
    ]
    put(s3, bucket, *given)
    assert configuration(s3, bucket) == {"QueueConfigurations": given}
    put(s3, bucket, EventBridgeConfiguration={})
    assert configuration(s3, bucket) == {"EventBridgeConfiguration": {}}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    assert configuration(s3, bucket) == {}


def test_a_configuration_without_an_id_gets_one(s3, bucket, queue):
    put(s3, bucket, queue())
    (found,) = configuration(s3, bucket)["QueueConfigurations"]
    assert found["Id"]


@pytest.mark.parametrize("events", [["s3:Nothing"], ["s3:ObjectCreated:*", "s3:*"], ["ObjectCreated:Put"]])
def test_unknown_events_are_refused(s3, bucket, queue, events):
    with refused({"InvalidArgument", "MalformedXML"}):
        put(s3, bucket, queue(*events))
    assert configuration(s3, bucket) == {}


@pytest.mark.parametrize(
    "rules",
    [[("infix", "a")], [("prefix", "a"), ("Prefix", "b")], [("suffix", "x" * 1025)]],
    ids=["neither end", "twice", "too long"],
)
def test_filters_that_s3_refuses(s3, bucket, queue, rules):
    with refused({"InvalidArgument", "MalformedXML"}):
        put(s3, bucket, queue(Filter=filtered(*rules)))


def test_an_event_may_be_told_only_once(s3, bucket, queue):
    with refused("InvalidArgument"):
        put(s3, bucket, queue("s3:ObjectCreated:*"), queue("s3:ObjectCreated:Put"))
    with refused("InvalidArgument"):
        put(s3, bucket, queue(Id="same"), queue("s3:ObjectRemoved:*", Id="same"))
    put(
        s3,
        bucket,
        queue("s3:ObjectCreated:*", Filter=filtered(("prefix", "a"))),
        queue("s3:ObjectCreated:Put", Filter=filtered(("prefix", "b"))),
    )


def test_a_receiver_that_is_not_there_is_refused(s3, bucket, queue_arn, queue):
    for arn in (queue_arn + "-missing", "arn:aws:sqs:us-east-1:nobody:events"):
        with refused("InvalidArgument") as caught:
            put(s3, bucket, queue() | {"QueueArn": arn})
        assert "Unable to validate" in caught.value.response["Error"]["Message"]
    with refused("InvalidArgument"):
        put(s3, bucket, queue() | {"QueueArn": "no arn"})
    with refused("InvalidArgument"):
        s3.put_bucket_notification_configuration(
            Bucket=bucket,
            NotificationConfiguration={"TopicConfigurations": [{"TopicArn": queue_arn, "Events": ["s3:ObjectCreated:*"]}]},
        )
    assert configuration(s3, bucket) == {}
