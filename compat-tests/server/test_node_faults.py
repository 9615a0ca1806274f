"""Nodes that die, stop and come back, and a database that goes away, all under load: nothing acknowledged is lost or doubled.

Leases and graces are short and the collector runs every second, so that whatever could be declared dead or collected too
early is.
"""

import hashlib
import http.client
import json
import random
import signal
import threading
import time

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from support import database
from support.cluster import FAILED, Cluster, Load, serves
from support.keys import MIN_PART
from support.multipart import Upload
from support.threads import Threads
from support.times import HASTY, LEASE_SECONDS, SWEEPING
from support.vendors import BUCKET as VENDOR_BUCKET
from support.vendors import Osproxy, settings_for
from support.wait import wait_until

pytestmark = pytest.mark.timeout(600)
TIMES = HASTY | SWEEPING | {
    "OSPROXY_JOBS__LEASE_SECONDS": "5",
    "OSPROXY_HTTP__DRAIN_TIMEOUT_SECONDS": "3",
    "OSPROXY_HTTP__BODY_TIMEOUT_SECONDS": "300",
}


@pytest.fixture(params=["postgres", "mariadb"])
def cluster(request, tmp_path):
    with Cluster(tmp_path, request.getfixturevalue(request.param), env=TIMES) as nodes:
        nodes.nodes[0].endpoint.client().create_bucket(Bucket="bucket")
        yield nodes
        nodes.no_panic()


@pytest.fixture
def on_postgres(tmp_path, postgres):
    with Cluster(tmp_path, postgres, env=TIMES) as nodes:
        nodes.nodes[0].endpoint.client().create_bucket(Bucket="bucket")
        yield nodes
        nodes.no_panic()


def is_expelled(cluster, node_id):
    return wait_until(lambda: node_id not in cluster.node_ids(), 120, "the others to declare the node dead")


def rejoined(cluster, number, before):
    """Waits until a node that was declared dead is there again as another one, and serves."""

    def is_another():
        ids = [int(row) for row in cluster.query(f"SELECT id FROM nodes WHERE name = 'node{number}'")]
        return ids and before not in ids

    wait_until(is_another, 60, "the node to join again")
    serves(cluster.nodes[number])


def id_of(cluster, number):
    """The id of the run of a node, by its name."""
    ids = cluster.query(f"SELECT id FROM nodes WHERE name = 'node{number}' ORDER BY beaten DESC")
    return int(ids[0])


def pause(cluster, number):
    """Stops a node until the others have declared it dead."""
    node, node_id = cluster.nodes[number], id_of(cluster, number)
    node.signal(signal.SIGSTOP)
    return lambda: is_expelled(cluster, node_id)


def test_a_node_killed_at_any_moment_loses_nothing_acknowledged(cluster, rng):
    with Load(cluster, rng.random(), threads=5, patience=10) as load:
        for _ in range(4):
            load.more(8)
            victim = rng.choice(cluster.nodes)
            time.sleep(rng.random() * 0.3)  # any moment
            victim.kill()
            load.more(6)
            victim.start()
    for node in cluster.nodes:
        serves(node)
    load.check(cluster.clients())
    cluster.whole()
    # What the killed ones left half-written goes when their leases are over.
    cluster.settles()
    load.check(cluster.clients())


def test_a_node_paused_past_its_lease_acknowledges_nothing_and_joins_again(cluster, rng):
    with Load(cluster, rng.random(), threads=5, patience=10) as load:
        for turn in range(2):
            load.more(10)
            number = rng.randrange(3)
            before = id_of(cluster, number)
            expelled = pause(cluster, number)
            expelled()
            load_before = load.done
            wait_until(lambda: load.done > load_before + 3 or load.wrong, 60, "the other nodes to go on")
            cluster.nodes[number].signal(signal.SIGCONT)
            rejoined(cluster, number, before)
        load.more(10)
    load.check(cluster.clients())
    cluster.whole()
    cluster.settles()
    load.check(cluster.clients())
    assert cluster.nodes[number].metric("osproxy_rejoined_total") >= 1


class UnsignedPayload(S3SigV4Auth):
    def payload(self, request):
        return "UNSIGNED-PAYLOAD"


class SlowPut(threading.Thread):
    """One PUT whose body is sent in two halves: the second when it is told to."""

    def __init__(self, node, key, body):
        super().__init__(daemon=True)
        self.body, self.sent, self.go, self.status = body, threading.Event(), threading.Event(), None
        self.node, self.key = node, key
        self.start()
        assert self.sent.wait(30)

    def run(self):
        middle = len(self.body) // 2

        def pieces():
            yield self.body[:middle]
            self.sent.set()
            self.go.wait(120)
            yield self.body[middle:]

        identity = self.node.endpoint.identity
        url = f"{self.node.endpoint.url}/bucket/{self.key}"
        request = AWSRequest("PUT", url)
        UnsignedPayload(Credentials(identity.access_key, identity.secret_key), "s3", "us-east-1").add_auth(request)
        connection = http.client.HTTPConnection(*self.node.endpoint.address, timeout=120)
        try:
            connection.putrequest("PUT", f"/bucket/{self.key}")
            for name, value in request.headers.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(self.body)))
            connection.endheaders()
            for piece in pieces():
                connection.send(piece)
            answer = connection.getresponse()
            self.status, self.text = answer.status, answer.read()
        except OSError:
            self.status = 0  # cut: not acknowledged
        finally:
            connection.close()

    def end(self):
        self.go.set()
        self.join(120)
        return self.status


def test_a_node_paused_in_the_middle_of_a_body_does_not_acknowledge_it(cluster, rng):
    body = rng.randbytes(4_000_000)
    node = cluster.nodes[1]
    put = SlowPut(node, "half", body)
    wait_until(lambda: any(cluster.blobs.glob("*/*")), 60, "the first half at the backend")
    expelled = pause(cluster, 1)
    expelled()
    node.signal(signal.SIGCONT)
    status = put.end()
    assert status != 200, "acknowledged although it was declared dead"
    assert status in (0, 503), status
    serves(node)
    for client in cluster.clients():
        with pytest.raises(ClientError) as refused:
            client.head_object(Bucket="bucket", Key="half")
        assert refused.value.response["Error"]["Code"] == "404"
    node.endpoint.client().put_object(Bucket="bucket", Key="half", Body=body)
    assert cluster.clients()[0].get_object(Bucket="bucket", Key="half")["Body"].read() == body
    cluster.whole()
    cluster.settles()


def test_a_node_paused_in_the_middle_of_a_commit_does_it_whole_or_not_at_all(on_postgres, rng):
    cluster = on_postgres
    body, old = rng.randbytes(400_000), rng.randbytes(300_000)
    clients = cluster.clients(read_timeout=100)
    clients[0].put_object(Bucket="bucket", Key="held", Body=old)
    # A lock on the key's row makes the commit wait where the test can catch it.
    holder = cluster.hold("SELECT uid FROM objects FOR UPDATE")
    answers = []

    def put():
        try:
            clients[1].put_object(Bucket="bucket", Key="held", Body=body)
            answers.append(200)
        except ClientError as error:
            answers.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
        except FAILED:
            answers.append(0)

    thread = threading.Thread(target=put, daemon=True)
    thread.start()
    waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%objects%'"
    wait_until(lambda: cluster.query(waiting)[0] != "0", 60, "a commit that waits")
    node_id = id_of(cluster, 1)
    cluster.nodes[1].signal(signal.SIGSTOP)
    holder.release()
    # The commit under way holds on to the fence: the node is not dead before the database has ended it.
    wait_until(lambda: node_id not in cluster.node_ids(), 90, "the end of the paused commit and of the node")
    found = clients[0].get_object(Bucket="bucket", Key="held")["Body"].read()
    assert found == old, "a commit that was never sent is there"
    cluster.nodes[1].signal(signal.SIGCONT)
    thread.join(100)
    assert answers and answers[0] in (0, 503), answers
    for client in clients[::2]:
        assert client.get_object(Bucket="bucket", Key="held")["Body"].read() == old
    serves(cluster.nodes[1])
    cluster.whole()
    cluster.settles()


def test_a_node_paused_in_the_middle_of_a_sweep_deletes_nothing_that_is_named_since(on_postgres, rng):
    cluster = on_postgres
    with Load(cluster, rng.random(), threads=4, sizes=[300_000], patience=10) as load:
        for _ in range(2):
            load.more(8)
            # The sweep reads rows of copies: a lock on the table stops it between its listing and its looking.
            holder = cluster.hold("LOCK TABLE copies IN ACCESS EXCLUSIVE MODE")
            time.sleep(1.2)  # a sweep begins every second
            expelled = pause(cluster, 2)
            holder.release()
            expelled()
            load.more(8)
            cluster.nodes[2].signal(signal.SIGCONT)
            serves(cluster.nodes[2])
    load.check(cluster.clients())
    cluster.whole()
    cluster.settles()


def test_a_database_that_goes_away_is_503_and_no_node_is_declared_dead_for_it(tmp_path, rng, own_database):
    with Cluster(tmp_path / "nodes", own_database, env=TIMES) as cluster:
        clients = cluster.clients()
        clients[0].create_bucket(Bucket="bucket")
        clients[0].put_object(Bucket="bucket", Key="there", Body=b"x")
        with Load(cluster, rng.random(), threads=5, patience=10) as load:
            for turn in range(2):
                load.more(10)
                before = cluster.node_ids()
                (own_database.kill if turn else own_database.stop)()
                # An answer now is 503: neither 404 nor 500, and not acknowledged.
                for client in clients:
                    with pytest.raises(ClientError) as refused:
                        client.get_object(Bucket="bucket", Key="there")
                    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
                assert all(node.admin("/readyz")[0] == 503 for node in cluster.nodes)
                time.sleep(LEASE_SECONDS + 1)  # longer than a lease, so that whoever goes by the clock goes wrong
                own_database.start()
                for node in cluster.nodes:
                    serves(node)
                assert cluster.node_ids() == before, "nodes were declared dead because the database was away"
            load.more(10)
        load.check(cluster.clients())
        cluster.whole()
        cluster.settles()
        cluster.no_panic()


def test_a_node_cut_off_from_the_database_is_503_and_comes_back(cluster, rng):
    clients = cluster.clients(read_timeout=100)
    clients[0].put_object(Bucket="bucket", Key="there", Body=b"x")
    with Load(cluster, rng.random(), threads=5, patience=10) as load:
        load.more(10)
        before = id_of(cluster, 2)
        cluster.gates[2].close()
        is_expelled(cluster, before)
        wait_until(lambda: cluster.nodes[2].admin("/readyz")[0] == 503, 20, "that it says so itself")
        with pytest.raises(FAILED) as refused:
            clients[2].get_object(Bucket="bucket", Key="there")
        if isinstance(refused.value, ClientError):
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        cluster.gates[2].open()
        rejoined(cluster, 2, before)
        load.more(10)
    load.check(cluster.clients())
    cluster.whole()
    cluster.settles()


def test_a_node_ends_within_its_time_though_the_database_has_fallen_silent(cluster):
    node, client = cluster.nodes[2], cluster.clients()[0]
    before = id_of(cluster, 2)
    cluster.gates[2].close()
    node.signal()
    # The farewell is given up well before an answer that does not come.
    assert node.wait(30) == 0
    assert any("the other nodes will declare this one dead" in line for line in node.log), node.tail()
    cluster.gates[2].open()
    is_expelled(cluster, before)
    client.put_object(Bucket="bucket", Key="k", Body=b"x")


def test_an_upload_goes_on_when_the_node_of_a_part_is_killed(cluster, rng):
    clients = cluster.clients()
    upload = Upload(clients[0], "bucket", "parts")
    parts = [rng.randbytes(MIN_PART) for _ in range(2)] + [rng.randbytes(70_000)]
    upload.put(1, parts[0])
    cluster.nodes[0].kill()
    upload.client = clients[1]
    upload.put(2, parts[1])
    upload.put(3, parts[2])
    is_gone = id_of(cluster, 1)
    cluster.nodes[1].kill()
    upload.client = clients[2]
    upload.complete()
    is_expelled(cluster, is_gone)
    assert clients[2].get_object(Bucket="bucket", Key="parts")["Body"].read() == b"".join(parts)
    for node in cluster.nodes[:2]:
        node.start()
        serves(node)
        found = node.endpoint.client().get_object(Bucket="bucket", Key="parts")["Body"].read()
        assert hashlib.sha256(found).digest() == hashlib.sha256(b"".join(parts)).digest()
    cluster.settles()


class Killer(Threads):
    """Kills a node after the other, each at a random moment, and starts it again."""

    def __init__(self, nodes, seed):
        self.nodes, self.rng, self.kills = nodes, random.Random(seed), 0
        super().__init__([()])

    def _run(self):
        while not self.stopping.wait(self.rng.random()):
            victim = self.rng.choice(self.nodes)
            victim.kill()
            self.kills += 1
            victim.start()


@pytest.fixture
def at_vendor(tmp_path, postgres):
    """Nodes that keep every byte at one S3 vendor, which is this server itself, and that vendor."""
    (tmp_path / "vendor").mkdir()
    vendor = Osproxy(tmp_path / "vendor").start()
    try:
        with Cluster(tmp_path / "nodes", postgres, env=TIMES | settings_for(vendor)) as nodes:
            nodes.nodes[0].endpoint.client().create_bucket(Bucket="bucket")
            yield nodes, vendor
            nodes.no_panic()
    finally:
        vendor.stop()


def test_an_upload_to_a_vendor_loses_no_acknowledged_part_whenever_nodes_are_killed(at_vendor, rng):
    cluster, vendor = at_vendor

    def acknowledged(call, what):
        """What a request is answered by the first node that does it."""

        def tried():
            try:
                return call(rng.choice(cluster.nodes).endpoint.client(read_timeout=20, connect_timeout=5))
            except ClientError as error:
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503, error
            except FAILED:
                pass

        return wait_until(tried, 120, what)

    bodies, uids = {}, []
    with Killer(cluster.nodes, rng.random()) as killer:
        while len(bodies) < 4:
            key = f"parts {len(bodies)}"
            parts = [rng.randbytes(MIN_PART + 1000 * len(bodies)), rng.randbytes(MIN_PART), rng.randbytes(70_000)]
            upload = acknowledged(lambda client: Upload(client, "bucket", key), "the upload's begin")  # noqa: B023
            for number, body in enumerate(parts, 1):

                def put(client):
                    upload.client = client  # noqa: B023
                    return upload.put(number, body)  # noqa: B023

                acknowledged(put, f"part {number}")

            def complete(client):
                upload.client = client  # noqa: B023
                return upload.complete()  # noqa: B023

            answer = acknowledged(complete, "the upload's end")
            uids.append(answer["ResponseMetadata"]["HTTPHeaders"]["x-osproxy-uid"])
            bodies[key] = b"".join(parts)
    assert killer.kills, "no node was killed"
    for node in cluster.nodes:
        serves(node)
    assert len(set(uids)) == len(uids), "a UID was given twice"

    def whole():
        for client in cluster.clients():
            for key, body in bodies.items():
                assert client.get_object(Bucket="bucket", Key=key)["Body"].read() == body, key

    whole()

    def settled():
        pages = vendor.client.get_paginator("list_objects_v2").paginate(Bucket=VENDOR_BUCKET)
        lie = {entry["Key"].rpartition("/")[2] for page in pages for entry in page.get("Contents", [])}
        # Beside them lies what says whose they are.
        return lie == cluster.names() | {"osproxy-install"}

    # What the killed ones left half-written goes, and nothing else does.
    wait_until(settled, 120, "as many blobs at the vendor as rows name")
    whole()


def test_events_of_killed_nodes_are_there_for_the_others(tmp_path, postgres, rng):
    env = TIMES | {"OSPROXY_NOTIFICATION__TARGET__EVENTS__KIND": "queue"}
    with Cluster(tmp_path, postgres, env=env) as cluster:
        clients = cluster.clients()
        clients[0].create_bucket(Bucket="bucket")
        queue = {"QueueArn": "arn:aws:sqs:us-east-1:default:events", "Events": ["s3:ObjectCreated:*"]}
        clients[0].put_bucket_notification_configuration(
            Bucket="bucket", NotificationConfiguration={"QueueConfigurations": [queue]}
        )
        time.sleep(1.1)  # settings may be a second old on another node
        for number in range(10):
            clients[number % 2].put_object(Bucket="bucket", Key=f"k{number}", Body=b"x")
        cluster.nodes[0].kill()
        cluster.nodes[1].kill()
        waiting = cluster.query("SELECT COUNT(*) FROM events")
        # One more tells that the configuration was made.
        assert waiting == ["11"], "an acknowledged write without its event"


def test_nodes_are_listed(on_postgres):
    cluster = on_postgres
    listed = json.loads(cluster.nodes[0].command("nodes", "--json").stdout)
    assert [node["name"] for node in listed] == ["node0", "node1", "node2"]
    assert {int(node["id"]) for node in listed} == cluster.node_ids()
    assert len({node["worker"] for node in listed}) == 3
    assert all(0 <= node["beat_age_ms"] < 20_000 for node in listed)
    text = cluster.nodes[1].command("nodes").stdout
    assert "NAME" in text and "node2" in text
    put = SlowPut(cluster.nodes[2], "slow", b"x" * 2_000_000)

    def open_write():
        found = json.loads(cluster.nodes[0].command("nodes", "--json").stdout)
        return found[2]["oldest_write_ms"] > 0

    wait_until(open_write, 20, "an open write in the list")
    assert put.end() == 200, put.text
    assert cluster.nodes[0].metric("osproxy_nodes") == 3


@pytest.fixture(params=["postgres", "mariadb"])
def own_database(request, tmp_path):
    """A database server that the test may kill."""
    kind = {"postgres": database.Postgres, "mariadb": database.MariaDb}[request.param]
    try:
        server = kind(tmp_path / "database")
    except database.Missing as missing:
        pytest.skip(str(missing))
    with server:
        yield server
