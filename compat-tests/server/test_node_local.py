"""Backends on each node's own disk: written where the request is served, read through their node by the others."""

import hashlib
import hmac
import http.client
import json
import threading
import time

import pytest
from botocore.exceptions import ClientError

from support.cluster import MASTER_KEY, Cluster, Load
from support.keys import MIN_PART
from support.multipart import Upload, etag_of_parts
from support.ports import free_port
from support.server import Server
from support.times import HASTY, SWEEPING
from support.wait import wait_until

pytestmark = pytest.mark.timeout(600)
SETTINGS = HASTY | SWEEPING | {
    "OSPROXY_JOBS__LEASE_SECONDS": "5",
    "OSPROXY_BACKEND__LOCAL__SCOPE": "node",
    "OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT": "blobs",
}

PLACEMENTS = """
[storage]
placement = "safe"
[backend.shared]
service = "fs"
options = {{ root = "{root}" }}
[placement.safe]
backends = ["local", "shared"]
copies_required = 1
[placement.own]
backends = ["local"]
open = true
[placement.common]
backends = ["shared"]
open = true
"""


def own(number):
    return {"OSPROXY_NODE__LISTEN": f"127.0.0.1:{free_port()}"}


@pytest.fixture(params=["postgres", "mariadb"])
def cluster(request, tmp_path):
    with Cluster(tmp_path, request.getfixturevalue(request.param), env=SETTINGS, node_env=own) as nodes:
        nodes.nodes[0].endpoint.client().create_bucket(Bucket="bucket")
        yield nodes
        nodes.no_panic()


@pytest.fixture
def placed(postgres, tmp_path):
    """With a backend that all share beside those of the nodes."""
    config = tmp_path / "osproxy.toml"
    config.write_text(PLACEMENTS.format(root=tmp_path / "common"))
    with Cluster(tmp_path, postgres, env=SETTINGS | {"OSPROXY_CONFIG": str(config)}, node_env=own) as nodes:
        yield nodes
        nodes.no_panic()


def in_common(cluster):
    return {path.name for path in (cluster.home / "common").glob("[0-9a-f][0-9a-f]/*")}


def blobs(node):
    return {path.name for path in (node.data_dir / "blobs").glob("[0-9a-f][0-9a-f]/*")}


def refused(call, **arguments):
    """The status and the headers of an answer that is an error."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response["ResponseMetadata"]
    return answer["HTTPStatusCode"], answer["HTTPHeaders"]


def test_bytes_lie_where_they_were_written_and_are_read_everywhere(cluster, rng):
    clients = cluster.clients()
    body = rng.randbytes(3_000_000)
    clients[0].put_object(Bucket="bucket", Key="k", Body=body)
    assert [len(blobs(node)) for node in cluster.nodes] == [1, 0, 0]
    for client in clients:
        assert client.get_object(Bucket="bucket", Key="k")["Body"].read() == body
        found = client.get_object(Bucket="bucket", Key="k", Range="bytes=1000000-1999999")
        assert found["Body"].read() == body[1_000_000:2_000_000]
        found = client.get_object(Bucket="bucket", Key="k", Range="bytes=-5")
        assert found["Body"].read() == body[-5:]
    # Equal content is stored once on each node, not once for all: a node that is down takes only its own along.
    clients[1].put_object(Bucket="bucket", Key="again", Body=body)
    clients[1].put_object(Bucket="bucket", Key="and again", Body=body)
    assert [len(blobs(node)) for node in cluster.nodes] == [1, 1, 0]
    # A copy is a new reference, wherever the bytes lie.
    clients[2].copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": "k"})
    assert [len(blobs(node)) for node in cluster.nodes] == [1, 1, 0]
    assert clients[1].get_object(Bucket="bucket", Key="copy")["Body"].read() == body


def test_parts_on_each_node_make_one_object(cluster, rng):
    clients = cluster.clients()
    upload = Upload(clients[0], "bucket", "parts")
    parts = [rng.randbytes(MIN_PART + number) for number in range(3)]
    for number, part in enumerate(parts):
        upload.client = clients[number]
        upload.put(number + 1, part)
    upload.client = clients[1]
    assert upload.complete()["ETag"] == etag_of_parts(parts)
    assert [len(blobs(node)) for node in cluster.nodes] == [1, 1, 1]
    whole = b"".join(parts)
    for client in clients:
        assert client.get_object(Bucket="bucket", Key="parts")["Body"].read() == whole
        found = client.get_object(Bucket="bucket", Key="parts", Range=f"bytes={MIN_PART - 10}-{2 * MIN_PART + 10}")
        assert found["Body"].read() == whole[MIN_PART - 10 : 2 * MIN_PART + 11]


def test_while_a_node_is_down_what_it_holds_is_503_and_nothing_else_is(cluster, rng):
    clients = cluster.clients()
    body, other = rng.randbytes(500_000), rng.randbytes(500_000)
    clients[0].put_object(Bucket="bucket", Key="away", Body=body)
    clients[1].put_object(Bucket="bucket", Key="here", Body=other)
    cluster.nodes[0].kill()
    for client in clients[1:]:
        status, headers = refused(client.get_object, Bucket="bucket", Key="away")
        assert status == 503 and int(headers["retry-after"]) >= 1
        assert client.head_object(Bucket="bucket", Key="away")["ContentLength"] == len(body)
        assert client.get_object(Bucket="bucket", Key="here")["Body"].read() == other
    # Overwritten meanwhile: its bytes are its own node's to delete, when it is back.
    clients[1].put_object(Bucket="bucket", Key="away", Body=other)
    time.sleep(3)  # several passes of the collector
    assert len(blobs(cluster.nodes[0])) == 1
    cluster.nodes[0].start()
    wait_until(lambda: not blobs(cluster.nodes[0]), 90, "the blob to be deleted by its own node")
    assert cluster.nodes[0].endpoint.client().get_object(Bucket="bucket", Key="away")["Body"].read() == other


def test_a_pause_of_the_collector_holds_on_a_nodes_own_disk_too(cluster, rng):
    clients = cluster.clients()
    clients[0].put_object(Bucket="bucket", Key="k", Body=rng.randbytes(300_000))
    # Condemned while its node is away.
    cluster.nodes[0].kill()
    clients[1].delete_object(Bucket="bucket", Key="k")
    wait_until(lambda: cluster.query("SELECT id FROM blobs WHERE state = 'deleting'"), 90, "the end of the content")
    cluster.nodes[1].command("jobs", "pause", "collect")
    cluster.nodes[0].start()
    time.sleep(4)  # several passes
    assert len(blobs(cluster.nodes[0])) == 1
    cluster.nodes[1].command("jobs", "resume", "collect")
    wait_until(lambda: not blobs(cluster.nodes[0]), 90, "the blob to be deleted by its own node")


def test_a_pause_of_the_sweep_holds_on_the_nodes_own_disks_too(cluster):
    # A sweep has seen to it that what lies on each disk is this install's.
    marked = lambda node: (node.data_dir / "blobs" / "osproxy-install").exists()
    wait_until(lambda: all(marked(node) for node in cluster.nodes), 60, "a first sweep of each disk")
    cluster.nodes[0].command("jobs", "pause", "sweep")
    time.sleep(6)  # a sweep that is under way sees it within 5 s
    # No row names it, and it is as old as can be.
    stray = "00000000000000010000000000000001"
    for node in cluster.nodes:
        path = node.data_dir / "blobs" / stray[16:18] / stray
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stray")
    time.sleep(4)  # several sweeps
    assert [blobs(node) for node in cluster.nodes] == [{stray}] * 3
    cluster.nodes[1].command("jobs", "resume", "sweep")
    wait_until(lambda: not any(blobs(node) for node in cluster.nodes), 90, "the sweep of each disk")


def test_a_node_that_is_back_at_another_port_is_found(cluster, rng):
    clients = cluster.clients()
    body = rng.randbytes(400_000)
    clients[0].put_object(Bucket="bucket", Key="k", Body=body)
    node = cluster.nodes[0]
    assert clients[1].get_object(Bucket="bucket", Key="k")["Body"].read() == body
    node.kill()
    node.env["OSPROXY_NODE__LISTEN"] = f"127.0.0.1:{free_port()}"
    node.start()

    def found():
        try:
            return clients[1].get_object(Bucket="bucket", Key="k")["Body"].read() == body
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
            return False

    wait_until(found, 60, "the node at its new port")


def test_under_load_every_node_reads_what_any_wrote_and_each_tidies_its_own(cluster, rng):
    with Load(cluster, rng.random(), threads=5) as load:
        load.more(60)
    assert load.refusals == 0
    load.check(cluster.clients())
    column = "encode(c.name, 'escape')" if "postgres" in cluster.url else "CAST(c.name AS CHAR)"

    def tidy():
        rows = cluster.query(f"SELECT b.node, {column} FROM copies c JOIN backends b ON b.id = c.backend_id")
        named = {(node, name) for node, name in (row.split("\t") for row in rows)}
        lie = {(f"node{number}", name) for number, node in enumerate(cluster.nodes) for name in blobs(node)}
        return named == lie

    wait_until(tidy, 60, "each node to hold what rows name there, and nothing else")
    load.check(cluster.clients())


def sign(node, backend, blob, start, end, at):
    key = hmac.new(bytes.fromhex(MASTER_KEY), b"osproxy peers", hashlib.sha256).digest()
    text = f"GET\n{node}\n{backend}\n{blob}\n{start}\n{end}\n{at}".encode()
    return "OSPROXY-PEER " + hmac.new(key, text, hashlib.sha256).hexdigest()


def ask(node, path, headers):
    host, port = node.env["OSPROXY_NODE__LISTEN"].split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_a_question_of_a_peer_is_good_for_itself_alone(cluster, rng):
    body = rng.randbytes(300_000)
    clients = cluster.clients()
    clients[0].put_object(Bucket="bucket", Key="k", Body=body)
    clients[0].put_object(Bucket="bucket", Key="other", Body=rng.randbytes(300_000))
    column = "encode(c.name, 'escape')" if "postgres" in cluster.url else "CAST(c.name AS CHAR)"
    names = cluster.query(f"SELECT {column} FROM copies c ORDER BY c.blob_id")
    blob, other, node = names[0], names[1], cluster.nodes[0]
    now = int(time.time() * 1000)

    def headers(signature, at=now):
        return {"x-osproxy-peer": "node0", "x-osproxy-time": str(at), "authorization": signature}

    path = f"/blobs/local@node0/{blob}?start=10&end=20"
    good = sign("node0", "local@node0", blob, 10, 20, now)
    assert ask(node, path, headers(good)) == (200, body[10:20])
    for wrong_path, wrong_headers in [
        (path, {}),
        (path, headers("OSPROXY-PEER 00")),
        (path, headers(good.replace("OSPROXY-PEER", "Bearer"))),
        (f"/blobs/local@node0/{other}?start=10&end=20", headers(good)),
        (f"/blobs/local@node0/{blob}?start=0&end=300000", headers(good)),
        (path, headers(good, now + 1)),
        (path, headers(sign("node0", "local@node0", blob, 10, 20, now - 600_000), now - 600_000)),
        (path, headers(sign("node1", "local@node0", blob, 10, 20, now))),
    ]:
        status, answer = ask(node, wrong_path, wrong_headers)
        assert status == 401 and body[10:20] not in answer, (wrong_path, wrong_headers, status)
    # No request goes further: what is not this node's own is refused, however well it is signed.
    for backend in ("local@node1", "local", "local@"):
        status, _ = ask(node, f"/blobs/{backend}/{blob}?start=0&end=5", headers(sign("node0", backend, blob, 0, 5, now)))
        assert status == 503, backend
    for name in ("00", "../../master.key", blob[:-1] + "g"):
        name = name.replace("/", "%2f")
        plain = name.replace("%2f", "/")
        status, _ = ask(
            node, f"/blobs/local@node0/{name}?start=0&end=5", headers(sign("node0", "local@node0", plain, 0, 5, now))
        )
        assert status == 404, name
    assert ask(node, f"/blobs/local@node0/{blob}?start=20&end=10", headers(sign("node0", "local@node0", blob, 20, 10, now)))[
        0
    ] == 400


def test_a_slow_reader_holds_up_no_memory_of_either_node(cluster, rng):
    clients = cluster.clients()
    piece = rng.randbytes(1 << 20)
    clients[0].put_object(Bucket="bucket", Key="large", Body=piece * 64)
    answers = [clients[1].get_object(Bucket="bucket", Key="large")["Body"] for _ in range(8)]
    for answer in answers:
        assert answer.read(100_000) == piece[:100_000]
    time.sleep(1)  # whatever is read ahead is read by now
    assert max(node.memory("VmRSS") for node in cluster.nodes[:2]) < 256 << 20
    digests = [None] * len(answers)

    def finish(number):
        digest = hashlib.sha256(piece[:100_000])
        while part := answers[number].read(1 << 20):
            digest.update(part)
        digests[number] = digest.digest()

    threads = [threading.Thread(target=finish, args=(number,)) for number in range(len(answers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert set(digests) == {hashlib.sha256(piece * 64).digest()}


def test_the_scope_of_a_backend_that_holds_blobs_cannot_be_changed(cluster, rng):
    node = cluster.nodes[2]
    node.endpoint.client().put_object(Bucket="bucket", Key="k", Body=rng.randbytes(100_000))
    node.stop()
    # A shared one has an absolute root.
    node.env |= {
        "OSPROXY_BACKEND__LOCAL__SCOPE": "shared",
        "OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT": str(node.data_dir / "blobs"),
    }
    with pytest.raises(AssertionError, match="backend.local.scope"):
        node.start()
    node.env["OSPROXY_BACKEND__LOCAL__SCOPE"] = "node"
    del node.env["OSPROXY_NODE__LISTEN"]
    with pytest.raises(AssertionError, match="node.listen"):
        node.start()


def test_a_mirror_of_a_nodes_own_disk_serves_while_that_node_is_down(placed, rng):
    clients = placed.clients()
    clients[0].create_bucket(Bucket="bucket")
    bodies = {f"k{number}": rng.randbytes(300_000) for number in range(6)}
    for number, (key, body) in enumerate(bodies.items()):
        clients[number % 3].put_object(Bucket="bucket", Key=key, Body=body)
    assert [len(blobs(node)) for node in placed.nodes] == [2, 2, 2]
    assert len(in_common(placed)) == 6
    placed.nodes[0].kill()
    for key, body in bodies.items():
        assert clients[1].get_object(Bucket="bucket", Key=key)["Body"].read() == body
    placed.nodes[0].start()
    clients = placed.clients()
    for path in (placed.home / "common").glob("[0-9a-f][0-9a-f]/*"):
        path.unlink()
    for key, body in bodies.items():
        for client in clients:
            assert client.get_object(Bucket="bucket", Key=key)["Body"].read() == body


def test_what_lies_on_nodes_is_moved_to_where_all_reach_it_and_not_back_to_nobodys_disk(placed, rng):
    node, clients = placed.nodes[0], placed.clients()
    for bucket in ("one", "two"):
        clients[0].create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-east-1:own"}
        )
    bodies = {(bucket, f"k{number}"): rng.randbytes(200_000) for bucket in ("one", "two") for number in range(6)}
    etags = {}
    for number, ((bucket, key), body) in enumerate(bodies.items()):
        etags[bucket, key] = clients[number % 3].put_object(Bucket=bucket, Key=key, Body=body)["ETag"]

    def whole(client):
        for (bucket, key), body in bodies.items():
            answer = client.get_object(Bucket=bucket, Key=key)
            assert (answer["Body"].read(), answer["ETag"]) == (body, etags[bucket, key])

    node.command("move", "--from", "own", "--to", "common", "--bucket", "one")
    assert len(in_common(placed)) == 6
    for client in clients:
        whole(client)
    for words in [
        ("--from", "common", "--to", "own", "--bucket", "one"),
        ("--from", "shared", "--to", "local"),
        ("--from", "local", "--to", "shared"),
    ]:
        refusal = node.command("move", *words, check=False)
        assert refusal.returncode == 1 and "@node1" in refusal.stderr, refusal.stderr
    # A node is emptied before it is taken away.
    refusal = node.command("move", "--from", "local@node2", "--to", "shared", check=False)
    assert refusal.returncode == 1 and "safe@node2" in refusal.stderr, refusal.stderr
    node.command("move", "--from", "local@node2", "--to", "shared", "--lose-copies")
    wait_until(lambda: not blobs(placed.nodes[2]), 60, "an empty disk of node 2")
    # Each node leaves to the others what only they reach, and no attempt fails for that.
    moves = json.loads(node.command("jobs", "list", "--type", "move", "--json").stdout)["jobs"]
    assert [job["reason"] for job in moves] == [None] * len(moves) and moves
    assert not [line for each in placed.nodes for line in each.log if "delete old copy" in line]
    placed.nodes[2].stop()
    for client in clients[:2]:
        whole(client)


@pytest.mark.op("PutObject", "GetObject")
def test_a_node_is_refused_beside_another_of_its_name_and_not_after_its_own_crash(cluster, rng):
    first = cluster.nodes[0]
    namesake = Server(cluster.home / "namesake", env=first.env | own(0))
    namesake.launch()
    try:
        assert namesake.wait(60) != 0
        assert "node.name" in namesake.tail() and "node0" in namesake.tail()
        assert not any("ready" in line for line in namesake.log)
    finally:
        if namesake.process.poll() is None:
            namesake.kill()
    body = rng.randbytes(300_000)
    first.endpoint.client().put_object(Bucket="bucket", Key="k", Body=body)
    assert cluster.nodes[1].endpoint.client().get_object(Bucket="bucket", Key="k")["Body"].read() == body
    # Its row from before the crash is there still, and does not change any more.
    first.kill()
    first.start()
    assert cluster.nodes[1].endpoint.client().get_object(Bucket="bucket", Key="k")["Body"].read() == body
    # After a farewell there is nothing to wait for.
    assert first.stop() == 0
    before = len(first.log)
    first.start()
    assert not any("waits to see" in line for line in first.log[before:])
