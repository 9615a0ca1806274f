"""Rows that somebody holds for long: who wants them is told to come back, and nothing else of the node waits."""

import threading
from collections import Counter

import pytest

from support.cluster import FAILED, Cluster
from support.multipart import Upload
from support.wait import wait_until

LEASE = 12
WRITERS = 100
pytestmark = pytest.mark.timeout(300)


class Wanting(threading.Thread):
    """Wants what is held, again and again, and notes what it is told."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.told, self.ended = call, Counter(), threading.Event()
        self.start()

    def run(self):
        while not self.ended.is_set():
            try:
                self.call()
                self.told["done"] += 1
            except FAILED as error:
                answer = getattr(error, "response", {}).get("ResponseMetadata", {"HTTPStatusCode": 0})
                is_busy = answer["HTTPStatusCode"] == 503 and int(answer["HTTPHeaders"].get("retry-after", 0)) >= 1
                self.told["busy" if is_busy else str(error)] += 1


def test_rows_that_are_held_keep_no_node_from_anything_else(tmp_path, postgres):
    with Cluster(tmp_path, postgres, env={"OSPROXY_NODE__LEASE_SECONDS": str(LEASE)}, nodes=2) as cluster:
        client = cluster.nodes[0].endpoint.client(max_pool_connections=2 * WRITERS)
        client.create_bucket(Bucket="bucket")
        etag = client.put_object(Bucket="bucket", Key="held", Body=b"x")["ETag"]
        upload = Upload(client, "bucket", "held upload")
        part = {"Bucket": "bucket", "Key": "held upload", "UploadId": upload.id, "PartNumber": 1}
        calls = [
            lambda: client.put_object(Bucket="bucket", Key="held", Body=b"new"),
            # Decided once before the body, too.
            lambda: client.put_object(Bucket="bucket", Key="held", Body=b"newer", IfMatch=etag),
            lambda: client.delete_object(Bucket="bucket", Key="held"),
            lambda: client.upload_part(**part, Body=b"part"),
        ]
        before = cluster.node_ids()
        ages = "SELECT extract(epoch FROM clock_timestamp()) * 1000 - beaten FROM nodes"
        rows = ("objects WHERE key = 'held'", "uploads")
        held = "DO $$ BEGIN %s END $$" % " ".join(f"PERFORM 1 FROM {row} FOR UPDATE;" for row in rows)
        with postgres.holding(cluster.url, held):
            wanting = [Wanting(calls[number % len(calls)]) for number in range(WRITERS)]
            try:
                turn = 0
                while not all(sum(writer.told.values()) for writer in wanting) or turn < 20:
                    turn += 1
                    client.put_object(Bucket="bucket", Key=f"free {turn}", Body=b"y")
                    assert client.head_object(Bucket="bucket", Key=f"free {turn}")["ContentLength"] == 1
                    assert client.head_object(Bucket="bucket", Key="held")["ETag"] == etag
                    assert client.list_parts(Bucket="bucket", Key="held upload", UploadId=upload.id)["UploadId"]
                    wait_until(lambda: cluster.nodes[0].admin("/readyz")[0] == 200, 20, "a node that is ready")
                    assert all(float(age) < LEASE * 1000 for age in cluster.query(ages)), "a node missed its beats"
                told = sum((writer.told for writer in wanting), Counter())
                assert set(told) == {"busy"}, told
            finally:
                for writer in wanting:
                    writer.ended.set()
        for writer in wanting:
            writer.join(120)
            assert not writer.is_alive(), "a request hangs"
        assert cluster.node_ids() == before, "a node was declared dead"
        client.put_object(Bucket="bucket", Key="held", Body=b"last")
        assert cluster.clients()[1].get_object(Bucket="bucket", Key="held")["Body"].read() == b"last"
        upload.put(1, b"part")
        upload.complete()
        wait_until(lambda: all(node.admin("/readyz")[0] == 200 for node in cluster.nodes), 30, "that all are ready")
        cluster.no_panic()
