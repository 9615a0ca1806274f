"""SIGTERM: what runs is finished, nothing new begins, and the deadline holds."""

import signal
from contextlib import closing

import pytest

from support.raw import Raw, read_answer, read_head
from support.wait import wait_until

SIZE = 64 * 1024 * 1024


@pytest.fixture
def loaded(own_server, rng):
    def make(**env):
        server = own_server(env=env)
        s3 = server.endpoint.client()
        s3.create_bucket(Bucket="bucket")
        body = rng.randbytes(SIZE)
        s3.put_object(Bucket="bucket", Key="k", Body=body)
        return server, body

    return make


def is_refused(raw):
    try:
        raw.socket().close()
        return False
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # caught while the listener closed: the next one is refused


def test_running_download_is_finished(loaded):
    server, body = loaded()
    raw = Raw(server.endpoint)
    with closing(raw.begin("GET", "/bucket/k")) as sock:
        status, _, received = read_head(sock)
        assert status == 200
        server.signal()
        wait_until(lambda: is_refused(raw), 30, "no new connections")
        assert server.process.poll() is None
        pieces = [received]
        while sum(map(len, pieces)) < SIZE and (piece := sock.recv(1 << 20)):
            pieces.append(piece)
        assert b"".join(pieces) == body
    assert server.wait() == 0


def test_running_upload_is_finished(loaded):
    server, _ = loaded()
    raw = Raw(server.endpoint)
    with closing(raw.begin("PUT", "/bucket/new", length=1_000_000, body=b"x" * 500_000)) as sock:
        wait_until(lambda: server.metric("osproxy_requests_in_flight") >= 2, 30, "the upload, beside who asks")
        server.signal()
        wait_until(lambda: is_refused(raw), 30, "no new connections")
        sock.sendall(b"x" * 500_000)
        assert read_answer(sock).status == 200
    assert server.wait() == 0
    server.start()
    assert server.endpoint.client().head_object(Bucket="bucket", Key="new")["ContentLength"] == 1_000_000


def test_idle_connections_do_not_hold_it_up(loaded):
    server, _ = loaded()
    raw = Raw(server.endpoint)
    sockets = [raw.socket() for _ in range(10)]
    raw.request("GET", "/")
    server.signal()
    assert server.wait(25) == 0
    for sock in sockets:
        sock.close()


def test_deadline_cuts_what_does_not_end(loaded):
    server, _ = loaded(OSPROXY_HTTP__DRAIN_TIMEOUT_SECONDS="1")
    with closing(Raw(server.endpoint).begin("GET", "/bucket/k")) as sock:
        assert read_head(sock)[0] == 200
        server.signal()
        server.wait(25)


def test_sigint_stops_it_too(loaded):
    server, _ = loaded()
    server.signal(signal.SIGINT)
    assert server.wait() == 0


def test_a_delayed_drain_says_so_and_serves_on(own_server):
    server = own_server(env={"OSPROXY_HTTP__DRAIN_DELAY_SECONDS": "15"})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    late = server.endpoint.client()
    server.signal()
    wait_until(lambda: server.admin("/readyz")[0] == 503, 10, "the word that it stops")
    # A client that comes now is served as before.
    late.put_object(Bucket="bucket", Key="late", Body=b"x")
    wait_until(lambda: is_refused(Raw(server.endpoint)), 60, "no new connections")
    assert server.wait() == 0
