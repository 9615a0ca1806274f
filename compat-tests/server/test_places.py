"""Backends are told apart by the place they lead to, not by their names; and what is said of them holds no secret."""

import random
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from support import faulty
from support.faulty import FaultyVendor
from support.vendors import RCLONE, RcloneWebdav, settings_for
from support.wait import wait_until

SECRET = "HUSHSECRET"
DISK = {"OSPROXY_BACKEND__DISK__SERVICE": "fs"}


@pytest.fixture
def vendor(tmp_path):
    running = FaultyVendor(tmp_path).start()
    yield running
    running.stop()


def refused(server):
    """What a server says that does not start."""
    server.launch()
    assert server.wait(60) in (1, 2), server.tail()
    return server.tail()


def test_two_names_for_one_directory_are_refused(own_server, tmp_path):
    for made in ("data", "data/blobs"):
        (tmp_path / made).mkdir(mode=0o700)
    (tmp_path / "data" / "link").symlink_to("blobs")
    for root in ("blobs", "./blobs/", "link", str(tmp_path / "data" / "blobs")):
        server = own_server(start=False, env=DISK | {"OSPROXY_BACKEND__DISK__OPTIONS__ROOT": root})
        checked = server.command("config", "check", check=False)
        said = refused(server)
        assert "another place" in said and "local" in said and "disk" in said, said
        assert "another place" in checked.stderr, checked
    # One below the other is a place of its own, and stays one when either is swept.
    quick = {"OSPROXY_STORAGE__GRACE_SECONDS": "1", "OSPROXY_STORAGE__BLOB_RETENTION_SECONDS": "0"}
    below = str(tmp_path / "data" / "blobs" / "ab")
    quick |= {"OSPROXY_PLACEMENT__BOTH__BACKENDS": "local,disk", "OSPROXY_STORAGE__PLACEMENT": "both"}
    server = own_server(env=DISK | quick | {"OSPROXY_BACKEND__DISK__OPTIONS__ROOT": below})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    body = random.Random(1).randbytes(100_000)
    s3.put_object(Bucket="bucket", Key="k", Body=body)
    server.command("gc")
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == body


@pytest.mark.skipif(not RCLONE.exists(), reason="rclone is not installed: compat-tests/run installs it")
def test_a_service_that_leads_where_another_one_does_is_refused(own_server, tmp_path):
    """By another address, or as a directory: what is written at one is at the other."""
    (tmp_path / "vendor").mkdir()
    vendor = RcloneWebdav(tmp_path / "vendor").start()
    try:
        env = settings_for(vendor)
        again = settings_for(vendor, name="again")
        twice = env | again | {"OSPROXY_BACKEND__AGAIN__OPTIONS__ENDPOINT": f"http://127.0.0.1:{vendor.port}/."}
        as_disk = env | DISK | {"OSPROXY_BACKEND__DISK__OPTIONS__ROOT": str(tmp_path / "vendor" / "data")}
        for number, both in enumerate([twice, as_disk]):
            said = refused(own_server(f"refused{number}", start=False, env=both))
            assert "another place" in said, said
        # Below another root it is another place.
        own_server("apart", env=env | again | {"OSPROXY_BACKEND__AGAIN__OPTIONS__ROOT": "/below"})
        # No probe is left behind.
        assert vendor.stored() == []
    finally:
        vendor.stop()


def garbled(handler, request, ask):
    """As many bytes as were asked for, and others."""
    answer = ask()
    handler.reply(faulty.Answer(answer.status, answer.headers, answer.body[::-1]))


@pytest.mark.parametrize("operation,act", [("head", faulty.doubled), ("get", garbled)])
def test_a_service_that_gives_back_something_else_is_refused(own_server, vendor, operation, act):
    vendor.rule(operation, act)
    said = refused(own_server(start=False, env=settings_for(vendor, retries=0)))
    assert "backend vendor" in said and "does not give back what it was given" in said, said


class Refusing(BaseHTTPRequestHandler):
    """Refuses everything, and says what was asked."""

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        text = f"<Error>no: {self.path}</Error>".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PROPFIND = do_MKCOL = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def refusing():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("service", ["webhdfs", "webdav", "azblob"])
def test_no_secret_is_in_what_a_service_that_refuses_is_quoted_with(own_server, refusing, service):
    options = {
        "webhdfs": {"endpoint": f"http://127.0.0.1:{refusing}", "delegation": SECRET},
        "webdav": {"endpoint": f"http://user:{SECRET}@127.0.0.1:{refusing}"},
        "azblob": {
            "endpoint": f"http://127.0.0.1:{refusing}/account",
            "container": "c",
            "sas_token": f"sv=1&sig={SECRET}",
        },
    }[service]
    env = {f"OSPROXY_BACKEND__VENDOR__OPTIONS__{name.upper()}": value for name, value in options.items()}
    env |= {"OSPROXY_BACKEND__VENDOR__SERVICE": service, "OSPROXY_LOG__LEVEL": "debug"}
    server = own_server(start=False, env=env)
    checked = server.command("config", "check")
    assert SECRET not in checked.stdout + checked.stderr and f"127.0.0.1:{refusing}" in checked.stdout
    said = refused(server)
    assert "backend vendor" in said
    assert not [line for line in server.log if SECRET in line]


def test_one_request_at_a_time_makes_the_others_wait_their_turn(own_server, vendor):
    env = settings_for(vendor, concurrency=1)
    server = own_server(env=env)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    bodies = {f"k{number}": random.Random(number).randbytes(50_000) for number in range(2)}
    under_way, gate, most = [], threading.Event(), []

    def held(handler, request, ask):
        under_way.append(request)
        most.append(len(under_way))
        gate.wait(20)
        under_way.pop()
        handler.reply(ask())

    vendor.rule("put", held)
    writes = [
        threading.Thread(target=lambda key=key: s3.put_object(Bucket="bucket", Key=key, Body=bodies[key]))
        for key in bodies
    ]
    for write in writes:
        write.start()
    in_flight = "osproxy_requests_in_flight 3"  # with the one that asks
    wait_until(lambda: under_way and in_flight in server.admin("/metrics")[1], what="two requests, one at the vendor")
    gate.set()
    for write in writes:
        write.join(30)
    assert len(most) == 2 and max(most) == 1
    for key, body in bodies.items():
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == body
    _, metrics = server.admin("/metrics")
    waited = re.search(r'osproxy_backend_wait_seconds_sum{store="vendor"} (\S+)', metrics)
    assert waited and float(waited[1]) > 0, [line for line in metrics.splitlines() if "wait" in line]
