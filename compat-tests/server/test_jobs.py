"""Jobs as operators see them: periodic work, pauses, and what goes on after a crash."""

import json
import time

import pytest

from support.times import COLLECTING, POLLING
from support.wait import wait_until

OFTEN = COLLECTING | POLLING | {"OSPROXY_JOBS__LEASE_SECONDS": "2"}
PERIODIC = {
    "collect",
    "sweep",
    "abort-stale-uploads",
    "lifecycle",
    "tend-outbox",
    "mend", "rewrap",
    "purge-keys",
    "purge-jobs",
    "scrub",
}


def listed(server, *words):
    return json.loads(server.command("jobs", "list", "--json", *words).stdout)


def one(server, kind="collect"):
    (job,) = listed(server, "--type", kind)["jobs"]
    return job


def begins(server, id):
    """Whether a run begins now; it does not while one is under way, which that of a killed server is until its lease ends."""
    done = server.command("jobs", "retry", id, check=False)
    assert done.returncode == 0 or "it is running" in done.stderr, done
    return done.returncode == 0


def orphan(s3, key):
    """Leaves bytes behind that nothing refers to."""
    s3.put_object(Bucket="bucket", Key=key, Body=key.encode() * 50_000)
    s3.delete_object(Bucket="bucket", Key=key)


def blobs(server):
    return [path for path in (server.data_dir / "blobs").glob("*/*") if path.is_file()]


@pytest.fixture
def often(own_server):
    server = own_server(env=OFTEN)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    return server, s3


def test_periodic_work_is_there_and_says_how_it_went(often):
    server, _ = often
    wait_until(lambda: one(server)["runs"] >= 2, what="two runs of the collector")
    jobs = {job["type"]: job for job in listed(server)["jobs"]}
    assert set(jobs) == PERIODIC
    collect = server.command("jobs", "show", jobs["collect"]["id"], "--json")
    collect = json.loads(collect.stdout)
    assert collect["period"] == 1000 and collect["report"]["failed"] == 0 and collect["reason"] is None
    assert collect["state"] in ("waiting", "running") and collect["ended"] > collect["created"]
    # An end is counted after it is recorded.
    wait_until(lambda: server.metric("osproxy_jobs_total", type="collect", outcome="done") >= 2, what="the count")
    text = server.command("jobs", "list").stdout
    assert "collect" in text and "TYPE" in text
    assert "period" in server.command("jobs", "show", collect["id"]).stdout


def test_a_paused_collector_deletes_nothing_until_it_is_resumed_also_after_a_crash(often):
    server, s3 = often
    wait_until(lambda: one(server)["runs"] >= 1, what="a run of the collector")
    server.command("jobs", "pause", "collect")
    wait_until(lambda: one(server)["state"] == "waiting", what="the end of the run")
    runs = one(server)["runs"]
    orphan(s3, "paused")
    server.kill()
    # Beside no server too.
    report = listed(server)
    assert report["paused"] == ["collect"]
    assert {job["type"] for job in report["jobs"] if job["paused"]} == {"collect"}
    server.start()
    wait_until(lambda: one(server, "tend-outbox")["ended"] is not None, what="another job")
    time.sleep(3)  # three times the pause between two runs
    assert one(server)["runs"] == runs and blobs(server)
    # Also of a type that had no job yet.
    server.command("jobs", "pause", "merge")
    assert listed(server)["paused"] == ["collect", "merge"]
    server.command("jobs", "resume", "merge")
    server.command("jobs", "resume", "collect")
    wait_until(lambda: not blobs(server), what="the collection")
    assert one(server)["runs"] > runs
    assert listed(server)["paused"] == []


def test_what_a_killed_server_was_at_continues(own_server):
    server = own_server(env=OFTEN | {"OSPROXY_STORAGE__COLLECT_INTERVAL_SECONDS": "3600"})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    orphan(s3, "k")
    job = one(server)
    for _ in range(3):
        wait_until(lambda: begins(server, job["id"]), what="the run to begin")
        server.kill()  # before, in or after the run
        server.start()
    time.sleep(1.5)  # the grace
    wait_until(lambda: begins(server, job["id"]), what="the last run to begin")
    wait_until(lambda: not blobs(server), what="the collection")
    assert one(server)["id"] == job["id"]


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_two_nodes_share_the_work_and_one_goes_on_when_the_other_is_killed(own_server, request, kind):
    url = request.getfixturevalue(kind).create()
    env = OFTEN | {"OSPROXY_META__URL": url, "OSPROXY_MASTER_KEY": "17" * 32}
    nodes = [own_server(name, env=env) for name in ("one", "two")]
    wait_until(lambda: one(nodes[0])["runs"] >= 4, what="runs of the collector")
    for node in nodes:
        node.command("jobs", "pause", "collect")
    wait_until(lambda: one(nodes[0])["state"] == "waiting", what="the end of the run")
    # Each run was one node's.
    counted = lambda: [node.metric("osproxy_jobs_total", type="collect") for node in nodes]
    wait_until(lambda: sum(counted()) == one(nodes[0])["runs"], what="the counts")
    ends = counted()
    nodes[1].command("jobs", "resume", "collect")
    nodes[0].kill()
    runs = one(nodes[1])["runs"]
    wait_until(lambda: one(nodes[1])["runs"] >= runs + 3, what="runs of the other node")
    assert nodes[1].metric("osproxy_jobs_total", type="collect", outcome="done") >= ends[1] + 2


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb", "mysql"])
def test_every_periodic_job_comes_to_its_end_on_every_database(own_server, request, kind):
    env = OFTEN
    if kind != "sqlite":
        env = OFTEN | {"OSPROXY_META__URL": request.getfixturevalue(kind).create()}
    server = own_server(env=env)
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    orphan(s3, "k")
    s3.create_multipart_upload(Bucket="bucket", Key="upload")
    for kind in sorted(PERIODIC):
        before = one(server, kind)
        server.command("jobs", "retry", before["id"], check=False)  # one that runs is refused
        wait_until(lambda: one(server, kind)["ended"] not in (None, before["ended"]), what=f"a run of {kind}")
        ended = one(server, kind)
        assert ended["reason"] is None, ended


def test_the_admin_routes(often):
    server, _ = often
    status, report = server.ask("GET", "/v1/jobs?type=sweep&state=waiting&max=5")
    assert status == 200 and [job["type"] for job in report["jobs"]] == ["sweep"]
    sweep = report["jobs"][0]
    assert server.ask("GET", f"/v1/jobs/{sweep['id']}")[1]["type"] == "sweep"
    assert server.ask("POST", f"/v1/jobs/{sweep['id']}/retry")[0] == 200
    wait_until(lambda: one(server, "sweep")["runs"] > sweep["runs"], what="the sweep")
    assert server.ask("POST", "/v1/jobs/pause", {"type": "sweep"}) == (200, {"type": "sweep", "paused": True})
    assert server.ask("GET", "/v1/jobs?max=1")[1]["paused"] == ["sweep"]
    assert server.ask("POST", "/v1/jobs/resume", {"type": "sweep"}) == (200, {"type": "sweep", "paused": False})


def test_what_is_refused(often):
    server, _ = often
    job = one(server)
    status, answer = server.ask("POST", f"/v1/jobs/{job['id']}/cancel")
    assert status == 409 and "paused" in answer["error"]
    assert server.ask("POST", "/v1/jobs/1/retry")[0] == 404
    assert server.ask("GET", "/v1/jobs/1")[0] == 404
    assert server.ask("GET", "/v1/jobs/x")[0] == 400
    assert server.ask("GET", "/v1/jobs?state=broken")[0] == 400
    assert server.ask("GET", "/v1/jobs?colour=red")[0] == 400
    status, answer = server.ask("POST", "/v1/jobs/pause", {"type": "colect"})
    assert status == 404 and "collect" in answer["error"]
    assert server.admin("/v1/jobs")[0] == 401
    for words, code in [
        (("cancel", job["id"]), 1),
        (("show", "1"), 1),
        (("pause", "colect"), 1),
        (("retry", "x"), 2),
        (("list", "--state", "broken"), 2),
    ]:
        done = server.command("jobs", *words, check=False)
        assert done.returncode == code and done.stderr, words
