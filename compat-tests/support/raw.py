"""Requests as bytes on a socket: for what an SDK refuses to send or hides of the answer."""

import http.client
import socket
import ssl
import xml.etree.ElementTree as ElementTree
from contextlib import closing
from urllib.parse import urlsplit

from .sigv4 import UNSIGNED, Signer, StreamedBody, percent, sha256_hex

TIMEOUT = 60.0


class Answer:
    """Status, headers as they came and by their names in lower case, and body of a response."""

    def __init__(self, status, headers, body):
        self.status = status
        self.pairs = list(headers)
        self.headers = {name.lower(): value for name, value in self.pairs}
        self.body = body

    def __repr__(self):
        said = f"{self.code}: {self.xml.findtext('Message')}" if self.code else f"{self.headers} {self.body[:200]!r}"
        return f"<{self.status} {said}>"

    @property
    def xml(self):
        return parse_xml(self.body)

    @property
    def code(self):
        """The S3 error code, or None for an answer without an error document."""
        try:
            return self.xml.findtext("Code") if self.body.startswith(b"<") else None
        except ElementTree.ParseError:  # an object that happens to begin so
            return None


def parse_xml(text):
    """The document without namespaces, so that names can be found plainly."""
    root = ElementTree.fromstring(text)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def assert_refused(answer, code, status):
    """`code` may be a set, where AWS documents more than one."""
    codes = {code} if isinstance(code, str) else code
    statuses = {status} if isinstance(status, int) else status
    assert answer.status in statuses and answer.code in codes, f"expected {status} {code}, got {answer}"
    return answer


def with_query(path, query):
    return path + ("?" + "&".join(f"{percent(name)}={percent(value)}" for name, value in query) if query else "")


class Raw:
    """Sends requests signed by our own signer. Paths are given decoded: /bucket/key."""

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def signer(self, now=None, **scope):
        return Signer(self.endpoint.identity, **({"region": self.endpoint.region} | scope), now=now)

    def request(
        self,
        method,
        path="/",
        query=(),
        headers=None,
        body=b"",
        *,
        payload_hash=None,
        signer=None,
        unsigned=None,
        anonymous=False,
        host=None,
        encoded_path=None,
        edit=None,
    ):
        """Signs and sends one request.

        payload_hash  x-amz-content-sha256; by default the body's own
        unsigned      headers sent beside the signed ones
        edit          last change to the list of header pairs before they are sent
        body          bytes, an iterable of bytes (Content-Length then among the headers), or a StreamedBody
        """
        signer = signer or self.signer()
        encoded = encoded_path or percent(path, "/")
        query = list(query.items()) if isinstance(query, dict) else list(query)
        pairs = [("host", host or self.endpoint.netloc)]
        pairs += [(name.lower(), value) for name, value in (headers or {}).items()]
        streamed = isinstance(body, StreamedBody)
        if streamed:
            payload_hash = payload_hash or "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
            pairs += [("x-amz-decoded-content-length", str(body.decoded_length))]
            if "content-encoding" not in dict(pairs):
                pairs += [("content-encoding", "aws-chunked")]
            if body.trailer:
                pairs += [("x-amz-trailer", body.announced)]
        if payload_hash is None:
            payload_hash = sha256_hex(body) if isinstance(body, bytes) else UNSIGNED
        if not anonymous:
            pairs += [("x-amz-date", signer.moment), ("x-amz-content-sha256", payload_hash)]
            authorization, seed = signer.authorization(method, encoded, query, pairs, payload_hash)
            pairs += [("authorization", authorization)]
            if streamed:
                body = body.encode(signer if "HMAC" in payload_hash else None, seed)
        pairs += [(name.lower(), value) for name, value in (unsigned or {}).items()]
        if isinstance(body, bytes) and "content-length" not in dict(pairs) and (body or method in ("PUT", "POST")):
            pairs += [("content-length", str(len(body)))]
        if edit:
            pairs = edit(pairs)
        return self.send(method, with_query(encoded, query), pairs, body)

    def begin(
        self, method, path, query=(), headers=None, *, length=None, payload_hash=UNSIGNED, body=b"", expires=None
    ):
        """Sends a signed head that announces `length` bytes, then `body`, and returns the open socket.

        With `expires` the signature is in the query.
        """
        headers = dict(headers or {})
        if expires:
            target, pairs = self.presign(method, path, query, headers, expires=expires)
        else:
            signer, encoded = self.signer(), percent(path, "/")
            query = list(query.items()) if isinstance(query, dict) else list(query)
            pairs = [
                ("host", self.endpoint.netloc),
                ("x-amz-date", signer.moment),
                ("x-amz-content-sha256", payload_hash),
                *headers.items(),
            ]
            pairs.append(("authorization", signer.authorization(method, encoded, query, pairs, payload_hash)[0]))
            target = with_query(encoded, query)
        if length is not None:
            pairs.append(("content-length", str(length)))
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in pairs) + "\r\n"
        sock = self.socket()
        sock.sendall(head.encode() + body)
        return sock

    def presigned(
        self,
        method,
        path,
        query=(),
        headers=None,
        body=b"",
        *,
        expires=900,
        signer=None,
        host=None,
        unsigned=None,
        edit=None,
    ):
        """Sends a request whose signature is in the query. `edit` changes the query after signing."""
        target, pairs = self.presign(method, path, query, headers, expires=expires, signer=signer, host=host, edit=edit)
        pairs += [(name.lower(), value) for name, value in (unsigned or {}).items()]
        if body or method in ("PUT", "POST"):
            pairs += [("content-length", str(len(body)))]
        return self.send(method, target, pairs, body)

    def presign(self, method, path, query=(), headers=None, *, expires=900, signer=None, host=None, edit=None):
        signer = signer or self.signer()
        encoded = percent(path, "/")
        pairs = [("host", host or self.endpoint.netloc)]
        pairs += [(name.lower(), value) for name, value in (headers or {}).items()]
        query = list(query.items()) if isinstance(query, dict) else list(query)
        query = signer.presigned_query(method, encoded, query, pairs, expires)
        if edit:
            query = edit(query)
        return with_query(encoded, query), pairs

    def open_url(self, method, url, body=b"", headers=None):
        """Follows a URL that somebody else has presigned, adding no more than the given headers."""
        parts = urlsplit(url)
        pairs = [("host", parts.netloc), *(headers or {}).items()]
        if method == "PUT":
            pairs.append(("content-length", str(len(body))))
        return self.send(method, f"{parts.path}?{parts.query}", pairs, body)

    def send(self, method, target, pairs, body=b""):
        """Sends as given. A server that answers and closes before the body is through is still heard."""
        with closing(self.connection()) as connection:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in pairs:
                # Header bytes go out as UTF-8, which is also what was signed.
                connection.putheader(name, value.encode("utf-8", "surrogateescape"))
            try:
                connection.endheaders()
                for piece in [body] if isinstance(body, bytes) else body:
                    if piece:
                        connection.send(piece)
            except (BrokenPipeError, ConnectionResetError):
                pass
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())

    def connection(self):
        kind = http.client.HTTPSConnection if self.endpoint.secure else http.client.HTTPConnection
        extra = {"context": ssl.create_default_context()} if self.endpoint.secure else {}
        return kind(*self.endpoint.address, timeout=TIMEOUT, **extra)

    def socket(self):
        return socket.create_connection(self.endpoint.address, timeout=TIMEOUT)


def read_answer(sock):
    """The whole response on a socket, whose end the length or the connection's end tells."""
    status, headers, body = read_head(sock)
    bodiless = status < 200 or status in (204, 304)
    length = 0 if bodiless else int(headers["content-length"]) if "content-length" in headers else None
    while (length is None or len(body) < length) and (piece := sock.recv(65536)):
        body += piece
    return Answer(status, headers.items(), body)


def read_head(sock):
    """Status, headers and what was read of the body, from a socket that has a response coming."""
    buffer = b""
    while b"\r\n\r\n" not in buffer:
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError(f"closed before a whole head: {buffer!r}")
        buffer += piece
    head, _, rest = buffer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in headers.items()}, rest
