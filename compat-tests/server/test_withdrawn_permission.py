"""A permission that is withdrawn while a body is on its way is not used by its commit."""

import pytest

from support.policy import put, statement
from support.raw import Raw, read_answer
from support.refusal import refused
from support.wait import wait_until


def test_a_commit_asks_again(s3, stranger, bucket):
    put(s3, bucket, statement(bucket, ["s3:PutObject", "s3:GetObject"]))
    raw = Raw(stranger)
    half = b"x" * 50_000
    sock = raw.begin("PUT", f"/{bucket}/late", length=2 * len(half), body=half)
    # The request was admitted once another one of its kind is.
    wait_until(lambda: stranger.client().put_object(Bucket=bucket, Key="other", Body=b"y"), 15, "the admission")
    s3.delete_bucket_policy(Bucket=bucket)
    sock.sendall(half)
    answer = read_answer(sock)
    assert answer.status == 403 and answer.code == "AccessDenied"
    with refused("404"):
        s3.head_object(Bucket=bucket, Key="late")


@pytest.mark.parametrize("settings", ["versioning", "another policy"])
def test_a_change_that_does_not_matter_is_no_obstacle(s3, stranger, bucket, settings):
    put(s3, bucket, statement(bucket, "s3:PutObject"))
    raw = Raw(stranger)
    half = b"x" * 50_000
    sock = raw.begin("PUT", f"/{bucket}/late", length=2 * len(half), body=half)
    wait_until(lambda: stranger.client().put_object(Bucket=bucket, Key="other", Body=b"y"), 15, "the admission")
    if settings == "versioning":
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    else:
        put(s3, bucket, statement(bucket, "s3:*", "", "/*"))
    sock.sendall(half)
    assert read_answer(sock).status == 200
    assert s3.head_object(Bucket=bucket, Key="late")["ContentLength"] == 2 * len(half)
