"""What every client must be able to do: each of these tests runs for each of them."""

import filecmp

import pytest

from clients.trees import read_tree
from support.keys import UNUSUAL_KEYS


def stored_keys(s3, bucket):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]


@pytest.mark.timeout(600)
def test_round_trip_at_every_size(client, bucket, sized_files, tmp_path):
    files = {f"sized/{name}": path for name, path in sized_files.items()}
    client.upload(bucket, files)
    back = {key: tmp_path / path.name for key, path in files.items()}
    client.download(bucket, back)
    different = [key for key in files if not filecmp.cmp(files[key], back[key], shallow=False)]
    assert not different
    assert sorted(client.keys(bucket, "sized/")) == sorted(files)


@pytest.mark.timeout(600)
def test_unusual_keys(client, s3, bucket, tmp_path):
    keys = {name: key for name, key in UNUSUAL_KEYS.items() if name not in client.cannot}
    files = {}
    for number, (name, key) in enumerate(keys.items()):
        files[key] = tmp_path / f"up-{number}"
        files[key].write_text(name)
    client.upload(bucket, files)
    for found in (stored_keys(s3, bucket), client.keys(bucket)):
        assert [key for key in files if key not in found] == [] == [key for key in found if key not in files]
    back = {key: tmp_path / f"down-{number}" for number, key in enumerate(files)}
    client.download(bucket, back)
    assert {key: path.read_text() for key, path in back.items()} == {
        key: path.read_text() for key, path in files.items()
    }


@pytest.mark.timeout(600)
def test_tree_of_more_keys_than_a_page(client, s3, bucket, many_files, tmp_path):
    client.upload_tree(many_files, bucket, "tree/")
    s3.put_object(Bucket=bucket, Key="other/kept", Body=b"kept")
    expected = read_tree(many_files)
    assert sorted(client.keys(bucket, "tree/")) == sorted("tree/" + name for name in expected)
    back = tmp_path / "back"
    back.mkdir()
    client.download_tree(bucket, "tree/", back)
    assert read_tree(back) == expected
    client.remove_all(bucket, "tree/")
    assert stored_keys(s3, bucket) == ["other/kept"]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_presigned_url(client, s3, raw, bucket, method):
    place = {"Bucket": bucket, "Key": "a b/ü+%"}
    if method == "GET":
        s3.put_object(**place, Body=b"hello")
    url = client.presign(*place.values(), method)
    if url is None:
        pytest.skip(f"{client.name} makes no URLs for {method}")
    if method == "GET":
        answer = raw.open_url("GET", url)
        assert answer.body == b"hello", (url, answer)
    else:
        answer = raw.open_url("PUT", url, b"hello")
        assert answer.status == 200, (url, answer)
        assert s3.get_object(**place)["Body"].read() == b"hello"


def test_buckets(client, bucket_names):
    name = next(bucket_names)
    client.make_bucket(name)
    assert name in client.buckets()
    client.remove_bucket(name)
    assert name not in client.buckets()


def test_missing_key_downloads_nothing(client, bucket, tmp_path):
    if client.missing_is_silent:
        client.get(bucket, "missing", tmp_path / "missing")
    else:
        with pytest.raises(AssertionError, match="ended with"):
            client.get(bucket, "missing", tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_overwrite(client, s3, bucket, tmp_path):
    file = tmp_path / "file"
    for text in ("first", "second, longer", "3"):
        file.write_text(text)
        client.put(bucket, "k", file)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == text.encode()
