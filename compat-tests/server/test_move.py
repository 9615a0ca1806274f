"""Placements over several backends, mirrors, and moves between backends and placements while clients work."""

import itertools
import json
import random
import sqlite3
import subprocess
import threading
from contextlib import closing

import pytest

from support.moves import begin, ended, moves
from support.server import BINARY
from support.threads import Threads
from support.times import COLLECTING, POLLING
from support.vendors import VENDORS, missing
from support.wait import wait_until

pytestmark = pytest.mark.timeout(900)

KIB, MIB = 1024, 1024 * 1024
CUSTOMER = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": b"k" * 32}
SETTINGS = COLLECTING | POLLING | {
    "OSPROXY_STORAGE__GRACE_SECONDS": "20",
    "OSPROXY_JOBS__LEASE_SECONDS": "10",
    # What is stored is counted: nothing is written anew meanwhile.
    "OSPROXY_MERGE__DELAY_SECONDS": "3600",
}
TWO_DISKS = """
[storage]
placement = "a"

[backend.a]
service = "fs"
options = { root = "a" }

[backend.b]
service = "fs"
options = { root = "b" }
"""
BOTH = """
[placement.both]
backends = ["a", "b"]
copies_required = 1
open = true

[placement.secret]
backends = ["b"]
"""


@pytest.fixture
def install(tmp_path, own_server):
    """Makes servers on a configuration file."""

    def make(text, data="data"):
        path = tmp_path / f"{data}.toml"
        for root in ("a", "b"):
            text = text.replace(f'root = "{root}"', f'root = "{tmp_path / data / root}"')
        path.write_text(text)
        return own_server(data, env=SETTINGS | {"OSPROXY_CONFIG": str(path)})

    return make


def blobs(server, root):
    """The blobs under a root of `fs`."""
    return sorted(path for path in (server.data_dir / root).glob("*/*") if path.is_file())


def body(seed, size):
    return random.Random(seed).randbytes(size)


def move_jobs(server):
    return json.loads(server.command("jobs", "list", "--type", "move", "--json").stdout)["jobs"]


def versions(s3, bucket):
    """Everything clients see of a bucket's versions, and their bytes."""
    seen = {}
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for version in page.get("Versions", []):
            named = {"Bucket": bucket, "Key": version["Key"], "VersionId": version["VersionId"]}
            extra = CUSTOMER if version["Key"].startswith("customer") else {}
            found = s3.get_object(**named, **extra)
            seen[version["Key"], version["VersionId"]] = (
                version["ETag"],
                version["LastModified"],
                version["IsLatest"],
                version["Size"],
                found["Body"].read(),
                found.get("Metadata"),
                found.get("ServerSideEncryption"),
            )
    return seen


def multipart(s3, bucket, key, bodies, **settings):
    customer = {k: v for k, v in settings.items() if k.startswith("SSECustomer")}
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key, **settings)["UploadId"]
    parts = []
    for number, part in enumerate(bodies, 1):
        etag = s3.upload_part(
            Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=part, **customer
        )["ETag"]
        parts.append({"ETag": etag, "PartNumber": number})
    s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
    )


def fill(s3, bucket):
    """Versions of every kind: inline, stored, composite, encrypted, equal ones, overwritten ones."""
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for seed, size in enumerate([0, 1000, 40 * KIB, 300 * KIB, MIB]):
        s3.put_object(Bucket=bucket, Key=f"plain{seed}", Body=body(seed, size), Metadata={"seed": str(seed)})
        s3.put_object(Bucket=bucket, Key=f"equal{seed}", Body=body(seed, size))
        s3.put_object(Bucket=bucket, Key="again", Body=body(100 + seed, size))
        s3.put_object(Bucket=bucket, Key=f"sse{seed}", Body=body(seed, size), ServerSideEncryption="AES256")
        s3.put_object(Bucket=bucket, Key=f"kms{seed}", Body=body(seed, size), ServerSideEncryption="aws:kms")
        s3.put_object(Bucket=bucket, Key=f"customer{seed}", Body=body(seed, size), **CUSTOMER)
    parts = [body(200, 5 * MIB), body(201, 70 * KIB)]
    multipart(s3, bucket, "joined", parts)
    multipart(s3, bucket, "joined-equal", parts)
    multipart(s3, bucket, "joined-sse", parts, ServerSideEncryption="AES256")
    multipart(s3, bucket, "customer-joined", parts, **CUSTOMER)
    s3.delete_object(Bucket=bucket, Key="again")


class Load(Threads):
    """Clients that write, read, copy and delete until they are stopped, and note what failed or was not as it should be."""

    def __init__(self, endpoint, bucket, threads=4):
        self.endpoint, self.bucket = endpoint, bucket
        self.wrong, self.requests = [], 0
        super().__init__((number,) for number in range(threads))

    def _run(self, number):
        s3, dice = self.endpoint.client(), random.Random(number)
        # Some bodies are those of other clients: what is equal is stored once.
        bodies = [body(dice.randrange(6), size) for size in (500, 30 * KIB, 90 * KIB, 400 * KIB)]
        for turn in itertools.count():
            if self.stopping.is_set():
                return
            try:
                self.turn(s3, dice, f"load/{number}/{turn}", bodies)
                self.requests += 1
            except Exception as error:  # any failure is one
                self.wrong.append(f"{number}/{turn}: {error!r}")

    def turn(self, s3, dice, key, bodies):
        here = {"Bucket": self.bucket, "Key": key}
        sent = dice.choice(bodies)
        if dice.random() < 0.1:
            sent = body(dice.randrange(3), 5 * MIB) + sent
            multipart(s3, self.bucket, key, [sent[: 5 * MIB], sent[5 * MIB :]])
            etag = None
        else:
            etag = s3.put_object(**here, Body=sent)["ETag"]
        head = s3.head_object(**here)
        got = s3.get_object(**here)
        read = got["Body"].read()
        if read != sent or head["ContentLength"] != len(sent) or (etag and got["ETag"] != etag):
            self.wrong.append(f"{key}: other bytes or ETag")
        copy = {"Bucket": self.bucket, "Key": f"{key}-copy"}
        s3.copy_object(**copy, CopySource=here)
        if s3.get_object(**copy, Range="bytes=0-99")["Body"].read() != sent[:100]:
            self.wrong.append(f"{key}: other bytes in the copy")
        if dice.random() < 0.5:
            s3.delete_object(**here)


def test_a_backend_moves_while_clients_work(install):
    server = install(TWO_DISKS)
    s3 = server.endpoint.client()
    fill(s3, "old")
    s3.create_bucket(Bucket="busy")
    foreign = blobs(server, "a")[0].parent / "not-ours.txt"
    foreign.write_text("left alone")
    before = versions(s3, "old")
    with Load(server.endpoint, "busy") as load:
        wait_until(lambda: load.requests > 10, 120, what="some load")
        move = begin(server, "--from", "a", "--to", "b")
        at_begin = load.requests
        done = ended(server, move["id"])
        wait_until(lambda: load.requests > at_begin + 10, 120, what="load after the move")
    assert load.wrong == []
    assert done["failed"] == 0 and done["state"] == "done", done
    assert done["remains"] == 1, done  # the foreign file
    assert blobs(server, "a") == [foreign]
    assert versions(s3, "old") == before
    # The server does without the old backend, and the configuration still names it.
    server.stop()
    (server.data_dir / "a").rename(server.data_dir / "a-is-gone")
    server.start()
    s3 = server.endpoint.client()
    assert versions(s3, "old") == before
    s3.put_object(Bucket="old", Key="new", Body=body(9, MIB))
    assert blobs(server, "a") == []


def test_a_move_that_is_killed_goes_on_and_comes_back(install):
    server = install(TWO_DISKS)
    s3 = server.endpoint.client()
    fill(s3, "old")
    before = versions(s3, "old")
    total = len(blobs(server, "a"))
    move = begin(server, "--from", "a", "--to", "b", "--rate", 100 * KIB)
    assert move["total"] == total
    for wanted in (2, 5):
        wait_until(lambda: len(blobs(server, "b")) >= wanted, 120, what=f"{wanted} blobs moved")
        assert moves(server)[0]["state"] == "copying"
        server.kill()
        server.start()
        s3 = server.endpoint.client()
        assert versions(s3, "old") == before
    # The same order again is the same move, at another rate.
    again = begin(server, "--from", "a", "--to", "b")
    assert again["id"] == move["id"] and again["rate"] is None
    done = ended(server, move["id"])
    assert (done["failed"], done["remains"]) == (0, 0)
    # What was moved in the moment of a kill may not have been counted.
    assert total - 16 <= done["moved"] <= total
    assert blobs(server, "a") == []
    assert versions(s3, "old") == before
    back = ended(server, begin(server, "--from", "b", "--to", "a")["id"])
    assert (back["state"], back["remains"]) == ("done", 0)
    assert blobs(server, "b") == []
    assert versions(s3, "old") == before


@pytest.mark.parametrize("of", [(), ("--bucket", "old")], ids=["backend", "bucket"])
def test_a_move_that_is_sent_back_under_way_leaves_nothing_where_it_went(install, of):
    server = install(TWO_DISKS)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="old")
    s3.put_bucket_versioning(Bucket="old", VersioningConfiguration={"Status": "Enabled"})
    for number in range(10):
        s3.put_object(Bucket="old", Key=f"k{number}", Body=body(number, MIB))
    before = versions(s3, "old")
    # What is under way is so for longer than the way back takes.
    there = begin(server, "--from", "a", "--to", "b", *of, "--rate", 256 * KIB)
    wait_until(lambda: blobs(server, "b"), what="the first blob under way")
    back = begin(server, "--from", "b", "--to", "a", *of)
    assert ended(server, there["id"])["state"] == "ended"
    done = ended(server, back["id"])
    assert (done["state"], done["failed"]) == ("done", 0), done
    # Nothing that was under way is any more.
    wait_until(lambda: all(job["ended"] for job in move_jobs(server)), 200, "the end of both jobs")
    wait_until(lambda: not blobs(server, "b"), 120, "nothing to be left there")
    assert ended(server, there["id"])["state"] == "ended"
    server.stop()
    (server.data_dir / "b").rename(server.data_dir / "b-is-away")
    server.start()
    assert versions(server.endpoint.client(), "old") == before


def test_a_move_that_waits_for_its_rate_takes_another_at_once(install):
    server = install(TWO_DISKS)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="old")
    s3.put_object(Bucket="old", Key="k", Body=body(1, MIB))
    # Days for one blob.
    move = begin(server, "--from", "a", "--to", "b", "--rate", 1)
    wait_until(lambda: (server.data_dir / "b").exists(), what="the blob under way")
    assert begin(server, "--from", "a", "--to", "b")["id"] == move["id"]
    done = ended(server, move["id"], 100)
    assert (done["moved"], done["remains"]) == (1, 0), done


def test_a_move_that_is_ordered_while_it_is_cancelled_goes_on(install):
    server = install(TWO_DISKS)
    client = server.endpoint.client()
    client.create_bucket(Bucket="bucket")
    bodies = {f"k{number}": body(number, 200 * KIB) for number in range(10)}
    for key, data in bodies.items():
        client.put_object(Bucket="bucket", Key=key, Body=data)
    order = ("--from", "a", "--to", "b", "--rate", str(10 * KIB))
    id = begin(server, *order)["id"]

    def newest():
        return max(move_jobs(server), key=lambda job: job["created"])

    for _ in range(20):
        wait_until(lambda: newest()["state"] == "running", 60, "the begin of the move")
        job = newest()
        server.command("jobs", "cancel", job["id"])
        # Its run hears of that when it renews its lease.
        assert begin(server, *order)["id"] == id
        if newest()["id"] == job["id"]:
            break  # else it had heard of it before the order came, which has made another job
    else:
        raise AssertionError("each run ended before the order came")
    wait_until(lambda: not newest()["cancelling"], 60, "the end of the run")
    again = newest()
    assert (again["id"], again["ended"]) == (job["id"], None)
    wait_until(lambda: newest()["runs"] > job["runs"], 60, "the next run")
    begin(server, *order[:-2])
    assert ended(server, id)["state"] == "done"
    assert blobs(server, "a") == [] and len(blobs(server, "b")) == 10
    for key, data in bodies.items():
        assert client.get_object(Bucket="bucket", Key=key)["Body"].read() == data


def test_an_order_that_cannot_be_is_refused_and_changes_nothing(install):
    server = install(TWO_DISKS)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="here")
    for words, text in [
        (("--from", "a", "--to", "c"), "there is no backend c; there are a, b, local"),
        (("--from", "a", "--to", "a"), "already"),
        (("--from", "b", "--to", "local", "--bucket", "here"), "at the placement a"),
        (("--from", "b", "--to", "a", "--bucket", "here"), "already"),
        (("--from", "a", "--to", "b", "--bucket", "nowhere"), "there is no bucket nowhere"),
        (("--from", "a", "--to", "c", "--bucket", "here"), "there is no placement c"),
    ]:
        done = server.command("move", *words, check=False)
        assert done.returncode == 1 and text in done.stderr, done
    for words in [("--from", "a"), ("--from", "a", "--to", "b", "--rate", "0"), ("--to", "b", "status")]:
        assert server.command("move", *words, check=False).returncode == 2, words
    assert moves(server) == []
    s3.put_object(Bucket="here", Key="k", Body=body(1, MIB))
    assert len(blobs(server, "a")) == 1


def test_a_move_that_would_collapse_a_mirror_is_refused_unless_that_is_wanted(install):
    server = install(TWO_DISKS + BOTH)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="safe", CreateBucketConfiguration={"LocationConstraint": "us-east-1:both"})
    s3.put_object(Bucket="safe", Key="k", Body=body(1, MIB))
    wait_until(lambda: len(blobs(server, "a")) == len(blobs(server, "b")) == 1, 60, "both copies")
    for words in [("--from", "a", "--to", "b"), ("--from", "b", "--to", "a")]:
        done = server.command("move", *words, check=False)
        assert done.returncode == 1, done
        assert "the placement both would keep one copy" in done.stderr and "--lose-copies" in done.stderr, done
    assert moves(server) == []
    assert len(blobs(server, "a")) == len(blobs(server, "b")) == 1
    done = server.command("move", "--from", "a", "--to", "b", "--bucket", "safe", "--lose-copies", check=False)
    assert done.returncode == 2, "it is about backends"
    done = ended(server, begin(server, "--from", "a", "--to", "b", "--lose-copies")["id"])
    assert done["remains"] == 0 and blobs(server, "a") == []
    assert not (server.data_dir / "a" / "osproxy-install").exists()
    assert s3.get_object(Bucket="safe", Key="k")["Body"].read() == body(1, MIB)


def test_no_node_is_left_without_the_backend_that_is_moved_to(tmp_path, own_server, postgres):
    both, (one_disk, _) = tmp_path / "both.toml", TWO_DISKS.split("[backend.b]")
    only = tmp_path / "only.toml"
    both.write_text(TWO_DISKS.replace('"a" }', f'"{tmp_path}/a" }}').replace('"b" }', f'"{tmp_path}/b" }}'))
    only.write_text(one_disk.replace('"a" }', f'"{tmp_path}/a" }}'))
    common = SETTINGS | {"OSPROXY_NODE__LEASE_SECONDS": "20", "OSPROXY_META__URL": postgres.create(), "OSPROXY_MASTER_KEY": "5a" * 32}

    def node(name, config):
        return own_server(name, env=common | {"OSPROXY_NODE__NAME": name, "OSPROXY_CONFIG": str(config)})

    ahead, behind = node("ahead", both), node("behind", only)
    listed = {row["name"]: row["backends"] for row in json.loads(ahead.command("nodes", "--json").stdout)}
    assert listed == {"ahead": "a, b, local", "behind": "a, local"}
    s3 = ahead.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="before", Body=body(1, MIB))
    for words in [("--bucket", "bucket"), ()]:
        refused = ahead.command("move", "--from", "a", "--to", "b", *words, check=False)
        assert refused.returncode == 1, refused
        assert "backend b is not configured on behind" in refused.stderr, refused.stderr
    behind.endpoint.client().put_object(Bucket="bucket", Key="meanwhile", Body=body(2, MIB))
    # Killed, it counts until the others have declared it dead: it might only be slow.
    behind.kill()
    assert ahead.command("move", "--from", "a", "--to", "b", check=False).returncode == 1
    wait_until(lambda: len(json.loads(ahead.command("nodes", "--json").stdout)) == 1, 120, "one node alone")
    move = begin(ahead, "--from", "a", "--to", "b")
    # Back as it was it would write where nobody looks; it says so, and what to do.
    behind.launch()
    assert behind.wait() == 1
    assert "add backend.b" in behind.tail(), behind.tail()
    behind.env["OSPROXY_CONFIG"] = str(both)
    behind.start()
    assert ended(ahead, move["id"])["failed"] == 0
    for number, key in enumerate(("before", "meanwhile"), 1):
        assert behind.endpoint.client().get_object(Bucket="bucket", Key=key)["Body"].read() == body(number, MIB)


def test_a_bucket_moves_while_clients_work(install):
    server = install(TWO_DISKS + BOTH)
    s3 = server.endpoint.client()
    fill(s3, "moved")
    fill(s3, "stays")
    # Begun before the move, completed after it, with a part from each time.
    upload = s3.create_multipart_upload(Bucket="moved", Key="begun")["UploadId"]
    named = {"Bucket": "moved", "Key": "begun", "UploadId": upload}
    first = s3.upload_part(**named, PartNumber=1, Body=body(300, 5 * MIB))["ETag"]
    before, others = versions(s3, "moved"), versions(s3, "stays")
    kept = len(blobs(server, "a"))
    with Load(server.endpoint, "moved", threads=3) as load:
        wait_until(lambda: load.requests > 5, 120, what="some load")
        move = begin(server, "--from", "a", "--to", "b", "--bucket", "moved")
        done = ended(server, move["id"])
    assert load.wrong == []
    assert (done["state"], done["failed"]) == ("done", 0), done
    after = versions(s3, "moved")
    assert {name: after[name] for name in before} == before
    second = s3.upload_part(**named, PartNumber=2, Body=b"end")["ETag"]
    parts = [{"ETag": first, "PartNumber": 1}, {"ETag": second, "PartNumber": 2}]
    s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket="moved", Key="begun")["Body"].read() == body(300, 5 * MIB) + b"end"
    # Without the old backend the bucket that moved is whole, once the grace is over, and the other is not.
    assert versions(s3, "stays") == others
    wait_until(lambda: len(blobs(server, "a")) < kept, 60, "the collector")
    server.stop()
    (server.data_dir / "a").rename(server.data_dir / "a-is-away")
    server.start()
    s3 = server.endpoint.client()
    after = versions(s3, "moved")
    assert {name: after[name] for name in before} == before


def test_a_client_chooses_among_the_open_placements(install):
    server = install(TWO_DISKS + BOTH)
    s3 = server.endpoint.client()

    def create(name, location):
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": location})

    create("mirrored", "us-east-1:both")
    create("mirrored-too", ":both")
    assert s3.get_bucket_location(Bucket="mirrored")["LocationConstraint"] is None
    for name in ("mirrored", "mirrored-too"):
        s3.put_object(Bucket=name, Key="k", Body=body(1, MIB))
    assert len(blobs(server, "a")) == len(blobs(server, "b")) == 1
    for location in ("us-east-1:secret", "us-east-1:a", "us-east-1:nowhere", "us-east-1:", "mars:both"):
        with pytest.raises(s3.exceptions.ClientError) as refused:
            create("refused", location)
        assert refused.value.response["Error"]["Code"] == "InvalidLocationConstraint", location
    with pytest.raises(s3.exceptions.ClientError) as refused:
        create("refused", "eu-west-1:both")
    assert refused.value.response["Error"]["Code"] == "IllegalLocationConstraintException"


def test_a_placement_with_buckets_keeps_its_backends(install, tmp_path):
    server = install(TWO_DISKS + BOTH)
    s3 = server.endpoint.client()
    create = {"LocationConstraint": "us-east-1:both"}
    s3.create_bucket(Bucket="mirrored", CreateBucketConfiguration=create)
    server.stop()
    config = tmp_path / "data.toml"
    text = config.read_text()
    config.write_text(text.replace('["a", "b"]', '["b", "a"]'))
    server.launch()
    assert server.wait() == 1
    assert "placement.both.backends" in server.tail() and "osproxy move" in server.tail()
    # Without buckets it may change, and so may the number of copies at any time.
    config.write_text(text.replace("copies_required = 1", "").replace('["b"]', '["a"]'))
    server.start()


class Vendor:
    """Another server as an S3 vendor, at an address that it keeps."""

    def __init__(self, own_server):
        self.server = own_server("vendor")
        self.s3, self.admin = self.server.s3_port, self.server.admin_port
        self.server.endpoint.client().create_bucket(Bucket="blobs")

    def backend(self, name):
        identity = self.server.identity
        return f"""
[backend.{name}]
service = "s3"
retries = 1
timeout_seconds = 30
options = {{ bucket = "blobs", endpoint = "http://127.0.0.1:{self.s3}", region = "us-east-1", \
access_key_id = "{identity.access_key}", secret_access_key = "{identity.secret_key}" }}
"""

    def blobs(self):
        pages = self.server.endpoint.client().get_paginator("list_objects_v2").paginate(Bucket="blobs")
        found = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return [key for key in found if key != "osproxy-install"]

    def kill(self):
        self.server.kill()

    def start(self):
        """At the same address as before."""
        server = self.server
        arguments = ["serve", "--data-dir", str(server.data_dir), "--s3-listen", f"127.0.0.1:{self.s3}"]
        command = [str(BINARY), *arguments, "--admin-listen", f"127.0.0.1:{self.admin}"]
        server._ready = threading.Event()
        server.process = subprocess.Popen(
            command, env=server._environment(), cwd=server.data_dir.parent, stderr=subprocess.PIPE
        )
        server.s3_port, server.admin_port = self.s3, self.admin
        server._reader = threading.Thread(target=server._read_log, args=(server.process,), daemon=True)
        server._reader.start()
        assert server._ready.wait(30)


def test_a_mirror_may_be_away_and_is_repaired(install, own_server):
    vendor = Vendor(own_server)
    mirrored = BOTH + '[placement.strict]\nbackends = ["a", "b"]\nopen = true\n'
    server = install(TWO_DISKS.split("[backend.b]")[0] + vendor.backend("b") + mirrored)
    s3 = server.endpoint.client()
    for bucket, placement in (("loose", "both"), ("strict", "strict")):
        location = {"LocationConstraint": f"us-east-1:{placement}"}
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=location)
    sizes = (100 * KIB, MIB, 7 * MIB)
    for number, size in enumerate(sizes):
        s3.put_object(Bucket="loose", Key=f"k{number}", Body=body(number, size))
        s3.put_object(Bucket="strict", Key=f"k{number}", Body=body(50 + number, size))
    assert len(blobs(server, "a")) == len(vendor.blobs()) == 6
    vendor.kill()
    for number, size in enumerate(sizes):
        s3.put_object(Bucket="loose", Key=f"k{number + 10}", Body=body(number + 10, size))
        assert s3.get_object(Bucket="loose", Key=f"k{number}")["Body"].read() == body(number, size)
        with pytest.raises(s3.exceptions.ClientError) as refused:
            s3.put_object(Bucket="strict", Key="refused", Body=body(60, size))
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    with pytest.raises(s3.exceptions.ClientError):
        s3.head_object(Bucket="strict", Key="refused")
    vendor.start()

    def is_repaired():
        # An object is there before its row says so, and only then it is read.
        with closing(sqlite3.connect(f"file:{server.data_dir}/meta.db?mode=ro", uri=True)) as rows:
            return rows.execute("SELECT COUNT(*) FROM copies WHERE state = 'missing'").fetchone() == (0,)

    wait_until(is_repaired, 60, "the repair of the mirror")
    assert len(blobs(server, "a")) == 9 and len(vendor.blobs()) >= 9
    s3.put_object(Bucket="strict", Key="taken", Body=body(61, MIB))
    # Either backend alone has all of it.
    server.stop()
    (server.data_dir / "a").rename(server.data_dir / "a-is-away")
    server.start()
    s3 = server.endpoint.client()
    for number, size in enumerate(sizes):
        for key in (number, number + 10):
            assert s3.get_object(Bucket="loose", Key=f"k{key}")["Body"].read() == body(key, size)
    assert s3.get_object(Bucket="strict", Key="taken")["Body"].read() == body(61, MIB)
    # Deleting deletes both.
    for key in ("k0", "k1", "k2", "taken"):
        s3.delete_object(Bucket="strict", Key=key)
    wait_until(lambda: len(vendor.blobs()) == 6, 60, "the collector")


def test_an_install_moves_to_another_vendor_and_back(install, own_server):
    vendor = Vendor(own_server)
    server = install(TWO_DISKS + vendor.backend("cloud"))
    s3 = server.endpoint.client()
    fill(s3, "old")
    s3.create_bucket(Bucket="busy")
    before = versions(s3, "old")
    with Load(server.endpoint, "busy", threads=2) as load:
        there = ended(server, begin(server, "--from", "a", "--to", "cloud")["id"])
        assert versions(s3, "old") == before
        assert blobs(server, "a") == []
        back = ended(server, begin(server, "--from", "cloud", "--to", "b")["id"])
    assert load.wrong == []
    for done in (there, back):
        assert (done["state"], done["failed"], done["remains"]) == ("done", 0, 0), done
    assert vendor.blobs() == []
    assert versions(s3, "old") == before


@pytest.mark.skipif(bool(missing("rclone-webdav")), reason=f"{missing('rclone-webdav')} is not installed")
def test_an_install_moves_to_a_vendor_of_short_blobs_and_back(install, tmp_path):
    (tmp_path / "webdav").mkdir()
    vendor = VENDORS["rclone-webdav"](tmp_path / "webdav").start()
    try:
        options = ", ".join(f'{key} = "{value}"' for key, value in vendor.options().items())
        server = install(f'{TWO_DISKS}[backend.cloud]\nservice = "webdav"\noptions = {{ {options} }}\n')
        s3 = server.endpoint.client()
        fill(s3, "old")
        # Longer than the 5 MiB that one request to the vendor may carry.
        s3.put_object(Bucket="old", Key="long", Body=body(300, 13 * MIB))
        s3.put_object(Bucket="old", Key="equal-long", Body=body(300, 13 * MIB))
        s3.put_object(Bucket="old", Key="sse-long", Body=body(301, 12 * MIB), ServerSideEncryption="AES256")
        multipart(s3, "old", "joined-long", [body(302, 9 * MIB), body(303, 6 * MIB)])
        s3.create_bucket(Bucket="busy")
        before = versions(s3, "old")
        with Load(server.endpoint, "busy", threads=2) as load:
            there = ended(server, begin(server, "--from", "a", "--to", "cloud")["id"])
            assert versions(s3, "old") == before
        assert load.wrong == []
        # A part of 5 MiB that only its customer can read, and that is longer in frames.
        assert (there["state"], there["failed"], there["remains"]) == ("done", 1, 1), there
        assert "only its customer has its key" in there["reason"], there
        assert len(blobs(server, "a")) == 1
        assert max(path.stat().st_size for path in vendor.stored()) <= 5 * MIB
        stored = server.stats()["stored_bytes"]
        s3.put_object(Bucket="old", Key="long-again", Body=body(300, 13 * MIB))
        assert server.stats()["stored_bytes"] == stored
        s3.delete_object(Bucket="old", Key="long-again", VersionId=s3.head_object(Bucket="old", Key="long-again")["VersionId"])
        server.kill()
        server.start()
        s3 = server.endpoint.client()
        back = ended(server, begin(server, "--from", "cloud", "--to", "b")["id"])
        assert (back["state"], back["failed"], back["remains"]) == ("done", 0, 0), back
        assert vendor.stored() == []
        assert versions(s3, "old") == before
        clean = server.command("fsck", "--read", check=False)
        assert clean.returncode == 0, clean.stdout
    finally:
        vendor.stop()


def test_a_damaged_blob_is_left_and_reported(install):
    server = install(TWO_DISKS)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="here")
    for number in range(3):
        s3.put_object(Bucket="here", Key=f"k{number}", Body=body(number, MIB))
    damaged = blobs(server, "a")[1]
    bytes_ = bytearray(damaged.read_bytes())
    bytes_[1000] ^= 1
    damaged.write_bytes(bytes_)
    done = server.command("move", "--from", "a", "--to", "b", "--json", check=False)
    assert done.returncode == 1, done
    found = json.loads(done.stdout)
    assert (found["state"], found["moved"], found["failed"], found["remains"]) == ("done", 2, 1, 1), found
    assert damaged.name in found["reason"] and "not those that were stored" in found["reason"]
    assert blobs(server, "a") == [damaged]
