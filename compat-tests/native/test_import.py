"""`osproxy import-osproxy`: the uids and objects of an existing osproxy, adopted where they lie.

The old install is made here: its two tables on a real database, and its objects as files below one folder a bucket.
"""

import hashlib
import json
import os
import sqlite3
import subprocess
from contextlib import closing

import pytest

from support.moves import begin, ended
from support.native import MIB, ok, refused
from support.server import BINARY
from support.times import COLLECTING, POLLING
from support.vendors import RCLONE, RcloneS3
from support.wait import wait_until

pytestmark = pytest.mark.sqlite_only

# 2014-12-07, the zero of the original's numbers, in milliseconds; they run ahead of ours by years.
ZERO = 1_417_937_700_000
# The first process of an old install is worker 1, and one that was never told is 10 of datacenter 10.
WORKERS = (1, 2, 10 << 5 | 10)
STATUS = {"uploaded": 1, "open": -1}

SCHEMA = {
    "postgres": """
        CREATE TABLE meta_data_info (
            id BIGSERIAL NOT NULL, uid BIGINT NOT NULL, bucket TEXT NOT NULL, name TEXT NOT NULL,
            storage_name TEXT NOT NULL, address TEXT NOT NULL, md5 TEXT, height BIGINT, width BIGINT,
            storage_size BIGINT, multi_part BOOLEAN NOT NULL, part_num BIGINT, status BIGINT, content_type TEXT,
            compress_uid BIGINT, created_at TIMESTAMPTZ NOT NULL, updated_at TIMESTAMPTZ NOT NULL,
            is_expired BOOLEAN NOT NULL, PRIMARY KEY (id, uid));
        CREATE TABLE multi_part_info (
            id BIGSERIAL NOT NULL PRIMARY KEY, storage_uid BIGINT NOT NULL, chunk_num BIGINT NOT NULL,
            bucket TEXT NOT NULL, storage_name TEXT NOT NULL, storage_size BIGINT, part_file_name TEXT NOT NULL,
            part_md5 TEXT NOT NULL, status BIGINT NOT NULL, created_at TIMESTAMPTZ NOT NULL,
            updated_at TIMESTAMPTZ NOT NULL, is_merged BOOLEAN NOT NULL DEFAULT false);""",
    "mysql": """
        CREATE TABLE meta_data_info (
            id BIGINT NOT NULL AUTO_INCREMENT, uid BIGINT NOT NULL, bucket LONGTEXT NOT NULL, name LONGTEXT NOT NULL,
            storage_name LONGTEXT NOT NULL, address LONGTEXT NOT NULL, md5 LONGTEXT, height BIGINT, width BIGINT,
            storage_size BIGINT, multi_part TINYINT(1) NOT NULL, part_num BIGINT, status BIGINT, content_type LONGTEXT,
            compress_uid BIGINT, created_at DATETIME(3) NOT NULL, updated_at DATETIME(3) NOT NULL,
            is_expired TINYINT(1) NOT NULL, PRIMARY KEY (id, uid));
        CREATE TABLE multi_part_info (
            id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, storage_uid BIGINT NOT NULL, chunk_num BIGINT NOT NULL,
            bucket LONGTEXT NOT NULL, storage_name LONGTEXT NOT NULL, storage_size BIGINT,
            part_file_name LONGTEXT NOT NULL, part_md5 LONGTEXT NOT NULL, status BIGINT NOT NULL,
            created_at DATETIME(3) NOT NULL, updated_at DATETIME(3) NOT NULL, is_merged TINYINT(1) NOT NULL DEFAULT 0);""",
}
TIME = "2024-05-06 07:08:09"


def md5(data):
    return hashlib.md5(data).hexdigest()


class OldInstall:
    """What an existing osproxy left: a database and a folder."""

    def __init__(self, database, root):
        self.database, self.root, self.url = database, root, database.create()
        self.minted = 0
        self.run(SCHEMA[database.scheme])

    def run(self, sql):
        return self.database.query(self.url, sql)

    def mint(self):
        """A number as the original mints them, some of them within one millisecond."""
        self.minted += 1
        millis = 1_716_000_000_000 - ZERO + self.minted // 3
        return millis << 22 | WORKERS[self.minted % 3] << 12 | self.minted % 3

    def write(self, bucket, name, data):
        path = self.root / bucket / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def row(self, uid, name, bucket, storage, data, **changed):
        values = {
            "uid": uid, "bucket": bucket, "name": name, "storage_name": storage, "address": "", "md5": md5(data),
            "storage_size": len(data), "multi_part": False, "part_num": 0, "status": 1, "content_type": "",
            "created_at": TIME, "updated_at": TIME, "is_expired": False,
        } | changed
        self.insert("meta_data_info", values)
        return str(uid)

    def insert(self, table, values):
        def literal(value):
            return str(value).lower() if isinstance(value, (bool, int)) else "'" + value.replace("'", "''") + "'"

        names = ", ".join(values)
        self.run(f"INSERT INTO {table} ({names}) VALUES ({', '.join(map(literal, values.values()))})")

    def file(self, name, data, bucket="image", uid=None, **changed):
        """A file in one object."""
        uid = uid or self.mint()
        storage = f"{uid}.{name.rsplit('.')[-1]}"
        self.write(bucket, storage, data)
        return self.row(uid, name, bucket, storage, data, **changed)

    def file_in_parts(self, name, pieces, bucket="video", numbers=None, **changed):
        """A file that is not merged: the whole has no object."""
        uid, data = self.mint(), b"".join(pieces)
        numbers = numbers or range(1, len(pieces) + 1)
        for number, piece in zip(numbers, pieces):
            self.write(bucket, f"{uid}_{number}", piece)
            self.insert("multi_part_info", {
                "storage_uid": uid, "chunk_num": number, "bucket": bucket, "storage_name": f"{uid}_{number}",
                "storage_size": len(piece), "part_file_name": f"{uid}_{number}", "part_md5": md5(piece), "status": 1,
                "created_at": TIME, "updated_at": TIME,
            })
        told = {"multi_part": True, "part_num": len(pieces)} | changed
        return self.row(uid, name, bucket, f"{uid}.mp4", data, **told)

    def tree(self):
        """Every object and what it holds."""
        folders = [path for path in self.root.iterdir() if path.is_dir() and len(path.name) > 2]
        return {str(path): md5(path.read_bytes()) for folder in folders for path in folder.iterdir()}


@pytest.fixture(params=["postgres", "mariadb", "mysql"])
def old(request, tmp_path):
    root = tmp_path / "localstore"
    root.mkdir()
    return OldInstall(request.getfixturevalue(request.param), root)


@pytest.fixture
def server(own_native_server, old):
    """A server that knows the old folder as a backend, besides its own; it collects at once."""
    return own_native_server(
        "basic",
        OSPROXY_BACKEND__OLD__SERVICE="fs",
        OSPROXY_BACKEND__OLD__OPTIONS__ROOT=str(old.root),
        OSPROXY_STORAGE__GRACE_SECONDS="1",
        OSPROXY_STORAGE__BLOB_RETENTION_SECONDS="0",
    )


def importing(server, old, *words, check=True, in_file=True):
    """Runs an import beside a stopped server; the password is in a file, or in the environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OSPROXY_")}
    words = words or ("--backend", "old")
    url = old.root.parent / "url"
    url.write_text(old.url + "\n")
    named = {} if in_file else {"OSPROXY_IMPORT_DATABASE": old.url}
    words += ("--database", f"@{url}") if in_file else ()
    done = subprocess.run(
        [BINARY, "--data-dir", server.data_dir, "import-osproxy", "--json", *words],
        env=environment | server.env | named,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert old.database.credentials[1] not in done.stdout + done.stderr
    if not check:
        return done
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def adopted(server, old, *words):
    """Imports while the server is stopped, and starts it again."""
    assert server.stop() == 0
    report = importing(server, old, *words)
    server.start()
    return report


def client_of(server):
    return server.native(identity=server.identity, all_routes=True)


def test_files_are_served_under_their_old_numbers_from_where_they_lie(server, old, rng):
    small, large, empty = rng.randbytes(100), rng.randbytes(3 * MIB + 7), b""
    pieces = [rng.randbytes(MIB), rng.randbytes(MIB), rng.randbytes(4321)]
    files = {
        old.file("a b？.png", small, content_type="image/x-told"): ("image", "a b？.png", small),
        old.file("film.MP4", large, "video"): ("video", "film.MP4", large),
        old.file("nothing.txt", empty, "unknown"): ("unknown", "nothing.txt", empty),
        old.file_in_parts("parts.mp4", pieces): ("video", "parts.mp4", b"".join(pieces)),
    }
    first = next(iter(files))
    # The same bytes sent again: a number and a name of their own, and the object of the first.
    again = old.row(old.mint(), "copy.png", "image", f"{first}.png", small)
    files[again] = ("image", "copy.png", small)
    before = old.tree()
    report = adopted(server, old)
    assert (report["files"], report["adopted"], report["already"], report["refused"]) == (5, 5, 0, {})
    assert report["adopted_bytes"] == sum(len(data) for _, _, data in files.values())
    assert old.tree() == before

    client, s3 = client_of(server), server.endpoint.client()
    blobs = [path for path in (server.data_dir / "blobs").glob("*/*") if path.is_file()]
    assert blobs == [], "bytes were copied"
    for uid, (bucket, name, data) in files.items():
        body, meta = client.fetch(uid)
        assert body == data
        assert (meta["srcName"], meta["md5"], meta["size"]) == (name, md5(data), str(len(data)))
        key = f"{uid}.{name.rsplit('.')[-1].lower()}"
        head = s3.head_object(Bucket=bucket, Key=key)
        assert head["ETag"] == f'"{md5(data)}"' and head["ContentLength"] == len(data)
        assert head["LastModified"].year == 2024
        [listed] = s3.list_objects_v2(Bucket=bucket, Prefix=uid)["Contents"]
        assert (listed["Key"], listed["Size"]) == (key, len(data))
        if len(data) > 50:
            end = len(data) - 10
            for start in (0, 20, len(data) // 2):
                part = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{end}")["Body"].read()
                assert part == data[start : end + 1]
            [link] = ok(client.download_links(uid))
            answer = client.download(link["url"], headers=[("Range", "bytes=-10")])
            assert answer.status == 206 and answer.body == data[-10:]
    assert s3.head_object(Bucket="image", Key=f"{first}.png")["ContentType"] == "image/x-told"
    # New numbers are others, and uploads go on beside the adopted files.
    new = client.upload("new.png", small)
    assert new not in files and client.fetch(new)[0] == small


def test_an_import_can_be_run_again(server, old, rng):
    one, two = rng.randbytes(2000), rng.randbytes(3000)
    kept, deleted = old.file("one.png", one), old.file("two.png", two)
    # A second number of that object, which is not known to be good yet.
    shared = old.row(old.mint(), "shared.png", "image", f"{deleted}.png", two, status=STATUS["open"])
    assert adopted(server, old)["adopted"] == 2
    s3 = server.endpoint.client()
    s3.delete_object(Bucket="image", Key=f"{deleted}.png")
    collected(server, rng)
    later = old.file("later.png", one)
    old.run(f"UPDATE meta_data_info SET status = 1 WHERE uid = {shared}")
    # The content of the object has gone with its last reference, and the object has not.
    report = adopted(server, old)
    assert (report["files"], report["already"], report["adopted"], report["refused"]) == (4, 2, 2, {})
    client = client_of(server)
    assert client.fetch(kept)[0] == one and client.fetch(later)[0] == one
    assert client.fetch(shared)[0] == two
    assert ok(client.download_links(deleted)) is None


def collect(server, path, deadline=30):
    """Collects until a file is gone."""
    def gone():
        server.command("gc", "--json")
        return not path.exists()

    wait_until(gone, deadline, f"the deletion of {path}")


def collected(server, rng):
    """Collects until all that was deleted before is gone, as far as it is ours."""
    s3 = server.endpoint.client()
    blobs = server.data_dir / "blobs"
    before = {path for path in blobs.rglob("*") if path.is_file()}
    s3.put_object(Bucket="image", Key="to be deleted", Body=rng.randbytes(70_000))
    [blob] = {path for path in blobs.rglob("*") if path.is_file()} - before
    s3.delete_object(Bucket="image", Key="to be deleted")
    collect(server, blob)


def test_an_object_stays_while_a_row_that_was_not_adopted_needs_it(server, old, rng):
    data, other, third = rng.randbytes(40_000), rng.randbytes(50_000), rng.randbytes(60_000)
    first, alone, parted = old.file("a.png", data), old.file("alone.png", other), old.file("third.png", third)
    # The same bytes sent again under a name that cannot be taken over.
    second = old.row(old.mint(), "ä" * 500 + ".png", "image", f"{first}.png", data)
    # A part of a file that is not there.
    old.insert("multi_part_info", {
        "storage_uid": old.mint(), "chunk_num": 1, "bucket": "image", "storage_name": f"{parted}.png",
        "storage_size": len(third), "part_file_name": "part", "part_md5": md5(third), "status": -1,
        "created_at": TIME, "updated_at": TIME,
    })
    paths = {uid: old.root / "image" / f"{uid}.png" for uid in (first, alone, parted)}
    report = adopted(server, old)
    assert (report["adopted"], report["refused"], report["handed_over"]) == (3, {"invalid_row": 1}, 1)
    s3 = server.endpoint.client()
    for uid in (first, parted, alone):
        s3.delete_object(Bucket="image", Key=f"{uid}.png")
    collect(server, paths[alone])
    collected(server, rng)
    assert paths[first].read_bytes() == data and paths[parted].read_bytes() == third
    # Corrected, it is adopted from there, and the object is ours from then on.
    old.run(f"UPDATE meta_data_info SET name = 'b.png' WHERE uid = {second}")
    report = adopted(server, old)
    assert (report["adopted"], report["already"], report["refused"], report["handed_over"]) == (1, 3, {}, 1)
    assert client_of(server).fetch(second)[0] == data
    server.endpoint.client().delete_object(Bucket="image", Key=f"{second}.png")
    collect(server, paths[first])
    assert paths[parted].read_bytes() == third


def test_an_object_stays_while_an_import_has_not_come_to_its_end(server, old, rng):
    data, pieces = rng.randbytes(40_000), [rng.randbytes(30_000), rng.randbytes(20_000)]
    first, parted = old.file("a.png", data), old.file_in_parts("b.mp4", pieces)
    others = {old.file(f"{number}.png", body): body for number in range(6) for body in [rng.randbytes(30_000)]}
    second = old.row(old.mint(), "again.png", "image", f"{first}.png", data)
    path = old.root / "image" / f"{first}.png"
    # It ends at the second file, as by a kill there.
    old.run("ALTER TABLE multi_part_info RENAME COLUMN part_md5 TO elsewhere")
    assert server.stop() == 0
    done = importing(server, old, check=False)
    assert done.returncode == 1 and "part_md5" in done.stderr
    server.start()
    assert client_of(server).fetch(first)[0] == data
    server.endpoint.client().delete_object(Bucket="image", Key=f"{first}.png")
    collected(server, rng)
    assert path.read_bytes() == data
    old.run("ALTER TABLE multi_part_info RENAME COLUMN elsewhere TO part_md5")
    report = adopted(server, old)
    assert report["adopted"] + report["already"] == report["files"] == 9 and report["already"] >= 1
    assert report["refused"] == {}
    client = client_of(server)
    for uid, body in others.items():
        assert client.fetch(uid)[0] == body
    assert client.fetch(second)[0] == data and client.fetch(parted)[0] == b"".join(pieces)
    # All of them were handed over at the end, also what was adopted by the run before.
    s3 = server.endpoint.client()
    for uid in (second, next(iter(others))):
        s3.delete_object(Bucket="image", Key=f"{uid}.png")
    collect(server, path)
    collect(server, old.root / "image" / f"{next(iter(others))}.png")
    assert adopted(server, old)["handed_over"] == 0


def test_a_deleted_file_takes_its_object_along_and_no_other(server, old, rng):
    data, other = rng.randbytes(40_000), rng.randbytes(50_000)
    pieces = [rng.randbytes(30_000), rng.randbytes(20_000)]
    uid, parted, spared = old.file("a.png", data), old.file_in_parts("b.mp4", pieces), old.file("c.png", other)
    stranger = old.write("image", "never-in-the-database.png", b"stranger")
    unfinished = old.file("d.png", rng.randbytes(100), status=-1)
    report = adopted(server, old)
    assert (report["adopted"], report["refused"]) == (3, {"unfinished": 1})
    s3 = server.endpoint.client()
    s3.delete_object(Bucket="image", Key=f"{uid}.png")
    s3.delete_object(Bucket="video", Key=f"{parted}.mp4")
    for path in ("image/" + f"{uid}.png", f"video/{parted}_1", f"video/{parted}_2"):
        collect(server, old.root / path)
    assert stranger.exists() and (old.root / "image" / f"{unfinished}.png").exists()
    assert client_of(server).fetch(spared)[0] == other
    # What went is not adopted again, and its number stays its own.
    again = old.row(old.mint(), "again.png", "image", f"{uid}.png", data)
    report = adopted(server, old)
    assert (report["adopted"], report["already"]) == (0, 3)
    assert report["refused"] == {"missing": 1, "unfinished": 1}
    assert {it["uid"]: it["reason"] for it in report["refusals"]} == {again: "missing", unfinished: "unfinished"}
    # The name is not used for a second blob even when an object is there again.
    old.write("image", f"{uid}.png", data)
    report = adopted(server, old)
    assert report["refused"] == {"object_in_use": 1, "unfinished": 1}


def test_objects_may_be_kept_for_ever(server, old, rng):
    data = rng.randbytes(40_000)
    uid, gone = old.file("a.png", data), rng.randbytes(30_000)
    assert adopted(server, old, "--backend", "old", "--keep-objects")["adopted"] == 1
    client, s3 = client_of(server), server.endpoint.client()
    s3.delete_object(Bucket="image", Key=f"{uid}.png")
    # Sent and deleted later, and collected: then the adopted one was, too.
    s3.put_object(Bucket="image", Key="later", Body=gone)
    [blob] = [path for path in (server.data_dir / "blobs").glob("*/*") if path.is_file()]
    s3.delete_object(Bucket="image", Key="later")
    collect(server, blob)
    assert (old.root / "image" / f"{uid}.png").read_bytes() == data
    assert ok(client.download_links(uid)) is None
    # What was adopted so is not handed over later either, and may be adopted for another file.
    again = old.row(old.mint(), "again.png", "image", f"{uid}.png", data)
    report = adopted(server, old, "--backend", "old", "--keep-objects")
    assert (report["adopted"], report["already"], report["handed_over"]) == (1, 1, 0)
    report = adopted(server, old)
    assert (report["already"], report["handed_over"]) == (2, 0)
    assert client_of(server).fetch(again)[0] == data
    server.endpoint.client().delete_object(Bucket="image", Key=f"{again}.png")
    collected(server, rng)
    assert (old.root / "image" / f"{uid}.png").read_bytes() == data


def start_import(server, old):
    """An import that is under way, as a process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OSPROXY_")}
    url = old.root.parent / "url"
    url.write_text(old.url)
    words = [BINARY, "--data-dir", server.data_dir, "import-osproxy", "--backend", "old", "--database", f"@{url}"]
    return subprocess.Popen(words, env=environment | server.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_an_import_that_was_killed_goes_on(server, old, rng):
    shared = rng.randbytes(20_000)
    files = {old.file(f"{number}.png", data): data for number in range(60) for data in [shared, rng.randbytes(30_000)]}
    before = old.tree()
    assert server.stop() == 0
    for pause in (0.2, 0.35, 0.5):
        process = start_import(server, old)
        try:
            process.wait(pause)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)
    report = importing(server, old)
    assert report["adopted"] + report["already"] == len(files) and report["refused"] == {}
    assert old.tree() == before
    server.start()
    client = client_of(server)
    for uid, data in files.items():
        assert client.fetch(uid)[0] == data
    listed = server.endpoint.client().list_objects_v2(Bucket="image")["Contents"]
    assert {entry["Key"] for entry in listed} == {f"{uid}.png" for uid in files}


def test_an_install_on_a_server_database_adopts_too_and_mints_beside(own_native_server, old, rng):
    server = own_native_server(
        "basic",
        OSPROXY_META__URL=(ours := old.database.create()),
        OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT=str(old.root.parent / "blobs"),
        OSPROXY_BACKEND__OLD__SERVICE="fs",
        OSPROXY_BACKEND__OLD__OPTIONS__ROOT=str(old.root),
    )
    # Of worker 2, which the server holds while it runs, and of others.
    files = {old.file(f"{number}.png", data): data for number in range(6) for data in [rng.randbytes(20_000)]}
    held = {uid for uid in files if int(uid) >> 12 & 1023 == 2}
    # Stopped in order, no node holds its worker any more.
    assert adopted(server, old)["adopted"] == len(files)
    client = client_of(server)
    assert all(client.fetch(uid)[0] == data for uid, data in files.items())
    newest = max(int(uid) for uid in held) >> 22
    rows = old.database.query(ours, "SELECT id, reserved_until FROM workers WHERE id = 2")
    assert int(rows[0].split("\t")[1]) - 1_704_067_200_000 > newest
    # New numbers are of a worker that no old one is of, and of the present.
    new = int(client.upload("new.png", b"new"))
    assert new >> 12 & 1023 not in WORKERS and new >> 22 < newest


def moved(server, source, target):
    """Moves a backend, and waits for the end."""
    return ended(server, begin(server, "--from", source, "--to", target)["id"], 120)


QUICK = COLLECTING | POLLING


@pytest.mark.parametrize("words", [(), ("--keep-objects",)])
def test_what_was_adopted_moves_to_another_backend(own_native_server, old, rng, words):
    root = old.root.parent / "new"
    server = own_native_server(
        "basic",
        OSPROXY_BACKEND__OLD__SERVICE="fs",
        OSPROXY_BACKEND__OLD__OPTIONS__ROOT=str(old.root),
        OSPROXY_BACKEND__NEW__SERVICE="fs",
        OSPROXY_BACKEND__NEW__OPTIONS__ROOT=str(root),
        **QUICK,
    )
    one, same = rng.randbytes(40_000), rng.randbytes(3 * MIB)
    pieces = [rng.randbytes(MIB), rng.randbytes(4321)]
    files = {
        old.file("a.png", one): one,
        old.file("b.mp4", same, "video"): same,
        old.file("again.mp4", same, "video"): same,
        old.file("none.txt", b"", "unknown"): b"",
        old.file_in_parts("parts.mp4", pieces): b"".join(pieces),
    }
    stranger = old.write("image", "never-in-the-database.png", b"stranger")
    before = old.tree()
    assert adopted(server, old, "--backend", "old", *words)["adopted"] == len(files)
    client = client_of(server)
    move = moved(server, "old", "new")
    assert (move["state"], move["failed"]) == ("done", 0), move
    # What is theirs stays where it is and is counted, also one of two equal objects, which no file needed; ours is gone.
    assert sorted(old.tree().values()) == sorted(before.values() if words else [md5(b"stranger"), md5(same)])
    assert stranger.exists()
    assert move["remains"] == len(old.tree())
    assert server.stop() == 0
    old.root.rename(old.root.parent / "gone")
    server.start()
    client = client_of(server)
    for uid, data in files.items():
        found, meta = client.fetch(uid)
        assert found == data and meta["md5"] == md5(data)
    s3 = server.endpoint.client()
    for bucket in ("image", "video"):
        for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]:
            assert entry["ETag"] == f'"{md5(files[entry["Key"].split(".")[0]])}"'


def test_what_was_adopted_gets_its_copy_at_a_mirror(own_native_server, old, rng):
    root, config = old.root.parent / "new", old.root.parent / "mirrored.toml"
    config.write_text(f"""
[storage]
placement = "both"
[backend.old]
service = "fs"
options = {{ root = "{old.root}" }}
[backend.new]
service = "fs"
options = {{ root = "{root}" }}
[placement.both]
backends = ["new", "old"]
copies_required = 1
""")
    server = own_native_server("basic", OSPROXY_CONFIG=str(config), **QUICK)
    pieces = [rng.randbytes(MIB), rng.randbytes(43_210)]
    files = {old.file(f"{number}.png", data): data for number in range(3) for data in [rng.randbytes(30_000)]}
    files[old.file_in_parts("parts.mp4", pieces)] = b"".join(pieces)
    assert adopted(server, old)["adopted"] == len(files)

    def is_mirrored():
        # A copy is there before its row says so, and only then it is read.
        with closing(sqlite3.connect(f"file:{server.data_dir}/meta.db?mode=ro", uri=True)) as rows:
            missing = rows.execute("SELECT COUNT(*) FROM copies WHERE state = 'missing'").fetchone()
        return missing == (0,) and len([it for it in root.glob("*/*") if it.is_file()]) == 5

    wait_until(is_mirrored, 60, "a copy of each at the mirror")
    assert server.stop() == 0
    old.root.rename(old.root.parent / "gone")
    old.root.mkdir()
    server.start()
    client = client_of(server)
    assert all(client.fetch(uid)[0] == data for uid, data in files.items())


def test_objects_at_an_s3_vendor_are_adopted_where_they_lie(own_native_server, old, rng, tmp_path):
    if not RCLONE.exists():
        pytest.skip("rclone is missing")
    (tmp_path / "vendor").mkdir()
    vendor = RcloneS3(tmp_path / "vendor").start()
    try:
        # Each bucket of the old install is one at the vendor.
        env = {}
        for bucket in ("image", "video"):
            vendor.client.create_bucket(Bucket=bucket)
            prefix = f"OSPROXY_BACKEND__OLD_{bucket}".upper()
            env[f"{prefix}__SERVICE"] = "s3"
            options = vendor.options() | {"bucket": bucket}
            env |= {f"{prefix}__OPTIONS__{name}".upper(): text for name, text in options.items()}
        old.write = lambda bucket, name, data: vendor.client.put_object(Bucket=bucket, Key=name, Body=data)
        server = own_native_server("basic", **env, **QUICK)
        pieces = [rng.randbytes(MIB), rng.randbytes(4321)]
        odd, large = rng.randbytes(5000), rng.randbytes(3 * MIB)
        files = {
            old.file("a b？.png", odd): odd,
            old.file("film.mp4", large, "video"): large,
            old.file_in_parts("parts.mp4", pieces): b"".join(pieces),
        }
        gone = old.row(old.mint(), "gone.png", "image", "gone.png", odd)
        report = adopted(server, old, "--bucket", "image=old_image", "--bucket", "video=old_video")
        assert (report["adopted"], report["refused"]) == (3, {"missing": 1})
        assert report["refusals"][0]["uid"] == gone
        client, s3 = client_of(server), server.endpoint.client()
        first = next(iter(files))
        for uid, data in files.items():
            assert client.fetch(uid)[0] == data
        assert s3.get_object(Bucket="image", Key=f"{first}.png", Range="bytes=100-199")["Body"].read() == odd[100:200]
        s3.delete_object(Bucket="image", Key=f"{first}.png")

        def lies(bucket):
            return [entry["Key"] for entry in vendor.client.list_objects_v2(Bucket=bucket).get("Contents", [])]

        wait_until(lambda: f"{first}.png" not in lies("image"), 30, "the deletion of the object")
        assert ok(client.download_links(first)) is None
        assert len(lies("video")) == 3
        move = moved(server, "old_video", "local")
        assert (move["state"], move["failed"], move["remains"]) == ("done", 0, 0), move
        assert lies("video") == []
        del files[first]
    finally:
        vendor.stop()
    assert all(client.fetch(uid)[0] == data for uid, data in files.items())


def test_nodes_share_what_was_adopted(own_native_server, old, rng):
    shared = {
        "OSPROXY_META__URL": old.database.create(),
        "OSPROXY_MASTER_KEY": "5a" * 32,
        "OSPROXY_BACKEND__OLD__SERVICE": "fs",
        "OSPROXY_BACKEND__OLD__OPTIONS__ROOT": str(old.root),
        "OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT": str(old.root.parent / "blobs"),
        **QUICK,
    }
    servers = [own_native_server("basic", OSPROXY_NODE__NAME=f"node{number}", **shared) for number in range(2)]
    data, other = rng.randbytes(40_000), rng.randbytes(50_000)
    kept, deleted = old.file("a.png", data), old.file("b.png", other)
    assert servers[1].stop() == 0
    assert adopted(servers[0], old)["adopted"] == 2
    servers[1].start()
    for server in servers:
        assert client_of(server).fetch(kept)[0] == data and client_of(server).fetch(deleted)[0] == other
    # Deleted through one node, whichever collects it.
    servers[1].endpoint.client().delete_object(Bucket="image", Key=f"{deleted}.png")
    collect(servers[0], old.root / "image" / f"{deleted}.png")
    assert all(client_of(server).fetch(kept)[0] == data for server in servers)


def test_what_cannot_be_adopted_is_reported_by_its_number(server, old, rng):
    data = rng.randbytes(5000)
    taken = client_of(server).upload("taken.png", data)
    uid = old.mint()
    expected = {
        old.file("open.png", data, status=STATUS["open"]): "unfinished",
        old.file("md5.png", data, md5=md5(b"other")): "md5",
        old.file("size.png", data, storage_size=4999): "size",
        old.row(uid, "gone.png", "image", f"{uid}.png", data): "missing",
        old.row(old.mint(), "way.png", "image", "../../outside.png", data): "invalid_row",
        old.row(old.mint(), "odd.png", "image", "odd.png", data, md5="no digits"): "invalid_row",
        old.row(int(taken), "taken.png", "image", "taken.png", data): "taken",
        old.row(-5, "negative.png", "image", "negative.png", data): "invalid_uid",
        old.file_in_parts("hole.mp4", [data, data], numbers=(1, 3)): "parts",
        old.file_in_parts("short.mp4", [data, data], part_num=3): "parts",
        old.file_in_parts("sum.mp4", [data, data], storage_size=9999): "parts",
        old.file_in_parts("mixed.mp4", [data, data], md5=md5(data)): "md5",
    }
    (old.root.parent / "outside.png").write_bytes(data)
    good = old.file("good.png", data)
    before = old.tree()
    report = adopted(server, old)
    assert {it["uid"]: it["reason"] for it in report["refusals"]} == expected
    assert all(it["detail"] for it in report["refusals"])
    assert (report["adopted"], sum(report["refused"].values())) == (1, len(expected))
    assert old.tree() == before
    client = client_of(server)
    for uid in expected:
        if uid != taken:
            assert ok(client.download_links(uid)) is None
    assert client.fetch(good)[0] == data and client.fetch(taken)[0] == data
    # Corrected rows are adopted by the next run.
    old.run(f"UPDATE meta_data_info SET md5 = '{md5(data)}', storage_size = 5000 WHERE name IN ('md5.png', 'size.png')")
    assert adopted(server, old)["adopted"] == 2


def test_the_database_may_be_named_in_the_environment(server, old, rng):
    old.file("a.png", rng.randbytes(300))
    assert server.stop() == 0
    assert importing(server, old, in_file=False)["adopted"] == 1
    server.start()


def test_a_bucket_may_have_a_backend_of_its_own(server, old, rng):
    data = rng.randbytes(5000)
    uid, elsewhere = old.mint(), old.file("x.mp3", data, "audio")
    (old.root / f"{uid}.png").write_bytes(data)
    old.row(uid, "own.png", "image", f"{uid}.png", data)
    report = adopted(server, old, "--bucket", "image=old")
    assert (report["adopted"], report["refused"]) == (1, {"no_backend": 1})
    assert report["refusals"][0]["uid"] == elsewhere
    assert client_of(server).fetch(str(uid))[0] == data


def test_what_is_wrong_with_the_command_is_said(server, old, postgres, mariadb):
    # A server holds the data directory.
    done = importing(server, old, check=False)
    assert done.returncode == 1 and "stop it first" in done.stderr
    assert server.stop() == 0
    done = importing(server, old, "--backend", "elsewhere", check=False)
    assert done.returncode == 1 and "no backend elsewhere is configured" in done.stderr
    assert importing(server, old, "--bucket", "image", check=False).returncode == 2
    assert importing(server, old, "--keep-objects", check=False).returncode == 2
    old.url = old.database.create()
    done = importing(server, old, check=False)
    assert done.returncode == 1 and "meta_data_info" in done.stderr
    old.url = "sqlite:/somewhere"
    assert importing(server, old, check=False).returncode == 1
