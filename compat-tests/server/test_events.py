"""Events on their way to webhooks, Redis streams and queues: what they say, their order, and that none is lost."""

import json
import statistics
import time

import pytest

from support.events import Hook, has_redis, redis
from support.multipart import Upload
from support.wait import wait_until

pytestmark = pytest.mark.op("PutBucketNotificationConfiguration")

TARGET = "OSPROXY_NOTIFICATION__TARGET__"
QUEUE = {TARGET + "JOBS__KIND": "queue"}


def webhook(hook, name="HOOK"):
    return {TARGET + name + "__KIND": "webhook", TARGET + name + "__URL": hook.url}


@pytest.fixture
def hook():
    hook = Hook()
    yield hook
    hook.close()


def notify(s3, name="hook", events=("s3:ObjectCreated:*", "s3:ObjectRemoved:*"), bucket="bucket", **more):
    arn = f"arn:aws:sns:us-east-1:default:{name}"
    topic = {"Id": "mine", "TopicArn": arn, "Events": list(events)} | more
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"TopicConfigurations": [topic]}
    )


def started(own_server, env, **how):
    server = own_server(env=env)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    notify(s3, **how)
    return server, s3


def queue(server, name="jobs", max=1000):
    status, answer = server.ask("GET", f"/v1/events?queue={name}&max={max}")
    assert status == 200, answer
    return answer["events"]


def records(server):
    bodies = [json.loads(event["body"]) for event in queue(server)]
    return [record for body in bodies for record in body.get("Records", [])]


def report(server, name):
    status, answer = server.ask("GET", "/v1/notifications")
    assert status == 200, answer
    return next(target for target in answer["targets"] if target["name"] == name)


def named(found):
    return [(record["eventName"], record["s3"]["object"]["key"]) for record in found]


# --- what events say ---


def test_a_record_has_every_field_of_the_published_form(own_server):
    server, s3 = started(own_server, QUEUE, name="jobs")
    answer = s3.put_object(Bucket="bucket", Key="a b/ü+c", Body=b"hello")
    (test, event) = (json.loads(event["body"]) for event in queue(server))
    assert test["Event"] == "s3:TestEvent" and test["Service"] == "Amazon S3" and test["Bucket"] == "bucket"
    (record,) = event["Records"]
    sequencer = record["s3"]["object"].pop("sequencer")
    assert int(sequencer, 16) > 0
    assert record.pop("eventTime").endswith("Z")
    assert record == {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": f"AWS:{server.identity.access_key}"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {
            "x-amz-request-id": answer["ResponseMetadata"]["RequestId"],
            "x-amz-id-2": answer["ResponseMetadata"]["RequestId"],
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "mine",
            "bucket": {
                "name": "bucket",
                "ownerIdentity": {"principalId": s3.list_buckets()["Owner"]["ID"]},
                "arn": "arn:aws:s3:::bucket",
            },
            "object": {"key": "a+b/%C3%BC%2Bc", "size": 5, "eTag": "5d41402abc4b2a76b9719d911017c592"},
        },
    }


@pytest.mark.op("PutObject", "CopyObject", "CompleteMultipartUpload", "DeleteObject", "DeleteObjects", "PutObjectTagging")
def test_each_change_is_told_by_its_name(own_server):
    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectTagging:*"]
    server, s3 = started(own_server, QUEUE, name="jobs", events=events)
    s3.put_object(Bucket="bucket", Key="put", Body=b"x")
    s3.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": "put"})
    upload = Upload(s3, "bucket", "parts")
    upload.put(1, b"x")
    upload.complete()
    s3.put_object_tagging(Bucket="bucket", Key="put", Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    s3.delete_object_tagging(Bucket="bucket", Key="put")
    s3.delete_object(Bucket="bucket", Key="put")
    s3.delete_object(Bucket="bucket", Key="missing")
    s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "copy"}]})
    assert named(records(server)) == [
        ("ObjectCreated:Put", "put"),
        ("ObjectCreated:Copy", "copy"),
        ("ObjectCreated:CompleteMultipartUpload", "parts"),
        ("ObjectTagging:Put", "put"),
        ("ObjectTagging:Delete", "put"),
        ("ObjectRemoved:Delete", "put"),
        ("ObjectRemoved:Delete", "copy"),
    ]


def test_versions_and_markers_are_told_with_their_ids(own_server):
    server, s3 = started(own_server, QUEUE, name="jobs")
    s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket="bucket", Key="k", Body=b"x")["VersionId"]
    marker = s3.delete_object(Bucket="bucket", Key="k")["VersionId"]
    s3.delete_object(Bucket="bucket", Key="k", VersionId=version)
    found = records(server)
    assert [(record["eventName"], record["s3"]["object"]["versionId"]) for record in found] == [
        ("ObjectCreated:Put", version),
        ("ObjectRemoved:DeleteMarkerCreated", marker),
        ("ObjectRemoved:Delete", version),
    ]
    sequencers = [record["s3"]["object"]["sequencer"] for record in found]
    assert sequencers == sorted(sequencers) and len(set(sequencers)) == 3


def test_what_lifecycle_rules_do_is_told_as_such(own_server):
    env = QUEUE | {"OSPROXY_LIFECYCLE__DAY_SECONDS": "1", "OSPROXY_LIFECYCLE__INTERVAL_SECONDS": "1"}
    server, s3 = started(own_server, env, name="jobs", events=["s3:LifecycleExpiration:*"])
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    rule = {"ID": "r", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}
    s3.put_bucket_lifecycle_configuration(Bucket="bucket", LifecycleConfiguration={"Rules": [rule]})
    wait_until(lambda: named(records(server)) == [("LifecycleExpiration:Delete", "k")], what="the event")
    (record,) = records(server)
    assert record["eventVersion"] == "2.3" and record["userIdentity"]["principalId"] == "s3.amazonaws.com"


def test_only_what_the_filter_means_is_told(own_server):
    rules = [{"Name": "prefix", "Value": "images/"}, {"Name": "suffix", "Value": ".jpg"}]
    server, s3 = started(
        own_server, QUEUE, name="jobs", events=["s3:ObjectCreated:Put"], Filter={"Key": {"FilterRules": rules}}
    )
    for key in ("images/a.jpg", "images/a.png", "a.jpg"):
        s3.put_object(Bucket="bucket", Key=key, Body=b"x")
    s3.delete_object(Bucket="bucket", Key="images/a.jpg")
    assert named(records(server)) == [("ObjectCreated:Put", "images/a.jpg")]


def test_a_refused_change_is_not_told(own_server):
    server, s3 = started(own_server, QUEUE, name="jobs")
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    with pytest.raises(s3.exceptions.ClientError):
        s3.put_object(Bucket="bucket", Key="k", Body=b"y", IfNoneMatch="*")
    assert len(records(server)) == 1


# --- queues ---


def test_a_queue_is_read_and_acknowledged(own_server):
    server, s3 = started(own_server, QUEUE, name="jobs")
    for number in range(3):
        s3.put_object(Bucket="bucket", Key=f"k{number}", Body=b"x")
    assert report(server, "jobs")["waiting"] == 4
    assert len(queue(server, max=2)) == 2
    events = queue(server)
    assert events == queue(server)
    done = {"queue": "jobs", "ids": [event["id"] for event in events[:3]]}
    assert server.ask("POST", "/v1/events/acknowledge", done) == (200, {"acknowledged": 3})
    assert server.ask("POST", "/v1/events/acknowledge", done) == (200, {"acknowledged": 0})
    assert queue(server) == events[3:]
    state = report(server, "jobs")
    assert (state["kind"], state["waiting"], state["delivered"]) == ("queue", 1, 3)
    server.kill()
    server.start()
    assert queue(server) == events[3:]


def test_what_a_queue_refuses(own_server, hook):
    server, s3 = started(own_server, QUEUE | webhook(hook), name="jobs")
    assert server.ask("GET", "/v1/events?queue=missing")[0] == 404
    assert server.ask("GET", "/v1/events?queue=hook")[0] == 404
    assert server.ask("GET", "/v1/events")[0] == 400
    assert server.ask("POST", "/v1/events/acknowledge", {"queue": "jobs", "ids": ["x"]})[0] == 400
    assert server.ask("POST", "/v1/events/acknowledge", {"queue": "jobs"})[0] in (400, 422)
    assert server.admin("/v1/events?queue=jobs")[0] == 401
    assert server.admin("/v1/notifications")[0] == 401


def test_what_is_never_fetched_is_given_up(own_server):
    server, s3 = started(own_server, QUEUE | {"OSPROXY_NOTIFICATION__GIVE_UP_SECONDS": "1"}, name="jobs")
    wait_until(lambda: report(server, "jobs")["given_up"] == 1, deadline=60, what="giving up")
    assert queue(server) == []


# --- webhooks ---


def test_a_webhook_gets_every_event_in_order_and_at_once(own_server, hook):
    env = webhook(hook) | {TARGET + "HOOK__TOKEN": "secret"}
    server, s3 = started(own_server, env)
    wait_until(lambda: len(hook.received) == 1, what="the test event")
    assert hook.received[0][1]["Event"] == "s3:TestEvent"
    names = [f"k{number:03}" for number in range(100)]
    put(s3, names)
    wait_until(lambda: len(hook.records()) >= 100, 60, what="the events")
    assert [key for _, key in named(hook.records())] == names
    headers = {name.lower(): value for name, value in hook.received[1][0].items()}
    assert headers["authorization"] == "Bearer secret" and headers["content-type"] == "application/json"
    wait_until(lambda: report(server, "hook")["delivered"] == 101, what="the count")
    wait_until(lambda: server.metric("osproxy_events_total", target="hook", outcome="delivered") == 101, what="the metric")

    def took(key):
        began = time.monotonic()
        put(s3, [key])
        wait_until(lambda: key in keys_of(hook), 60, f"the event of {key}")
        return time.monotonic() - began

    # Much sooner than the look that comes without a ring; the machine may stand still for a while, but not each time.
    assert any(took(f"late{number}") < 5 for number in range(3))


def test_an_event_is_sent_again_until_it_is_taken(own_server, hook):
    hook.answers = [500, 503, 302, 404]
    server, s3 = started(own_server, webhook(hook))
    for key in ("a", "b"):
        s3.put_object(Bucket="bucket", Key=key, Body=b"x")
    wait_until(lambda: len(hook.records()) == 2, deadline=60, what="the events")
    assert [key for _, key in named(hook.records())] == ["a", "b"] and hook.refused == 4
    wait_until(lambda: report(server, "hook")["waiting"] == 0, what="the end of the outbox")
    state = report(server, "hook")
    assert state["failed"] == 4 and state["attempt"] == 0 and "404" in state["last_error"]


def test_a_receiver_that_comes_later_gets_what_it_missed(own_server, hook):
    port = hook.port
    hook.close()
    server, s3 = started(own_server, webhook(hook))
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    wait_until(lambda: report(server, "hook")["failed"] > 0, what="a failure")
    later = Hook(port)
    try:
        wait_until(lambda: named(later.records()) == [("ObjectCreated:Put", "k")], deadline=60, what="the event")
    finally:
        later.close()


def test_what_was_answered_is_told_after_a_crash(own_server, hook):
    port = hook.port
    hook.close()
    server, s3 = started(own_server, webhook(hook))
    for number in range(5):
        s3.put_object(Bucket="bucket", Key=f"k{number}", Body=b"x")
    server.kill()
    later = Hook(port)
    try:
        server.start()
        wait_until(lambda: len(later.records()) >= 5, deadline=60, what="the events")
        assert {key for _, key in named(later.records())} == {f"k{number}" for number in range(5)}
    finally:
        later.close()


def test_a_dead_target_holds_up_neither_requests_nor_other_targets(own_server, hook):
    dead = Hook()
    dead.close()
    server, s3 = started(own_server, webhook(hook) | webhook(dead, "DEAD"))
    s3.create_bucket(Bucket="other")
    notify(s3, "dead", bucket="other")
    times = []
    for number in range(20):
        began = time.monotonic()
        s3.put_object(Bucket="other", Key=f"k{number}", Body=b"x")
        s3.put_object(Bucket="bucket", Key=f"k{number}", Body=b"x")
        times.append(time.monotonic() - began)
    assert statistics.median(times) < 2
    wait_until(lambda: len(hook.records()) == 20, what="the events")
    assert report(server, "dead")["waiting"] == 21


# --- delivery as a job ---


def delivery(server):
    listed = json.loads(server.command("jobs", "list", "--json", "--type", "deliver-events").stdout)
    return {job["key"]: job for job in listed["jobs"]}


def put(s3, keys):
    for key in keys:
        s3.put_object(Bucket="bucket", Key=key, Body=b"x")


def keys_of(hook):
    return [key for _, key in named(hook.records())]


def test_operators_see_delivery_as_a_job_and_can_pause_it(own_server, hook):
    server, s3 = started(own_server, webhook(hook) | QUEUE)
    put(s3, ["a", "b"])
    wait_until(lambda: keys_of(hook) == ["a", "b"], what="the events")
    # A queue is fetched from, so nothing delivers to it. The test event counts too.
    wait_until(lambda: delivery(server)["hook"]["done"] == 3, what="the count")
    job = delivery(server)["hook"]
    assert list(delivery(server)) == ["hook"] and job["state"] == "running" and job["attempt"] <= 1

    server.command("jobs", "pause", "deliver-events")
    wait_until(lambda: delivery(server)["hook"]["state"] == "waiting", what="the end of the run")
    put(s3, ["c", "d"])
    time.sleep(2)  # longer than a bell and a poll take
    assert keys_of(hook) == ["a", "b"] and report(server, "hook")["waiting"] == 2
    # Also across a restart.
    server.kill()
    server.start()
    time.sleep(2)
    assert keys_of(hook) == ["a", "b"]
    server.command("jobs", "resume", "deliver-events")
    wait_until(lambda: keys_of(hook) == ["a", "b", "c", "d"], what="the rest of the events")
    wait_until(lambda: delivery(server)["hook"]["done"] == 5, what="the count")
    assert delivery(server)["hook"]["id"] == job["id"]


def test_a_cancelled_delivery_is_made_again(own_server, hook):
    server, s3 = started(own_server, webhook(hook))
    wait_until(lambda: delivery(server), what="the job")
    first = delivery(server)["hook"]
    server.command("jobs", "cancel", first["id"])

    def jobs():
        listed = json.loads(server.command("jobs", "list", "--json", "--type", "deliver-events").stdout)
        return {job["id"]: job["state"] for job in listed["jobs"]}

    wait_until(lambda: jobs()[first["id"]] == "cancelled", what="the end of the run")
    put(s3, ["a"])
    server.stop()
    server.start()
    # One that is cut off when the server stops is sent again.
    wait_until(lambda: set(keys_of(hook)) == {"a"}, what="the event")
    wait_until(lambda: sorted(jobs().values()) == ["cancelled", "running"], what="the run of the new job")


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_another_node_delivers_when_the_one_that_did_is_killed(own_server, request, hook, kind):
    shared = {
        "OSPROXY_META__URL": request.getfixturevalue(kind).create(),
        "OSPROXY_MASTER_KEY": "17" * 32,
        "OSPROXY_JOBS__LEASE_SECONDS": "2",
        "OSPROXY_JOBS__POLL_SECONDS": "1",
    }
    nodes = {
        name: own_server(name, env=shared | webhook(hook) | {"OSPROXY_NODE__NAME": name}) for name in ("one", "two")
    }
    clients = {name: node.endpoint.client() for name, node in nodes.items()}
    clients["one"].create_bucket(Bucket="bucket")
    notify(clients["one"])
    # Alternating, so that half of the events is made on the node that does not deliver.
    for number in range(20):
        put(clients["one" if number % 2 else "two"], [f"k{number:02}"])
    expected = [f"k{number:02}" for number in range(20)]
    # A node that stands still for as long as its lease is overtaken, and what it sent comes twice.
    wait_until(lambda: list(dict.fromkeys(keys_of(hook))) == expected, deadline=60, what="the events")
    names = {node["id"]: node["name"] for node in json.loads(nodes["one"].command("nodes", "--json").stdout)}
    (job,) = delivery(nodes["one"]).values()
    assert job["state"] == "running"
    delivering = nodes.pop(names[job["node"]])
    ((left, other),) = nodes.items()
    delivering.kill()
    put(clients[left], ["later1", "later2"])
    wait_until(lambda: set(keys_of(hook)) >= {"later1", "later2"}, deadline=60, what="the later events")
    assert sorted(set(keys_of(hook))) == sorted(expected + ["later1", "later2"])
    (job,) = delivery(other).values()
    assert names[job["node"]] == left


# --- Redis ---


@pytest.mark.skipif(not has_redis(), reason="redis-server is not installed")
def test_a_redis_stream_gets_every_event_and_those_of_its_absence(own_server, tmp_path):
    def env(port):
        return {
            TARGET + "STREAM__KIND": "redis",
            TARGET + "STREAM__URL": f"redis://127.0.0.1:{port}",
            TARGET + "STREAM__STREAM": "events",
        }

    def entries(command):
        found = [dict(zip(fields[::2], fields[1::2])) for _, fields in command("XRANGE", "events", "-", "+") or []]
        assert all(entry["id"].isdigit() for entry in found)
        documents = [json.loads(entry["event"]) for entry in found]
        return [key for _, key in named([r for document in documents for r in document.get("Records", [])])]

    with redis(tmp_path) as (port, command):
        server, s3 = started(own_server, env(port), name="stream")
        for key in ("a", "b", "c"):
            s3.put_object(Bucket="bucket", Key=key, Body=b"x")
        wait_until(lambda: entries(command) == ["a", "b", "c"], what="the events")
    s3.put_object(Bucket="bucket", Key="d", Body=b"x")
    wait_until(lambda: report(server, "stream")["failed"] > 0, what="a failure")
    server.stop()
    with redis(tmp_path) as (port, command):
        server.env |= env(port)
        server.start()
        wait_until(lambda: entries(command) == ["d"], deadline=60, what="the event")


# --- settings ---


@pytest.mark.parametrize(
    "env, expected",
    [
        ({TARGET + "HOOK__KIND": "webhook"}, "notification.target.hook.url"),
        ({TARGET + "HOOK__KIND": "webhook", TARGET + "HOOK__URL": "nowhere"}, "notification.target.hook.url"),
        ({TARGET + "HOOK__KIND": "pigeon"}, "notification.target.hook.kind"),
        ({TARGET + "S__KIND": "redis", TARGET + "S__URL": "redis://h"}, "notification.target.s.stream"),
        ({TARGET + "HOOK__COLOUR": "red"}, TARGET + "HOOK__COLOUR"),
    ],
)
def test_a_target_that_cannot_work_is_refused_by_its_setting(own_server, tmp_path, env, expected):
    server = own_server(env=env, start=False)
    done = server.command("config", "check", check=False)
    assert done.returncode == 2 and expected in done.stderr, done.stderr


def test_secrets_of_targets_are_not_printed(own_server):
    env = {
        TARGET + "HOOK__KIND": "webhook",
        TARGET + "HOOK__URL": "http://user:hidden@h/x?key=hidden",
        TARGET + "HOOK__TOKEN": "hidden",
    }
    done = own_server(env=env, start=False).command("config", "check")
    assert "hidden" not in done.stdout and "notification.target.hook.token" in done.stdout
