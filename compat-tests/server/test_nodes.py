"""Three nodes on one database: any node serves any request, and what one has answered all others know."""

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from support.balancer import Balancer
from support.cluster import Cluster, Load
from support.keys import MIN_PART
from support.multipart import Upload, etag_of_parts
from support.refusal import refused
from support.server import ROOT, Server
from support.wait import wait_until

VENDOR = """
[storage]
placement = "vendor"
[backend.vendor]
service = "s3"
[backend.vendor.options]
bucket = "blobs"
endpoint = "{url}"
region = "us-east-1"
access_key_id = "{access_key}"
secret_access_key = "{secret_key}"
"""


@pytest.fixture(scope="module", params=["postgres, directory", "mariadb, directory", "mysql, directory", "postgres, S3"])
def cluster(request, tmp_path_factory):
    database, backend = request.param.split(", ")
    home = tmp_path_factory.mktemp("cluster")
    database = request.getfixturevalue(database)
    if backend == "directory":
        with Cluster(home, database) as nodes:
            nodes.nodes[0].endpoint.client().create_bucket(Bucket="bucket")
            yield nodes
            nodes.no_panic()
        return
    # This server itself is the vendor.
    vendor = Server(home / "vendor", env={"OSPROXY_META__URL": ""}).start()
    try:
        vendor.endpoint.client().create_bucket(Bucket="blobs")
        config = home / "vendor.toml"
        config.write_text(VENDOR.format(url=vendor.endpoint.url, access_key=ROOT.access_key, secret_key=ROOT.secret_key))
        with Cluster(home, database, arguments=["--config", config]) as nodes:
            nodes.nodes[0].endpoint.client().create_bucket(Bucket="bucket")
            yield nodes
            nodes.no_panic()
    finally:
        vendor.stop()


@pytest.fixture
def clients(cluster):
    return cluster.clients()


def together(count, work):
    """Runs work(0) ... work(count - 1) at the same moment; what each returned."""
    barrier = threading.Barrier(count)

    def run(number):
        barrier.wait(30)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.mark.op("UploadPart", "CompleteMultipartUpload", "GetObject")
def test_parts_on_different_nodes_complete_on_a_third_and_download_from_each(clients, rng):
    upload = Upload(clients[0], "bucket", "parts")
    parts = [rng.randbytes(MIN_PART + 10 * number) for number in range(3)] + [rng.randbytes(1000)]

    def put(number):
        part = Upload.__new__(Upload)
        part.__dict__ |= upload.__dict__ | {"client": clients[number % 2], "etags": {}}
        return part.put(number + 1, parts[number])

    for number, etag in enumerate(together(len(parts), put)):
        upload.etags[number + 1] = etag
    upload.client = clients[1]
    assert [part["PartNumber"] for part in upload.list()["Parts"]] == [1, 2, 3, 4]
    upload.client = clients[2]
    etag = upload.complete()["ETag"]
    assert etag == etag_of_parts(parts)
    whole = b"".join(parts)
    for client in clients:
        answer = client.get_object(Bucket="bucket", Key="parts")
        assert answer["Body"].read() == whole and answer["ETag"] == etag
        found = client.get_object(Bucket="bucket", Key="parts", Range=f"bytes={MIN_PART - 7}-{MIN_PART + 90}")
        assert found["Body"].read() == whole[MIN_PART - 7 : MIN_PART + 91]
        found = client.get_object(Bucket="bucket", Key="parts", PartNumber=3)
        assert found["Body"].read() == parts[2]
    # A repeated complete, on yet another node, gets the first one's answer.
    upload.client = clients[0]
    assert upload.complete()["ETag"] == etag


@pytest.mark.op("PutObject", "GetObject", "ListObjectsV2", "DeleteObject")
def test_every_answer_holds_on_every_node_at_once_under_load(cluster, rng):
    with Load(cluster, rng.random()) as load:
        load.more(120)
    load.check(cluster.clients())
    assert load.refusals == 0, "a node refused without a reason"
    cluster_uids = cluster.query("SELECT uid FROM objects UNION ALL SELECT uid FROM versions")
    assert len(cluster_uids) == len(set(cluster_uids))


@pytest.mark.op("PutObject")
def test_of_conditional_writers_on_several_nodes_one_wins_every_time(cluster, clients):
    def create(number):
        try:
            clients[number % 3].put_object(Bucket="bucket", Key=key, Body=b"%d" % number, IfNoneMatch="*")
            return number
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"), error
            return None

    def replace(number):
        try:
            clients[number % 3].put_object(Bucket="bucket", Key=key, Body=b"new %d" % number, IfMatch=etag)
            return number
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"), error
            return None

    for turn in range(12):
        key = f"conditional {turn}"
        winners = [number for number in together(9, create) if number is not None]
        assert len(winners) == 1, f"turn {turn}: {winners}"
        answers = {client.get_object(Bucket="bucket", Key=key)["Body"].read() for client in clients}
        assert answers == {b"%d" % winners[0]}
        etag = clients[0].head_object(Bucket="bucket", Key=key)["ETag"]
        winners = [number for number in together(9, replace) if number is not None]
        assert len(winners) == 1, f"turn {turn}: {winners}"
        answers = {client.get_object(Bucket="bucket", Key=key)["Body"].read() for client in clients}
        assert answers == {b"new %d" % winners[0]}


@pytest.mark.op("ListObjectVersions", "PutBucketVersioning")
def test_versions_from_all_nodes_are_all_kept_in_one_order(cluster, clients, bucket_names):
    bucket = next(bucket_names)
    clients[0].create_bucket(Bucket=bucket)
    clients[0].put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    # A bucket's settings may be a second old on another node, but a commit asks again.
    bodies = {}

    def write(number):
        for turn in range(8):
            body = b"%d %d" % (number, turn)
            if turn == 5:
                answer = clients[number % 3].delete_object(Bucket=bucket, Key="k")
                bodies[answer["VersionId"]] = None
            else:
                answer = clients[number % 3].put_object(Bucket=bucket, Key="k", Body=body)
                bodies[answer["VersionId"]] = body

    together(6, write)
    assert len(bodies) == 48, "two versions have the same id"
    orders = []
    for client in clients:
        page = client.list_object_versions(Bucket=bucket)
        entries = page.get("Versions", []) + page.get("DeleteMarkers", [])
        assert {entry["VersionId"] for entry in entries} == set(bodies)
        orders.append([entry["VersionId"] for entry in page["Versions"]])
        for version, body in list(bodies.items())[::7]:
            if body is not None:
                assert client.get_object(Bucket=bucket, Key="k", VersionId=version)["Body"].read() == body
    assert orders[0] == orders[1] == orders[2]
    # Each writer's own versions are in the order in which it was answered.
    for number in range(6):
        own = [bodies[version] for version in reversed(orders[0]) if bodies[version].startswith(b"%d " % number)]
        assert own == sorted(own)


def in_force(check, deadline=1.5):
    """What one node has answered holds elsewhere within a second, and a little for a slow machine."""
    wait_until(check, deadline, "a change made on another node")


@pytest.mark.op("PutBucketPolicy")
def test_keys_and_policies_of_one_node_are_in_force_on_the_others_within_a_second(cluster, clients, bucket_names, rng):
    bucket = next(bucket_names)
    clients[0].create_bucket(Bucket=bucket)
    clients[0].put_object(Bucket=bucket, Key="k", Body=b"x")
    name = f"NODEKEY{rng.randrange(10**9):012}"
    # By the command line beside one node, used on another at once.
    identity = cluster.nodes[0].create_key("default", name, "s" * 32)
    own = [node.endpoint.as_identity(identity).client() for node in cluster.nodes]
    for client in own:
        assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"

    def refuses(client):
        def check():
            try:
                client.get_object(Bucket=bucket, Key="k")
                return False
            except ClientError as error:
                return error.response["Error"]["Code"] in ("AccessDenied", "InvalidAccessKeyId")

        return check

    policy = """{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": {"AWS": "arn:aws:iam::default:user/%s"},
        "Action": "s3:GetObject", "Resource": "arn:aws:s3:::%s/*"}]}""" % (name, bucket)
    clients[1].put_bucket_policy(Bucket=bucket, Policy=policy)
    for client in own:
        in_force(refuses(client))
    clients[2].delete_bucket_policy(Bucket=bucket)
    for client in own:
        in_force(lambda client=client: not refuses(client)())
    cluster.nodes[1].command("keys", "disable", name)
    for client in own:
        in_force(refuses(client))


@pytest.mark.op("CreateBucket", "DeleteBucket")
def test_a_bucket_made_or_deleted_on_one_node_is_so_on_all(clients, bucket_names):
    bucket = next(bucket_names)
    for client in clients:
        with refused("404"):
            client.head_bucket(Bucket=bucket)
    for turn in range(6):
        clients[turn % 3].create_bucket(Bucket=bucket)
        # What a node remembers is that of the turn before, less than a second old.
        clients[turn % 3].put_object(Bucket=bucket, Key="k", Body=b"%d" % turn)
        for client in clients:
            assert [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]
            assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"%d" % turn
        with refused("BucketNotEmpty"):
            clients[(turn + 1) % 3].delete_bucket(Bucket=bucket)
        clients[(turn + 2) % 3].delete_object(Bucket=bucket, Key="k")
        clients[(turn + 1) % 3].delete_bucket(Bucket=bucket)
        for client in clients:
            with refused("NoSuchBucket"):
                client.put_object(Bucket=bucket, Key="k", Body=b"x")


def test_behind_a_balancer_each_request_may_take_another_node(cluster, tmp_path, rng):
    balancer = Balancer("nginx", tmp_path, [(node.s3_port, node.admin_port) for node in cluster.nodes])
    if not balancer.program:
        pytest.skip("nginx is not installed")
    with balancer:
        client = cluster.nodes[0].endpoint.at(balancer.url).client(retries={"total_max_attempts": 4})
        before = [sum(node.successes().values()) for node in cluster.nodes]
        parts = [rng.randbytes(MIN_PART) for _ in range(4)]
        upload = Upload(client, "bucket", "balanced")
        for number, part in enumerate(parts, 1):
            upload.put(number, part)
        upload.complete()
        for _ in range(4):
            assert client.get_object(Bucket="bucket", Key="balanced")["Body"].read() == b"".join(parts)
        after = [sum(node.successes().values()) for node in cluster.nodes]
        assert all(later > earlier for earlier, later in zip(before, after)), "not every node had a share"


def test_what_several_nodes_write_alike_is_stored_once(cluster, clients, rng):
    body = rng.randbytes(400_000)
    together(9, lambda number: clients[number % 3].put_object(Bucket="bucket", Key=f"alike {number}", Body=body))
    contents = cluster.query(f"SELECT COUNT(*) FROM contents WHERE length = {len(body)}")
    assert contents == ["1"]
    for number, client in enumerate(clients):
        assert client.get_object(Bucket="bucket", Key=f"alike {number}")["Body"].read() == body


def test_commands_need_no_data_directory_of_their_own(cluster, tmp_path):
    beside = Server(tmp_path / "elsewhere", env=cluster.nodes[0].env, arguments=cluster.nodes[0].arguments)
    assert beside.stats()["objects"] >= 0
    beside.create_tenant("remote")
    beside.create_key("remote", "REMOTEKEY00000000001", "r" * 32)
    assert "REMOTEKEY00000000001" in beside.command("keys", "list").stdout
    beside.command("keys", "delete", "REMOTEKEY00000000001")
    beside.command("tenants", "delete", "remote")
    assert not beside.data_dir.exists(), "a command that only reads rows made a data directory"


@pytest.fixture
def clock_library():
    """What a process loads to have a clock of its own."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    return {"LD_PRELOAD": str(library), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def test_commands_go_by_the_time_of_the_database(cluster, tmp_path, clock_library):
    env = cluster.nodes[0].env | clock_library | {"FAKETIME": "+40d"}
    beside = Server(tmp_path / "elsewhere", env=env, arguments=cluster.nodes[0].arguments)
    beside.create_tenant("ahead")
    tenants = json.loads(beside.command("tenants", "list", "--json").stdout)
    created = next(tenant["created"] for tenant in tenants if tenant["name"] == "ahead")
    assert abs(datetime.fromisoformat(created).timestamp() - time.time()) < 60
    beside.command("tenants", "delete", "ahead")


def test_clocks_follow_the_database(cluster, clients, rng, clock_library):
    skewed = Server(cluster.home / f"skewed{random.random()}", env=cluster.nodes[0].env | {"OSPROXY_NODE__NAME": "skewed"})
    skewed.arguments = cluster.nodes[0].arguments
    skewed.env |= clock_library | {"FAKETIME": "+5m"}
    skewed.start()
    try:
        # What is stored goes by the database's clock. Signatures are held against the machine's own, within the 15 minutes
        # that S3 allows: a request that is signed by the right time passes.
        client = skewed.endpoint.client()
        client.put_object(Bucket="bucket", Key="skewed", Body=b"x")
        modified = clients[0].head_object(Bucket="bucket", Key="skewed")["LastModified"].timestamp()
        assert abs(modified - time.time()) < 60
        assert any("clock differs" in line for line in skewed.log)
        clients[1].put_object(Bucket="bucket", Key="skewed", Body=b"y")
        assert client.get_object(Bucket="bucket", Key="skewed")["Body"].read() == b"y"
    finally:
        skewed.stop()


@pytest.mark.op("PutObject")
def test_a_step_of_a_nodes_clock_ends_nothing_early(cluster, clients, rng, clock_library):
    step = cluster.home / "step"
    step.write_text("+0\n")
    name = f"stepped{rng.random()}"
    stepped = Server(cluster.home / name, env=cluster.nodes[0].env | {"OSPROXY_NODE__NAME": name})
    stepped.arguments = cluster.nodes[0].arguments
    stepped.env |= clock_library | {"FAKETIME_TIMESTAMP_FILE": str(step), "FAKETIME_CACHE_DURATION": "1"}
    clients[0].create_bucket(Bucket="steps")
    rule = {"ID": "month", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30}}
    clients[0].put_bucket_lifecycle_configuration(Bucket="steps", LifecycleConfiguration={"Rules": [rule]})
    clients[0].put_object(Bucket="steps", Key="kept", Body=b"x")
    upload = Upload(clients[0], "steps", "unfinished")
    upload.put(1, b"y" * 100)
    stepped.start()
    try:
        clients[0].get_object(Bucket="steps", Key="kept")
        step.write_text("+40d\n")
        until, answers = time.monotonic() + 8, set()  # more than a beat, and many looks at what is due
        while time.monotonic() < until:
            began = time.monotonic()
            status = stepped.admin("/readyz")[0]
            # That the database is slow is not about clocks, and is said after a second.
            if status == 200 or time.monotonic() - began < 1:
                answers.add(status)
            time.sleep(0.2)
        assert clients[0].head_object(Bucket="steps", Key="kept")["ContentLength"] == 1
        assert [part["PartNumber"] for part in upload.list()["Parts"]] == [1]
        assert answers == {200}
        step.write_text("+0\n")
        time.sleep(2)
        client = stepped.endpoint.client()
        client.put_object(Bucket="steps", Key="after", Body=b"z")
        modified = client.head_object(Bucket="steps", Key="after")["LastModified"].timestamp()
        assert abs(modified - time.time()) < 60
    finally:
        stepped.stop()
