"""Moves on several nodes that are killed and stopped at any moment, under load: nothing is lost, nothing stays behind."""

import signal
import time

import pytest

from support import moves
from support.cluster import Cluster, Load, serves
from support.times import HASTY, POLLING, SWEEPING
from support.wait import wait_until

pytestmark = pytest.mark.timeout(900)
TIMES = HASTY | SWEEPING | POLLING | {
    "OSPROXY_NODE__LEASE_SECONDS": "3",
    "OSPROXY_STORAGE__GRACE_SECONDS": "5",
    "OSPROXY_JOBS__LEASE_SECONDS": "5",
    "OSPROXY_HTTP__DRAIN_TIMEOUT_SECONDS": "3",
}
TWO_DISKS = """
[storage]
placement = "a"

[backend.a]
service = "fs"
options = {{ root = "{home}/a" }}

[backend.b]
service = "fs"
options = {{ root = "{home}/b" }}
"""


@pytest.fixture
def cluster(tmp_path, postgres):
    config = tmp_path / "two.toml"
    config.write_text(TWO_DISKS.format(home=tmp_path))
    with Cluster(tmp_path, postgres, env=TIMES | {"OSPROXY_CONFIG": str(config)}) as nodes:
        nodes.nodes[0].endpoint.client().create_bucket(Bucket="bucket")
        yield nodes
        nodes.no_panic()


def blobs(cluster, backend):
    return [path for path in (cluster.home / backend).glob("[0-9a-f][0-9a-f]/*") if path.is_file()]


def begin(cluster, *words):
    """Begins a move with the help of whichever node answers."""

    def begun():
        tried = (moves.begin(node, *words, check=False) for node in cluster.nodes)
        return next((move for move in tried if move), None)

    return wait_until(begun, 60, "a move that has begun")


def begin_again(cluster, move, *words):
    """An order for what is being moved is the same move. One that is done is not begun again: a bucket is there already."""

    def is_the_same():
        if state(cluster, move) == "done":
            return True
        again = moves.begin(cluster.nodes[0], *words, check=False)
        assert again is None or again["id"] == move["id"] or state(cluster, move) == "done"
        return again

    wait_until(is_the_same, 60, "a move that goes on")


def state(cluster, move):
    return moves.row(cluster, move["id"])["state"]


def disturb(cluster, rng, load):
    """Kills a node, or stops it for a moment that may be longer than its leases, and lets it go on."""
    victim = rng.choice(cluster.nodes)
    time.sleep(rng.random() * 0.5)  # any moment
    if rng.random() < 0.6:
        victim.kill()
        load.more(4)
        victim.start()
    else:
        victim.signal(signal.SIGSTOP)
        before = load.done
        wait_until(lambda: load.done >= before + rng.choice([2, 12]) or load.wrong, 120, "the other nodes to go on")
        victim.signal(signal.SIGCONT)


@pytest.mark.parametrize("what", ["backend", "bucket"])
def test_a_move_on_nodes_that_are_killed_under_load_loses_nothing(cluster, rng, what):
    words = ["--from", "a", "--to", "b"] + {"backend": [], "bucket": ["--bucket", "bucket"]}[what]
    with Load(cluster, rng.random(), threads=4, patience=10) as load:
        load.more(40)
        # Slow enough to be disturbed before it ends.
        move = begin(cluster, *words, "--rate", "4000000")
        for _ in range(5):
            disturb(cluster, rng, load)
        begin_again(cluster, move, *words)
        if what == "backend":
            wait_until(lambda: state(cluster, move) != "copying" or load.wrong, 200, "the end of copying")
            for node in cluster.nodes:
                node.kill()
                load.more(2)
                node.start()
    done = moves.ended_in_rows(cluster, move["id"])
    assert (done["state"], done["failed"]) == ("done", 0), done
    # What the killed ones left half-written, and what was released, is the sweep's and the collector's.
    wait_until(lambda: not blobs(cluster, "a"), 120, "nothing to be left at the old backend")
    for node in cluster.nodes:
        serves(node)  # one that was stopped for longer than its lease joins again first
    load.check(cluster.clients())
    is_clean = lambda: cluster.nodes[0].command("fsck", "--read", check=False).returncode == 0
    wait_until(is_clean, 60, "a comparison that finds nothing, once the sweep has come by")
    (cluster.home / "a").rename(cluster.home / "a-is-away")
    load.check(cluster.clients())


def test_moves_to_and_fro_on_nodes_that_are_killed_leave_all_where_the_last_one_says(cluster, rng):
    with Load(cluster, rng.random(), threads=3, patience=10) as load:
        load.more(30)
        for source, target in [("a", "b"), ("b", "a"), ("a", "b")]:
            move = begin(cluster, "--from", source, "--to", target, "--rate", "3000000")
            disturb(cluster, rng, load)
        move = begin(cluster, "--from", "a", "--to", "b")
    moves.ended_in_rows(cluster, move["id"])
    states = cluster.query("SELECT state FROM moves ORDER BY id")
    assert states[-1] == "done" and "copying" not in states and "emptying" not in states, states
    wait_until(lambda: not blobs(cluster, "a"), 120, "nothing to be left at the old backend")
    for node in cluster.nodes:
        serves(node)
    (cluster.home / "a").rename(cluster.home / "a-is-away")
    load.check(cluster.clients())
