"""`osproxy meta copy`: an install moves from one database to another, and no client can tell."""

import json
import os
import shutil
import sqlite3
import subprocess
import urllib.request
from contextlib import closing

import pytest

from support.endpoint import Identity
from support.portrait import furnish, portrait
from support.server import BINARY
from support.wait import wait_until

pytestmark = [pytest.mark.sqlite_only, pytest.mark.timeout(600)]

OTHER = Identity("OTHERACCESSKEY000001", "othersecretkeyothersecretkeyothersecret1")
EVENTS = {"OSPROXY_NOTIFICATION__TARGET__KEPT__KIND": "queue"}
QUEUE = "arn:aws:sqs:us-east-1:default:kept"
# Whether something waits for the table of objects, in this database and not in another of the server.
WAITING = """
    SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'objects'::regclass
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def copy(source, target, check=True, **env):
    """Runs a copy; the databases are named in the environment, where a password belongs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OSPROXY_")}
    done = subprocess.run(
        [BINARY, "meta", "copy", "--json"],
        env=environment | {"OSPROXY_COPY_FROM": str(source), "OSPROXY_COPY_TO": str(target)} | env,
        capture_output=True,
        text=True,
        timeout=150,
    )
    if not check:
        return done
    assert done.returncode == 0, done.stderr
    return {table.pop("table"): table for table in json.loads(done.stdout)["tables"]}


def clients(server):
    return server.endpoint.client(), server.endpoint.as_identity(OTHER).client()


def events(server):
    """The events that wait in the queue."""
    run = json.loads((server.data_dir / "run.json").read_text())
    request = urllib.request.Request(f"http://127.0.0.1:{server.admin_port}/v1/events?queue=kept&max=1000")
    request.add_header("Authorization", f"Bearer {run['token']}")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def keys(server):
    return json.loads(server.command("keys", "list", "--json").stdout)


@pytest.fixture
def furnished(own_server, rng):
    """An install with a bit of everything on SQLite, stopped, and what its clients saw."""
    server = own_server(env=EVENTS)
    server.create_tenant("other")
    server.create_key("other", OTHER.access_key, OTHER.secret_key)
    furnish(*clients(server), rng, QUEUE)
    seen = portrait(*clients(server)), events(server), keys(server)
    assert "public/told" in json.dumps(seen[1])
    assert server.stop() == 0
    return server, seen


def look(server):
    return portrait(*clients(server)), events(server), keys(server)


def elsewhere(first, own_server, name, url=None):
    """A server of the same install, in a directory of its own: it keeps the master key and the place of the bytes."""
    env = EVENTS | {"OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT": str(first.data_dir / "blobs")}
    env |= {"OSPROXY_BACKEND__LOCAL__SERVICE": "fs"} | ({"OSPROXY_META__URL": url} if url else {})
    server = own_server(name, start=False, env=env)
    server.data_dir.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(first.data_dir / "master.key", server.data_dir)
    return server


@pytest.mark.parametrize("kind", ["mariadb", "mysql"])
def test_an_install_goes_round_three_databases_and_no_client_can_tell(
    furnished, own_server, postgres, request, kind, tmp_path
):
    first, seen = furnished
    there, beyond, last = postgres.create(), request.getfixturevalue(kind).create(), tmp_path / "last"
    to_postgres = copy(first.data_dir, there)
    assert to_postgres["objects"]["rows"] > 60 and to_postgres["versions"]["rows"] == 5
    assert all(table["rows"] for name, table in to_postgres.items() if name in ("workers", "extents", "events", "wrap_keys"))
    assert copy(there, beyond) == to_postgres

    # What is served from there can be told from what was before in nothing.
    server = elsewhere(first, own_server, "between", beyond).start()
    assert look(server) == seen
    new = server.endpoint.client().put_object(Bucket="plain", Key="new", Body=b"written between")
    uids = {
        version["head"][1]["x-osproxy-uid"]
        for client in seen[0]
        for bucket, _ in client["buckets"]
        for version in client[bucket]["objects"].values()
    }
    assert len(uids) > 60 and new["ResponseMetadata"]["HTTPHeaders"]["x-osproxy-uid"] not in uids
    seen = look(server)
    assert server.stop() == 0

    copy(beyond, last)
    server = elsewhere(first, own_server, "last").start()
    assert look(server) == seen
    assert server.stop() == 0


def test_a_copy_that_was_killed_is_not_served_and_is_started_again(furnished, own_server, postgres):
    first, seen = furnished
    url = postgres.create()
    copy(first.data_dir, url)
    postgres.query(url, "INSERT INTO unfinished_copy (id, token, began) VALUES (1, 'an older one', 0)")
    # It comes to the objects and no further.
    with postgres.holding(url, "LOCK TABLE objects IN ACCESS EXCLUSIVE MODE"):
        process = subprocess.Popen(
            [BINARY, "meta", "copy"],
            env=os.environ | {"OSPROXY_COPY_FROM": str(first.data_dir), "OSPROXY_COPY_TO": url},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: postgres.query(url, WAITING) == ["t"], 60, "the copy at the lock")
        assert process.poll() is None
        process.kill()
        process.wait(30)

    server = elsewhere(first, own_server, "again", url)
    server.launch()
    assert server.wait(60) != 0
    assert "osproxy meta copy" in server.tail()
    copy(first.data_dir, url)
    server.start()
    assert look(server) == seen


def test_a_served_source_is_refused(own_server, postgres, tmp_path):
    server = own_server()
    done = copy(server.data_dir, tmp_path / "to", check=False)
    assert done.returncode == 1 and "stop it first" in done.stderr
    assert not (tmp_path / "to" / "meta.db").exists()

    url = postgres.create()
    node = own_server("node", env={"OSPROXY_META__URL": url, "OSPROXY_NODE__LEASE_SECONDS": "10"})
    done = copy(url, tmp_path / "to", check=False)
    assert done.returncode == 1 and "serves from it" in done.stderr
    node.kill()
    # It counts as alive until its lease has run out.
    wait_until(lambda: copy(url, tmp_path / "late", check=False).returncode == 0, 60, "the end of the lease")
    # Paused processes of that node could not write any more: its fence is gone.
    assert postgres.query(url, "SELECT count(*) FROM fences") == ["0"]


@pytest.mark.parametrize(
    "words, changed",
    [
        # A row that is there already, which takes no new ids.
        (("keys", "disable", OTHER.access_key), "SELECT COUNT(*) FROM access_keys WHERE state = 'disabled'"),
        (("tenants", "create", "late"), "SELECT COUNT(*) FROM tenants WHERE name = 'late'"),
    ],
)
def test_a_source_that_a_command_writes_to_meanwhile_is_not_taken_for_copied(own_server, postgres, tmp_path, words, changed):
    url, target = postgres.create(), tmp_path / "to"
    server = own_server("node", env={"OSPROXY_META__URL": url})
    server.create_tenant("other")
    server.create_key("other", OTHER.access_key, OTHER.secret_key)
    assert server.stop() == 0
    # It has read tenants and keys, and comes to the objects and no further.
    with postgres.holding(url, "LOCK TABLE objects IN ACCESS EXCLUSIVE MODE"):
        process = subprocess.Popen(
            [BINARY, "meta", "copy"],
            env=os.environ | {"OSPROXY_COPY_FROM": url, "OSPROXY_COPY_TO": str(target)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: postgres.query(url, WAITING) == ["t"], 60, "the copy at the lock")
        server.command(*words)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1 and "it was written to during the copy" in told and "start the copy again" in told, told
    copy(url, target)
    with closing(sqlite3.connect(target / "meta.db")) as database:
        assert database.execute(changed).fetchone() == (1,)


def test_a_target_that_is_not_empty_is_refused(own_server, mariadb):
    server, url = own_server(), mariadb.create()
    assert server.stop() == 0
    copy(server.data_dir, url)
    done = copy(server.data_dir, url, check=False)
    assert done.returncode == 1 and "not empty" in done.stderr


def test_databases_are_named_by_file_too_and_no_password_is_repeated(own_server, tmp_path):
    server = own_server()
    assert server.stop() == 0
    named = tmp_path / "to.txt"
    named.write_text(f"sqlite:{tmp_path}/copied/meta.db\n")
    words = ["meta", "copy", "--from", str(server.data_dir), "--to"]
    done = server.command(*words, f"@{named}")
    assert "rows copied and verified" in done.stdout
    done = server.command(*words, "postgres://user:hush@127.0.0.1:1/none", check=False)
    assert done.returncode == 1 and "hush" not in done.stderr + done.stdout
    for wrong in ("oracle://user:hush@127.0.0.1/none", str(server.data_dir), "@/no/such/file"):
        done = server.command(*words, wrong, check=False)
        assert done.returncode == 2 and "--to" in done.stderr and "hush" not in done.stderr


def test_health_is_asked_of_the_admin_listener(own_server):
    server = own_server()
    address = ["--admin-listen", f"127.0.0.1:{server.admin_port}"]
    assert server.command("health", *address).stdout == "ready\n"
    assert server.command("health", "--live", *address, "--json").stdout == '{"health":"alive"}\n'
    server.kill()
    done = server.command("health", *address, check=False)
    assert done.returncode == 1 and "not healthy" in done.stderr
