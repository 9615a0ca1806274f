"""Signature Version 4, by hand: the tests need to sign what no SDK would send.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

import hashlib
import hmac
from datetime import datetime, timezone
from urllib.parse import quote

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"


def percent(text, safe=""):
    """Percent-encodes as S3's canonical form does."""
    return quote(text, safe="-_.~" + safe)


def sha256_hex(data):
    return hashlib.sha256(data).hexdigest()


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256)


class Signer:
    """Signs for one identity at one moment (`now`, by default the present)."""

    def __init__(self, identity, region="us-east-1", now=None, service="s3"):
        self.identity = identity
        self.moment = (now or datetime.now(timezone.utc)).strftime("%Y%m%dT%H%M%SZ")
        self.scope = f"{self.moment[:8]}/{region}/{service}/aws4_request"
        key = b"AWS4" + identity.secret_key.encode()
        for part in self.scope.split("/"):
            key = _hmac(key, part).digest()
        self._key = key

    @property
    def credential(self):
        return f"{self.identity.access_key}/{self.scope}"

    def sign(self, text):
        return _hmac(self._key, text).hexdigest()

    def _signature(self, method, path, query, headers, payload_hash):
        """`path` is encoded already; `query` and `headers` are lists of pairs, headers in lower case."""
        canonical_query = "&".join("=".join(pair) for pair in sorted((percent(k), percent(v)) for k, v in query))
        canonical_headers = "".join(f"{k}:{' '.join(v.split())}\n" for k, v in sorted(headers))
        canonical = "\n".join([method, path, canonical_query, canonical_headers, signed_names(headers), payload_hash])
        digest = sha256_hex(canonical.encode("utf-8", "surrogateescape"))
        return self.sign("\n".join(["AWS4-HMAC-SHA256", self.moment, self.scope, digest]))

    def authorization(self, method, path, query, headers, payload_hash):
        """The Authorization header's value and the bare signature, which seeds streamed chunks."""
        signature = self._signature(method, path, query, headers, payload_hash)
        value = (
            f"AWS4-HMAC-SHA256 Credential={self.credential},SignedHeaders={signed_names(headers)},Signature={signature}"
        )
        return value, signature

    def presigned_query(self, method, path, query, headers, expires):
        query = [
            *query,
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", self.credential),
            ("X-Amz-Date", self.moment),
            ("X-Amz-Expires", str(expires)),
            ("X-Amz-SignedHeaders", signed_names(headers)),
        ]
        return [*query, ("X-Amz-Signature", self._signature(method, path, query, headers, UNSIGNED))]

    def chunk(self, previous, data):
        """Signature of one chunk of a streamed body."""
        return self.sign(
            "\n".join(["AWS4-HMAC-SHA256-PAYLOAD", self.moment, self.scope, previous, EMPTY_SHA256, sha256_hex(data)])
        )

    def trailer(self, previous, lines):
        """Signature of the trailing headers, given as the text that is hashed."""
        return self.sign(
            "\n".join(["AWS4-HMAC-SHA256-TRAILER", self.moment, self.scope, previous, sha256_hex(lines.encode())])
        )


def signed_names(headers):
    return ";".join(sorted(k for k, _ in headers))


class StreamedBody:
    """Encodes a body in AWS's chunked form and signs it when `signer` is given.

    `tamper` may change the finished list of (data, signature) chunks before they are written.
    """

    def __init__(self, chunks, trailer=None, tamper=None):
        self.chunks = list(chunks)
        self.trailer = trailer  # (name, value) of one trailing header
        self.announced = trailer and trailer[0]  # the value of x-amz-trailer
        self.tamper = tamper
        self.trailer_signature = True  # written when the mode signs trailers; a str replaces it

    @property
    def decoded_length(self):
        return sum(map(len, self.chunks))

    def encode(self, signer=None, seed=None):
        signed, previous = [], seed
        for data in [*self.chunks, b""]:
            if signer:
                previous = signer.chunk(previous, data)
            signed.append((data, previous))
        if self.tamper:
            signed = self.tamper(signed)
        out = bytearray()
        for data, signature in signed:
            extension = f";chunk-signature={signature}" if signer else ""
            out += f"{len(data):x}{extension}\r\n".encode() + data
            out += b"\r\n" if data or not self.trailer else b""
        if self.trailer:
            name, value = self.trailer
            out += f"{name}:{value}\r\n".encode()
            if signer:
                signature = signer.trailer(previous, f"{name}:{value}\n")
                if isinstance(self.trailer_signature, str):
                    signature = self.trailer_signature
                out += f"x-amz-trailer-signature:{signature}\r\n".encode()
            out += b"\r\n"
        return bytes(out)
