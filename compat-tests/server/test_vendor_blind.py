"""Nothing of a vendor reaches a client, or a log line that is written by default, whatever happens at the vendor."""

import base64
import hashlib
import http.client
import random
import re
from dataclasses import dataclass, field

import pytest

from support import faulty
from support.faulty import MARKS, FaultyVendor
from support.native import MIB, V0, Native, NativeServer, V1Client, ok, refused
from support.raw import Answer, Raw
from support.vendors import BUCKET, KEY, settings_for
from support.wait import wait_until

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
        server = NativeServer(tmp_path_factory.mktemp("server") / "data", "basic")
        server.env |= env
        started.append(server.start())
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


def head(answer):
    """All headers, also those of one name."""
    return "\n".join(f"{header}: {value}" for header, value in answer.pairs)


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
        text = answer.body.decode("latin-1") if answer.body.lstrip().startswith(b"<") else ""
        assert_blind([head(answer), text], marks)
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


# --- the native API ---


@dataclass
class Files:
    """What is there before something goes wrong, by uid."""

    bodies: dict = field(default_factory=dict)
    whole: str = ""
    joined: str = ""
    doomed: str = ""
    merging: dict = field(default_factory=dict)  # the links of an upload with one part, in version 0
    completing: str = ""  # an upload with one part, in version 1
    aborting: str = ""


def files_before(client, v1, rng):
    files = Files()
    for name, size in (("whole", 100_000), ("joined", 2 * MIB + 1000), ("doomed", 50_000)):
        body = rng.randbytes(size)
        uid = client.upload(f"{name}.bin", body)
        setattr(files, name, uid)
        files.bodies[uid] = body
    [files.merging] = ok(client.upload_links("merging.mp4"))
    files.completing, files.aborting = v1.begin("completing.mp4")["uid"], v1.begin("aborting.mp4")["uid"]
    for uid in (files.merging["uid"], files.completing, files.aborting):
        files.bodies[uid] = rng.randbytes(MIB)
    ok(client.put_part(files.merging, 1, files.bodies[files.merging["uid"]]))
    for uid in (files.completing, files.aborting):
        v1.send("PUT", f"/uploads/{uid}/parts/1", files.bodies[uid], status=200)
    return files


@dataclass
class Said:
    """An answer of the native API, the status that it has when all is well, and whether it needs the vendor for that."""

    name: str
    well: int
    answer: object
    needs: str = ""  # "read" or "write": bytes that are at the vendor, or go there
    body: bytes | None = None  # what a download is to answer


def said_by_v0(client, rng, files):
    """Every kind of request to version 0."""
    yield Said("ping", 200, client.get("/ping"))
    yield Said("health", 200, client.get("/health"))
    links = client.upload_links("new.jpg", "new.mp4")
    yield Said("upload links", 200, links)
    single, multi = ok(links)
    yield Said("upload", 200, client.put_whole(single, rng.randbytes(90_000)), "write")
    yield Said("upload, other signature", 422, client.put_whole(multi | {"url": single["url"]}, b"x", uid=multi["uid"]))
    yield Said("part", 200, client.put_part(multi, 1, rng.randbytes(MIB)), "write")
    yield Said("merge, other parts", 422, client.merge(files.merging, 2, MIB, "0" * 32))
    merged = files.bodies[files.merging["uid"]]
    yield Said("checkpoint", 200, client.checkpoint(files.merging["uid"]))
    yield Said("merge", 200, client.merge(files.merging, 1, MIB, hashlib.md5(merged).hexdigest()))
    yield Said("checkpoint, complete", 422, client.checkpoint(files.merging["uid"]))
    yield Said("checkpoint, nothing", 404, client.checkpoint("7"))
    whole = files.bodies[files.whole]
    md5 = hashlib.md5(whole).hexdigest()
    yield Said("resume", 200, client.resume((md5, "again.jpg"), ("0" * 32, "never.bin")))
    # The type is in the first bytes, where the name does not say it.
    yield Said("resume, type unknown", 200, client.resume((md5, "again.bin")), "read")
    yield Said("proxy", 404, client.get("/proxy", uid=files.whole))
    links = client.download_links(files.whole, files.joined, files.merging["uid"], "7")
    yield Said("download links", 200, links)
    urls = {link["uid"]: link["url"] for link in ok(links)}
    of_whole = urls[files.whole]
    yield Said("download", 200, client.download(of_whole), "read", whole)
    for name, range, body in (("middle", "70000-80000", whole[70_000:80_001]), ("end", "-10", whole[-10:])):
        answer = client.download(of_whole, [("Range", f"bytes={range}")])
        yield Said(f"download, {name}", 206, answer, "read", body)
    yield Said("download, beyond", 416, client.download(of_whole, [("Range", "bytes=200000-")]))
    yield Said("download, known", 304, client.download(of_whole, [("If-None-Match", f'"{md5}"')]))
    yield Said("download, other name", 422, client.download(of_whole, name="other.bin"))
    yield Said("download joined", 200, client.download(urls[files.joined]), "read", files.bodies[files.joined])
    answer = client.download(urls[files.merging["uid"]], [("Range", "bytes=1000-2000")])
    yield Said("download merged, middle", 206, answer, "read", merged[1000:2001])
    yield Said("no document", 422, client.post("/link/upload", b"{"))
    yield Said("no credentials", 401, Native(client.port).upload_links("a.txt"))
    yield Said("no route", 404, client.get("/none"))
    yield Said("no method", 405, client.send("DELETE", V0 + "/ping"))


def said_by_v1(v1, rng, files):
    """Every kind of request to version 1; what it refuses is a problem document, as its client sees to."""
    begun = v1.send("POST", "/uploads", {"name": "new.jpg"})
    yield Said("begin", 201, begun)
    single, multi = begun.json["uid"], v1.begin("new.mp4")["uid"]
    yield Said("upload", 201, v1.send("PUT", f"/uploads/{single}/content", rng.randbytes(90_000)), "write")
    yield Said("part", 200, v1.send("PUT", f"/uploads/{multi}/parts/1", rng.randbytes(MIB)), "write")
    yield Said("part, no number", 422, v1.send("PUT", f"/uploads/{multi}/parts/0", b"x"))
    yield Said("state", 200, v1.send("GET", f"/uploads/{files.completing}"))
    complete = f"/uploads/{files.completing}/complete"
    yield Said("complete, other parts", 422, v1.send("POST", complete, {"parts": 2, "size": MIB}))
    yield Said("complete", 201, v1.send("POST", complete, {"parts": 1, "size": MIB}))
    yield Said("part, complete", 409, v1.send("PUT", f"/uploads/{files.completing}/parts/1", b"x"))
    yield Said("abort", 204, v1.send("POST", f"/uploads/{files.aborting}/abort"))
    yield Said("abort, nothing", 404, v1.send("POST", f"/uploads/{files.aborting}/abort"))
    whole, content = files.bodies[files.whole], f"/objects/{files.whole}/content"
    digest = {"sha256": hashlib.sha256(whole).hexdigest(), "size": len(whole)}
    yield Said("resume", 200, v1.send("POST", "/resume", {"objects": [digest | {"name": "again.jpg"}]}))
    answer = v1.send("POST", "/resume", {"objects": [digest | {"name": "again.bin"}]})
    yield Said("resume, type unknown", 200, answer, "read")
    yield Said("object", 200, v1.send("GET", f"/objects/{files.whole}"))
    yield Said("download", 200, v1.send("GET", content), "read", whole)
    for name, range, body in (("middle", "70000-80000", whole[70_000:80_001]), ("end", "-10", whole[-10:])):
        answer = v1.send("GET", content, headers=[("Range", f"bytes={range}")])
        yield Said(f"download, {name}", 206, answer, "read", body)
    yield Said("download, beyond", 416, v1.send("GET", content, headers=[("Range", "bytes=200000-")]))
    yield Said("download, other", 412, v1.send("GET", content, headers=[("If-Match", '"other"')]))
    answer = v1.send("GET", f"/objects/{files.joined}/content")
    yield Said("download joined", 200, answer, "read", files.bodies[files.joined])
    link = v1.send("POST", "/links", {"purpose": "download", "uid": files.completing})
    yield Said("link", 201, link)
    answer = v1.send("GET", link.json["url"], headers=[("Range", "bytes=1000-2000")], signed=False)
    yield Said("download by a link, middle", 206, answer, "read", files.bodies[files.completing][1000:2001])
    yield Said("delete", 204, v1.send("DELETE", f"/objects/{files.doomed}"))
    yield Said("object, nothing", 404, v1.send("GET", f"/objects/{files.doomed}"))
    yield Said("no document", 422, v1.send("POST", "/uploads", b"{"))
    yield Said("no credentials", 401, v1.send("GET", content, signed=False))
    yield Said("no method", 405, v1.send("PATCH", "/uploads"))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_nothing_of_the_vendor_is_seen_by_the_native_api(well, over_vendor, rng, condition):
    client = over_vendor.native(identity=over_vendor.identity, all_routes=True)
    v1 = V1Client(client)
    files = files_before(client, v1, rng)
    blobs = well.blobs()
    assert blobs
    break_it(well, condition, blobs)
    logged = len(over_vendor.log)
    marks = fingerprints(well, blobs)
    is_well = condition in ("well", "strange etags")
    broken = {} if is_well else {"read": 500} if condition == "missing" else {"read": 503, "write": 503}
    expected, seen = {}, {}
    for version, answers in ((0, said_by_v0(client, rng, files)), (1, said_by_v1(v1, rng, files))):
        for said in answers:
            name, answer = f"v{version} {said.name}", said.answer
            expected[name], seen[name] = broken.get(said.needs, said.well), answer.status
            assert_blind([head(answer)], marks)
            if said.body is not None and answer.status < 400:
                assert answer.body == said.body, name
            else:
                assert_blind([answer.body.decode()], marks)
            if version == 0 and answer.status >= 400:
                refused(answer, answer.status)
    assert seen == expected
    if not is_well:
        wait_until(
            lambda: any("backend vendor" in line for line in over_vendor.log[logged:]),
            what="the warning of the backend in the log",
        )
    assert_blind(over_vendor.log, marks)


# --- beside a local disk, and for operators ---


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
