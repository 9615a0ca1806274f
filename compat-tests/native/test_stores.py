"""What is said when a store is away: 503 and when to come again, never that something is not there."""

import pytest

from support import database
from support.native import V1, ok, refused
from support.redis import Redis
from support.wait import wait_until

# A database that is away is waited for, some seconds by each request.
pytestmark = pytest.mark.timeout(400)


def started(make):
    try:
        server = make()
    except database.Missing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture
def own_redis(tmp_path):
    """A Redis that a test may kill."""
    yield from started(lambda: Redis(tmp_path / "redis"))


@pytest.fixture
def own_postgres(tmp_path):
    """A PostgreSQL server that a test may kill."""
    yield from started(lambda: database.Postgres(tmp_path / "postgres"))


def pings(client):
    return client.get("/ping").status


def test_ping_tells_that_redis_is_away(own_native_server, own_redis):
    server = own_native_server("open", OSPROXY_REDIS__URL=own_redis.url)
    client = server.native()
    wait_until(lambda: pings(client) == 200, 30, "the way to Redis")
    own_redis.kill()
    wait_until(lambda: pings(client) == 503, 30, "503 without Redis")
    answer = client.get("/ping")
    assert "Redis" in refused(answer, 503) and answer.headers["retry-after"] == "1"
    # It serves all the same.
    assert ok(client.get("/health")) == "ready"
    assert client.fetch(client.upload("a.txt", b"x"))[0] == b"x"
    own_redis.start()
    wait_until(lambda: pings(client) == 200, 30, "the way to Redis again")


def test_a_lost_database_is_503_everywhere(own_native_server, own_postgres):
    server = own_native_server("basic", OSPROXY_META__URL=own_postgres.create())
    client = server.native(identity=server.identity, all_routes=True)
    uid = client.upload("a.txt", b"x")
    [link] = ok(client.download_links(uid))
    [links] = ok(client.upload_links("b.txt"))
    own_postgres.kill()
    wait_until(lambda: pings(client) == 503, 60, "503 without the database")
    for ask in (
        lambda: client.get("/ping"),
        lambda: client.get("/health"),
        lambda: client.upload_links("a.txt"),
        lambda: client.download_links(uid),
        lambda: client.resume(("0" * 32, "a.txt")),
        lambda: client.checkpoint(links["uid"]),
        lambda: client.put_whole(links, b"x"),
        lambda: client.download(link["url"]),
    ):
        answer = ask()
        refused(answer, 503)
        assert answer.headers["retry-after"] == "1"
    answer = client.send("GET", f"{V1}/objects/{uid}", headers=client.basic())
    assert answer.status == answer.json["status"] == 503 and answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    own_postgres.start()
    wait_until(lambda: pings(client) == 200, 60, "the database again")
    assert client.download(link["url"]).body == b"x"
    ok(client.put_whole(links, b"x"))
