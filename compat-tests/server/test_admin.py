"""The admin listener: health, readiness, metrics."""

import pytest

from support.raw import Raw
from support.wait import wait_until

NAMES = [
    "osproxy_requests_total",
    "osproxy_bytes_in_total",
    "osproxy_bytes_out_total",
    "osproxy_dedup_hits_total",
    "osproxy_open_connections",
    "osproxy_request_duration_seconds_bucket",
    "osproxy_request_duration_seconds_count",
    "osproxy_store_duration_seconds_count",
]


@pytest.fixture
def metered(own_server):
    server = own_server()
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="metered")
    return server, s3


def test_healthy_and_ready(server):
    assert server.admin("/healthz")[0] == 200
    assert server.admin("/readyz")[0] == 200
    assert server.admin("/nothing")[0] == 404


def test_what_may_take_long_tells_how_far_it_is(metered):
    server, s3 = metered
    for name in range(3):
        s3.put_object(Bucket="metered", Key=f"k{name}", Body=bytes([name]) * 1_000_000)
    order = {"backend": None, "depth": "all", "act": "report", "bytes_per_second": 500_000}
    *told, last = server.lines("/v1/fsck", order)
    assert last["report"]["blobs"] == 3
    assert last["report"]["findings"]["all"]["count"] == 0
    told = [line["progress"] for line in told]
    copies = [now for now in told if now["step"] == "looking at copies of blobs"]
    assert copies, told
    assert all(now["done"] <= now["total"] == 3 for now in copies)

    *_, last = server.lines("/v1/gc")
    assert last["report"]["sweep"]["listed"] == 3
    *_, last = server.lines("/v1/fsck", order | {"backend": "nowhere"})
    assert last["failure"]["status"] == 500
    assert "no backend is called nowhere" in last["failure"]["error"]
    # Without the word for lines it is one document.
    status, report = server.ask("POST", "/v1/gc")
    assert (status, report["sweep"]["listed"]) == (200, 3)


def test_metrics_have_their_names(metered):
    server, s3 = metered
    s3.put_object(Bucket="metered", Key="k", Body=b"x" * 100_000)
    s3.get_object(Bucket="metered", Key="k")["Body"].read()
    found = {name for name, _ in server.metrics()}
    assert set(NAMES) <= found, set(NAMES) - found


def test_requests_are_counted_by_operation_and_status(metered):
    server, s3 = metered
    for _ in range(3):
        s3.put_object(Bucket="metered", Key="k", Body=b"x")
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="metered", Key="missing")
    assert server.metric("osproxy_requests_total", operation="PutObject", status="200") == 3
    assert server.metric("osproxy_requests_total", operation="GetObject", status="404") == 1
    assert server.metric("osproxy_request_duration_seconds_count", operation="PutObject") == 3
    Raw(server.endpoint).request("GET", "/metered/k", anonymous=True)
    assert server.metric("osproxy_requests_total", status="403") == 1


def test_bytes_and_dedup_hits_are_counted(metered):
    server, s3 = metered
    s3.put_object(Bucket="metered", Key="a", Body=b"x" * 500_000)
    received, sent, hits = (server.metric(f"osproxy_{name}_total") for name in ("bytes_in", "bytes_out", "dedup_hits"))
    assert received >= 500_000
    s3.put_object(Bucket="metered", Key="b", Body=b"x" * 500_000)
    assert server.metric("osproxy_dedup_hits_total") == hits + 1
    s3.get_object(Bucket="metered", Key="b")["Body"].read()
    assert server.metric("osproxy_bytes_out_total") >= sent + 500_000


def test_open_connections_are_counted(metered):
    server, _ = metered
    before = server.metric("osproxy_open_connections")
    raw = Raw(server.endpoint)
    sockets = [raw.begin("PUT", "/metered/k", length=10) for _ in range(5)]
    wait_until(lambda: server.metric("osproxy_open_connections") >= before + 5, 10, "five more connections")
    for sock in sockets:
        sock.close()
    wait_until(lambda: server.metric("osproxy_open_connections") <= before, 10, "no more of them")


def test_s3_listener_serves_nothing_of_the_admin_listener(server, raw):
    for path in ("/metrics", "/healthz", "/readyz"):
        assert raw.request("GET", path, anonymous=True).status in (400, 403, 404)


def test_log_names_no_secret(server, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"})
    assert not any(server.identity.secret_key in line or "X-Amz-Signature=" in line for line in server.log)
