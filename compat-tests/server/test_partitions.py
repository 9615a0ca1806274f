"""Nodes whose wires are cut: from the database, from the vendor, from each other. Real processes, and packets that vanish.

Each node lives in a network namespace of its own (see `support/partitions.py`). Whatever is cut off is 503 there, nothing
that was acknowledged is lost or doubled, and what is not cut off goes on.
"""

import itertools
import os
import threading

import pytest
from botocore.exceptions import ClientError

from support import database
from support.cluster import FAILED, Load
from support.keys import MIN_PART
from support.multipart import Upload
from support.partitions import Missing, Network, Partitioned, ReachedPostgres
from support.server import ROOT, Server
from support.threads import Threads
from support.times import HASTY
from support.wait import wait_until

pytestmark = pytest.mark.timeout(600)
TIMES = HASTY | {"OSPROXY_HTTP__DRAIN_TIMEOUT_SECONDS": "3"}
VENDOR = """
[storage]
placement = "vendor"
[backend.vendor]
service = "s3"
timeout_seconds = 10
retries = 1
[backend.vendor.options]
bucket = "blobs"
endpoint = "{url}"
region = "us-east-1"
access_key_id = "{access_key}"
secret_access_key = "{secret_key}"
"""
SIZES = [100, 20_000, 300_000]


@pytest.fixture(scope="module")
def network():
    try:
        made = Network(3).__enter__()
    except Missing as missing:
        pytest.skip(f"no network namespaces here: {missing}")
    before = os.environ["no_proxy"]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{before},{made.addresses()}"
    yield made
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = before
    made.__exit__()


@pytest.fixture(scope="module")
def reached(network, tmp_path_factory):
    """PostgreSQL where the nodes reach it."""
    try:
        server = ReachedPostgres(tmp_path_factory.mktemp("postgres"), network)
    except database.Missing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(scope="module")
def vendor(network, tmp_path_factory):
    """An S3 where the nodes reach it: this server itself."""
    server = Server(tmp_path_factory.mktemp("vendor") / "data", env={"OSPROXY_META__URL": ""}, host=network.address("backend"))
    try:
        server.start().endpoint.client().create_bucket(Bucket="blobs")
        yield server
    finally:
        server.stop()


def serving(cluster):
    with cluster:
        cluster.nodes[0].endpoint.client().create_bucket(Bucket="bucket")
        yield cluster
        cluster.no_panic()


@pytest.fixture
def cluster(network, reached, vendor, tmp_path):
    """Three nodes with all blobs at the vendor."""
    config = tmp_path / "vendor.toml"
    config.write_text(VENDOR.format(url=vendor.endpoint.url, access_key=ROOT.access_key, secret_key=ROOT.secret_key))
    yield from serving(Partitioned(tmp_path / "nodes", network, reached, env=TIMES, arguments=["--config", config]))


@pytest.fixture
def with_disks(network, reached, tmp_path):
    """Three nodes, each with a disk of its own."""
    own = {"OSPROXY_BACKEND__LOCAL__SCOPE": "node", "OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT": "blobs"}
    yield from serving(Partitioned(tmp_path / "nodes", network, reached, env=TIMES | own))


def answer_of(call, **arguments):
    """Status and headers, 0 and none when nothing was answered."""
    try:
        answer = call(**arguments)
    except ClientError as error:
        answer = error.response
    except FAILED:
        return 0, {}
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["ResponseMetadata"]["HTTPHeaders"]


def status_of(call, **arguments):
    return answer_of(call, **arguments)[0]


class Asked(threading.Thread):
    """A request under way; `end` is its status."""

    def __init__(self, call, **arguments):
        super().__init__(daemon=True)
        self.call, self.arguments, self.status = call, arguments, None
        self.start()

    def run(self):
        self.status, self.headers = answer_of(self.call, **self.arguments)

    def end(self):
        self.join(150)
        assert self.status is not None, "a request hangs"
        return self.status


def recovers(call, **arguments):
    """Waits until a request succeeds; until then it is 503."""

    def succeeds():
        status = status_of(call, **arguments)
        assert status in (200, 503), status
        return status == 200

    wait_until(succeeds, 60, "an answer over the healed wire")


def id_of(cluster, node):
    return int(cluster.query(f"SELECT id FROM nodes WHERE name = 'node{node}' ORDER BY beaten DESC")[0])


def rejoined(cluster, node, before):
    def is_another():
        ids = [int(row) for row in cluster.query(f"SELECT id FROM nodes WHERE name = 'node{node}'")]
        return ids and before not in ids and cluster.is_ready(node)

    wait_until(is_another, 120, "the node to join again")


@pytest.fixture
def cut(network):
    """Cuts wires, and heals what a test leaves cut."""
    done = []

    def cut(name, node):
        done.append((name, node))
        network.cut(name, node)

    yield cut
    for name, node in done:
        network.heal(name, node)


def test_a_node_cut_from_the_database_acknowledges_nothing_and_joins_again(network, cluster, cut, rng):
    clients = cluster.clients(read_timeout=100)
    body = rng.randbytes(300_000)
    clients[2].put_object(Bucket="bucket", Key="there", Body=body)
    upload = Upload(clients[2], "bucket", "parts")
    parts = [rng.randbytes(MIN_PART), rng.randbytes(1000)]
    upload.put(1, parts[0])
    with Load(cluster, rng.random(), threads=4, sizes=SIZES, patience=5) as load:
        load.more(10)
        before = id_of(cluster, 2)
        cut("database", 2)
        asked = [
            Asked(clients[2].put_object, Bucket="bucket", Key="unheard", Body=b"x"),
            Asked(clients[2].get_object, Bucket="bucket", Key="there"),
            Asked(clients[2].list_objects_v2, Bucket="bucket"),
        ]
        load.more(10)
        upload.client = clients[1]
        upload.put(2, parts[1])
        upload.client = clients[0]
        completed = upload.complete()
        wait_until(lambda: before not in cluster.node_ids(), 60, "the others to declare it dead")
        # It cannot know that: what it is asked now, too, it does not answer as if it were alive.
        asked.append(Asked(clients[2].put_object, Bucket="bucket", Key="unheard", Body=b"x"))
        assert [request.end() for request in asked] == [503] * 4
        assert not cluster.is_ready(2)
        wait_until(lambda: cluster.is_ready(0), 30, "the others to be ready")
        network.heal("database", 2)
        rejoined(cluster, 2, before)
        load.more(10)
    clients = cluster.clients()
    load.uids.append(completed["ResponseMetadata"]["HTTPHeaders"]["x-osproxy-uid"])
    load.check(clients)
    for client in clients:
        assert client.get_object(Bucket="bucket", Key="there")["Body"].read() == body
        assert client.get_object(Bucket="bucket", Key="parts")["Body"].read() == b"".join(parts)
        assert status_of(client.head_object, Bucket="bucket", Key="unheard") == 404
    cluster.all_uids_differ()


def test_a_node_cut_from_the_vendor_has_the_names_and_not_the_bytes(network, cluster, cut, rng):
    clients = cluster.clients(read_timeout=100)
    body = rng.randbytes(300_000)
    clients[1].put_object(Bucket="bucket", Key="large", Body=body)
    clients[1].put_object(Bucket="bucket", Key="small", Body=b"x")
    cut("backend", 1)
    asked = [
        Asked(clients[1].get_object, Bucket="bucket", Key="large"),
        Asked(clients[1].put_object, Bucket="bucket", Key="refused", Body=body[1:]),
    ]
    for turn in range(10):
        assert clients[1].head_object(Bucket="bucket", Key="large")["ContentLength"] == len(body)
        listed = clients[1].list_objects_v2(Bucket="bucket", Prefix="large")["Contents"]
        assert [entry["Key"] for entry in listed] == ["large"]
        # What has no blob needs no vendor.
        assert clients[1].get_object(Bucket="bucket", Key="small")["Body"].read() == b"x"
        clients[1].put_object(Bucket="bucket", Key="small", Body=b"x")
        for client in clients[::2]:
            assert client.get_object(Bucket="bucket", Key="large")["Body"].read() == body
            client.put_object(Bucket="bucket", Key=f"other {turn}", Body=rng.randbytes(100_000))
    assert [request.end() for request in asked] == [503, 503]
    for client in clients:
        assert status_of(client.head_object, Bucket="bucket", Key="refused") == 404
    network.heal("backend", 1)
    recovers(clients[1].put_object, Bucket="bucket", Key="refused", Body=body[1:])
    for client in clients:
        assert client.get_object(Bucket="bucket", Key="large")["Body"].read() == body
        assert client.get_object(Bucket="bucket", Key="refused")["Body"].read() == body[1:]


def test_a_node_cut_from_its_peers_keeps_its_disk_to_itself(network, with_disks, cut, rng):
    clients = with_disks.clients(read_timeout=100)
    bodies = [rng.randbytes(300_000) for _ in clients]
    for number, client in enumerate(clients):
        client.put_object(Bucket="bucket", Key=f"on {number}", Body=bodies[number])
    for client, number in itertools.product(clients, range(3)):
        assert client.get_object(Bucket="bucket", Key=f"on {number}")["Body"].read() == bodies[number]
    cut("peers", 0)
    asked = []
    for reader, holder in itertools.product(range(3), repeat=2):
        client, key = clients[reader], f"on {holder}"
        assert client.head_object(Bucket="bucket", Key=key)["ContentLength"] == len(bodies[holder])
        if reader == holder or 0 not in (reader, holder):
            assert client.get_object(Bucket="bucket", Key=key)["Body"].read() == bodies[holder]
        else:
            asked.append(Asked(client.get_object, Bucket="bucket", Key=key))
    assert [request.end() for request in asked] == [503] * 4
    assert all(int(request.headers["retry-after"]) >= 1 for request in asked)
    # It is alive, as far as the database is concerned.
    for number, client in enumerate(clients):
        client.put_object(Bucket="bucket", Key=f"later on {number}", Body=bodies[number])
    assert len(with_disks.node_ids()) == 3
    network.heal("peers", 0)
    for client, number in itertools.product(clients, range(3)):
        for key in (f"on {number}", f"later on {number}"):
            recovers(client.get_object, Bucket="bucket", Key=key)
            assert client.get_object(Bucket="bucket", Key=key)["Body"].read() == bodies[number]


class Contest(Threads):
    """Writers on every node that create the same keys, each with a body of its own, and note what they were told."""

    def __init__(self, clients, prefix):
        self.prefix = prefix
        self.told, self.won, self.wrong = {}, 0, []
        self._lock = threading.Lock()
        super().__init__(enumerate(clients * 2), deadline=150)

    def _run(self, number, client):
        for turn in itertools.count():
            if self.stopping.is_set():
                return
            key, body = f"{self.prefix} {turn}", b"%d of %d" % (turn, number)
            status = status_of(client.put_object, Bucket="bucket", Key=key, Body=body, IfNoneMatch="*")
            with self._lock:
                self.told.setdefault(key, {})[body] = status
                self.won += status == 200
                if status not in (0, 200, 409, 412, 503):
                    self.wrong.append((key, status))

    def more(self, count):
        wanted = self.won + count
        wait_until(lambda: self.won >= wanted, 120, f"{count} more keys")


def test_of_writers_of_one_key_one_wins_though_a_node_is_cut_in_the_middle_of_its_commit(network, cluster, cut, rng):
    with Contest(cluster.clients(read_timeout=15), "before") as contest:
        contest.more(20)
        before = id_of(cluster, 1)
        # Commits wait for the table, so that the cut finds those of the node under way.
        with cluster.database.holding(cluster.url, "LOCK TABLE objects IN EXCLUSIVE MODE"):
            waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE'"
            waiting += f" AND client_addr = '{network.address('database', 1)}'"
            wait_until(lambda: cluster.query(waiting)[0] != "0", 20, "a commit of the node that waits")
            cut("database", 1)
        contest.more(20)
    wait_until(lambda: before not in cluster.node_ids(), 90, "the end of its commit and of the node")
    network.heal("database", 1)
    rejoined(cluster, 1, before)
    with Contest(cluster.clients(), "after") as later:
        later.more(20)
    assert not contest.wrong + later.wrong, (contest.wrong + later.wrong)[:5]
    clients = cluster.clients()
    for key, told in (contest.told | later.told).items():
        found = set()
        for client in clients:
            try:
                found.add(client.get_object(Bucket="bucket", Key=key)["Body"].read())
            except ClientError as error:
                assert error.response["Error"]["Code"] == "NoSuchKey", error
                found.add(None)
        assert len(found) == 1, f"{key} is {found} on different nodes"
        winner = found.pop()
        acknowledged = [body for body, status in told.items() if status == 200]
        assert len(acknowledged) <= 1, f"{key} was acknowledged to {acknowledged}"
        assert winner in (acknowledged or [None, *(body for body, status in told.items() if status in (0, 503))]), (key, told)
        assert winner or 412 not in told.values(), f"{key} was refused for one that is not there"
    cluster.all_uids_differ()
