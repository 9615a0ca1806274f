"""kill -9 in the middle of writes: what was acknowledged is there, and nothing else is to be seen."""

import hashlib
import random
import threading

import pytest
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from support.keys import INLINE, MIN_PART
from support.multipart import Upload
from support.refusal import refused
from support.wait import wait_until

SIZES = [100, INLINE, INLINE + 1, 300_000, 3_000_000]
WRITERS = 8


class Writer(threading.Thread):
    """Puts objects until the server goes away, and notes what was acknowledged."""

    def __init__(self, client, number, rng):
        super().__init__(daemon=True)
        self.client, self.number, self.rng = client, number, rng
        self.acknowledged, self.attempted = {}, {}

    def run(self):
        for turn in range(100_000):
            key = f"{self.number}/{turn % 50}"
            body = self.rng.randbytes(self.rng.choice(SIZES))
            digest = hashlib.sha256(body).digest()
            self.attempted[key] = digest
            try:
                self.client.put_object(Bucket="bucket", Key=key, Body=body)
            except (BotoCoreError, ClientError, HTTPClientError):
                return
            self.acknowledged[key] = digest


@pytest.mark.parametrize("round_number", range(3))
def test_acknowledged_objects_survive_and_no_partial_one_is_visible(own_server, rng, round_number):
    server = own_server()
    client = server.endpoint.client(read_timeout=20)
    client.create_bucket(Bucket="bucket")
    writers = [Writer(client, number, random.Random(rng.random())) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    enough = 40 + rng.randrange(60)
    wait_until(lambda: sum(len(writer.acknowledged) for writer in writers) >= enough, 60, f"{enough} acknowledged puts")
    server.kill()
    for writer in writers:
        writer.join(60)

    server.start()
    s3 = server.endpoint.client()
    acknowledged = {key: digest for writer in writers for key, digest in writer.acknowledged.items()}
    attempted = {key: digest for writer in writers for key, digest in writer.attempted.items()}
    found = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
        for entry in page.get("Contents", []):
            body = s3.get_object(Bucket="bucket", Key=entry["Key"])["Body"].read()
            assert len(body) == entry["Size"]
            found[entry["Key"]] = hashlib.sha256(body).digest()
    # The last put of a writer may have been done and not answered: then its key holds that body, whole.
    for key, digest in acknowledged.items():
        assert found.get(key) in (digest, attempted[key]), f"{key} was acknowledged and is lost"
    for key, digest in found.items():
        assert digest in (acknowledged.get(key), attempted[key]), f"{key} holds what nobody wrote"
    s3.put_object(Bucket="bucket", Key="after", Body=b"x")


def test_uploads_in_progress_survive(own_server, rng):
    server = own_server()
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    upload = Upload(s3, "bucket", "k")
    parts = [rng.randbytes(MIN_PART), rng.randbytes(1000)]
    for number, body in enumerate(parts, 1):
        upload.put(number, body)
    server.kill()
    server.start()
    s3 = upload.client = server.endpoint.client()
    assert [part["PartNumber"] for part in upload.list()["Parts"]] == [1, 2]
    upload.complete()
    server.kill()
    server.start()
    assert server.endpoint.client().get_object(Bucket="bucket", Key="k")["Body"].read() == b"".join(parts)


def test_deleted_stays_deleted(own_server):
    server = own_server()
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=b"x" * 100_000)
    s3.put_object_tagging(Bucket="bucket", Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    s3.put_object(Bucket="bucket", Key="gone", Body=b"x" * 100_000)
    s3.delete_object(Bucket="bucket", Key="gone")
    server.kill()
    server.start()
    s3 = server.endpoint.client()
    with refused("404"):
        s3.head_object(Bucket="bucket", Key="gone")
    assert s3.get_object_tagging(Bucket="bucket", Key="k")["TagSet"] == [{"Key": "a", "Value": "1"}]
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"x" * 100_000
