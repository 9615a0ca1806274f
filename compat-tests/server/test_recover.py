"""The database is lost: what `osproxy recover` makes of the manifests at the backend."""

import hashlib
import json
import random
import shutil
import sqlite3
import subprocess
import threading
import time

import pytest

from support.keys import INLINE, MIN_PART
from support.refusal import refused
from support.server import BINARY, Server
from support.wait import wait_until

ON = {"OSPROXY_MANIFESTS__ENABLED": "true", "OSPROXY_MANIFESTS__INTERVAL_SECONDS": "1"}
CUSTOMER = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
SECOND = ("SECONDACCESSKEY00001", "secondsecretkeysecondsecretkeysecondsec1")
#: What a recovery does not bring back, or makes anew.
NOT_KEPT = {
    "changes", "manifest_writer", "manifest_parts", "recovery", "uploads", "upload_parts", "released", "nodes",
    "workers", "fences", "jobs", "job_pauses", "events", "event_targets", "usage", "install", "sqlite_sequence",
    "unfinished_copy", "moves", "findings",
}


def lose_database(server):
    for name in ("meta.db", "meta.db-wal", "meta.db-shm"):
        (server.data_dir / name).unlink(missing_ok=True)


def recover(server, *words, check=True):
    done = server.command("recover", "--json", *words, check=check)
    return json.loads(done.stdout) if check else done


def rows(server):
    """Every row of every table that is to come back, and what each bucket holds."""
    with sqlite3.connect(server.data_dir / "meta.db") as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {
            table: sorted(database.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
            for table in tables
            if table not in NOT_KEPT
        }
        found["usage"] = database.execute(
            "SELECT bucket_id, SUM(objects), SUM(bytes) FROM usage GROUP BY bucket_id HAVING SUM(objects) > 0"
            " ORDER BY bucket_id"
        ).fetchall()
    return found


def manifests(server):
    """Objects of manifests at the backend: the first digit of their names is 8 or more."""
    return [path for path in (server.data_dir / "blobs" / "ff").glob("*") if path.name[0] in "89abcdef"]


def wait_for_manifests(server):
    """Until everything that was answered is in a manifest."""

    def none_waits():
        with sqlite3.connect(f"file:{server.data_dir}/meta.db?mode=ro", uri=True) as database:
            waiting = database.execute("SELECT COUNT(*) FROM changes").fetchone()[0]
            tip = database.execute("SELECT tip FROM manifest_writer").fetchone()
        return waiting == 0 and tip is not None and tip[0] is not None

    wait_until(none_waits, 60, "all changes in manifests")


def strip(answer):
    """An answer without what differs from request to request."""
    answer = {name: value for name, value in answer.items() if name not in ("ResponseMetadata", "Body")}
    return json.loads(json.dumps(answer, default=repr, sort_keys=True))


def everything(client, customer_keys=()):
    """All that a client sees of its buckets."""
    seen = {"buckets": strip(client.list_buckets())}
    for entry in client.list_buckets()["Buckets"]:
        bucket = entry["Name"]
        for name in (
            "versioning", "policy", "tagging", "cors", "lifecycle_configuration", "encryption", "acl", "website",
            "ownership_controls",
        ):
            try:
                seen[bucket, name] = strip(getattr(client, f"get_bucket_{name}")(Bucket=bucket))
            except client.exceptions.ClientError as error:
                seen[bucket, name] = error.response["Error"]["Code"]
        try:
            seen[bucket, "lock"] = strip(client.get_object_lock_configuration(Bucket=bucket))
        except client.exceptions.ClientError as error:
            seen[bucket, "lock"] = error.response["Error"]["Code"]
        listing = client.get_paginator("list_object_versions").paginate(Bucket=bucket).build_full_result()
        seen[bucket, "listing"] = strip(listing)
        for version in listing.get("Versions", []):
            name = {"Bucket": bucket, "Key": version["Key"], "VersionId": version["VersionId"]}
            key = CUSTOMER if version["Key"] in customer_keys else {}
            answer = client.get_object(**name, **key, ChecksumMode="ENABLED")
            digest = hashlib.sha256(answer["Body"].read()).hexdigest()
            seen[bucket, version["Key"], version["VersionId"]] = [
                digest,
                strip(answer),
                strip(client.get_object_tagging(**name)),
                strip(client.get_object_acl(**name)),
            ]
            if not key:
                attributes = ["ETag", "Checksum", "ObjectParts", "ObjectSize"]
                answer = client.get_object_attributes(**name, ObjectAttributes=attributes)
                seen[bucket, version["Key"], version["VersionId"]].append(strip(answer))
    return seen


def fill(server, rng):
    """An install with something of everything; returns its two clients."""
    s3 = server.endpoint.client()
    server.create_tenant("second")
    second = server.endpoint.as_identity(server.create_key("second", *SECOND)).client()

    s3.create_bucket(Bucket="plain")
    for number, size in enumerate([0, 1, 100, INLINE, INLINE + 1, 300_000, 2_000_000]):
        s3.put_object(
            Bucket="plain", Key=f"dir/{number}", Body=rng.randbytes(size), ContentType="text/x-odd",
            Metadata={"colour": f"c{number}"}, Tagging=f"number={number}", CacheControl="no-store",
        )
    s3.copy_object(Bucket="plain", Key="copied", CopySource="plain/dir/5")
    s3.put_object(Bucket="plain", Key="twice", Body=b"old " * 20_000)
    s3.put_object(Bucket="plain", Key="twice", Body=b"new " * 20_000)
    s3.put_object(Bucket="plain", Key="deleted", Body=b"gone")
    s3.delete_object(Bucket="plain", Key="deleted")
    s3.put_object(Bucket="plain", Key="ä ö/日本", Body=b"name", ACL="public-read", ChecksumAlgorithm="SHA256")
    upload = s3.create_multipart_upload(Bucket="plain", Key="parts", ChecksumAlgorithm="CRC32C", Metadata={"m": "1"})
    parts = []
    for number, size in [(1, MIN_PART), (2, MIN_PART), (7, 5000)]:
        done = s3.upload_part(
            Bucket="plain", Key="parts", UploadId=upload["UploadId"], PartNumber=number, Body=rng.randbytes(size),
            ChecksumAlgorithm="CRC32C",
        )
        parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumCRC32C": done["ChecksumCRC32C"]})
    s3.complete_multipart_upload(
        Bucket="plain", Key="parts", UploadId=upload["UploadId"], MultipartUpload={"Parts": parts}
    )
    unfinished = s3.create_multipart_upload(Bucket="plain", Key="unfinished")
    s3.upload_part(
        Bucket="plain", Key="unfinished", UploadId=unfinished["UploadId"], PartNumber=1, Body=rng.randbytes(400_000)
    )

    s3.create_bucket(Bucket="versions")
    s3.put_object(Bucket="versions", Key="k", Body=b"null version")
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    ids = [s3.put_object(Bucket="versions", Key="k", Body=rng.randbytes(50_000))["VersionId"] for _ in range(4)]
    s3.delete_object(Bucket="versions", Key="k")
    s3.delete_object(Bucket="versions", Key="k", VersionId=ids[1])
    s3.put_object(Bucket="versions", Key="back", Body=b"first")
    s3.put_object(Bucket="versions", Key="back", Body=b"second")
    marker = s3.delete_object(Bucket="versions", Key="back")["VersionId"]
    s3.delete_object(Bucket="versions", Key="back", VersionId=marker)
    s3.put_object_tagging(
        Bucket="versions", Key="k", VersionId=ids[0], Tagging={"TagSet": [{"Key": "late", "Value": "1"}]}
    )
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket="versions", Key="k", Body=b"another null version")

    s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))
    s3.put_object(Bucket="locked", Key="kept", Body=b"k", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
    s3.put_object(Bucket="locked", Key="held", Body=b"h")
    s3.put_object_legal_hold(Bucket="locked", Key="held", LegalHold={"Status": "ON"})

    s3.create_bucket(Bucket="encrypted")
    s3.put_bucket_encryption(
        Bucket="encrypted",
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    server.command("kms", "create", "my-key", "--alias", "mine")
    for size in (500, 70_000):
        s3.put_object(Bucket="encrypted", Key=f"s3-{size}", Body=rng.randbytes(size))
        s3.put_object(
            Bucket="encrypted", Key=f"kms-{size}", Body=rng.randbytes(size), ServerSideEncryption="aws:kms",
            SSEKMSKeyId="alias/mine",
        )
        s3.put_object(Bucket="encrypted", Key=f"customer-{size}", Body=rng.randbytes(size), **CUSTOMER)
    server.command("encryption", "rotate")
    s3.put_object(Bucket="encrypted", Key="after", Body=rng.randbytes(9000))

    s3.create_bucket(Bucket="settings")
    s3.put_bucket_tagging(Bucket="settings", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    s3.put_bucket_lifecycle_configuration(
        Bucket="settings",
        LifecycleConfiguration={
            "Rules": [{"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}]
        },
    )
    s3.put_bucket_cors(
        Bucket="settings",
        CORSConfiguration={"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://example.org"]}]},
    )
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::settings/pub/*"}
        ],
    }
    s3.put_bucket_policy(Bucket="settings", Policy=json.dumps(policy))

    s3.create_bucket(Bucket="removed")
    s3.put_object(Bucket="removed", Key="k", Body=b"x" * 50_000)
    s3.delete_object(Bucket="removed", Key="k")
    s3.delete_bucket(Bucket="removed")

    second.create_bucket(Bucket="theirs")
    second.put_object(Bucket="theirs", Key="same bytes", Body=b"new " * 20_000)
    second.put_object(Bucket="theirs", Key="k", Body=b"small")
    server.create_key("second", "DELETEDACCESSKEY0001", "deletedsecretkeydeletedsecretkeydeleted1")
    server.command("keys", "delete", "DELETEDACCESSKEY0001")
    return s3, second


CUSTOMER_KEYS = ("customer-500", "customer-70000")


def test_all_that_clients_see_comes_back(own_server, rng):
    server = own_server(env=ON)
    s3, second = fill(server, rng)
    seen = everything(s3, CUSTOMER_KEYS), everything(second)
    before_stop = s3.put_object(Bucket="plain", Key="uid", Body=b"u")
    wait_for_manifests(server)
    server.kill()
    with sqlite3.connect(server.data_dir / "meta.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        newest = database.execute("SELECT MAX(uid) FROM objects").fetchone()[0]
        old = {row[0]: row for row in database.execute("SELECT id, state, size FROM blobs")}
    expected = rows(server)
    lose_database(server)

    # A server that starts on the new database would let its sweep delete every blob.
    server.launch()
    assert server.wait() == 1
    assert "osproxy recover" in server.tail() and "manifests" in server.tail()
    lose_database(server)

    dry = recover(server, "--dry-run")
    assert dry["is_dry_run"] and not (server.data_dir / "meta.db").exists()
    report = recover(server)
    assert report | {"is_dry_run": True} == dry
    assert report["tenants"] == 2 and report["buckets"] == 6, report
    assert report["skipped"] == [] and report["rows_left_out"] == 0
    assert report["without_bytes"]["count"] == 0 and report["newer_blobs"]["count"] == 0, report
    assert rows(server) == expected
    assert not list(server.data_dir.glob("recover.tmp*"))
    assert refused_again(server)

    server.start()
    s3 = server.endpoint.client()
    second = server.endpoint.as_identity(type(server.identity)(*SECOND)).client()
    s3.delete_object(Bucket="plain", Key="uid")
    assert everything(s3, CUSTOMER_KEYS) == seen[0]
    assert everything(second) == seen[1]
    with refused("InvalidAccessKeyId"):
        server.endpoint.as_identity(
            type(server.identity)("DELETEDACCESSKEY0001", "deletedsecretkeydeletedsecretkeydeleted1")
        ).client().list_buckets()
    with refused("AccessDenied"):
        s3.delete_object(
            Bucket="locked", Key="kept", VersionId=s3.head_object(Bucket="locked", Key="kept")["VersionId"]
        )
    # Dedup and ids go on where they were.
    before = server.stats()["stored_bytes"]
    s3.put_object(Bucket="plain", Key="known", Body=b"new " * 20_000)
    assert server.stats()["stored_bytes"] == before
    with sqlite3.connect(server.data_dir / "meta.db") as database:
        (uid,) = database.execute("SELECT uid FROM objects WHERE key = CAST('known' AS BLOB)").fetchone()
    assert uid > newest and old and before_stop
    # The parts of the unfinished upload are the collector's; everything else stays through a sweep.
    server.command("gc")
    assert everything(second) == seen[1]
    wait_for_manifests(server)
    server.stop()
    lose_database(server)
    report = recover(server)
    assert report["keys"] >= dry["keys"] and report["without_bytes"]["count"] == 0
    server.start()
    assert everything(server.endpoint.client(), CUSTOMER_KEYS).keys() >= seen[0].keys()


def refused_again(server):
    done = recover(server, check=False)
    return done.returncode == 1 and "not empty" in done.stderr


def test_an_unwanted_recovery_is_refused(own_server, rng, tmp_path):
    server = own_server(env=ON)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=rng.randbytes(100_000))
    assert "another osproxy" in recover(server, check=False).stderr
    server.stop()
    assert "not empty" in recover(server, check=False).stderr
    lose_database(server)

    master = (server.data_dir / "master.key").read_text()
    (server.data_dir / "master.key").unlink()
    assert "master.key" in recover(server, check=False).stderr
    (server.data_dir / "master.key").write_text("ab" * 32)
    assert "not the one they were written under" in recover(server, check=False).stderr
    (server.data_dir / "master.key").write_text(master)
    assert "nowhere" in recover(server, "--from", "nowhere", check=False).stderr
    empty = Server(tmp_path / "empty", env=ON | {"OSPROXY_MASTER_KEY": "cd" * 32})
    assert "no manifests" in recover(empty, check=False).stderr
    assert not (tmp_path / "empty" / "meta.db").exists()
    assert recover(server)["keys"] == 1


def test_a_broken_manifest_is_named_and_can_be_skipped(own_server, rng):
    server = own_server(env=ON)
    s3 = server.endpoint.client()
    bodies = {}
    s3.create_bucket(Bucket="bucket")
    for number in range(4):
        bodies[f"k{number}"] = rng.randbytes(60_000)
        s3.put_object(Bucket="bucket", Key=f"k{number}", Body=bodies[f"k{number}"])
        wait_for_manifests(server)
    server.stop()
    with sqlite3.connect(server.data_dir / "meta.db") as database:
        parts = database.execute("SELECT name FROM manifest_parts WHERE state = 'segment' ORDER BY seq").fetchall()
    lose_database(server)
    broken = parts[1][0].decode()
    path = server.data_dir / "blobs" / "ff" / broken
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1], bytes([*whole[:-3], whole[-3] ^ 1, *whole[-2:]]), b"", None):
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        refusal = recover(server, check=False)
        assert refusal.returncode == 1, refusal
        assert "--skip-broken" in refusal.stderr, refusal.stderr
        if damaged is not None:
            assert broken in refusal.stderr, refusal.stderr
        assert not (server.data_dir / "meta.db").exists()
    path.write_bytes(whole[:40] + b"x" * 40)
    report = recover(server, "--skip-broken")
    assert report["skipped"] and any(broken in why for why in report["skipped"])
    # What only it held is lost, and its blob is told of and kept.
    assert report["keys"] < 4 and report["keys"] + report["older_unnamed_blobs"] == 4, report
    server.start()
    s3 = server.endpoint.client()
    server.command("gc")
    found = [entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket")["Contents"]]
    assert len(found) == report["keys"]
    for key in found:
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == bodies[key]


def test_what_is_newer_or_missing_is_told(own_server, rng):
    server = own_server(env=ON | {"OSPROXY_MANIFESTS__INTERVAL_SECONDS": "2"})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="kept", Body=rng.randbytes(100_000))
    s3.put_object(Bucket="bucket", Key="lost", Body=rng.randbytes(100_000))
    wait_for_manifests(server)
    server.stop()
    kept = [path for path in (server.data_dir / "blobs").glob("*/*") if path.is_file()]
    with sqlite3.connect(server.data_dir / "meta.db") as database:
        (name,) = database.execute(
            "SELECT p.name FROM objects o JOIN contents c ON c.id = o.content_id JOIN copies p USING (blob_id)"
            " WHERE o.key = CAST('lost' AS BLOB)"
        ).fetchone()
    # A second run whose manifests never come to be.
    server.env["OSPROXY_MANIFESTS__ENABLED"] = "false"
    server.env["OSPROXY_STORAGE__GRACE_SECONDS"] = "1"
    server.start()
    server.endpoint.client().put_object(Bucket="bucket", Key="newer", Body=rng.randbytes(100_000))
    server.kill()
    lose_database(server)
    next(path for path in kept if path.name == name.decode()).unlink()
    report = recover(server)
    assert report["newer_blobs"]["count"] == 1 and report["newer_blobs"]["first"][0]["name"]
    [lost] = report["without_bytes"]["first"]
    assert (lost["bucket"], lost["key"], lost["is_current"]) == ("bucket", "lost", True)
    text = server.command("recover", check=False)
    assert text.returncode == 1
    server.start()
    time.sleep(1.5)  # past the grace, as the sweep sees it
    server.command("gc")
    newer = report["newer_blobs"]["first"][0]["name"]
    assert list((server.data_dir / "blobs").rglob(newer)), "the sweep took what the operator may want"
    with refused("NoSuchKey"):
        server.endpoint.client().get_object(Bucket="bucket", Key="newer")


@pytest.mark.parametrize("round_number", range(3))
def test_kill_while_manifests_are_written_and_while_recovering(own_server, rng, round_number):
    """What a client was told before the last manifest that counts is there afterwards, whatever was cut when."""
    server = own_server(env=ON)
    stop = threading.Event()
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})

    def write(seed):
        own = random.Random(seed)
        client = server.endpoint.client(read_timeout=20)
        while not stop.is_set():
            key = f"k{own.randrange(30)}"
            try:
                if own.random() < 0.2:
                    client.delete_object(Bucket="bucket", Key=key)
                else:
                    client.put_object(Bucket="bucket", Key=key, Body=own.randbytes(own.choice([50, 20_000, 300_000])))
            except Exception:  # the server went away
                return

    writers = [threading.Thread(target=write, args=(rng.random(),), daemon=True) for _ in range(4)]
    for writer in writers:
        writer.start()
    wait_until(lambda: len(manifests(server)) >= 2, 30, "manifests")
    time.sleep(rng.random())
    server.kill()
    stop.set()
    for writer in writers:
        writer.join(30)
    server.start()
    wait_for_manifests(server)
    server.kill()
    expected = rows(server)
    lose_database(server)
    # Interrupted recoveries go on, and a server does not start on the half of one.
    for _ in range(5):
        process = subprocess.Popen(
            [str(BINARY), "recover", "--data-dir", str(server.data_dir)], env=server._environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.random() * 0.6)
        process.kill()
        process.wait()
    done = recover(server, check=False)
    assert done.returncode == 0 or "not empty" in done.stderr, done.stderr
    assert rows(server) == expected
    server.start()
    listing = server.endpoint.client().list_object_versions(Bucket="bucket")
    for version in listing.get("Versions", []):
        answer = server.endpoint.client().get_object(
            Bucket="bucket", Key=version["Key"], VersionId=version["VersionId"]
        )
        assert len(answer["Body"].read()) == version["Size"]


def test_blobs_and_manifests_at_an_s3_vendor(own_server, rng):
    """osproxy behind osproxy: the vendor sees opaque names and bytes, and they are enough."""
    vendor = own_server("vendor")
    vendor.endpoint.client().create_bucket(Bucket="blobs")
    options = {
        "bucket": "blobs", "endpoint": vendor.endpoint.url, "region": "us-east-1",
        "access_key_id": vendor.identity.access_key, "secret_access_key": vendor.identity.secret_key,
    }
    config = vendor.data_dir.parent / "front.toml"
    config.write_text(
        '[storage]\nplacement = "vendor"\n[backend.vendor]\nservice = "s3"\n[backend.vendor.options]\n'
        + "".join(f'{name} = "{value}"\n' for name, value in options.items())
    )
    front = own_server("front", env=ON | {"OSPROXY_CONFIG": str(config)})
    s3, second = fill(front, rng)
    seen = everything(s3, CUSTOMER_KEYS), everything(second)
    wait_for_manifests(front)
    front.kill()
    expected = rows(front)
    shutil.move(front.data_dir / "master.key", front.data_dir.parent / "kept.key")
    shutil.rmtree(front.data_dir)
    front.data_dir.mkdir()
    shutil.move(front.data_dir.parent / "kept.key", front.data_dir / "master.key")
    report = recover(front, "--from", "vendor")
    assert report["newer_blobs"]["count"] == 0 and report["without_bytes"]["count"] == 0
    assert rows(front) == expected
    front.start()
    assert everything(front.endpoint.client(), CUSTOMER_KEYS) == seen[0]
    for entry in vendor.endpoint.client().list_objects_v2(Bucket="blobs")["Contents"]:
        assert entry["Key"] == "osproxy-install" or len(entry["Key"].split("/")[-1]) == 32, entry["Key"]


MOVED = """
[storage]
placement = "aaa"
grace_seconds = 2
blob_retention_seconds = 0
collect_interval_seconds = 1

[jobs]
poll_seconds = 1

[manifests]
enabled = true
interval_seconds = 1
backend = "{manifests}"

[backend.aaa]
service = "fs"
options = {{ root = "{top}/aaa" }}

[backend.zzz]
service = "fs"
options = {{ root = "{top}/zzz" }}

[backend.keep]
service = "fs"
options = {{ root = "{top}/keep" }}
"""


@pytest.mark.parametrize("to", ["keep", ""])
def test_what_was_moved_away_from_comes_back_and_need_not_be_there(own_server, rng, tmp_path, to):
    file = tmp_path / "moved.toml"
    file.write_text(MOVED.format(top=tmp_path, manifests=to))
    server = own_server(env={"OSPROXY_CONFIG": str(file)})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    body = rng.randbytes(300_000)
    s3.put_object(Bucket="bucket", Key="k", Body=body)
    wait_for_manifests(server)

    def files(root):
        return [path for path in (tmp_path / root).glob("*/*") if path.is_file()]

    moved = json.loads(server.command("move", "--from", "aaa", "--to", "zzz", "--json").stdout)
    assert moved["state"] == "done"
    if not to:
        # Where nothing says where they go, the next start takes them to what stands for the old one.
        server.stop()
        server.start()
    wait_for_manifests(server)
    wait_until(lambda: files("aaa") == [], 60, "nothing at the old backend")
    server.stop()
    text = file.read_text().replace('placement = "aaa"', 'placement = "zzz"')
    start, end = text.index("[backend.aaa]"), text.index("[backend.zzz]")
    file.write_text(text[:start] + text[end:])
    expected = rows(server)
    lose_database(server)
    report = recover(server)
    assert report["keys"] == 1 and report["rows_left_out"] == report["without_bytes"]["count"] == 0, report
    assert rows(server) == expected
    server.start()
    assert server.endpoint.client().get_object(Bucket="bucket", Key="k")["Body"].read() == body
    # A backend where something lies is asked for by its name.
    server.stop()
    lose_database(server)
    file.write_text(file.read_text().replace("zzz]", "other]").replace('"zzz"', '"other"'))
    if to:
        assert "backend zzz" in recover(server, check=False).stderr


def test_snapshots_take_the_place_of_segments(own_server, rng):
    """Space follows the live namespace: keys overwritten over and over leave no trail of manifests."""
    server = own_server(env=ON)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    for turn in range(4):
        for number in range(450):
            s3.put_object(Bucket="bucket", Key=f"k{number}", Body=rng.randbytes(INLINE))
        wait_for_manifests(server)
    server.stop()
    size = sum(path.stat().st_size for path in manifests(server))
    assert size < 3 * 450 * INLINE + (16 << 20), size
    lose_database(server)
    assert recover(server)["keys"] == 450
