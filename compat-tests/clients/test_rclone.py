"""What only rclone does: sync, check, and a mount."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from clients.adapters import BIN, Rclone
from clients.trees import read_tree, write_tree
from support.wait import wait_until


@pytest.fixture
def rclone(make_client):
    return make_client(Rclone)


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree", ["a", "b c", "d/ü", "d/e+f", "x/y/z/100%"])


def test_sync_and_check(rclone, s3, bucket, tree):
    remote = f"s3:{bucket}/tree"
    rclone.rclone("sync", tree, remote)
    rclone.rclone("check", tree, remote)
    rclone.rclone("check", "--download", tree, remote)
    (tree / "a").write_text("changed")
    (tree / "b c").unlink()
    assert rclone.rclone("check", tree, remote, check=False).returncode != 0
    rclone.rclone("sync", tree, remote)
    rclone.rclone("check", "--download", tree, remote)
    # A second sync finds nothing to do, by the modification times that rclone keeps as metadata.
    again = rclone.rclone("sync", "-v", "--stats-one-line", tree, remote, check=False)
    assert again.returncode == 0 and b"Copied" not in again.stderr
    assert len(rclone.keys(bucket, "tree/")) == 4


def test_sync_down(rclone, bucket, tree, tmp_path):
    rclone.rclone("copy", tree, f"s3:{bucket}/tree")
    rclone.rclone("sync", f"s3:{bucket}/tree", tmp_path / "back")
    assert read_tree(tmp_path / "back") == read_tree(tree)


def test_large_files_are_checked_by_their_bytes(rclone, bucket, sized_files):
    folder = next(iter(sized_files.values())).parent
    rclone.rclone("copy", folder, f"s3:{bucket}/sized")
    rclone.rclone("check", "--download", folder, f"s3:{bucket}/sized")


def test_stream_of_unknown_length(rclone, bucket, rng):
    body = rng.randbytes(30_000_000)
    rclone.rclone("rcat", f"s3:{bucket}/k", stdin=body)
    assert rclone.rclone("cat", f"s3:{bucket}/k") == body
    assert rclone.rclone("cat", "--offset", 1000, "--count", 50, f"s3:{bucket}/k") == body[1000:1050]


def test_server_side_copy_and_move(rclone, s3, bucket, sized_files):
    large = max(sized_files.values(), key=lambda path: path.stat().st_size)
    rclone.put(bucket, "a", large)
    rclone.rclone("copyto", f"s3:{bucket}/a", f"s3:{bucket}/b")
    rclone.rclone("moveto", f"s3:{bucket}/b", f"s3:{bucket}/c")
    assert sorted(rclone.keys(bucket)) == ["a", "c"]
    assert s3.get_object(Bucket=bucket, Key="c")["Body"].read() == large.read_bytes()


def test_unfinished_uploads_are_cleaned_up(rclone, s3, bucket):
    s3.create_multipart_upload(Bucket=bucket, Key="k")
    rclone.rclone("backend", "cleanup", "-o", "max-age=0s", f"s3:{bucket}")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


# --- mount ---


def why_no_mount():
    if not Path("/dev/fuse").exists():
        return "no /dev/fuse"
    if not shutil.which("fusermount3"):
        return "no fusermount3 (package fuse3)"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return None


@pytest.fixture
def mounted(rclone, bucket, tmp_path):
    reason = why_no_mount()
    if reason:
        pytest.skip(f"rclone mount: {reason}")
    folder = tmp_path / "mounted"
    folder.mkdir()
    log = tmp_path / "mount.log"
    (rclone.home / "rclone.conf").touch()
    command = [
        BIN / "rclone",
        "mount",
        "--vfs-cache-mode",
        "writes",
        "--vfs-write-back",
        "0s",
        "--dir-cache-time",
        "0s",
        "--cache-dir",
        tmp_path / "cache",
        "--log-file",
        log,
        f"s3:{bucket}",
        folder,
    ]
    process = subprocess.Popen([str(word) for word in command], env=rclone.env())
    try:
        with rclone.watched():
            wait_until(lambda: folder.is_mount() or process.poll() is not None, 30, "the mount")
            assert process.poll() is None, log.read_text()
            yield folder
    finally:
        subprocess.run(["fusermount3", "-u", "-z", folder], check=False)
        process.terminate()
        process.wait(30)


def test_mount_reads_and_writes(mounted, s3, bucket, rng):
    body = rng.randbytes(20_000_000)
    s3.put_object(Bucket=bucket, Key="there/before", Body=body)
    assert (mounted / "there" / "before").read_bytes() == body
    with (mounted / "there" / "before").open("rb") as file:
        file.seek(12_345_678)
        assert file.read(1000) == body[12_345_678:12_346_678]

    (mounted / "new ü").mkdir()
    (mounted / "new ü" / "file").write_bytes(body)

    def arrived():
        return any(
            entry["Key"] == "new ü/file" and entry["Size"] == len(body)
            for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        )

    wait_until(arrived, 30, "the written file in the bucket")
    assert s3.get_object(Bucket=bucket, Key="new ü/file")["Body"].read() == body
    (mounted / "new ü" / "file").rename(mounted / "renamed")
    wait_until(
        lambda: {e["Key"] for e in s3.list_objects_v2(Bucket=bucket)["Contents"]} >= {"renamed"}, 30, "the rename"
    )
    assert sorted(path.name for path in mounted.iterdir() if path.is_file()) == ["renamed"]
    (mounted / "renamed").unlink()
    wait_until(
        lambda: [e["Key"] for e in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["there/before"], 30, "the removal"
    )
