"""Merges: an upload in parts and the same bytes in one piece are stored once, and clients see nothing of it."""

import json
import threading
import time

import pytest

from support.keys import MIN_PART
from support.multipart import Upload
from support.proxy import CountingProxy
from support.wait import wait_until

PROMPT = {
    "OSPROXY_MERGE__DELAY_SECONDS": "0",
    "OSPROXY_JOBS__POLL_SECONDS": "1",
    "OSPROXY_STORAGE__GRACE_SECONDS": "1",
    "OSPROXY_STORAGE__BLOB_RETENTION_SECONDS": "0",
    "OSPROXY_STORAGE__COLLECT_INTERVAL_SECONDS": "3600",
}


@pytest.fixture
def prompt(own_server):
    server = own_server(env=PROMPT)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    return server, s3


def upload(s3, key, parts, each=None, **options):
    """Uploads in parts; `each` goes with the begin, the end and every part."""
    each = each or {}
    begun = Upload(s3, "bucket", key, **options, **each)
    for number, part in enumerate(parts, 1):
        begun.put(number, part, **each)
    return begun.complete(**each)


def merges(server):
    return json.loads(server.command("jobs", "list", "--type", "merge", "--json").stdout)["jobs"]


def outcomes(server, count):
    def ended():
        jobs = merges(server)
        return jobs if len(jobs) == count and all(job["state"] == "done" for job in jobs) else None

    return [job["report"]["outcome"] for job in wait_until(ended, 30, f"{count} merges")]


def collect_until(server, length, overhead=0, deadline=30):
    """Waits until no more is stored than `length` bytes, and what encrypting them may add."""

    def collected():
        server.command("gc")
        return length <= server.stats()["stored_bytes"] <= length + overhead

    wait_until(collected, deadline, f"{length} stored bytes after gc")


@pytest.mark.parametrize("first", ["parts", "piece"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_parts_and_one_piece_are_stored_once(prompt, rng, first, encrypted):
    server, s3 = prompt
    parts = [rng.randbytes(MIN_PART), rng.randbytes(100_000)]
    body, sealed = b"".join(parts), {"ServerSideEncryption": "AES256"} if encrypted else {}
    if first == "piece":
        s3.put_object(Bucket="bucket", Key="piece", Body=body, **sealed)
    etag = upload(s3, "parts", parts, **sealed)["ETag"]
    before = s3.head_object(Bucket="bucket", Key="parts")
    assert outcomes(server, 1) == ["shared" if first == "piece" else "known" if encrypted else "written"]
    if first == "parts":
        s3.put_object(Bucket="bucket", Key="piece", Body=body, **sealed)
    collect_until(server, len(body), overhead=10_000 if encrypted else 0)
    after = s3.head_object(Bucket="bucket", Key="parts")
    for kept in ("ETag", "LastModified", "ContentLength"):
        assert after[kept] == before[kept]
    assert after["ETag"] == etag
    assert s3.get_object(Bucket="bucket", Key="parts")["Body"].read() == body
    second = s3.get_object(Bucket="bucket", Key="parts", PartNumber=2)
    assert second["PartsCount"] == 2 and second["Body"].read() == parts[1]
    edge = s3.get_object(Bucket="bucket", Key="parts", Range=f"bytes={MIN_PART - 10}-{MIN_PART + 9}")
    assert edge["Body"].read() == body[MIN_PART - 10 : MIN_PART + 10]
    s3.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": "parts"})
    assert s3.get_object(Bucket="bucket", Key="copy")["Body"].read() == body


def test_what_a_customers_key_protects_is_not_merged(prompt, rng):
    server, s3 = prompt
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": rng.randbytes(32)}
    upload(s3, "customer", [rng.randbytes(MIN_PART), b"rest"], each=key)
    upload(s3, "plain", [rng.randbytes(MIN_PART), b"rest"])
    assert len(outcomes(server, 1)) == 1


def test_a_server_that_is_killed_in_a_merge_goes_on_with_it(own_server, rng):
    server = own_server(
        env=PROMPT | {"OSPROXY_MERGE__BYTES_PER_SECOND": str(MIN_PART // 5), "OSPROXY_JOBS__LEASE_SECONDS": "2"}
    )
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    parts = [rng.randbytes(2 * MIN_PART) for _ in range(3)]
    upload(s3, "parts", parts)
    wait_until(lambda: merges(server)[0]["state"] == "running", 20, "the merge")
    server.kill()
    server.env["OSPROXY_MERGE__BYTES_PER_SECOND"] = "1000000000"
    server.start()
    assert outcomes(server, 1) == ["known"]
    s3 = server.endpoint.client()
    assert s3.get_object(Bucket="bucket", Key="parts")["Body"].read() == b"".join(parts)


def test_a_merge_says_how_far_it_is(own_server, rng):
    server = own_server(env=PROMPT | {"OSPROXY_MERGE__BYTES_PER_SECOND": str(MIN_PART // 5)})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    upload(s3, "parts", [rng.randbytes(2 * MIN_PART) for _ in range(3)])

    def recorded():
        (merge,) = merges(server)
        return merge if merge["done"] else None

    merge = wait_until(recorded, 30, "progress of the merge")
    assert merge["state"] == "running"
    assert merge["done"] < merge["total"] == 6 * MIN_PART


@pytest.mark.timeout(400)
def test_downloads_go_on_while_parts_are_merged_and_collected(prompt, rng):
    server, s3 = prompt
    parts = [rng.randbytes(MIN_PART) for _ in range(3)] + [b"end"]
    body, wrong, stop = b"".join(parts), [], threading.Event()

    def read():
        client = server.endpoint.client()
        while not stop.is_set():
            for key in ("one", "two"):
                began = time.monotonic()
                try:
                    if client.get_object(Bucket="bucket", Key=key)["Body"].read() != body:
                        wrong.append(key)
                except Exception as error:
                    wrong.append(error)
                # Nothing is collected while a download is open: each rests for three times as long as it took.
                stop.wait(3 * (time.monotonic() - began))

    upload(s3, "one", parts)
    upload(s3, "two", [b"".join(parts[:2]), b"".join(parts[2:])])
    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        assert len(outcomes(server, 2)) == 2
        collect_until(server, len(body), deadline=120)
    finally:
        stop.set()
        for reader in readers:
            reader.join(60)
    assert not wrong


def test_merges_are_off_when_the_file_says_so(own_server, rng):
    server = own_server(env=PROMPT | {"OSPROXY_MERGE__MAX_BYTES": "0"})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    upload(s3, "parts", [rng.randbytes(MIN_PART), b"rest"])
    assert merges(server) == []


def test_merged_parts_need_not_be_sent_again_by_the_key_that_sent_them(prompt, rng, patient):
    server, s3 = prompt
    parts = [rng.randbytes(MIN_PART), rng.randbytes(100_000)]
    body = b"".join(parts)
    upload(s3, "parts", parts)
    assert outcomes(server, 1) == ["written"]
    with CountingProxy(server.endpoint.address) as proxy:
        client = server.endpoint.at(proxy.url).client()
        client.put_object(Bucket="bucket", Key="again", Body=body)
        assert proxy.to_server < 16_000, "the body crossed the wire"
    assert s3.get_object(Bucket="bucket", Key="again")["Body"].read() == body
