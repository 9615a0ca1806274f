"""The same bytes are stored once, whoever names them in a realm, and freed with the last name."""

import pytest

from support.keys import INLINE, MIN_PART
from support.multipart import Upload
from support.wait import wait_until

SMALL, LARGE = 1000, 300_000
# Garbage is freed as soon as `osproxy gc` is asked; the background collector stays out of the way.
PROMPT = {
    "OSPROXY_STORAGE__GRACE_SECONDS": "1",
    "OSPROXY_STORAGE__BLOB_RETENTION_SECONDS": "0",
    "OSPROXY_STORAGE__COLLECT_INTERVAL_SECONDS": "3600",
}

sizes = pytest.mark.parametrize("size", [SMALL, INLINE, INLINE + 1, LARGE, MIN_PART])


@pytest.fixture
def fresh(own_server):
    server = own_server(env=PROMPT)
    s3 = server.endpoint.client()
    for name in ("one", "two"):
        s3.create_bucket(Bucket=f"bucket-{name}")
    return server, s3


def stored_and_logical(server):
    stats = server.stats()
    return stats["stored_bytes"], stats["logical_bytes"]


def blob_bytes(server):
    """Bytes of blob files on disk."""
    return sum(path.stat().st_size for path in (server.data_dir / "blobs").glob("*/*") if path.is_file())


def collect_until(server, stored):
    def collected():
        server.command("gc")
        return server.stats()["stored_bytes"] == stored

    wait_until(collected, 30, f"{stored} stored bytes after gc")


@sizes
def test_other_names_and_buckets_share_the_bytes(fresh, rng, size):
    server, s3 = fresh
    body = rng.randbytes(size)
    for bucket in ("bucket-one", "bucket-two"):
        for key in ("a", "b", "c"):
            s3.put_object(Bucket=bucket, Key=key, Body=body)
    assert stored_and_logical(server) == (size, 6 * size)
    assert server.stats()["contents"] == 1
    assert blob_bytes(server) == (size if size > INLINE else 0)
    for bucket in ("bucket-one", "bucket-two"):
        assert s3.get_object(Bucket=bucket, Key="c")["Body"].read() == body


def test_parts_and_whole_objects_share_the_bytes(fresh, rng):
    server, s3 = fresh
    body, tail = rng.randbytes(MIN_PART), rng.randbytes(LARGE)
    s3.put_object(Bucket="bucket-one", Key="whole", Body=body)
    for key in ("first", "second"):
        upload = Upload(s3, "bucket-two", key)
        upload.put(1, body)
        upload.put(2, body)
        upload.put(3, tail)
        upload.complete()
        assert s3.get_object(Bucket="bucket-two", Key=key)["Body"].read() == body + body + tail
    s3.put_object(Bucket="bucket-one", Key="tail", Body=tail)
    assert server.stats()["stored_bytes"] == MIN_PART + LARGE
    assert blob_bytes(server) == MIN_PART + LARGE


def test_copy_stores_nothing(fresh, rng):
    server, s3 = fresh
    s3.put_object(Bucket="bucket-one", Key="k", Body=rng.randbytes(LARGE))
    s3.copy_object(Bucket="bucket-two", Key="k", CopySource={"Bucket": "bucket-one", "Key": "k"})
    assert stored_and_logical(server) == (LARGE, 2 * LARGE)


def test_racing_uploads_of_one_content_store_it_once(fresh, rng, pool):
    server, s3 = fresh
    body = rng.randbytes(LARGE)
    list(pool.map(lambda n: s3.put_object(Bucket="bucket-one", Key=f"k{n}", Body=body), range(16)))
    assert stored_and_logical(server) == (LARGE, 16 * LARGE)
    assert server.stats()["contents"] == 1


@sizes
def test_bytes_are_freed_with_the_last_name(fresh, rng, size):
    server, s3 = fresh
    body, other = rng.randbytes(size), rng.randbytes(size)
    s3.put_object(Bucket="bucket-one", Key="a", Body=body)
    s3.put_object(Bucket="bucket-two", Key="b", Body=body)
    s3.put_object(Bucket="bucket-one", Key="other", Body=other)
    s3.delete_object(Bucket="bucket-one", Key="a")
    server.command("gc")
    assert s3.get_object(Bucket="bucket-two", Key="b")["Body"].read() == body
    assert server.stats()["stored_bytes"] == 2 * size
    s3.delete_object(Bucket="bucket-two", Key="b")
    collect_until(server, size)
    wait_until(
        lambda: server.command("gc") and blob_bytes(server) == (size if size > INLINE else 0), 30, "the blob's end"
    )
    assert s3.get_object(Bucket="bucket-one", Key="other")["Body"].read() == other


def test_overwritten_bytes_are_freed(fresh, rng):
    server, s3 = fresh
    for _ in range(3):
        s3.put_object(Bucket="bucket-one", Key="k", Body=rng.randbytes(LARGE))
    collect_until(server, LARGE)


def test_aborted_and_replaced_parts_are_freed(fresh, rng):
    server, s3 = fresh
    upload = Upload(s3, "bucket-one", "k")
    upload.put(1, rng.randbytes(MIN_PART))
    upload.put(1, rng.randbytes(LARGE))
    collect_until(server, LARGE)
    upload.abort()
    collect_until(server, 0)


def test_parts_of_a_deleted_object_stay_for_others(fresh, rng):
    server, s3 = fresh
    body = rng.randbytes(MIN_PART)
    upload = Upload(s3, "bucket-one", "made of parts")
    upload.put(1, body)
    upload.complete()
    s3.put_object(Bucket="bucket-one", Key="plain", Body=body)
    s3.delete_object(Bucket="bucket-one", Key="made of parts")
    collect_until(server, MIN_PART)
    assert s3.get_object(Bucket="bucket-one", Key="plain")["Body"].read() == body


def test_content_named_again_within_the_grace_lives_on(own_server, rng):
    server = own_server(env=PROMPT | {"OSPROXY_STORAGE__GRACE_SECONDS": "3600"})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    body = rng.randbytes(LARGE)
    s3.put_object(Bucket="bucket", Key="k", Body=body)
    s3.delete_object(Bucket="bucket", Key="k")
    server.command("gc")
    assert server.stats()["stored_bytes"] == LARGE, "the grace has not passed"
    s3.put_object(Bucket="bucket", Key="again", Body=body)
    assert s3.get_object(Bucket="bucket", Key="again")["Body"].read() == body
    assert stored_and_logical(server) == (LARGE, LARGE)


def test_collector_and_writers_race_without_loss(fresh, rng, pool):
    """Objects of few contents come and go while the collector runs: what is named can always be read."""
    server, s3 = fresh
    bodies = [rng.randbytes(LARGE) for _ in range(3)]

    def churn(number):
        for turn in range(12):
            body = bodies[(number + turn) % 3]
            s3.put_object(Bucket="bucket-one", Key=f"k{number}", Body=body)
            assert s3.get_object(Bucket="bucket-one", Key=f"k{number}")["Body"].read() == body
            s3.delete_object(Bucket="bucket-one", Key=f"k{number}")

    running = [pool.submit(churn, number) for number in range(8)]
    while not all(task.done() for task in running):
        server.command("gc")
    for task in running:
        task.result()
    collect_until(server, 0)


def test_dedup_does_not_cross_tenants(fresh, rng):
    server, s3 = fresh
    server.create_tenant("second")
    other = server.endpoint.as_identity(server.create_key("second", "SECONDACCESSKEY00002", "s" * 40)).client()
    other.create_bucket(Bucket="bucket-theirs")
    body = rng.randbytes(LARGE)
    s3.put_object(Bucket="bucket-one", Key="k", Body=body)
    other.put_object(Bucket="bucket-theirs", Key="k", Body=body)
    assert stored_and_logical(server) == (2 * LARGE, 2 * LARGE)
    assert server.stats()["contents"] == 2
