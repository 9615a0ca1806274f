"""Behind nginx and HAProxy: whatever they make of 100 Continue, an upload is whole, and known content still one."""

import pytest

from support.balancer import Balancer


@pytest.fixture(params=["nginx", "nginx that buffers", "haproxy"])
def balanced(request, tmp_path, endpoint):
    """The endpoint behind a balancer of its own."""
    kind = request.param.split()[0]
    balancer = Balancer.plain(kind, tmp_path, [endpoint.netloc], buffers="buffers" in request.param)
    if not balancer.program:
        pytest.skip(f"{kind} is not installed")
    with balancer:
        yield endpoint.at(balancer.url).client()


def test_known_and_new_content_arrive_whole(balanced, s3, bucket, rng):
    body = rng.randbytes(300_000)
    for number in range(12):
        balanced.put_object(Bucket=bucket, Key=f"known{number}", Body=body)
        assert s3.get_object(Bucket=bucket, Key=f"known{number}")["Body"].read() == body
        new = rng.randbytes(5_000_000 if number == 0 else 20_000)
        balanced.put_object(Bucket=bucket, Key=f"new{number}", Body=new)
        assert balanced.get_object(Bucket=bucket, Key=f"new{number}")["Body"].read() == new
