"""kill -9 in the middle: parts that were acknowledged are there, and a file is whole or not there."""

import hashlib
import threading

import pytest

from support.native import PART, ok, refused
from support.wait import wait_until


def test_between_parts_and_merge(own_native_server, rng):
    server = own_native_server("open")
    data = rng.randbytes(3 * PART + 5)
    parts = [data[start : start + PART] for start in range(0, len(data), PART)]
    client = server.native()
    [links] = ok(client.upload_links("a.bin"))
    for number in (1, 3):
        ok(client.put_part(links, number, parts[number - 1]))
    server.kill()
    server.start()
    client = server.native()
    assert ok(client.checkpoint(links["uid"])) == [1, 3]
    for number in (2, 4):
        ok(client.put_part(links, number, parts[number - 1]))
    server.kill()
    server.start()
    client = server.native()
    md5 = hashlib.md5(data).hexdigest()
    ok(client.merge(links, 4, len(data), md5))
    server.kill()
    server.start()
    client = server.native()
    assert client.fetch(links["uid"])[0] == data
    ok(client.merge(links, 4, len(data), md5))


@pytest.mark.parametrize("round_number", range(2))
def test_under_load(own_native_server, rng, round_number):
    server = own_native_server("open")
    client = server.native()
    acknowledged, sending = {}, {}

    def run(number, data):
        for turn in range(10_000):
            name = f"{number}-{turn}.bin"
            try:
                [links] = ok(client.upload_links(name))
                sending[links["uid"]] = data
                client.fill(links, data)
            except (OSError, AssertionError, Exception):
                return
            acknowledged[links["uid"]] = data

    files = [rng.randbytes(size) for size in (10, 20_000, PART, 2 * PART + 1)]
    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(files)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(acknowledged) >= 12, 60, "files")
    server.kill()
    for thread in threads:
        thread.join(60)
    server.start()
    client = server.native()
    for uid, data in acknowledged.items():
        assert client.fetch(uid)[0] == data, uid
    for uid, data in sending.items():
        if ok(client.download_links(uid)) is None:
            # Not there: then it can be gone on with.
            assert uid not in acknowledged
            client.checkpoint(uid)
        else:
            assert client.fetch(uid)[0] == data, uid
    refused(client.checkpoint("7"), 404)
