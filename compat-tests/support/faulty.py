"""A vendor that fails as real ones do: an HTTP proxy in front of a real S3 server, which breaks answers by rules.

A rule says which requests it is for and what becomes of them. The first that fits decides; without one the request goes
through. What the proxy says for itself is full of what a client must never see.
"""

import http.client
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from .ports import free_port
from .vendors import BUCKET, RcloneS3, S3Process

SERVER_HEADER = "NimbusStore/7.1"
REQUEST_ID = "NIMBUSREQUEST0042"
HOST_ID = "NIMBUSHOSTID/abcdefghijklmnopqrstuvwxyz="
ETAG = '"nimbus-etag-0042-7"'
MESSAGE = "The cloud over bucket vendor-bucket at nimbus.example.com is out of rain"
# Whatever of it reaches a client or a log line of level `info` is a leak.
MARKS = ("nimbus", "out of rain", "x-oss-", "x-cos-", "x-obs-", "x-ms-")
VENDOR_HEADERS = {
    "Server": SERVER_HEADER,
    "x-amz-request-id": REQUEST_ID,
    "x-amz-id-2": HOST_ID,
    "x-oss-request-id": REQUEST_ID,
    "x-cos-request-id": REQUEST_ID,
    "x-obs-request-id": REQUEST_ID,
    "x-ms-request-id": REQUEST_ID,
    "Via": "1.1 nimbus",
}
BLOB = re.compile(rf"^/{BUCKET}/(?:\w+/)?[0-9a-f]{{2}}/([0-9a-f]{{32}})$")


@dataclass
class Request:
    method: str
    target: str
    headers: list
    body: bytes

    @property
    def operation(self):
        """What the request wants: put, part, initiate, complete, abort, get, head, delete, list or other."""
        parts = urlsplit(self.target)
        query = parse_qs(parts.query, keep_blank_values=True)
        if not BLOB.match(parts.path):
            return "list" if self.method == "GET" and parts.path.strip("/") == BUCKET else "other"
        if "uploadId" in query:
            return {"PUT": "part", "POST": "complete", "DELETE": "abort"}.get(self.method, "other")
        if "uploads" in query:
            return "initiate"
        return self.method.lower()

    def range(self):
        """The half-open range that is asked for."""
        value = dict((name.lower(), value) for name, value in self.headers).get("range", "")
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", value)
        return (int(found[1]), int(found[2]) + 1) if found else None


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes


@dataclass
class Rule:
    operations: frozenset
    act: object
    times: int | None
    seen: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def takes(self, request):
        if request.operation not in self.operations:
            return False
        with self.lock:
            if self.times is not None and self.seen >= self.times:
                return False
            self.seen += 1
        return True


# --- what can become of a request: each gets the handler, the request and a way to ask the real vendor ---


def status(code, name="Trouble"):
    """An error of the vendor, in its own words."""

    def act(handler, request, ask):
        document = (
            f'<?xml version="1.0"?><Error><Code>{name}</Code><Message>{MESSAGE}</Message>'
            f"<BucketName>{BUCKET}</BucketName><RequestId>{REQUEST_ID}</RequestId><HostId>{HOST_ID}</HostId></Error>"
        )
        handler.reply(Answer(code, {"Content-Type": "application/xml"}, document.encode()))

    return act


def reset(handler, request, ask):
    """The connection is reset instead of an answer."""
    handler.reset()


def reset_after(handler, request, ask):
    """The vendor does it, and the answer is lost."""
    ask()
    handler.reset()


def late(seconds):
    """The vendor does it at once, and answers after `seconds`."""

    def act(handler, request, ask):
        answer = ask()
        time.sleep(seconds)
        handler.reply(answer)

    return act


def doubled(handler, request, ask):
    """What was repeated is there twice: the blob is longer than what was sent."""
    answer = ask()
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
    length = next(value for name, value in answer.headers.items() if name.lower() == "content-length")
    handler.reply(Answer(answer.status, headers | {"Content-Length": str(2 * int(length))}, b""))


def truncated(handler, request, ask):
    """Half of the body comes, then the connection ends."""
    answer = ask()
    handler.reply(answer, send=len(answer.body) // 2)
    handler.reset()


def stalled(seconds):
    """Half of the blob comes, and the rest only after `seconds`; nor does more of it when it is asked for again."""

    def act(handler, request, ask):
        answer = ask()
        start, _ = request.range()
        half = len(answer.body) // 2 if start == 0 else 0
        handler.reply(answer, send=half)
        time.sleep(seconds)
        handler.more(answer.body[half:])

    return act


def shorter(handler, request, ask):
    """A complete answer with half of the bytes."""
    answer = ask()
    body = answer.body[: len(answer.body) // 2]
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-range"}
    start, _ = request.range() or (0, 0)
    headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{start + len(body)}"
    handler.reply(Answer(answer.status, headers, body))


def half(handler, request, ask):
    """Half of the bytes, said to be all of them."""
    answer = ask()
    handler.reply(Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2]))


def longer(handler, request, ask):
    """A complete answer with more bytes than were asked for."""
    answer = ask()
    handler.reply(Answer(answer.status, answer.headers, answer.body + b"surplus"))


def other_range(handler, request, ask):
    """The first bytes of the blob in place of those that were asked for, as many and as a success."""
    start, end = request.range()
    answer = ask(range=(0, end - start))
    handler.reply(Answer(206, answer.headers, answer.body))


def whole_blob(handler, request, ask):
    """The range is ignored."""
    answer = ask(range=None)
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-range"}
    handler.reply(Answer(200, headers, answer.body))


def error_as_success(handler, request, ask):
    """200, and an error in the body."""
    document = f"<Error><Code>InternalError</Code><Message>{MESSAGE}</Message></Error>"
    handler.reply(Answer(200, {"Content-Type": "application/xml", "ETag": ETAG}, document.encode()))


def endless_error(megabytes):
    """An error with a body that takes more memory than anybody should give it."""

    def act(handler, request, ask):
        handler.reply(Answer(500, {"Content-Length": str(megabytes << 20)}, b""))
        for _ in range(megabytes):
            handler.more(b"x" * (1 << 20))

    return act


def not_done(handler, request, ask):
    """The vendor says it has deleted, and has not."""
    handler.reply(Answer(204, {}, b""))


def empty_listing(handler, request, ask):
    """A listing without any entry."""
    document = (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{BUCKET}</Name><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
        "</ListBucketResult>"
    )
    handler.reply(Answer(200, {"Content-Type": "application/xml"}, document.encode()))


def other_etag(handler, request, ask):
    """All is well, and the ETag is the vendor's invention."""
    answer = ask()
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "etag"}
    handler.reply(Answer(answer.status, headers | {"ETag": ETAG}, answer.body))


class FaultyVendor(S3Process):
    """An S3 vendor behind the breaking proxy."""

    def __init__(self, directory):
        super().__init__(directory)
        self.real = RcloneS3(directory)
        self.rules = []
        self.counts = {}
        self._server = None

    def start(self):
        self.real.start()
        self.port = free_port()
        self.revive()
        return self

    def stop(self):
        self.die()
        self.real.stop()

    def die(self):
        """Nobody listens any more."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server.drop_connections()
            self._server = None

    def revive(self):
        """Listens again, at the same address."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", self.port), self)
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def heal(self):
        """No rules, and alive."""
        self.rules = []
        self.counts = {}
        self.revive()

    def rule(self, operations, act, times=None):
        made = Rule(frozenset(operations.split()), act, times)
        self.rules.append(made)
        return made

    def blobs(self, prefix=""):
        """Names of the blobs that are really there."""
        names = set()
        for page in self.real.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
            names |= {entry["Key"] for entry in page.get("Contents", [])}
        names = {name for name in names if not name.endswith("osproxy-install")}
        return names

    def lose(self, keys):
        """Deletes blobs behind everybody's back."""
        objects = [{"Key": key} for key in keys]
        for start in range(0, len(objects), 1000):
            self.real.client.delete_objects(Bucket=BUCKET, Delete={"Objects": objects[start : start + 1000], "Quiet": True})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, address, vendor):
        self.vendor = vendor
        self._open = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request, address):
        with self._lock:
            self._open.add(request)
        super().process_request(request, address)

    def shutdown_request(self, request):
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def drop_connections(self):
        with self._lock:
            left = list(self._open)
        for connection in left:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def handle_error(self, request, address):
        pass  # a client that left, or one that this proxy cut


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        request = Request(self.command, self.path, self.headers.items(), self.rfile.read(length))
        vendor = self.server.vendor
        vendor.counts[request.operation] = vendor.counts.get(request.operation, 0) + 1
        for rule in vendor.rules:
            if rule.takes(request):
                rule.act(self, request, lambda **how: self.ask(request, **how))
                return
        self.reply(self.ask(request))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def ask(self, request, range=()):
        """The real vendor's answer. Another `range` is cut out of the whole blob."""
        vendor = self.server.vendor.real
        if range != ():
            blob = vendor.client.get_object(Bucket=BUCKET, Key=urlsplit(request.target).path.split("/", 2)[2])
            whole = blob["Body"].read()
            start, end = range or (0, len(whole))
            part = whole[start:end]
            return Answer(206, {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(whole)}"}, part)
        connection = http.client.HTTPConnection("127.0.0.1", vendor.port, timeout=60)
        try:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers:
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(request.body or None)
            response = connection.getresponse()
            body = response.read()
            left_out = {"connection", "transfer-encoding", "server", "date"}
            headers = {name: value for name, value in response.getheaders() if name.lower() not in left_out}
            return Answer(response.status, headers, body)
        finally:
            connection.close()

    def reply(self, answer, send=None):
        """Writes the head and the first `send` bytes of the body, all of it by default."""
        self.send_response_only(answer.status)
        headers = {name.lower(): (name, value) for name, value in VENDOR_HEADERS.items()}
        headers |= {name.lower(): (name, value) for name, value in answer.headers.items()}
        if self.command != "HEAD" and answer.status != 204 and not (answer.headers.get("Content-Length") and not answer.body):
            headers["content-length"] = ("Content-Length", str(len(answer.body)))
        for name, value in headers.values():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body if send is None else answer.body[:send])
            self.wfile.flush()

    def more(self, piece):
        self.wfile.write(piece)
        self.wfile.flush()

    def reset(self):
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
