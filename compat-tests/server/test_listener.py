"""The listener's limits: slow, large and malformed requests cost the server nothing but their own connection."""

import socket
import time
from contextlib import closing

import pytest

from support.raw import Raw, assert_refused, read_answer, read_head
from support.refusal import refused
from support.wait import wait_until

IMPATIENT = {
    "OSPROXY_HTTP__HEADER_TIMEOUT_SECONDS": "1",
    "OSPROXY_HTTP__IDLE_TIMEOUT_SECONDS": "1",
    "OSPROXY_HTTP__BODY_TIMEOUT_SECONDS": "1",
    "OSPROXY_HTTP__WRITE_TIMEOUT_SECONDS": "1",
}
CLOSED_WITHIN = 15.0


@pytest.fixture
def impatient(own_server):
    server = own_server(env=IMPATIENT)
    server.endpoint.client().create_bucket(Bucket="bucket")
    return server


def read_to_the_end(sock):
    sock.settimeout(CLOSED_WITHIN)
    received = b""
    try:
        while piece := sock.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def drip(sock, text, deadline=CLOSED_WITHIN):
    """Sends byte after byte, each within the server's patience, until it hangs up."""
    end = time.monotonic() + deadline
    sock.settimeout(0.2)
    for byte in text:
        assert time.monotonic() < end, "the connection outlived its deadline"
        try:
            sock.sendall(bytes([byte]))
            if sock.recv(65536) == b"":
                return
        except TimeoutError:
            continue
        except ConnectionError:
            return


# --- slow ---


def test_head_that_does_not_end_is_cut_off(impatient):
    with closing(Raw(impatient.endpoint).socket()) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ")
        answer = read_to_the_end(sock)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408"), answer


def test_head_byte_by_byte_is_cut_off(impatient):
    with closing(Raw(impatient.endpoint).socket()) as sock:
        drip(sock, b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-slow: a\r\n" * 100)


def test_slow_connections_do_not_hold_up_others(impatient):
    raw = Raw(impatient.endpoint)
    sockets = [raw.socket() for _ in range(200)]
    for sock in sockets:
        sock.sendall(b"GET / HT")
    assert raw.request("GET", "/").status == 200
    for sock in sockets:
        sock.close()


def test_idle_connection_is_closed(impatient):
    with closing(Raw(impatient.endpoint).socket()) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert read_answer(sock).status == 403
        assert read_to_the_end(sock) == b""


def test_body_that_stalls_is_refused_and_nothing_is_kept(impatient):
    raw = Raw(impatient.endpoint)
    with closing(raw.begin("PUT", "/bucket/k", length=1_000_000, body=b"x" * 100_000)) as sock:
        sock.settimeout(CLOSED_WITHIN)
        assert_refused(read_answer(sock), "RequestTimeout", 400)
    with refused("404"):
        impatient.endpoint.client().head_object(Bucket="bucket", Key="k")


def with_write_timeout(own_server, seconds, body):
    """A server that has `body`, and waits for so long for a client to take a piece of an answer."""
    server = own_server(env={"OSPROXY_HTTP__WRITE_TIMEOUT_SECONDS": str(seconds)})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=body)
    return server


def test_client_that_does_not_read_is_dropped(own_server):
    server = with_write_timeout(own_server, 1, b"x" * 50_000_000)
    with closing(Raw(server.endpoint).begin("GET", "/bucket/k")) as sock:
        status, _, received = read_head(sock)
        assert status == 200
        wait_until(lambda: server.metric("osproxy_rejected_total", reason="write timeout") == 1, 60, "its end")
        assert len(received) + len(read_to_the_end(sock)) < 50_000_000


def test_slow_reader_that_goes_on_reading_is_served(own_server):
    body = b"0123456789abcdef" * 2_000_000
    server = with_write_timeout(own_server, 6, body)
    began = time.monotonic()
    with closing(Raw(server.endpoint).begin("GET", "/bucket/k")) as sock:
        status, _, rest = read_head(sock)
        assert status == 200
        received = bytearray(rest)
        while len(received) < len(body):
            until = min(len(body), len(received) + 4_000_000)
            while len(received) < until:
                piece = sock.recv(400_000)
                assert piece, "cut off while reading"
                received += piece
            time.sleep(1)  # what makes the reader slow: in all longer than the server waits
    assert received == body and time.monotonic() - began > 6


# --- large ---


@pytest.mark.parametrize(
    "head",
    [b"x-big: " + b"a" * 1_000_000 + b"\r\n", b"x-many: a\r\n" * 20_000],
    ids=["one large header", "many headers"],
)
def test_head_over_its_limit_is_refused(server, endpoint, head):
    with closing(Raw(endpoint).socket()) as sock:
        try:
            sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n")
        except ConnectionError:
            pass
        received = read_to_the_end(sock)
        assert received == b"" or received.split()[1] in (b"400", b"431"), received[:200]
    assert server.admin("/healthz")[0] == 200


def test_target_over_its_limit_is_refused(server, endpoint):
    with closing(Raw(endpoint).socket()) as sock:
        try:
            sock.sendall(b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        except ConnectionError:
            pass
        received = read_to_the_end(sock)
        assert received == b"" or received.split()[1] in (b"400", b"414", b"431"), received[:200]
    assert server.admin("/healthz")[0] == 200


# --- malformed ---


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"PUT /b/k HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"PUT /b/k HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /b/k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
    ],
    ids=[
        "tls",
        "no target",
        "version",
        "zeros",
        "no colon",
        "negative length",
        "two lengths",
        "length and chunked",
        "gzip",
    ],
)
def test_malformed_request_is_refused(server, endpoint, head):
    with closing(Raw(endpoint).socket()) as sock:
        sock.sendall(head)
        sock.shutdown(socket.SHUT_WR)
        received = read_to_the_end(sock)
        assert received == b"" or received.split()[1][:1] == b"4", received[:200]
    assert server.admin("/healthz")[0] == 200


def test_requests_one_after_the_other_on_one_connection(raw, bucket):
    with closing(raw.connection()) as connection:
        for _ in range(20):
            connection.request("GET", f"/{bucket}/missing", headers={"host": raw.endpoint.netloc})
            answer = connection.getresponse()
            assert answer.status == 403 and answer.read()


# --- many ---


def test_requests_over_the_limit_are_told_to_slow_down(own_server):
    server = own_server(env={"OSPROXY_HTTP__MAX_REQUESTS": "2"})
    raw = Raw(server.endpoint)
    assert raw.request("PUT", "/bucket").status == 200

    def admitted():
        """An upload that the server waits for; the request before it may still count for a moment."""
        sock = raw.begin("PUT", "/bucket/k", headers={"expect": "100-continue"}, length=10)
        return sock if read_answer(sock).status == 100 else None

    held = [wait_until(admitted, 30, "room for an upload") for _ in range(2)]
    answer = assert_refused(raw.request("GET", "/bucket"), "SlowDown", 503)
    assert int(answer.headers["retry-after"]) > 0
    for sock in held:
        sock.sendall(b"x" * 10)
        assert read_answer(sock).status == 200
        sock.close()
    wait_until(lambda: raw.request("GET", "/bucket").status == 200, 30, "room again")


def test_connections_over_the_limit_wait_their_turn(own_server):
    server = own_server(env={"OSPROXY_HTTP__MAX_CONNECTIONS": "4"} | IMPATIENT)
    raw = Raw(server.endpoint)
    held = [raw.socket() for _ in range(8)]
    assert raw.request("GET", "/").status == 200, "idle connections make room"
    for sock in held:
        sock.close()
