"""Access logs of buckets, delivered into other buckets."""

import re

import pytest

from support.raw import Raw
from support.wait import wait_until

pytestmark = pytest.mark.op("PutBucketLogging")

SOON = {"OSPROXY_LOGGING__INTERVAL_SECONDS": "1"}
FIELD = r'("[^"]*"|\[[^\]]*\]|\S+)'
NAMES = (
    "owner bucket time remote requester request_id operation key request status error sent size total turnaround "
    "referer agent version host_id signature cipher authentication host tls arn acl"
).split()


@pytest.fixture
def logged(own_server):
    def make(env=SOON, **more):
        server = own_server(env=env)
        s3 = server.endpoint.client()
        s3.create_bucket(Bucket="bucket")
        s3.create_bucket(Bucket="logs")
        enabled = {"TargetBucket": "logs", "TargetPrefix": "p/"} | more
        s3.put_bucket_logging(Bucket="bucket", BucketLoggingStatus={"LoggingEnabled": enabled})
        return server, s3

    return make


def objects(s3):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket="logs").get("Contents", [])]


def lines(s3):
    text = "".join(s3.get_object(Bucket="logs", Key=key)["Body"].read().decode() for key in objects(s3))
    found = []
    for line in text.splitlines():
        fields = re.findall(FIELD, line)
        assert len(fields) == len(NAMES), line
        found.append(dict(zip(NAMES, fields)))
    return found


def line_of(s3, operation, **wanted):
    def find():
        for line in lines(s3):
            if line["operation"] == operation and all(line[name] == value for name, value in wanted.items()):
                return line
        return None

    return wait_until(find, what=f"a line of {operation}")


def test_requests_are_told_in_the_published_form(logged):
    server, s3 = logged()
    put = s3.put_object(Bucket="bucket", Key="a b/ü", Body=b"hello")
    s3.get_object(Bucket="bucket", Key="a b/ü", Range="bytes=1-2")["Body"].read()
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="bucket", Key="missing")
    Raw(server.endpoint).request("GET", "/bucket/k", anonymous=True, headers={"user-agent": 'evil " 200'})

    line = line_of(s3, "REST.PUT.OBJECT")
    assert line["owner"] == s3.list_buckets()["Owner"]["ID"]
    assert line["bucket"] == "bucket" and line["key"] == "a%20b/%C3%BC"
    assert re.fullmatch(r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\]", line["time"])
    assert line["remote"] == "127.0.0.1" and line["requester"] == server.identity.access_key
    assert line["request_id"] == put["ResponseMetadata"]["RequestId"]
    assert line["request"].startswith('"PUT /bucket/a%20b/%C3%BC') and line["request"].endswith('HTTP/1.1"')
    assert (line["status"], line["error"], line["sent"], line["size"]) == ("200", "-", "-", "5")
    assert (line["signature"], line["authentication"]) == ("SigV4", "AuthHeader")
    assert line["host"] == server.endpoint.netloc and "oto" in line["agent"]

    line = line_of(s3, "REST.GET.OBJECT", status="206")
    assert (line["sent"], line["size"]) == ("2", "5") and line["turnaround"].isdigit()
    line = line_of(s3, "REST.GET.OBJECT", key="missing")
    assert (line["status"], line["error"]) == ("404", "NoSuchKey")
    line = line_of(s3, "REST.GET.OBJECT", status="403")
    assert (line["requester"], line["signature"], line["authentication"]) == ("-", "-", "-")
    assert line["agent"] == '"evil %22 200"'


def test_keys_of_log_objects_have_the_simple_form(logged):
    server, s3 = logged()
    s3.head_bucket(Bucket="bucket")
    wait_until(lambda: objects(s3), what="a log object")
    assert all(re.fullmatch(r"p/\d{4}(-\d\d){5}-[0-9A-F]{16}", key) for key in objects(s3))


def test_keys_of_log_objects_have_the_partitioned_form(logged):
    form = {"PartitionedPrefix": {"PartitionDateSource": "EventTime"}}
    server, s3 = logged(TargetObjectKeyFormat=form)
    s3.head_bucket(Bucket="bucket")
    owner = s3.list_buckets()["Owner"]["ID"]
    wait_until(lambda: objects(s3), what="a log object")
    pattern = rf"p/{owner}/us-east-1/bucket/\d{{4}}/\d\d/\d\d/\d{{4}}-\d\d-\d\d-00-00-00-[0-9A-F]{{16}}"
    assert all(re.fullmatch(pattern, key) for key in objects(s3))


def test_what_waits_is_delivered_before_the_server_ends(logged):
    server, s3 = logged(env={})
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    assert objects(s3) == []
    assert server.stop() == 0
    server.start()
    s3 = server.endpoint.client()
    assert [line["operation"] for line in lines(s3)].count("REST.PUT.OBJECT") == 1


def test_a_full_log_is_delivered_before_its_time(logged):
    server, s3 = logged(env={})
    agent = "x" * 8000
    raw = Raw(server.endpoint)
    for _ in range(140):
        raw.request("GET", "/bucket/k", headers={"user-agent": agent})
    wait_until(lambda: objects(s3), what="a log object")


def test_a_log_without_its_target_is_dropped_and_counted(logged):
    server, s3 = logged()
    wait_until(lambda: lines(s3), what="the first lines")
    for key in objects(s3):
        s3.delete_object(Bucket="logs", Key=key)
    s3.delete_bucket(Bucket="logs")
    s3.head_bucket(Bucket="bucket")
    wait_until(lambda: server.metric("osproxy_log_lines_dropped_total") > 0, what="the loss")
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")


def test_nothing_is_logged_after_logging_was_ended(logged):
    server, s3 = logged()
    s3.head_bucket(Bucket="bucket")
    wait_until(lambda: lines(s3), what="the first lines")
    s3.put_bucket_logging(Bucket="bucket", BucketLoggingStatus={})
    s3.put_object(Bucket="bucket", Key="late", Body=b"x")
    server.stop()
    server.start()
    assert not any(line["key"] == "late" for line in lines(server.endpoint.client()))
