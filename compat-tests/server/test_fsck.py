"""`osproxy fsck` and the scrub of a real server: damage on its disks is found, told with its keys, and mended from a
mirror; and a download that outlasts the grace gets every byte of what was deleted meanwhile."""

import json
import random
import sqlite3
import time

import pytest

from support.multipart import Upload
from support.refusal import refused
from support.times import COLLECTING, POLLING
from support.wait import wait_until

KIB, MIB = 1024, 1024 * 1024
CUSTOMER = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": b"k" * 32}
PROMPT = COLLECTING | POLLING
OFTEN = {"OSPROXY_SCRUB__INTERVAL_SECONDS": "2", "OSPROXY_SCRUB__BYTES_PER_SECOND": str(64 * MIB)}
MIRROR = """
[storage]
placement = "both"

[backend.a]
service = "fs"
options = { root = "a" }

[backend.b]
service = "fs"
options = { root = "b" }

[placement.both]
backends = ["a", "b"]
"""


@pytest.fixture
def mirrored(tmp_path, own_server):
    def make(env=None):
        path = tmp_path / "mirror.toml"
        text = MIRROR
        for root in ("a", "b"):
            text = text.replace(f'root = "{root}"', f'root = "{tmp_path / "data" / root}"')
        path.write_text(text)
        return own_server(env=PROMPT | {"OSPROXY_CONFIG": str(path)} | (env or {}))

    return make


def body(seed, size):
    return random.Random(seed).randbytes(size)


def blobs(server, root="blobs"):
    return sorted(path for path in (server.data_dir / root).glob("*/*") if path.is_file())


def blob_of(server, bytes_, root="blobs"):
    return next(path for path in blobs(server, root) if path.read_bytes() == bytes_)


def flip(path, at=0):
    bytes_ = bytearray(path.read_bytes())
    bytes_[at] ^= 1
    path.write_bytes(bytes_)


def fsck(server, *words, code=0):
    done = server.command("fsck", "--json", *words, check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout) if code < 2 else done.stderr


def told(report):
    """Problem, what was done, and the keys of each finding."""
    return sorted(
        (
            finding["problem"],
            finding["repair"],
            tuple(sorted(version["bucket"] + "/" + version["key"] for version in finding["versions"]["first"])),
        )
        for finding in report["findings"]["all"]["first"]
    )


def fill(s3):
    s3.create_bucket(Bucket="bucket")
    for number in range(4):
        s3.put_object(Bucket="bucket", Key=f"plain{number}", Body=body(number, 100 * KIB))
    s3.put_object(Bucket="bucket", Key="twin", Body=body(0, 100 * KIB))
    s3.put_object(Bucket="bucket", Key="small", Body=b"in the row")
    s3.put_object(Bucket="bucket", Key="sealed", Body=body(5, 200 * KIB), ServerSideEncryption="AES256")
    s3.put_object(Bucket="bucket", Key="customer", Body=body(6, 200 * KIB), **CUSTOMER)


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
def test_each_kind_of_damage_is_found_and_told_with_its_keys(own_server, is_running):
    server = own_server(env=PROMPT | {"OSPROXY_SCRUB__ENABLED": "false"})
    fill(server.endpoint.client())
    assert told(fsck(server)) == []
    clean = fsck(server, "--read")
    assert told(clean) == [] and clean["copies"] == 6 and clean["bytes"] > 6 * 100 * KIB
    if not is_running:
        server.stop()
    flip(blob_of(server, body(0, 100 * KIB)), 70_000)
    blob_of(server, body(1, 100 * KIB)).unlink()
    cut = blob_of(server, body(2, 100 * KIB))
    cut.write_bytes(cut.read_bytes()[:-1])
    sealed = next(path for path in blobs(server) if path.stat().st_size > 200 * KIB)
    missing = ("missing", "none", ("bucket/plain1",))
    short = ("wrong-length", "none", ("bucket/plain2",))
    flipped = ("corrupt", "none", ("bucket/plain0", "bucket/twin"))
    # Without reading, a flipped byte cannot be seen.
    assert told(fsck(server, code=1)) == [missing, short]
    assert told(fsck(server, "--read", code=1)) == [flipped, missing, short]
    shown = server.command("fsck", "--read", check=False)
    assert shown.returncode == 1 and shown.stderr == ""
    for key in ("plain0", "twin", "plain1", "plain2"):
        assert f"bucket/{key} version " in shown.stdout
    # There is nothing to mend them from. It is known from now on, also without reading.
    assert told(fsck(server, "--read", "--repair", code=1)) == [flipped, missing, short]
    assert told(fsck(server, code=1)) == [flipped, missing, short]
    assert sealed.exists()


def test_versions_are_told_as_s3_names_them(own_server):
    server = own_server(env=PROMPT | {"OSPROXY_SCRUB__ENABLED": "false"})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    uids = {}

    def put():
        put = s3.put_object(Bucket="bucket", Key="k", Body=body(len(uids), 100 * KIB))
        uids[put.get("VersionId", "null")] = int(put["ResponseMetadata"]["HTTPHeaders"]["x-osproxy-uid"])

    put()
    s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    put()
    put()
    for blob in blobs(server):
        blob.unlink()
    found = [finding["versions"]["first"] for finding in fsck(server, code=1)["findings"]["all"]["first"]]
    assert {version["version_id"]: version["uid"] for [version] in found} == uids
    text = server.command("fsck", check=False).stdout
    for version_id, uid in uids.items():
        assert f"bucket/k version {version_id} uid {uid}\n" in text + "\n"
        s3.delete_object(Bucket="bucket", Key="k", VersionId=version_id)
    assert "Versions" not in s3.list_object_versions(Bucket="bucket")


def test_bytes_under_the_servers_key_are_authenticated_and_those_under_a_customers_measured(own_server):
    server = own_server(env=PROMPT | {"OSPROXY_SCRUB__ENABLED": "false"})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="sealed", Body=body(5, 200 * KIB), ServerSideEncryption="AES256")
    (sealed,) = blobs(server)
    s3.put_object(Bucket="bucket", Key="customer", Body=body(6, 200 * KIB), **CUSTOMER)
    (customer,) = set(blobs(server)) - {sealed}
    flip(sealed, 150_000)
    flip(customer, 150_000)
    assert told(fsck(server, "--read", code=1)) == [("corrupt", "none", ("bucket/sealed",))]
    customer.write_bytes(customer.read_bytes() + b"x")
    assert ("wrong-length", "none", ("bucket/customer",)) in told(fsck(server, code=1))


@pytest.mark.op("CopyObject")
@pytest.mark.op("UploadPartCopy")
def test_bytes_that_went_bad_are_not_copied_as_if_they_were_right(own_server):
    server = own_server(env=PROMPT | {"OSPROXY_SCRUB__ENABLED": "false"})
    s3 = server.endpoint.client(retries={"total_max_attempts": 1})
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=body(0, 100 * KIB))
    (blob,) = blobs(server)
    upload = Upload(s3, "bucket", "parts", ServerSideEncryption="AES256")

    def copy():
        # Under another key the bytes have to be read and written anew.
        s3.copy_object(Bucket="bucket", Key="copy", CopySource="bucket/k", ServerSideEncryption="AES256")

    def copy_part():
        upload.copy(1, "bucket/k")

    flip(blob, 70_000)
    for act in (copy, copy_part):
        with refused("InternalError", 500):
            act()
    assert "Contents" in s3.list_objects_v2(Bucket="bucket", Prefix="k")
    assert "Contents" not in s3.list_objects_v2(Bucket="bucket", Prefix="copy")
    flip(blob, 70_000)
    copy()
    copy_part()
    assert s3.get_object(Bucket="bucket", Key="copy")["Body"].read() == body(0, 100 * KIB)


def test_a_mirror_mends_and_clients_see_nothing_of_it(mirrored):
    server = mirrored({"OSPROXY_SCRUB__ENABLED": "false"})
    s3 = server.endpoint.client()
    fill(s3)
    flip(blob_of(server, body(0, 100 * KIB), "a"), 5)
    blob_of(server, body(1, 100 * KIB), "b").unlink()
    wrong = [("corrupt", "none", ("bucket/plain0", "bucket/twin")), ("missing", "none", ("bucket/plain1",))]
    assert told(fsck(server, "--read", code=1)) == wrong
    # A backend by itself.
    assert told(fsck(server, "--read", "--backend", "b", code=1)) == wrong[1:]
    mended = [(problem, "done", keys) for problem, _, keys in wrong]
    assert told(fsck(server, "--read", "--repair")) == mended
    # What was exchanged may be an orphan by now, which is told until the sweep takes it.
    done = server.command("fsck", "--json", "--read", check=False)
    left = (done.returncode, told(json.loads(done.stdout)))
    assert left in [(0, []), (1, [("orphan", "none", ())])]
    for number in range(4):
        assert s3.get_object(Bucket="bucket", Key=f"plain{number}")["Body"].read() == body(number, 100 * KIB)
    for root in ("a", "b"):
        assert blob_of(server, body(0, 100 * KIB), root) and blob_of(server, body(1, 100 * KIB), root)


def test_the_scrub_finds_a_flipped_byte_by_itself_names_the_key_and_mends_it(mirrored):
    server = mirrored(OFTEN)
    s3 = server.endpoint.client()
    fill(s3)
    flip(blob_of(server, body(0, 100 * KIB), "a"), 5)

    def is_mended():
        return len([path for path in blobs(server, "a") if path.read_bytes() == body(0, 100 * KIB)]) == 1

    wait_until(is_mended, 60, "the copy to be written anew")
    wait_until(lambda: any("bad copy replaced" in line for line in server.log), 30, "the log to tell of it")
    line = next(line for line in server.log if "bad copy replaced" in line)
    assert "bucket/plain0" in line and "bucket/twin" in line
    # Both copies are bad: nothing to mend it from, and it stays known. No scrub comes between the two.
    server.command("jobs", "pause", "scrub")

    def is_at_rest():
        [scrub] = json.loads(server.command("jobs", "list", "--json", "--type", "scrub").stdout)["jobs"]
        return scrub["state"] == "waiting"

    wait_until(is_at_rest, what="the end of the pass")
    for root in ("a", "b"):
        flip(blob_of(server, body(3, 100 * KIB), root), 9)
    server.command("jobs", "resume", "scrub")
    both = [("corrupt", "none", ("bucket/plain3",))] * 2

    def is_known():
        done = server.command("fsck", "--json", check=False)
        return [it for it in told(json.loads(done.stdout)) if it[0] == "corrupt"] == both

    wait_until(is_known, 60, "the scrub to find both")
    jobs = json.loads(server.command("jobs", "list", "--json").stdout)
    assert any(job["type"] == "scrub" for job in jobs["jobs"])


def test_a_scrub_is_asked_for(mirrored):
    # A week between two passes: it is the command that begins them.
    server = mirrored({"OSPROXY_SCRUB__BYTES_PER_SECOND": str(64 * MIB)})
    fill(server.endpoint.client())

    def scrub(*words, code=0):
        done = server.command("scrub", "--json", *words, check=False)
        assert done.returncode == code, (done.stdout, done.stderr)
        return json.loads(done.stdout) if code < 2 else done.stderr

    clean = scrub()
    assert (clean["blobs"], clean["copies"], clean["bad"], clean["unchecked"]) == (6, 12, 0, 0), clean
    flip(blob_of(server, body(0, 100 * KIB), "a"), 5)
    assert server.command("scrub").stdout.count("1 of them mended") == 1
    assert len([path for path in blobs(server, "a") if path.read_bytes() == body(0, 100 * KIB)]) == 1
    # Without a server as well; and what nothing can mend is something wrong.
    server.stop()
    for root in ("a", "b"):
        flip(blob_of(server, body(3, 100 * KIB), root), 9)
    told = scrub(code=1)
    assert (told["bad"], told["repaired"], told["left"]) == (2, 0, 2), told
    assert "no server runs" in scrub("--background", code=2)
    server.start()
    begun = scrub("--background")

    def is_done():
        job = json.loads(server.command("jobs", "show", begun["job"], "--json").stdout)
        return job["runs"] >= 3 and job["state"] == "waiting" and job["report"]["left"] == 2

    wait_until(is_done, what="the pass")
    server.command("jobs", "pause", "scrub")
    assert "osproxy jobs resume scrub" in scrub(code=2)


@pytest.mark.parametrize("is_gone", [False, True], ids=["flipped", "gone"])
def test_bytes_that_are_sent_again_are_those_of_every_key_that_had_lost_them(own_server, is_gone):
    server = own_server(env=PROMPT | {"OSPROXY_SCRUB__ENABLED": "false"})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    sent = body(1, 600 * KIB)
    s3.put_object(Bucket="bucket", Key="old", Body=sent)
    blob = blob_of(server, sent)
    if is_gone:
        blob.unlink()
    else:
        flip(blob, 70_000)
    fsck(server, "--read", "--repair", code=1)
    for key in ("new", "newer"):
        s3.put_object(Bucket="bucket", Key=key, Body=sent)
    assert told(fsck(server, "--read")) == []
    for key in ("old", "new", "newer"):
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == sent
    wait_until(lambda: len(blobs(server)) == 1, 30, "one blob")


def test_a_scrub_that_no_server_does_is_refused(own_server):
    server = own_server(env=PROMPT | {"OSPROXY_SCRUB__ENABLED": "false"})
    done = server.command("scrub", check=False)
    assert done.returncode == 2 and "scrub.enabled" in done.stderr and "fsck --read" in done.stderr


def test_an_orphan_is_told_once_it_is_older_than_the_grace_and_taken_when_asked(own_server):
    server = own_server(env=PROMPT | {"OSPROXY_STORAGE__SWEEP_INTERVAL_SECONDS": "86400"})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="key", Body=body(1, 100 * KIB))
    (blob,) = blobs(server)
    # Another name of the same birth: what a crash between the bytes and their row leaves.
    last = "0" if blob.name[-1] != "0" else "1"
    orphan = blob.with_name(blob.name[:-1] + last)
    orphan.write_bytes(blob.read_bytes())
    (server.data_dir / "blobs" / "notes.txt").write_text("not a blob")

    def is_told():
        done = server.command("fsck", "--json", check=False)
        return done.returncode == 1 and told(json.loads(done.stdout)) == [("orphan", "none", ())]

    wait_until(is_told, 30, "the orphan to be old enough")
    assert orphan.exists()
    assert told(fsck(server, "--repair")) == [("orphan", "done", ())]
    assert not orphan.exists() and blob.exists()
    assert told(fsck(server)) == []
    assert (server.data_dir / "blobs" / "notes.txt").exists()


def test_dangling_rows_are_told(own_server):
    server = own_server(env=PROMPT)
    s3 = server.endpoint.client()
    fill(s3)
    server.stop()
    database = server.data_dir / "meta.db"
    if not database.exists():
        pytest.skip("rows are damaged behind the back of SQLite only")
    with sqlite3.connect(database) as rows:
        rows.execute("PRAGMA foreign_keys = OFF")
        (gone,) = rows.execute("SELECT content_id FROM objects WHERE key = ?", (b"plain1",)).fetchone()
        rows.execute("DELETE FROM contents WHERE id = ?", (gone,))
        (blob,) = rows.execute(
            "SELECT blob_id FROM contents c JOIN objects o ON o.content_id = c.id WHERE o.key = ?", (b"plain2",)
        ).fetchone()
        rows.execute("DELETE FROM copies WHERE blob_id = ?", (blob,))
        rows.execute("DELETE FROM blobs WHERE id = ?", (blob,))
    found = told(fsck(server, code=1))
    assert ("version-without-content", "none", ("bucket/plain1",)) in found
    assert ("content-without-blob", "none", ("bucket/plain2",)) in found
    # The blob of a content that is gone is of no more use; that of a blob that is gone may still be.
    assert ("unused-blob", "none", ()) in found


def test_what_cannot_be_told_is_exit_code_2(own_server, tmp_path):
    server = own_server(env=PROMPT)
    assert "nowhere" in fsck(server, "--backend", "nowhere", code=2)
    done = server.command("fsck", "--data-dir-that-is-no-option", check=False)
    assert done.returncode == 2


def test_a_download_that_outlasts_the_grace_gets_every_byte_of_what_was_deleted(own_server):
    server = own_server(env=PROMPT)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    # Parts lie in blobs of their own: the last are opened long after the grace is over.
    parts = [body(number, 8 * MIB) for number in range(6)]
    upload = Upload(s3, "bucket", "key")
    for number, part in enumerate(parts, 1):
        upload.put(number, part)
    upload.complete()
    answer = s3.get_object(Bucket="bucket", Key="key")["Body"]
    read = answer.read(MIB)
    s3.delete_object(Bucket="bucket", Key="key")
    until = time.monotonic() + 6  # six times the grace
    while time.monotonic() < until:
        server.command("gc")
        read += answer.read(256 * KIB)
        time.sleep(0.3)
    assert len(blobs(server)) == len(parts), "they were deleted under the reader"
    read += answer.read()
    assert read == b"".join(parts)
    answer.close()

    def is_gone():
        server.command("gc")
        return blobs(server) == []

    wait_until(is_gone, 60, "the blobs to be collected after the download")
