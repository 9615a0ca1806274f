"""What only s3cmd does."""

import pytest

from clients.adapters import S3cmd
from clients.trees import read_tree, write_tree


@pytest.fixture
def s3cmd(make_client):
    return make_client(S3cmd)


def test_sync(s3cmd, bucket, tmp_path):
    tree = write_tree(tmp_path / "tree", ["a", "b c", "d/ü"])
    url = f"s3://{bucket}/tree/"
    assert s3cmd.s3cmd("sync", f"{tree}/", url).count(b"upload:") == 3
    assert b"upload:" not in s3cmd.s3cmd("sync", f"{tree}/", url), "nothing changed"
    (tree / "b c").unlink()
    assert s3cmd.s3cmd("sync", "--delete-removed", f"{tree}/", url).count(b"delete:") == 1
    (tmp_path / "back").mkdir()
    s3cmd.s3cmd("sync", url, f"{tmp_path}/back/")
    assert read_tree(tmp_path / "back") == read_tree(tree)


def test_info_copy_move_and_modify(s3cmd, s3, bucket, tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("hello")
    s3cmd.s3cmd("put", "--add-header", "x-amz-meta-a: 1", "--mime-type", "text/x", file, f"s3://{bucket}/k")
    assert b"text/x" in s3cmd.s3cmd("info", f"s3://{bucket}/k")
    s3cmd.s3cmd("cp", f"s3://{bucket}/k", f"s3://{bucket}/copy")
    s3cmd.s3cmd("mv", f"s3://{bucket}/k", f"s3://{bucket}/moved")
    s3cmd.s3cmd("modify", "--add-header", "x-amz-meta-b: 2", f"s3://{bucket}/moved")
    assert sorted(s3cmd.keys(bucket)) == ["copy", "moved"]
    assert s3.head_object(Bucket=bucket, Key="moved")["Metadata"]["b"] == "2"
    assert s3.get_object(Bucket=bucket, Key="moved")["Body"].read() == b"hello"


def test_multipart_uploads_are_listed_and_aborted(s3cmd, s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    assert upload.encode() in s3cmd.s3cmd("multipart", f"s3://{bucket}")
    s3cmd.s3cmd("abortmp", f"s3://{bucket}/k", upload)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_disk_usage(s3cmd, s3, bucket):
    for number in range(3):
        s3.put_object(Bucket=bucket, Key=f"k{number}", Body=b"x" * 1000)
    assert s3cmd.s3cmd("du", f"s3://{bucket}").split()[0] == b"3000"
