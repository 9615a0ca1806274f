"""Memory stays bounded, whatever the size and number of transfers."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from support.form import Form
from support.raw import Raw, read_head

MIB = 1024 * 1024
BOUND = 256 * MIB
SIZE = 256 * MIB
PARALLEL = 16


@pytest.fixture
def fresh(own_server):
    server = own_server()
    server.endpoint.client().create_bucket(Bucket="bucket")
    return server


def send(raw, key, first, piece):
    """Puts an object of `first` and then many times `piece`."""
    pieces = (first if number == 0 else piece for number in range(SIZE // len(piece)))
    answer = raw.request("PUT", f"/bucket/{key}", headers={"content-length": str(SIZE)}, body=pieces)
    assert answer.status == 200, answer


def receive(raw, key):
    digest, buffer = hashlib.sha256(), bytearray(MIB)
    with closing(raw.begin("GET", f"/bucket/{key}")) as sock:
        status, headers, rest = read_head(sock)
        assert status == 200
        digest.update(rest)
        left = int(headers["content-length"]) - len(rest)
        while left:
            count = sock.recv_into(buffer)
            assert count, "the download broke off"
            digest.update(memoryview(buffer)[:count])
            left -= count
    return digest.hexdigest()


@pytest.mark.timeout(600)
def test_16_uploads_and_downloads_of_256_mib_at_once(fresh, rng):
    raw = Raw(fresh.endpoint)
    piece = rng.randbytes(MIB)
    send(raw, "shared", piece, piece)
    expected = hashlib.sha256(piece * (SIZE // MIB)).hexdigest()
    with ThreadPoolExecutor(2 * PARALLEL) as threads:
        uploads = [threads.submit(send, raw, f"k{number}", rng.randbytes(MIB), piece) for number in range(PARALLEL)]
        downloads = [threads.submit(receive, raw, "shared") for _ in range(PARALLEL)]
        for upload in uploads:
            upload.result()
        assert {download.result() for download in downloads} == {expected}
    assert fresh.memory() <= BOUND, f"peak of {fresh.memory() // MIB} MiB"


@pytest.mark.op("PostObject")
def test_form_upload_is_not_held(fresh, rng):
    raw = Raw(fresh.endpoint)
    before = fresh.memory()
    piece = rng.randbytes(MIB)
    assert Form(raw, "bucket").post([piece] * 200).status == 204
    assert fresh.memory() - before <= 48 * MIB


def test_large_chunk_of_a_streamed_body_is_not_held(fresh, rng):
    """One client-chosen chunk of 200 MiB: taken in pieces or refused, never collected."""
    before = fresh.memory()
    size = 200 * MIB
    piece = rng.randbytes(MIB)
    framing = [b"%x\r\n" % size, *[piece] * (size // MIB), b"\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"]
    headers = {
        "x-amz-decoded-content-length": str(size),
        "content-encoding": "aws-chunked",
        "x-amz-trailer": "x-amz-checksum-crc32",
        "content-length": str(sum(map(len, framing))),
    }
    answer = Raw(fresh.endpoint).request(
        "PUT", "/bucket/k", headers=headers, body=framing, payload_hash="STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    )
    assert answer.status == 400, answer  # a wrong checksum, or a chunk too large
    assert fresh.memory() - before <= 48 * MIB


def test_many_large_documents_are_not_held(fresh, pool):
    before = fresh.memory()
    raw = Raw(fresh.endpoint)
    document = b"<Delete>" + b"<Object><Key>k</Key></Object>" * 500_000

    def post(_):
        answer = raw.request("POST", "/bucket", [("delete", "")], {"x-amz-checksum-crc32": "AAAAAA=="}, document)
        assert 400 <= answer.status < 500 or answer.status == 503, answer

    list(pool.map(post, range(16)))
    assert fresh.memory() - before <= 128 * MIB
