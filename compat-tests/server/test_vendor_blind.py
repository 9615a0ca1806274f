"""Nothing of a vendor reaches a client, or a log line that is written by default, whatever happens at the vendor."""

import base64
import hashlib
import http.client
import random
import re

import pytest

from support import faulty
from support.faulty import MARKS, FaultyVendor
from support.raw import Answer, Raw
from support.server import Server
from support.vendors import BUCKET, KEY, settings_for
from support.wait import wait_until

MIB = 1 << 20
PART = 5 * MIB
LIBRARIES = ("opendal", "reqwest", "hyper::", "reqsign")
SERVERS = ("rclone", "gofakes3", "seaweed", "minio")
# Another on every request, here as at S3.
OWN_NUMBERS = {"x-amz-request-id", "x-amz-id-2", "x-osproxy-uid", "date", "last-modified", "content-length", "etag"}


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    running = FaultyVendor(tmp_path_factory.mktemp("vendor")).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    started = []

    def make(env):
        server = Server(tmp_path_factory.mktemp("server") / "data", env=env).start()
        started.append(server)
        server.endpoint.client().create_bucket(Bucket="bucket")
        return server

    yield make
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def over_vendor(vendor, start):
    return start(settings_for(vendor, timeout_seconds=10, retries=0))


@pytest.fixture(scope="module")
def over_disk(start):
    return start({"OSPROXY_STORAGE__INLINE_MAX_BYTES": "0"})


@pytest.fixture
def well(vendor):
    vendor.heal()
    yield vendor
    vendor.heal()


def before(raw, rng):
    """What is there before something goes wrong."""
    for key in ("object", "other", "third"):
        assert raw.request("PUT", f"/bucket/{key}", body=rng.randbytes(100_000)).status == 200
    upload = raw.request("POST", "/bucket/upload", {"uploads": ""}).xml.findtext("UploadId")
    sent = raw.request("PUT", "/bucket/upload", {"partNumber": "1", "uploadId": upload}, body=rng.randbytes(PART))
    assert sent.status == 200
    return upload, sent.headers["etag"]


def operations(raw, rng, upload, etag):
    """Every kind of request that has to do with bytes, and some that have not: name and answer."""
    named = {"partNumber": "2", "uploadId": upload}
    parts = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
    complete = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    batch = b"<Delete><Object><Key>other</Key></Object><Object><Key>nothing</Key></Object></Delete>"
    batch_md5 = {"content-md5": base64.b64encode(hashlib.md5(batch).digest()).decode()}
    source = {"x-amz-copy-source": "/bucket/object"}
    encrypted = source | {"x-amz-server-side-encryption": "AES256"}
    requests = [
        ("put", "PUT", "/bucket/new", (), {}, rng.randbytes(90_000)),
        ("put long", "PUT", "/bucket/long", (), {}, rng.randbytes(11 * MIB)),
        ("get", "GET", "/bucket/object", (), {}, b""),
        ("get range", "GET", "/bucket/object", (), {"range": "bytes=70000-80000"}, b""),
        ("get suffix", "GET", "/bucket/object", (), {"range": "bytes=-10"}, b""),
        ("get nothing", "GET", "/bucket/nothing", (), {}, b""),
        ("get beyond", "GET", "/bucket/object", (), {"range": "bytes=200000-"}, b""),
        ("head", "HEAD", "/bucket/object", (), {}, b""),
        ("attributes", "GET", "/bucket/object", {"attributes": ""}, {"x-amz-object-attributes": "ETag"}, b""),
        ("copy", "PUT", "/bucket/copy", (), source, b""),
        ("copy and encrypt", "PUT", "/bucket/sealed", (), encrypted, b""),
        ("initiate", "POST", "/bucket/second", {"uploads": ""}, {}, b""),
        ("part", "PUT", "/bucket/upload", named, {}, rng.randbytes(MIB)),
        ("part copy", "PUT", "/bucket/upload", named, source | {"x-amz-copy-source-range": "bytes=5-50000"}, b""),
        ("parts", "GET", "/bucket/upload", {"uploadId": upload}, {}, b""),
        ("complete", "POST", "/bucket/upload", {"uploadId": upload}, {}, complete),
        ("get joined", "GET", "/bucket/upload", (), {"range": "bytes=10-20"}, b""),
        ("list", "GET", "/bucket", {"list-type": "2"}, {}, b""),
        ("versions", "GET", "/bucket", {"versions": ""}, {}, b""),
        ("uploads", "GET", "/bucket", {"uploads": ""}, {}, b""),
        ("delete", "DELETE", "/bucket/third", (), {}, b""),
        ("delete batch", "POST", "/bucket", {"delete": ""}, batch_md5, batch),
        ("bucket", "HEAD", "/bucket", (), {}, b""),
        ("no bucket", "GET", "/no-such-bucket", (), {}, b""),
    ]
    for name, method, path, query, headers, body in requests:
        try:
            yield name, raw.request(method, path, query, headers, body)
        except http.client.IncompleteRead as cut:
            yield name, Answer(200, [("cut", "yes")], cut.partial)


def fingerprints(vendor, blobs):
    own = [BUCKET, KEY.access_key, KEY.secret_key, f":{vendor.port}", f":{vendor.real.port}"]
    names = [key.rpartition("/")[2] for key in blobs]
    return [text.lower() for text in (*MARKS, *LIBRARIES, *SERVERS, *own, *names)]


def assert_blind(texts, marks):
    for text in texts:
        found = [mark for mark in marks if mark in text.lower()]
        assert not found, f"{found} in {text[:2000]!r}"


CONDITIONS = ["well", "strange etags", "missing", "denied", "no bucket", "busy", "reset", "dead"]


def break_it(vendor, condition, blobs):
    every = "put part initiate complete abort get head delete list"
    if condition == "strange etags":
        # But for those of parts, which have to be named again.
        vendor.rule(every.replace("part ", ""), faulty.other_etag)
    elif condition == "missing":
        vendor.lose(blobs)
    elif condition == "denied":
        vendor.rule(every, faulty.status(403, "AccessDenied"))
    elif condition == "no bucket":
        vendor.rule(every, faulty.status(404, "NoSuchBucket"))
    elif condition == "busy":
        vendor.rule(every, faulty.status(503, "SlowDown"))
    elif condition == "reset":
        vendor.rule(every, faulty.reset)
    elif condition == "dead":
        vendor.die()


@pytest.mark.parametrize("condition", CONDITIONS)
def test_nothing_of_the_vendor_is_seen(well, over_vendor, rng, condition):
    raw = Raw(over_vendor.endpoint)
    # Before: there must be something that could be seen.
    upload, etag = before(raw, rng)
    blobs = well.blobs()
    assert blobs
    break_it(well, condition, blobs)
    logged = len(over_vendor.log)
    marks = fingerprints(well, blobs)
    statuses = {}
    for name, answer in operations(raw, rng, upload, etag):
        statuses[name] = answer.status
        head = "\n".join(f"{header}: {value}" for header, value in answer.headers.items())
        text = answer.body.decode("latin-1") if answer.body.lstrip().startswith(b"<") else ""
        assert_blind([head, text], marks)
        assert answer.status != 404 or "nothing" in name or "no bucket" == name, (name, answer)
    needs_bytes = {"put", "put long", "get", "get range", "get suffix", "copy and encrypt", "part", "part copy"}
    if condition in ("well", "strange etags"):
        assert {statuses[name] for name in needs_bytes} <= {200, 206}, statuses
    elif condition == "missing":
        assert statuses["get"] == statuses["get range"] == 500, statuses
    else:
        assert {statuses[name] for name in needs_bytes} == {503}, statuses
    # What needs no bytes goes on.
    for name in ("head", "list", "versions", "copy", "complete", "delete", "delete batch"):
        assert statuses[name] in (200, 204), (name, statuses)
    over_vendor.command("gc", check=False)
    # Of the start, too.
    assert_blind(over_vendor.log, marks)
    if condition not in ("well", "strange etags"):
        assert any("backend vendor" in line for line in over_vendor.log[logged:]), over_vendor.tail()


def shape(answer):
    """What of an answer must not depend on where blobs are."""
    values = {name: value for name, value in answer.headers.items() if name not in OWN_NUMBERS}
    said = (answer.code, answer.xml.findtext("Message")) if answer.code else None
    return answer.status, sorted(answer.headers), values, said


@pytest.mark.parametrize("condition", ["well", "missing"])
def test_answers_are_those_of_a_local_disk(well, over_vendor, over_disk, rng, condition):
    shapes = []
    seed = rng.random()
    for server in (over_disk, over_vendor):
        raw, rng = Raw(server.endpoint), random.Random(seed)
        upload, etag = before(raw, rng)
        if condition == "missing":
            well.lose(well.blobs())
            for file in (server.data_dir / "blobs").glob("*/*"):
                file.unlink()
        shapes.append({name: shape(answer) for name, answer in operations(raw, rng, upload, etag)})
    ours, theirs = shapes
    for name in ours:
        assert ours[name] == theirs[name], name


def test_an_operator_who_asks_hears_what_the_vendor_said(well, start, rng):
    server = start(settings_for(well, timeout_seconds=10, retries=0) | {"OSPROXY_LOG__LEVEL": "debug"})
    well.rule("put", faulty.status(403, "AccessDenied"))
    answer = Raw(server.endpoint).request("PUT", "/bucket/k", body=rng.randbytes(50_000))
    assert answer.status == 503
    wait_until(lambda: any("out of rain" in line for line in server.log), what="the vendor's words in the log")
    wait_until(
        lambda: any(re.search(r"WARN.*backend vendor.*permission denied", line) for line in server.log),
        what="the warning in the log",
    )
    assert not any(KEY.secret_key in line for line in server.log)
