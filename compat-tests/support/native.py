"""A server with the native API, and clients of its two versions.

That of version 0 has the wire habits of existing ones and is written from the contract alone. It takes links apart and
rebuilds them from the names it knows, sorted and encoded again; sends every query parameter twice; frames every body in
chunks, without a length; gives JSON no Content-Type; and closes every connection.
"""

import base64
import hashlib
import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import parse_qs, urlencode, urlsplit

from .ports import free_port
from .server import Server

MIB = 1 << 20
PART = MIB
PARALLEL = 5
TIMEOUT = 120
BOUNDARY = "a-boundary-that-is-in-no-file-7f3a"
V0 = "/api/storage/v0"
V1 = "/api/storage/v1"


class Answer:
    """Status, headers as they came and by their names in lower case, and body of a response."""

    def __init__(self, status, headers, body):
        self.status, self.body, self.pairs = status, body, list(headers)
        self.headers = {name.lower(): value for name, value in self.pairs}

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def data(self):
        return self.json["data"]

    def __repr__(self):
        return f"<{self.status} {self.body[:200]!r}>"


class NativeServer(Server):
    """One osproxy that serves the native API too."""

    def __init__(self, data_dir, access="open", env=None):
        variables = {f"OSPROXY_NATIVE__{name.upper()}": value for name, value in (env or {}).items()}
        super().__init__(data_dir, env={"OSPROXY_NATIVE__ACCESS": access} | variables)

    def launch(self):
        self.native_port = free_port()
        self.arguments = ["--native-listen", f"127.0.0.1:{self.native_port}"]
        super().launch()

    def native(self, **options):
        return Native(self.native_port, **options)


def parameters(link):
    """What a link says, by name."""
    return {name: values[0] for name, values in parse_qs(urlsplit(link).query, keep_blank_values=True).items()}


def form(data, field="file", name="blob"):
    head = (
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n"
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


class Native:
    """One client: `identity` says who it is by HTTP Basic, on the routes that no link opens or on `all_routes`."""

    # Method, target and status of what was answered to any client.
    answered = []

    def __init__(self, port, identity=None, all_routes=False):
        self.port, self.identity, self.all_routes = port, identity, all_routes

    def send(self, method, target, body=None, headers=(), chunk=64 * 1024):
        """Sends `body` in chunks, without a length. A server that answers early is still heard."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)) as connection:
            connection.putrequest(method, target)
            connection.putheader("Connection", "close")
            for name, value in headers:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            try:
                if body is not None:
                    for start in range(0, len(body), chunk):
                        piece = body[start : start + chunk]
                        connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                    connection.send(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                pass
            response = connection.getresponse()
            self.answered.append((method, target, response.status))
            return Answer(response.status, response.getheaders(), response.read())

    def basic(self):
        if not self.identity:
            return []
        pair = f"{self.identity.access_key}:{self.identity.secret_key}".encode()
        return [("Authorization", "Basic " + base64.b64encode(pair).decode())]

    def query(self, path, **values):
        pairs = sorted((name, str(value)) for name, value in values.items() if value is not None)
        return f"{path}?{urlencode(pairs + pairs)}"

    # --- routes ---

    def post(self, route, document, headers=()):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.send("POST", V0 + route, body, [*self.basic(), *headers])

    def get(self, route, **values):
        return self.send("GET", self.query(V0 + route, **values), headers=self.basic())

    def upload_links(self, *paths, expire=3600):
        return self.post("/link/upload", {"filePath": list(paths), "expire": expire})

    def download_links(self, *uids, expire=3600):
        return self.post("/link/download", {"uid": list(uids), "expire": expire})

    def resume(self, *pairs):
        return self.post("/resume", {"data": [{"md5": md5, "path": path} for md5, path in pairs]})

    def checkpoint(self, uid):
        return self.get("/checkpoint", uid=uid)

    def rebuild(self, link, **more):
        """A link from the names that this client knows."""
        known = parameters(link)
        wanted = {name: known.get(name) for name in ("uid", "date", "expire", "signature")}
        return self.query(urlsplit(link).path, **{**wanted, **more})

    def put_file(self, target, data, **options):
        headers = [("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")]
        if self.all_routes:
            headers += self.basic()
        return self.send("PUT", target, form(data, **options), headers)

    def put_whole(self, links, data, **more):
        digest = hashlib.md5(data).hexdigest()
        return self.put_file(self.rebuild(links["url"]["single"], **{"md5": digest, **more}), data)

    def put_part(self, links, number, data, **more):
        digest = hashlib.md5(data).hexdigest()
        values = {"md5": digest, "chunkNum": number, **more}
        return self.put_file(self.rebuild(links["url"]["multi"]["upload"], **values), data)

    def merge(self, links, num, size, md5):
        target = self.rebuild(links["url"]["multi"]["merge"], num=num, size=size, md5=md5)
        return self.send("PUT", target, headers=self.basic() if self.all_routes else ())

    def download(self, link, headers=(), **changed):
        known = parameters(link)
        target = self.query(urlsplit(link).path, **{**known, **changed})
        return self.send("GET", target, headers=list(headers))

    # --- what a program does ---

    def upload(self, path, data):
        """Sends a file as clients do, and answers its uid."""
        [links] = ok(self.upload_links(path))
        self.fill(links, data)
        return links["uid"]

    def fill(self, links, data):
        if len(data) <= PART:
            ok(self.put_whole(links, data))
            return
        parts = [data[start : start + PART] for start in range(0, len(data), PART)]
        with ThreadPoolExecutor(PARALLEL) as threads:
            done = threads.map(lambda part: ok(self.put_part(links, *part)), enumerate(parts, 1))
            assert list(done) == [""] * len(parts)
        ok(self.merge(links, len(parts), len(data), hashlib.md5(data).hexdigest()))

    def fetch(self, uid):
        """The whole file, and what is said of it."""
        [link] = ok(self.download_links(uid))
        answer = self.download(link["url"])
        assert answer.status == 200, answer
        return answer.body, link["meta"]


class V1Client:
    """A client of version 1: `native` says who it is and carries what it sends. Every refusal is a problem document."""

    def __init__(self, native):
        self.native = native

    def send(self, method, route, body=None, headers=(), signed=True, status=None):
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        target = route if route.startswith("/api/") else V1 + route
        answer = self.native.send(method, target, data, [*(self.native.basic() if signed else ()), *headers])
        if status:
            assert answer.status == status, answer
        if answer.status >= 400:
            assert answer.headers["content-type"] == "application/problem+json", answer
            assert answer.json["status"] == answer.status and answer.json["title"] and answer.json["detail"]
        return answer

    def begin(self, name="a.txt"):
        answer = self.send("POST", "/uploads", {"name": name}, status=201)
        assert answer.headers["location"] == f"{V1}/uploads/{answer.json['uid']}"
        return answer.json


def ok(answer):
    """The data of an answer that must be a success."""
    assert answer.status == 200, answer
    assert answer.json["code"] == 0 and answer.json["message"] == "ok", answer
    return answer.data


def refused(answer, status):
    """Checks a refusal: its status, and the frozen envelope."""
    assert answer.status == status, answer
    assert list(answer.json) == ["code", "message", "data"], answer
    assert answer.json["code"] == 0 and answer.json["data"] == "" and answer.json["message"], answer
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    return answer.json["message"]
