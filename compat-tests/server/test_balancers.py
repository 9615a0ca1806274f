"""Behind nginx and HAProxy, with the files that `deploy/` ships: what clients send arrives as they signed it, whatever is made
of 100 Continue an upload is whole, and known content is still one."""

import string

import pytest

from support.balancer import Balancer


@pytest.fixture(params=["nginx", "nginx that buffers", "haproxy"])
def balanced(request, tmp_path, server):
    """The server behind a balancer, in place of each of its nodes."""
    kind = request.param.split()[0]
    nodes = [(server.s3_port, server.admin_port)] * 3
    # All three are one server, which may be slow for a moment and is not to be done without.
    balancer = Balancer(kind, tmp_path, nodes, buffers="buffers" in request.param, falls=60)
    if not balancer.program:
        pytest.skip(f"{kind} is not installed")
    with balancer:
        yield server.endpoint.at(balancer.url).client(retries={"total_max_attempts": 1})


def test_known_and_new_content_arrive_whole(balanced, s3, bucket, rng):
    body = rng.randbytes(300_000)
    for number in range(12):
        balanced.put_object(Bucket=bucket, Key=f"known{number}", Body=body)
        assert s3.get_object(Bucket=bucket, Key=f"known{number}")["Body"].read() == body
        new = rng.randbytes(5_000_000 if number == 0 else 20_000)
        balanced.put_object(Bucket=bucket, Key=f"new{number}", Body=new)
        assert balanced.get_object(Bucket=bucket, Key=f"new{number}")["Body"].read() == new


@pytest.mark.parametrize("name", ["under_score", "dotted.name", "plus+sign", "all-of!#$%&'*+.^_`|~"])
def test_every_name_that_metadata_may_have_passes(balanced, s3, bucket, name):
    balanced.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={name: "value"})
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {name: "value"}
    assert balanced.get_object(Bucket=bucket, Key="k")["Metadata"] == {name: "value"}


def test_answers_with_long_headers_pass(balanced, bucket):
    # As much user metadata as S3 takes, and a long name to save the object under.
    metadata = {f"name{number}": "v" * 190 for number in range(10)}
    disposition = 'attachment; filename="%s"' % ("n" * 4000)
    balanced.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata=metadata, ContentDisposition=disposition)
    answer = balanced.get_object(Bucket=bucket, Key="k")
    assert answer["Metadata"] == metadata and answer["ContentDisposition"] == disposition


def test_requests_with_long_headers_pass(balanced, bucket):
    # Nearly as much as a node takes; a client's cookies and traces, which are not signed, count too.
    def lengthen(request, **_):
        for number in range(5):
            request.headers[f"x-filler-{number}"] = "f" * 6000

    balanced.meta.events.register("before-send.s3.PutObject", lengthen)
    balanced.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert balanced.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


@pytest.mark.parametrize("key", ["a//b", "a/./b/../c", "%2F %25+&=?#", "ä/日本", string.printable[:95]])
def test_keys_pass_byte_for_byte(balanced, s3, bucket, key):
    balanced.put_object(Bucket=bucket, Key=key, Body=b"x")
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert [entry["Key"] for entry in listed] == [key]
    assert balanced.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"
