"""Options, the server under test, and the fixtures that every suite uses."""

import itertools
import os
import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Nothing of the caller's own AWS or proxy set-up may reach the clients under test.
for name in [
    n
    for n in os.environ
    if n.startswith("AWS_") and n not in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
]:
    del os.environ[name]
os.environ |= {
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}

import pytest
import urllib3.util

from support import database
from support.endpoint import Endpoint, Identity
from support.raw import Raw
from support.server import Server
from support.vendors import VENDORS, settings_for

pytest_plugins = ["support.results"]
SECOND = Identity("SECONDACCESSKEY00001", "secondsecretkeysecondsecretkeysecondsec1")


def pytest_addoption(parser):
    group = parser.getgroup("S3 endpoint")
    group.addoption("--endpoint", help="URL of an S3 endpoint to test instead of a freshly started server")
    group.addoption("--backend", choices=sorted(VENDORS), help="where the server under test keeps its blobs")
    group.addoption("--domain", help="with --endpoint: the domain of its virtual hosts")
    group.addoption(
        "--database", choices=["postgres", "mariadb", "mysql"],
        help="a server database for every install, in place of SQLite",
    )
    group.addoption("--seed", default=secrets.token_hex(4), help="seed of all random data")


def pytest_report_header(config):
    where = config.getoption("endpoint") or f"own server, blobs at {config.getoption('backend') or 'its default'}"
    return f"endpoint: {where}, seed: {config.getoption('seed')}"


def pytest_collection_modifyitems(config, items):
    for item in items:
        if Path(item.fspath).relative_to(Path(__file__).parent).parts[0] in ("server", "native"):
            item.add_marker("osproxy_only")
        if config.getoption("database") and item.get_closest_marker("sqlite_only"):
            item.add_marker(pytest.mark.skip(reason="about the embedded database"))
        if config.getoption("endpoint") and item.get_closest_marker("osproxy_only"):
            item.add_marker(pytest.mark.skip(reason="osproxy only"))


# --- the endpoint ---


@pytest.fixture(scope="session", autouse=True)
def server_database(request):
    """With --database: every install of this session gets a database of its own at one server."""
    if name := request.config.getoption("database"):
        Server.new_database = request.getfixturevalue(name).create


@pytest.fixture(scope="session")
def server(request, tmp_path_factory):
    """The session's own server. Tests that use it are osproxy_only or go through `endpoint`."""
    env = {"OSPROXY_NOTIFICATION__TARGET__EVENTS__KIND": "queue"}
    vendor = None
    if name := request.config.getoption("backend"):
        vendor = VENDORS[name](tmp_path_factory.mktemp("vendor")).start()
        env |= settings_for(vendor)
    try:
        running = Server(tmp_path_factory.mktemp("server") / "data", env=env).start()
        yield running
        code = running.stop()
        assert code == 0, f"the server ended with {code}:\n{running.tail()}"
        assert not any("panicked" in line for line in running.log), running.tail()
    finally:
        if vendor:
            vendor.stop()


@pytest.fixture(scope="session")
def endpoint(request):
    url = request.config.getoption("endpoint")
    if not url:
        return request.getfixturevalue("server").endpoint
    try:
        identity = Identity(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    except KeyError as error:
        pytest.exit(f"--endpoint needs {error}", returncode=4)
    return Endpoint(
        url.rstrip("/"), identity, os.environ.get("AWS_REGION", "us-east-1"), request.config.getoption("domain")
    )


@pytest.fixture(scope="session")
def stranger(request):
    """The endpoint as another account sees it: a second tenant, or ALT_AWS_* for a foreign endpoint."""
    endpoint = request.getfixturevalue("endpoint")
    if not request.config.getoption("endpoint"):
        server = request.getfixturevalue("server")
        server.create_tenant("second")
        return endpoint.as_identity(server.create_key("second", SECOND.access_key, SECOND.secret_key))
    try:
        return endpoint.as_identity(
            Identity(os.environ["ALT_AWS_ACCESS_KEY_ID"], os.environ["ALT_AWS_SECRET_ACCESS_KEY"])
        )
    except KeyError:
        pytest.skip("no second account: set ALT_AWS_ACCESS_KEY_ID and ALT_AWS_SECRET_ACCESS_KEY")


@pytest.fixture(scope="session")
def queue_arn(request):
    """A queue that events of the endpoint's buckets may be sent to."""
    if not request.config.getoption("endpoint"):
        return "arn:aws:sqs:us-east-1:default:events"
    try:
        return os.environ["EVENT_QUEUE_ARN"]
    except KeyError:
        pytest.skip("no queue for events: set EVENT_QUEUE_ARN")


@pytest.fixture
def patient(monkeypatch):
    """botocore sends a body when nothing was answered to its head within a second; here it waits as long as it takes."""
    wait = urllib3.util.wait_for_read
    monkeypatch.setattr(urllib3.util, "wait_for_read", lambda sock, timeout=None: wait(sock, 60 if timeout == 1 else timeout))


@pytest.fixture
def own_server(tmp_path):
    """Makes servers that belong to one test alone: own_server(env={...}) starts one."""
    started = []

    def make(name="data", start=True, **options):
        server = Server(tmp_path / name, **options)
        started.append(server)
        return server.start() if start else server

    yield make
    for server in started:
        if server.process and server.process.poll() is None:
            server.kill()


# --- databases and Redis ---


def started(kind, tmp_path_factory):
    try:
        server = kind(tmp_path_factory.mktemp(kind.program))
    except database.Missing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A PostgreSQL server of this session: postgres.create() is the URL of a new database."""
    yield from started(database.Postgres, tmp_path_factory)


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory):
    """A MariaDB server of this session: mariadb.create() is the URL of a new database."""
    yield from started(database.MariaDb, tmp_path_factory)


@pytest.fixture(scope="session")
def mysql(tmp_path_factory):
    """A MySQL server of this session: mysql.create() is the URL of a new database."""
    yield from started(database.MySql, tmp_path_factory)


@pytest.fixture(scope="session")
def redis(tmp_path_factory):
    """A Redis server of this session, at redis.url."""
    yield from started(database.Redis, tmp_path_factory)


@pytest.fixture(scope="session")
def s3(endpoint):
    return endpoint.client()


@pytest.fixture(scope="session")
def raw(endpoint):
    return Raw(endpoint)


# --- buckets and data ---


@pytest.fixture(scope="session")
def bucket_names(request):
    prefix = f"compat-{secrets.token_hex(4)}"
    return (f"{prefix}-{number}" for number in itertools.count())


@pytest.fixture
def make_bucket(s3, bucket_names):
    """Makes buckets that are emptied and deleted after the test."""
    made = []

    def make(client=s3):
        name = next(bucket_names)
        client.create_bucket(Bucket=name)
        made.append((client, name))
        return name

    yield make
    for client, name in made:
        remove_bucket(client, name)


@pytest.fixture
def bucket(make_bucket):
    return make_bucket()


def remove_bucket(client, name):
    """Removes a bucket with all it holds; one that is gone already is fine."""
    try:
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=name):
            for upload in page.get("Uploads", []):
                client.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
        for page in client.get_paginator("list_object_versions").paginate(Bucket=name):
            entries = page.get("Versions", []) + page.get("DeleteMarkers", [])
            objects = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
            for start in range(0, len(objects), 1000):
                client.delete_objects(
                    Bucket=name,
                    Delete={"Objects": objects[start : start + 1000], "Quiet": True},
                    BypassGovernanceRetention=True,
                )
        client.delete_bucket(Bucket=name)
    except client.exceptions.NoSuchBucket:
        pass


@pytest.fixture
def rng(request):
    """Random data that the printed seed and the test's name reproduce."""
    return random.Random(f"{request.config.getoption('seed')} {request.node.nodeid}")


@pytest.fixture
def pool():
    """Sixteen threads for what has to happen at the same time."""
    with ThreadPoolExecutor(16) as threads:
        yield threads
