"""Ranges, conditions and broken downloads."""

import shutil
import socket
import subprocess
import threading

import pytest

from support.native import PART, ok, parameters, refused


@pytest.fixture(scope="module")
def stored(native_server, request):
    import random

    data = random.Random(request.config.getoption("seed")).randbytes(3 * PART + 100)
    client = native_server("open").native()
    uid = client.upload("a.bin", data)
    [link] = ok(client.download_links(uid))
    return data, link["url"]


@pytest.mark.parametrize(
    "sent, start, end",
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, None),
        ("bytes=-1", -1, None),
        (f"bytes={PART - 1}-{PART}", PART - 1, PART + 1),
        (f"bytes={2 * PART}-", 2 * PART, None),
        ("bytes=-99999999", 0, None),
        ("bytes=5-99999999", 5, None),
    ],
)
def test_ranges(open_client, stored, sent, start, end):
    data, link = stored
    answer = open_client.download(link, headers=[("Range", sent)])
    assert (answer.status, answer.body) == (206, data[start:end])
    first = start % len(data)
    last = first + len(answer.body) - 1
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(data)}"


def test_a_range_without_a_byte(open_client, stored):
    data, link = stored
    answer = open_client.download(link, headers=[("Range", f"bytes={len(data)}-")])
    refused(answer, 416)
    assert answer.headers["content-range"] == f"bytes */{len(data)}"


@pytest.mark.parametrize("ignored", ["bytes=2-1", "bytes=x-", "lines=0-1", "bytes=0-1,3-4"])
def test_a_range_that_is_none_is_ignored(open_client, stored, ignored):
    data, link = stored
    answer = open_client.download(link, headers=[("Range", ignored)])
    assert (answer.status, len(answer.body)) == (200, len(data))


def test_conditions(open_client, stored):
    data, link = stored
    whole = open_client.download(link)
    etag, modified = whole.headers["etag"], whole.headers["last-modified"]
    assert whole.headers["accept-ranges"] == "bytes" and int(whole.headers["content-length"]) == len(data)

    def status(*headers):
        return open_client.download(link, headers=headers).status

    assert status(("If-None-Match", etag)) == 304
    assert status(("If-None-Match", "*")) == 304
    assert status(("If-None-Match", '"x"')) == 200
    assert status(("If-Match", '"x"')) == 412
    assert status(("If-Modified-Since", modified)) == 304
    assert status(("If-Unmodified-Since", "Mon, 01 Jan 2024 00:00:00 GMT")) == 412
    byte = ("Range", "bytes=0-0")
    assert status(byte, ("If-Range", etag)) == 206
    assert status(byte, ("If-Range", modified)) == 206
    assert status(byte, ("If-Range", '"x"')) == 200
    answer = open_client.download(link, headers=[("If-None-Match", etag)])
    assert answer.body == b"" and answer.headers["etag"] == etag


def test_empty_and_one_byte(open_client):
    for data in (b"", b"x"):
        uid = open_client.upload("a.bin", data)
        [link] = ok(open_client.download_links(uid))
        assert open_client.download(link["url"]).body == data
        answer = open_client.download(link["url"], headers=[("Range", "bytes=0-0")])
        assert answer.status == (206 if data else 416)


def test_head(open_client, stored):
    data, link = stored
    from urllib.parse import urlsplit

    answer = open_client.send("HEAD", open_client.query(urlsplit(link).path, **parameters(link)))
    assert answer.status == 200 and int(answer.headers["content-length"]) == len(data) and not answer.body


@pytest.mark.parametrize(
    "name, data, expected",
    [
        ("a.png", b"not a picture", "image/png"),
        ("a", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        ("a", b"%PDF-1.7", "application/pdf"),
        ("a", b"words", "text/plain; charset=utf-8"),
        ("a", b"\0\1\2\xff", "application/octet-stream"),
        ("a", b"%PDF-1.7" + b"\0" * PART, "application/pdf"),
        ("a.html", b"<script>1</script>", "text/html; charset=utf-8"),
    ],
)
def test_types_are_told_by_name_and_bytes(open_client, name, data, expected):
    uid = open_client.upload(name, data)
    [link] = ok(open_client.download_links(uid))
    answer = open_client.download(link["url"])
    assert answer.headers["content-type"] == expected
    assert answer.headers["x-content-type-options"] == "nosniff"
    passive = expected.startswith(("image/", "text/plain", "application/pdf"))
    assert ("content-security-policy" in answer.headers) is not passive


class Cutter:
    """A proxy that ends its first connection after so many bytes of the answer."""

    def __init__(self, port, after):
        self.target, self.after = port, after
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.requests = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", self.target)) as server:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(65536)
                self.requests.append(head.decode())
                server.sendall(head)
                left = self.after if len(self.requests) == 1 else None
                while piece := server.recv(65536):
                    if left is not None:
                        piece, left = piece[:left], left - len(piece)
                    try:
                        client.sendall(piece)
                    except OSError:
                        break
                    if left is not None and left <= 0:
                        break


@pytest.mark.skipif(not shutil.which("wget"), reason="wget is not installed")
def test_wget_resumes_a_broken_download(stored, open_server, tmp_path):
    data, link = stored
    cutter = Cutter(open_server.native_port, 2 * PART)
    file = tmp_path / "a.bin"
    command = ["wget", "-q", "--tries=1", "-c", "-O", file, f"http://127.0.0.1:{cutter.port}{link}"]
    first = subprocess.run(command, timeout=60)
    assert first.returncode != 0 and 0 < file.stat().st_size < len(data)
    part = file.stat().st_size
    subprocess.run(command, timeout=60, check=True)
    assert file.read_bytes() == data
    assert f"range: bytes={part}-" in cutter.requests[1].lower()
    cutter.listener.close()
