"""What only s5cmd does."""

import pytest

from clients.adapters import S5cmd
from clients.trees import read_tree, write_tree


@pytest.fixture
def s5cmd(make_client):
    return make_client(S5cmd)


def test_sync(s5cmd, bucket, tmp_path):
    tree = write_tree(tmp_path / "tree", ["a", "b c", "d/ü"])
    url = f"s3://{bucket}/tree/"
    s5cmd.s5cmd("sync", f"{tree}/", url)
    assert s5cmd.s5cmd("sync", f"{tree}/", url) == b"", "nothing changed"
    (tree / "b c").unlink()
    s5cmd.s5cmd("sync", "--delete", f"{tree}/", url)
    s5cmd.s5cmd("sync", f"{url}*", f"{tmp_path}/back/")
    assert read_tree(tmp_path / "back") == read_tree(tree)


def test_wildcards_cat_and_du(s5cmd, s3, bucket):
    for key in ("logs/1.gz", "logs/2.gz", "logs/2.txt", "other/1.gz"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    s5cmd.s5cmd("cp", f"s3://{bucket}/logs/*.gz", f"s3://{bucket}/copied/")
    assert sorted(s5cmd.keys(bucket, "copied/")) == ["copied/1.gz", "copied/2.gz"]
    assert s5cmd.s5cmd("cat", f"s3://{bucket}/copied/2.gz") == b"logs/2.gz"
    assert b"5 objects" in s5cmd.s5cmd("du", f"s3://{bucket}/*.gz")
    s5cmd.s5cmd("mv", f"s3://{bucket}/other/1.gz", f"s3://{bucket}/moved")
    s5cmd.s5cmd("rm", f"s3://{bucket}/logs/*.gz")
    assert sorted(s5cmd.keys(bucket)) == ["copied/1.gz", "copied/2.gz", "logs/2.txt", "moved"]


def test_batch_of_commands(s5cmd, s3, bucket, tmp_path):
    file = tmp_path / "file"
    file.write_text("hello")
    commands = "".join(f"cp {file} s3://{bucket}/k{number}\n" for number in range(200))
    s5cmd.s5cmd("run", stdin=commands.encode())
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 200


def test_pipe(s5cmd, s3, bucket, rng):
    body = rng.randbytes(20_000_000)
    s5cmd.s5cmd("pipe", "--part-size", 8, f"s3://{bucket}/k", stdin=body)
    assert s5cmd.s5cmd("cat", f"s3://{bucket}/k") == body
