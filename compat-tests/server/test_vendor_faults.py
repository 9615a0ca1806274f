"""A vendor that fails in every way: an error never becomes an absence, and nothing acknowledged is lost."""

import http.client
import time
from contextlib import closing

import pytest

from support import faulty
from support.faulty import FaultyVendor
from support.multipart import Upload
from support.raw import Raw, read_head
from support.server import Server
from support.times import COLLECTING, SWEEPING
from support.vendors import settings_for
from support.wait import wait_until

MIB = 1 << 20
TIMEOUT_SECONDS = 4
BOUND = 256 * MIB
# The longest that a request may take: a turn, each try with its pause, and the second look of a read.
PATIENCE = 60.0
PLACE = "quick"


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    running = FaultyVendor(tmp_path_factory.mktemp("vendor")).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def running(vendor, tmp_path_factory):
    env = settings_for(vendor, timeout_seconds=TIMEOUT_SECONDS, retries=1)
    server = Server(tmp_path_factory.mktemp("server") / "data", env=env).start()
    server.endpoint.client().create_bucket(Bucket="bucket")
    yield server
    vendor.heal()
    assert server.memory() <= BOUND, f"peak of {server.memory() // MIB} MiB"
    assert server.stop() == 0
    assert not any("panicked" in line for line in server.log), server.tail()


@pytest.fixture
def well(vendor):
    """The vendor without a fault, before and after."""
    vendor.heal()
    yield vendor
    vendor.heal()


@pytest.fixture
def raw(running):
    return Raw(running.endpoint)


def put(raw, key, body):
    answer = raw.request("PUT", f"/bucket/{key}", body=body)
    assert answer.status == 200, answer


def assert_read(raw, key, body):
    answer = raw.request("GET", f"/bucket/{key}")
    assert answer.status == 200 and answer.body == body, answer
    middle = raw.request("GET", f"/bucket/{key}", headers={"range": f"bytes=1000-{len(body) - 500}"})
    assert middle.status == 206 and middle.body == body[1000 : len(body) - 499], middle


def assert_failed(answer):
    """A store that does not answer is 503, with a time to try again; one that answers nonsense is 500."""
    assert answer.status in (500, 503), answer
    assert answer.code in {500: ("InternalError",), 503: ("ServiceUnavailable", "SlowDown")}[answer.status], answer
    assert answer.status == 500 or answer.headers["retry-after"].isdigit(), answer


UNAVAILABLE = {
    "429": faulty.status(429, "TooManyRequests"),
    "503": faulty.status(503, "SlowDown"),
    "500": faulty.status(500, "InternalError"),
    "403": faulty.status(403, "InvalidAccessKeyId"),
    "no such bucket": faulty.status(404, "NoSuchBucket"),
    "reset": faulty.reset,
}
WRONG_ANSWERS = {
    "no such key": faulty.status(404, "NoSuchKey"),
    "shorter": faulty.shorter,
    "half": faulty.half,
    "longer": faulty.longer,
    "error as success": faulty.error_as_success,
}


@pytest.mark.parametrize("fault", [*UNAVAILABLE, *WRONG_ANSWERS])
def test_a_read_that_fails_is_no_absence(well, raw, rng, fault):
    body = rng.randbytes(100_000)
    put(raw, "k", body)
    well.rule("get head", (UNAVAILABLE | WRONG_ANSWERS)[fault])
    for headers in ({}, {"range": "bytes=70000-80000"}):
        begun = time.monotonic()
        try:
            answer = raw.request("GET", "/bucket/k", headers=headers)
        except http.client.IncompleteRead:
            # The first bytes were good; the connection says that the rest is missing.
            assert fault in ("half", "longer")
        else:
            assert_failed(answer)
            assert answer.status == 503 or fault not in UNAVAILABLE, answer
        assert time.monotonic() - begun < PATIENCE
    # What is in the rows is not the vendor's.
    assert raw.request("HEAD", "/bucket/k").status == 200
    well.heal()
    assert_read(raw, "k", body)


@pytest.mark.parametrize("fault", ["other range", "whole blob"])
def test_other_bytes_than_asked_for_are_never_served(well, raw, rng, fault):
    body = rng.randbytes(700_000)
    put(raw, "k", body)
    well.rule("get", {"other range": faulty.other_range, "whole blob": faulty.whole_blob}[fault])
    for first, last in [(1, 2), (1000, 263143), (262144, 524287), (1, 699_999), (600_000, 699_999)]:
        answer = raw.request("GET", "/bucket/k", headers={"range": f"bytes={first}-{last}"})
        assert_failed(answer)
    well.heal()
    assert_read(raw, "k", body)


@pytest.mark.parametrize("fault", ["429", "503", "500", "reset", "no such key", "shorter", "truncated"])
def test_a_read_that_fails_once_is_repeated(well, raw, rng, fault):
    body = rng.randbytes(2_000_000)
    put(raw, "k", body)
    act = (UNAVAILABLE | WRONG_ANSWERS | {"truncated": faulty.truncated})[fault]
    rule = well.rule("get", act, times=1)
    answer = raw.request("GET", "/bucket/k")
    assert rule.seen == 1
    assert answer.status == 200 and answer.body == body, answer


@pytest.mark.parametrize("fault", ["truncated", "stalled", "half"])
def test_a_body_that_breaks_off_ends_the_connection(well, raw, rng, fault):
    body = rng.randbytes(6_000_000)
    put(raw, "k", body)
    acts = {"truncated": faulty.truncated, "stalled": faulty.stalled(2 * TIMEOUT_SECONDS), "half": faulty.half}
    # Each try gets half of what is left, or nothing, so that tries run out before the body ends.
    well.rule("get", acts[fault])
    with closing(raw.begin("GET", "/bucket/k")) as sock:
        sock.settimeout(PATIENCE)
        code, headers, rest = read_head(sock)
        assert code == 200 and int(headers["content-length"]) == len(body)
        got = bytearray(rest)
        try:
            while piece := sock.recv(65536):
                got += piece
        except ConnectionResetError:
            pass
    assert len(got) < len(body) and body.startswith(got)
    well.heal()
    assert_read(raw, "k", body)


@pytest.mark.parametrize("fault", UNAVAILABLE)
def test_a_write_that_fails_leaves_what_was_there(well, raw, rng, fault):
    old, new = rng.randbytes(50_000), rng.randbytes(60_000)
    put(raw, "old", old)
    well.rule("put part initiate complete", UNAVAILABLE[fault])
    for key in ("old", "none"):
        answer = raw.request("PUT", f"/bucket/{key}", body=new)
        assert_failed(answer)
        assert answer.status == 503, answer
    well.heal()
    assert_read(raw, "old", old)
    assert raw.request("GET", "/bucket/none").status == 404
    put(raw, "old", new)
    assert_read(raw, "old", new)


@pytest.mark.parametrize("fault", ["429", "503", "500", "reset", "reset after"])
def test_a_write_that_fails_once_is_repeated(well, raw, rng, fault):
    body = rng.randbytes(70_000)
    act = (UNAVAILABLE | {"reset after": faulty.reset_after})[fault]
    rule = well.rule("put", act, times=1)
    put(raw, "k", body)
    assert rule.seen == 1
    assert_read(raw, "k", body)


def test_a_blob_that_was_repeated_is_measured_before_it_is_believed(well, raw, rng):
    body = rng.randbytes(70_000)
    measured = well.rule("head", faulty.doubled, times=1)
    put(raw, "unmeasured", body)
    assert measured.seen == 0
    well.rule("put", faulty.reset_after, times=1)
    assert_failed(raw.request("PUT", "/bucket/measured", body=body[1:]))
    assert measured.seen == 1
    assert raw.request("GET", "/bucket/measured").status == 404
    put(raw, "measured", body[1:])
    assert_read(raw, "measured", body[1:])


@pytest.mark.parametrize("operation", ["put", "part"])
def test_an_answer_that_comes_too_late_is_asked_for_again(well, raw, rng, operation):
    body = rng.randbytes(70_000 if operation == "put" else 12 * MIB)
    rule = well.rule(operation, faulty.late(2 * TIMEOUT_SECONDS), times=1)
    answer = raw.request("PUT", f"/bucket/late-{operation}", body=body)
    assert rule.seen == 1
    if answer.status == 200:
        assert_read(raw, f"late-{operation}", body)
    else:
        assert_failed(answer)
        assert raw.request("GET", f"/bucket/late-{operation}").status == 404


@pytest.mark.parametrize("step", ["initiate", "part", "complete"])
@pytest.mark.parametrize("fault", ["503", "reset", "error as success"])
def test_a_long_blob_that_fails_at_any_step_leaves_what_was_there(well, raw, rng, step, fault):
    if (step, fault) == ("part", "error as success"):
        pytest.skip("an ETag is all that a vendor answers to a part; the next test is about that")
    old, new = rng.randbytes(50_000), rng.randbytes(12 * MIB)
    put(raw, "long", old)
    well.rule(step, (UNAVAILABLE | WRONG_ANSWERS)[fault])
    assert_failed(raw.request("PUT", "/bucket/long", body=new))
    well.heal()
    assert_read(raw, "long", old)
    put(raw, "long", new)
    assert_read(raw, "long", new)


def test_a_part_that_the_vendor_lost_fails_the_blob(well, raw, rng):
    well.rule("part", faulty.error_as_success, times=1)
    assert_failed(raw.request("PUT", "/bucket/lost", body=rng.randbytes(12 * MIB)))
    well.heal()
    assert raw.request("GET", "/bucket/lost").status == 404


def test_an_upload_goes_on_after_a_part_failed(well, raw, running, rng):
    first, second = rng.randbytes(6 * MIB), rng.randbytes(MIB)
    upload = Upload(running.endpoint.client(), "bucket", "upload")
    well.rule("put part initiate complete", faulty.status(503, "SlowDown"))
    path, query = "/bucket/upload", {"partNumber": "1", "uploadId": upload.id}
    assert_failed(raw.request("PUT", path, query, body=first))
    well.heal()
    for number, part in ((1, first), (2, second)):
        upload.put(number, part)
    upload.complete()
    assert_read(raw, "upload", first + second)


def test_what_the_vendor_calls_its_etags_changes_nothing(well, raw, rng):
    well.rule("put get head", faulty.other_etag)
    body = rng.randbytes(80_000)
    answer = raw.request("PUT", "/bucket/etag", body=body)
    assert answer.status == 200 and "nimbus" not in answer.headers["etag"]
    assert_read(raw, "etag", body)


def test_a_dead_vendor_costs_nothing_but_time(well, raw, running, rng):
    body = rng.randbytes(100_000)
    put(raw, "alive", body)
    well.die()
    begun = time.monotonic()
    assert_failed(raw.request("GET", "/bucket/alive"))
    assert_failed(raw.request("PUT", "/bucket/alive", body=rng.randbytes(100_000)))
    assert time.monotonic() - begun < 2 * PATIENCE
    assert raw.request("HEAD", "/bucket/alive").status == 200
    assert raw.request("GET", "/bucket", {"list-type": "2", "prefix": "alive"}).status == 200
    # A copy needs no bytes; neither does a delete.
    assert raw.request("PUT", "/bucket/copy", headers={"x-amz-copy-source": "/bucket/alive"}).status == 200
    assert running.metric("osproxy_backend_errors_total", store="vendor", kind="unavailable") > 0
    assert running.metric("osproxy_backend_retries_total", store="vendor") > 0
    well.revive()
    assert_read(raw, "alive", body)
    assert_read(raw, "copy", body)


def test_a_huge_error_is_not_taken_into_memory(well, raw, running, rng):
    put(raw, "huge", rng.randbytes(100_000))
    before = running.memory("VmRSS")
    well.rule("get", faulty.endless_error(64), times=4)
    assert_failed(raw.request("GET", "/bucket/huge"))
    assert running.memory() < max(before, 100 * MIB) + 40 * MIB


@pytest.fixture
def quick(own_server, well):
    """A server that collects and sweeps within seconds, at a place of its own at the same vendor."""
    well.lose(well.blobs(f"{PLACE}/"))

    def make(start=True, **more):
        env = settings_for(well, timeout_seconds=TIMEOUT_SECONDS, retries=1)
        env |= COLLECTING | SWEEPING | {"OSPROXY_BACKEND__VENDOR__OPTIONS__ROOT": f"/{PLACE}"}
        return own_server(env=env | more, start=start)

    yield make


def test_deletes_that_fail_or_are_lost_are_made_up_for(quick, well, rng):
    server = quick()
    raw = Raw(server.endpoint)
    raw.request("PUT", "/bucket")
    kept = rng.randbytes(50_000)
    put(raw, "kept", kept)
    # First the vendor refuses to delete, then it lies about it, then it obeys.
    refused = well.rule("delete", faulty.status(503, "SlowDown"), times=4)
    lost = well.rule("delete", faulty.not_done, times=1)
    for number in range(3):
        put(raw, f"gone{number}", rng.randbytes(40_000 + number))
    assert len(well.blobs(f"{PLACE}/")) == 4
    for number in range(3):
        assert raw.request("DELETE", f"/bucket/gone{number}").status == 204
    wait_until(lambda: refused.seen == 4 and lost.seen == 1, 60, "the deletes")
    wait_until(lambda: len(well.blobs(f"{PLACE}/")) == 1, 60, "the sweep")
    assert_read(raw, "kept", kept)


def test_a_listing_that_lies_or_fails_makes_nobody_delete(quick, well, rng):
    server = quick()
    raw = Raw(server.endpoint)
    raw.request("PUT", "/bucket")
    bodies = {f"k{number}": rng.randbytes(30_000 + number) for number in range(5)}
    for key, body in bodies.items():
        put(raw, key, body)
    there = well.blobs(f"{PLACE}/")
    for act in (faulty.empty_listing, faulty.status(503, "SlowDown"), faulty.status(404, "NoSuchBucket")):
        well.heal()
        rule = well.rule("list", act)
        wait_until(lambda: rule.seen >= 2, 60, "two sweeps")
        assert well.blobs(f"{PLACE}/") == there
    well.heal()
    for key, body in bodies.items():
        assert_read(raw, key, body)


def test_the_server_starts_while_the_vendor_is_dead(quick, well, rng):
    well.die()
    server = quick()
    raw = Raw(server.endpoint)
    raw.request("PUT", "/bucket")
    body = rng.randbytes(50_000)
    assert_failed(raw.request("PUT", "/bucket/k", body=body))
    well.revive()
    put(raw, "k", body)
    assert_read(raw, "k", body)


def test_a_vendor_that_refuses_the_credentials_ends_the_start(quick, well):
    server = quick(start=False, OSPROXY_BACKEND__VENDOR__OPTIONS__SECRET_ACCESS_KEY="wrongwrongwrongwrongwrong")
    server.launch()
    assert server.wait() != 0
    said = server.tail()
    assert "backend vendor" in said and "wrongwrong" not in said, said
