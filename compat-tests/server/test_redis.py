"""Hints between nodes by Redis: they arrive, nothing waits for them, and nothing depends on them."""

import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from support import database
from support import redis as redises
from support.endpoint import Identity
from support.events import Hook
from support.ports import free_port
from support.raw import Raw
from support.server import Server
from support.threads import Threads
from support.wait import wait_until

pytestmark = pytest.mark.timeout(600)
MASTER_KEY = "5a" * 32
PASSWORD = "quietlyhushedword"
KEY = Identity("HINTEDACCESSKEY00001", "hintedsecretkeyhintedsecretkeyhintedsec1")


@pytest.fixture
def nodes(postgres, tmp_path):
    """Makes nodes of one install: nodes(2, url) are two servers that share a database, a disk and the Redis at url."""
    started = []

    def make(count, url=None, database_url=None, **env):
        env |= {
            "OSPROXY_META__URL": database_url or postgres.create(),
            "OSPROXY_MASTER_KEY": MASTER_KEY,
            "OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT": str(tmp_path / "blobs"),
        }
        if url:
            env["OSPROXY_REDIS__URL"] = url
        made = [Server(tmp_path / f"node-{len(started) + number}", env=env) for number in range(count)]
        started.extend(made)
        for server in made:
            server.start()
        if url:
            for server in made:
                wait_until(lambda: is_connected(server), 30, "the way to Redis")
            # What the nodes told while they started is not what a test waits for.
            wait_until(lambda: quiet(made), 30, "silence")
        return made

    yield make
    for server in started:
        if server.process and server.process.poll() is None:
            server.kill()


@pytest.fixture
def own_redis(tmp_path):
    """A Redis that a test may kill."""
    try:
        server = redises.Redis(tmp_path / "redis", password=PASSWORD)
    except database.Missing as missing:
        pytest.skip(str(missing))
    with server:
        yield server
        server.go_on()


def is_connected(server):
    return server.metric("osproxy_redis_connected") == 1


def heard(server, topic):
    return server.metric("osproxy_hints_total", topic=topic, outcome="heard")


def quiet(servers):
    def all_heard():
        return [server.metric("osproxy_hints_total", outcome="heard") for server in servers]

    before = all_heard()
    time.sleep(0.2)  # longer than a hint takes; one that takes longer still only makes a test start early
    return all_heard() == before


def can_list(server, identity=KEY):
    try:
        server.endpoint.as_identity(identity).client().list_buckets()
    except ClientError as error:
        assert error.response["Error"]["Code"] == "InvalidAccessKeyId", error
        return False
    return True


def in_force_once_heard(server, topic, change, answer, expected):
    """Asks `server` without a pause while something is changed elsewhere: what it remembers is never older than a few
    milliseconds, so that without the hint the old answer would be given for most of a second. The first answer after
    the hint is the new one."""
    assert answer() != expected
    before = heard(server, topic)
    with ThreadPoolExecutor(1) as beside:
        done = beside.submit(change)
        end = time.monotonic() + 60
        while heard(server, topic) == before:
            answer()
            assert time.monotonic() < end, "no hint arrived"
        assert answer() == expected
        done.result()


def hints_flow(first, second):
    """Whether changes by one node are told to the other, both ways; answers how often the second was told. A hint may be
    lost while its listener connects."""
    told = []
    for teller, listener in ((first, second), (second, first)):
        told.append(0)

        def is_told():
            before = heard(listener, "buckets")
            name = f"flow-{time.monotonic_ns()}"
            teller.endpoint.client().create_bucket(Bucket=name)
            listener.endpoint.client().head_bucket(Bucket=name)
            told[-1] += 1
            try:
                return wait_until(lambda: heard(listener, "buckets") > before, 10)
            except AssertionError:
                return False

        wait_until(is_told, 60, "a hint")
    return told[0]


def ask(server, path):
    run = json.loads((server.data_dir / "run.json").read_text())
    request = urllib.request.Request(f"http://127.0.0.1:{server.admin_port}{path}")
    request.add_header("Authorization", f"Bearer {run['token']}")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


# --- what is hinted ---


def test_a_key_changed_by_a_command_is_changed_on_a_node_that_has_heard_of_it(nodes, redis):
    first, second = nodes(2, redis.url)
    first.create_key("default", KEY.access_key, KEY.secret_key)
    wait_until(lambda: can_list(second), 30, "the new key")
    for words, expected in [(("keys", "disable"), False), (("keys", "enable"), True), (("keys", "delete"), False)]:
        wait_until(lambda: quiet([second]), 30, "silence")
        change = lambda: first.command(*words, KEY.access_key)
        in_force_once_heard(second, "access", change, lambda: can_list(second), expected)


def test_a_bucket_policy_is_in_force_on_every_node_that_has_heard_of_it(nodes, redis):
    first, second, third = nodes(3, redis.url)
    s3 = first.endpoint.client()
    s3.create_bucket(Bucket="open")
    s3.put_object(Bucket="open", Key="k", Body=b"x")
    s3.delete_public_access_block(Bucket="open")
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::open/*"}
        ],
    }
    for other in (second, third):
        reader = Raw(other.endpoint)
        status = lambda: reader.request("GET", "/open/k", anonymous=True).status
        for change, expected in [
            (lambda: s3.put_bucket_policy(Bucket="open", Policy=json.dumps(policy)), 200),
            (lambda: s3.delete_bucket_policy(Bucket="open"), 403),
        ]:
            wait_until(lambda: quiet([other]), 30, "silence")
            in_force_once_heard(other, "buckets", change, status, expected)


def test_a_kms_key_disabled_at_one_node_opens_nothing_at_another_that_has_heard_of_it(nodes, redis):
    first, second = nodes(2, redis.url)
    first.command("kms", "create", "k1")
    s3 = first.endpoint.client()
    s3.create_bucket(Bucket="safe")
    s3.put_object(Bucket="safe", Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId="k1")
    reader = second.endpoint.client()

    def can_read():
        try:
            return reader.get_object(Bucket="safe", Key="k")["Body"].read() == b"x"
        except ClientError:
            return False

    for word, expected in [("disable", False), ("enable", True)]:
        wait_until(lambda: quiet([second]), 30, "silence")
        in_force_once_heard(second, "wrapping-keys", lambda: first.command("kms", word, "k1"), can_read, expected)


def test_an_event_wakes_the_node_that_can_deliver_it(nodes, redis, postgres):
    hook = Hook()
    try:
        shared = postgres.create()
        target = {
            "OSPROXY_NOTIFICATION__TARGET__HOOK__KIND": "webhook",
            "OSPROXY_NOTIFICATION__TARGET__HOOK__URL": hook.url,
        }
        [able] = nodes(1, redis.url, shared, **target)
        [unable] = nodes(1, redis.url, shared)
        s3 = able.endpoint.client()
        s3.create_bucket(Bucket="told")
        topic = {"TopicArn": "arn:aws:sns:us-east-1:default:hook", "Events": ["s3:ObjectCreated:*"]}
        s3.put_bucket_notification_configuration(
            Bucket="told", NotificationConfiguration={"TopicConfigurations": [topic]}
        )
        # The test event, after which the node sleeps.
        wait_until(lambda: len(hook.received) == 1, 30, "the test event")
        wait_until(lambda: quiet([able, unable]), 30, "silence")
        for number in range(5):
            before = heard(able, "events")
            unable.endpoint.client().put_object(Bucket="told", Key=f"k{number}", Body=b"x")
            wait_until(lambda: heard(able, "events") > before, 30, "the hint")
            # While hints come it looks by itself once a minute.
            wait_until(lambda: len(hook.records()) == number + 1, 30, "the event")
    finally:
        hook.close()


def test_a_job_that_a_command_makes_due_is_taken_up_by_a_node_that_has_heard_of_it(nodes, redis):
    servers = nodes(2, redis.url)
    listed = json.loads(servers[0].command("jobs", "list", "--type", "purge-jobs", "--json").stdout)
    [job] = listed["jobs"]
    done = lambda: sum(server.metric("osproxy_jobs_total", type="purge-jobs", outcome="done") for server in servers)
    runs, before = done(), [heard(server, "jobs") for server in servers]
    servers[0].command("jobs", "retry", job["id"])
    for server, count in zip(servers, before):
        wait_until(lambda: heard(server, "jobs") > count, 30, "the hint")
    # Its own time comes once an hour.
    wait_until(lambda: done() > runs, 30, "a run of the job")


def test_every_node_knows_how_busy_the_others_are(nodes, redis):
    servers = nodes(3, redis.url)
    busy = servers[1]
    slow = threading.Event()

    def body():
        yield b"x"
        slow.wait(60)
        yield b"x"

    raw = Raw(busy.endpoint)
    raw.request("PUT", "/busy")
    with ThreadPoolExecutor(6) as pool:
        try:
            headers = {"content-length": "2"}
            puts = [
                pool.submit(
                    raw.request, "PUT", f"/busy/{n}", headers=headers, body=body(), payload_hash="UNSIGNED-PAYLOAD"
                )
                for n in range(6)
            ]

            def seen(server):
                loads = ask(server, "/v1/load")["nodes"]
                return len(loads) == 3 and len([load for load in loads if load["requests"] >= 6]) == 1

            for server in servers:
                wait_until(lambda: seen(server), 30, "the load of all nodes")
        finally:
            slow.set()
        assert [put.result().status for put in puts] == [200] * 6
    busy.kill()
    wait_until(lambda: len(ask(servers[0], "/v1/load")["nodes"]) == 2, 30, "the end of a dead node's load")


def test_installs_with_other_prefixes_hear_nothing_of_each_other(nodes, redis, postgres):
    first, second = nodes(2, redis.url, OSPROXY_REDIS__PREFIX="first:")
    other, another = nodes(2, redis.url, OSPROXY_REDIS__PREFIX="other:")
    before = heard(other, "buckets")
    hints_flow(first, second)
    told = hints_flow(another, other)
    assert before < heard(other, "buckets") <= before + told
    wait_until(lambda: len(ask(other, "/v1/load")["nodes"]) == 2, 30, "the load of both")


# --- Redis away ---


class Traffic(Threads):
    """Writes and reads on every node without a pause; keeps what failed."""

    def __init__(self, servers):
        self.failed = []
        self.done = 0
        self.slowest = 0.0
        super().__init__(enumerate(servers))

    def _run(self, number, server):
        s3, count = server.endpoint.client(), 0
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                body = f"{number} {count}".encode()
                s3.put_object(Bucket="load", Key=f"k{number}", Body=body)
                assert s3.get_object(Bucket="load", Key=f"k{number}")["Body"].read() == body
                if count % 20 == 0:
                    tags = {"TagSet": [{"Key": "count", "Value": str(count)}]}
                    s3.put_bucket_tagging(Bucket=f"load-{number}", Tagging=tags)
            except Exception as error:
                self.failed.append(error)
            self.slowest = max(self.slowest, time.monotonic() - began)
            count += 1
            self.done += 1

    def goes_on(self):
        before = self.done
        wait_until(lambda: self.done > before + 20, 60, "traffic")


def test_no_request_fails_while_redis_is_killed_hung_and_restarted(nodes, own_redis):
    servers = nodes(2, own_redis.url)
    s3 = servers[0].endpoint.client()
    for name in ("load", "load-0", "load-1"):
        s3.create_bucket(Bucket=name)

    def all_are(connected):
        wait_until(lambda: all(is_connected(server) == connected for server in servers), 60, f"connected: {connected}")

    with Traffic(servers) as traffic:
        traffic.goes_on()
        own_redis.kill()
        all_are(False)
        traffic.goes_on()
        own_redis.start()
        all_are(True)
        traffic.goes_on()
        waits = []
        for _ in range(3):
            traffic.slowest = 0.0
            own_redis.hang()
            traffic.goes_on()
            all_are(False)
            traffic.goes_on()
            waits.append(traffic.slowest)
            own_redis.go_on()
            all_are(True)
            traffic.goes_on()
            if waits[-1] < 3:
                break
        own_redis.stop()
        all_are(False)
        own_redis.start()
        all_are(True)
        traffic.goes_on()
    assert not traffic.failed
    # Steps of a hung Redis are given up after three seconds, each time: a machine that stands still does so once.
    assert min(waits) < 3, waits
    hints_flow(*servers)
    # Nothing is left of the connections that were given up: each node has one to speak and one to listen.
    clients = lambda: [line for line in own_redis.command("CLIENT", "LIST").splitlines() if "cmd=client" not in line]
    wait_until(lambda: len(clients()) == 4, 30, "the end of old connections")
    for server in servers:
        assert server.stop() == 0


def test_what_changes_while_redis_hangs_is_seen_all_the_same(nodes, own_redis):
    first, second = nodes(2, own_redis.url)
    first.create_key("default", KEY.access_key, KEY.secret_key)
    wait_until(lambda: can_list(second), 30, "the new key")
    own_redis.hang()
    first.command("keys", "disable", KEY.access_key)
    wait_until(lambda: not can_list(second), 30, "the change, by looking")
    wait_until(lambda: not is_connected(second), 60, "the end of the connection")
    first.command("keys", "enable", KEY.access_key)
    wait_until(lambda: can_list(second), 30, "the change, by looking")
    for server in (first, second):
        # Nothing is left to tell that would be worth waiting for long.
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20


def test_without_redis_it_is_the_same_a_little_later(nodes):
    first, second = nodes(2)
    first.create_key("default", KEY.access_key, KEY.secret_key)
    wait_until(lambda: can_list(second), 30, "the new key")
    first.command("keys", "disable", KEY.access_key)
    wait_until(lambda: not can_list(second), 30, "the change")
    first.endpoint.client().create_bucket(Bucket="made")
    second.endpoint.client().head_bucket(Bucket="made")
    assert not is_connected(first) and ask(first, "/v1/load") == {"nodes": []}
    assert first.metric("osproxy_hints_total") == 0


# --- passwords, TLS, Sentinel, cluster ---


def test_passwords_are_in_no_log(nodes, own_redis):
    [server] = nodes(1, own_redis.url, OSPROXY_LOG__LEVEL="trace")
    [refused] = nodes(1, OSPROXY_LOG__LEVEL="trace", OSPROXY_REDIS__URL=own_redis.url.replace(PASSWORD, PASSWORD + "not"))
    wait_until(lambda: any("Redis is away" in line for line in refused.log), 30, "the refusal in the log")
    assert not is_connected(refused)
    refused.endpoint.client().create_bucket(Bucket="works")
    shown = server.command("config", "check").stdout
    assert "redis.url" in shown and PASSWORD not in shown
    own_redis.kill()
    wait_until(lambda: any("Redis lost" in line for line in server.log), 30, "the loss in the log")
    for each in (server, refused):
        each.stop()
        assert not [line for line in each.log if PASSWORD in line]


def test_a_wrong_url_is_refused_by_name(own_server):
    server = own_server(start=False, env={"OSPROXY_REDIS__URL": f"http://:{PASSWORD}@127.0.0.1"})
    done = server.command("config", "check", check=False)
    assert done.returncode != 0
    assert "redis.url: expected" in done.stderr and PASSWORD not in done.stdout + done.stderr


def test_redis_over_tls_is_verified(nodes, tmp_path):
    try:
        server = redises.TlsRedis(tmp_path / "redis")
        server.__enter__()
    except (database.Missing, AssertionError) as problem:
        pytest.skip(f"no Redis with TLS: {problem}")
    try:
        url = f"rediss://127.0.0.1:{server.port}"
        first, second = nodes(2, url, SSL_CERT_FILE=str(server.authority))
        hints_flow(first, second)
        [wary] = nodes(1, OSPROXY_REDIS__URL=url)
        wait_until(lambda: any("Redis is away" in line for line in wary.log), 30, "the refusal in the log")
        assert not is_connected(wary)
    finally:
        server.stop()


def test_nodes_follow_a_failover_of_sentinels(nodes, tmp_path):
    try:
        database.program("redis-server")
    except database.Missing as missing:
        pytest.skip(str(missing))
    with redises.watched(tmp_path, PASSWORD) as (primary, replica, sentinel):
        # One Sentinel named does not exist.
        elsewhere = f"node=127.0.0.1:{free_port()}"
        url = f"redis-sentinel://:{PASSWORD}@127.0.0.1:{sentinel.port}/0?sentinelServiceName=main&{elsewhere}"
        first, second = nodes(2, url)
        hints_flow(first, second)
        primary.kill()
        wait_until(lambda: not is_connected(first) and not is_connected(second), 60, "the loss")
        first.endpoint.client().create_bucket(Bucket="meanwhile")
        second.endpoint.client().head_bucket(Bucket="meanwhile")
        wait_until(lambda: sentinel.primary_port() == replica.port, 120, "the failover")
        wait_until(lambda: is_connected(first) and is_connected(second), 60, "the way to the new primary")
        hints_flow(first, second)
        for server in (first, second):
            assert not [line for line in server.log if PASSWORD in line]


def test_hints_go_through_a_cluster(nodes, tmp_path):
    try:
        database.program("redis-server")
    except database.Missing as missing:
        pytest.skip(str(missing))
    with redises.cluster(tmp_path) as members:
        ports = [member.port for member in members]
        # Each knows another member; the rest is found.
        [first] = nodes(1, f"redis-cluster://127.0.0.1:{ports[0]}")
        shared = first.env["OSPROXY_META__URL"]
        [second] = nodes(1, f"redis-cluster://127.0.0.1:{ports[1]}?node=127.0.0.1:{ports[2]}", shared)
        hints_flow(first, second)
        for member in members[1:]:
            member.hang()
        try:
            first.endpoint.client().create_bucket(Bucket="meanwhile")
            second.endpoint.client().head_bucket(Bucket="meanwhile")
        finally:
            for member in members:
                member.go_on()
        wait_until(lambda: is_connected(first) and is_connected(second), 60, "the way to the cluster")
        wait_until(lambda: quiet([first, second]), 30, "silence")
        hints_flow(first, second)
