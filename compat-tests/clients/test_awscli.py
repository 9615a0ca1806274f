"""What only the AWS command line does."""

import json

import pytest

from clients.adapters import AwsCli
from clients.trees import read_tree, write_tree


@pytest.fixture
def aws(make_client):
    return make_client(AwsCli)


def test_sync_both_ways(aws, s3, bucket, tmp_path):
    tree, back = write_tree(tmp_path / "tree", ["a", "b c", "d/ü"]), tmp_path / "back"
    url = f"s3://{bucket}/tree"
    assert aws.aws("s3", "sync", "--no-progress", tree, url).count(b"upload:") == 3
    assert aws.aws("s3", "sync", tree, url) == b"", "nothing changed"
    (tree / "a").write_text("changed")
    (tree / "b c").unlink()
    synced = aws.aws("s3", "sync", "--no-progress", "--delete", tree, url)
    assert synced.count(b"upload:") == 1 and synced.count(b"delete:") == 1
    aws.aws("s3", "sync", url, back)
    assert read_tree(back) == read_tree(tree)
    assert aws.aws("s3", "sync", url, back) == b""


def test_pipe_in_and_out(aws, bucket, rng):
    body = rng.randbytes(20_000_000)
    aws.aws("s3", "cp", "-", f"s3://{bucket}/k", stdin=body)
    assert aws.aws("s3", "cp", f"s3://{bucket}/k", "-") == body


def test_copy_move_and_list(aws, s3, bucket, sized_files):
    large = max(sized_files.values(), key=lambda path: path.stat().st_size)
    aws.put(bucket, "a", large)
    aws.aws("s3", "cp", "--only-show-errors", f"s3://{bucket}/a", f"s3://{bucket}/b")
    aws.aws("s3", "mv", "--only-show-errors", f"s3://{bucket}/a", f"s3://{bucket}/folder/c")
    listing = aws.aws("s3", "ls", f"s3://{bucket}/").decode()
    assert "PRE folder/" in listing and " b\n" in listing and " a\n" not in listing
    summary = aws.aws("s3", "ls", "--recursive", "--summarize", f"s3://{bucket}").decode()
    assert "Total Objects: 2" in summary and f"Total Size: {2 * large.stat().st_size}" in summary
    assert s3.get_object(Bucket=bucket, Key="folder/c")["Body"].read() == large.read_bytes()


def test_bucket_is_removed_with_its_objects(aws, s3, make_bucket):
    bucket = make_bucket()
    for number in range(20):
        s3.put_object(Bucket=bucket, Key=f"k{number}", Body=b"x")
    aws.aws("s3", "rb", "--force", f"s3://{bucket}")
    assert bucket not in aws.buckets()


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksum_of_choice(aws, bucket, tmp_path, rng, algorithm):
    file = tmp_path / "file"
    file.write_bytes(rng.randbytes(20_000_000))
    aws.aws("s3", "cp", "--only-show-errors", "--checksum-algorithm", algorithm, file, f"s3://{bucket}/k")
    attributes = json.loads(
        aws.aws(
            "s3api",
            "get-object-attributes",
            "--bucket",
            bucket,
            "--key",
            "k",
            "--object-attributes",
            "Checksum",
            "ObjectParts",
            "ObjectSize",
        )
    )
    assert attributes["ObjectSize"] == 20_000_000 and attributes["ObjectParts"]["TotalPartsCount"] == 3
    assert f"Checksum{algorithm}" in attributes["Checksum"]
    aws.aws("s3", "cp", "--only-show-errors", "--checksum-mode", "ENABLED", f"s3://{bucket}/k", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_metadata_and_headers(aws, s3, bucket, tmp_path):
    file = write_tree(tmp_path, ["file.txt"]) / "file.txt"
    aws.aws(
        "s3",
        "cp",
        "--metadata",
        "a=1,b=2",
        "--cache-control",
        "no-cache",
        "--content-type",
        "text/x",
        file,
        f"s3://{bucket}/k",
    )
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["Metadata"], head["CacheControl"], head["ContentType"]) == ({"a": "1", "b": "2"}, "no-cache", "text/x")
