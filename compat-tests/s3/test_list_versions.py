"""ListObjectVersions: order, markers, prefixes, pages."""

import pytest

from support.refusal import refused

pytestmark = pytest.mark.op("ListObjectVersions")


@pytest.fixture
def filled(s3, bucket):
    """Keys with several versions and markers; returns (bucket, [(key, id)] in the order of the list)."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    expected = []
    for key in ["a", "a/1", "a/2", "b", "c/x", "c/y", "d", "ü"]:
        ids = [s3.put_object(Bucket=bucket, Key=key, Body=b"%d" % n)["VersionId"] for n in range(3)]
        ids.insert(1, None)
        ids[1] = ids[2]
        ids = [ids[0], ids[2], ids[3]]
        if key in ("b", "c/x"):
            ids.append(s3.delete_object(Bucket=bucket, Key=key)["VersionId"])
        expected += [(key, version) for version in reversed(ids)]
    return bucket, expected


def entries(page):
    """The page's versions and markers, merged by key as S3 orders them within each of the two lists."""
    return [(v["Key"], v["VersionId"]) for v in page.get("Versions", []) + page.get("DeleteMarkers", [])]


def pages(s3, **query):
    marker = {}
    for _ in range(200):
        page = s3.list_object_versions(**query, **marker)
        yield page
        if not page["IsTruncated"]:
            return
        marker = {"KeyMarker": page["NextKeyMarker"]}
        if page.get("NextVersionIdMarker"):
            marker["VersionIdMarker"] = page["NextVersionIdMarker"]
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_pages_of_any_size_hold_everything_once_and_in_order(s3, filled, size):
    bucket, expected = filled
    seen = []
    for page in pages(s3, Bucket=bucket, MaxKeys=size):
        found = entries(page)
        assert len(found) <= size
        seen.append(found)
    flat = [entry for page in seen for entry in page]
    assert sorted(flat) == sorted(expected)
    if size == 1:
        assert flat == expected
    else:
        for page in seen:
            assert sorted(page, key=expected.index) == expected[expected.index(min(page, key=expected.index)) :][: len(page)]


def test_versions_come_newest_first_and_one_is_latest(s3, filled):
    bucket, expected = filled
    page = s3.list_object_versions(Bucket=bucket, Prefix="a/1")
    assert entries(page) == [entry for entry in expected if entry[0] == "a/1"]
    assert [v["IsLatest"] for v in page["Versions"]] == [True, False, False]
    assert all(v["Size"] == 1 and v["ETag"] and v["StorageClass"] == "STANDARD" for v in page["Versions"])
    assert all(v["Owner"]["ID"] for v in page["Versions"])


def test_delete_markers_are_listed_apart(s3, filled):
    bucket, _ = filled
    page = s3.list_object_versions(Bucket=bucket)
    assert [(m["Key"], m["IsLatest"]) for m in page["DeleteMarkers"]] == [("b", True), ("c/x", True)]
    assert all(not v["IsLatest"] for v in page["Versions"] if v["Key"] in ("b", "c/x"))


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_delimiter_groups(s3, filled, size):
    bucket, expected = filled
    found, prefixes = [], []
    for page in pages(s3, Bucket=bucket, Delimiter="/", MaxKeys=size):
        found += entries(page)
        prefixes += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
    assert sorted(found) == sorted(entry for entry in expected if "/" not in entry[0])
    assert prefixes == ["a/", "c/"]


def test_a_page_begins_after_a_key(s3, filled):
    bucket, expected = filled
    page = s3.list_object_versions(Bucket=bucket, KeyMarker="b")
    assert sorted(entries(page)) == sorted(entry for entry in expected if entry[0] > "b")


def test_deleting_what_a_page_held_does_not_derail_the_next(s3, filled):
    bucket, expected = filled
    gone = []
    marker = {}
    for _ in range(50):
        page = s3.list_object_versions(Bucket=bucket, MaxKeys=4, **marker)
        for key, version in entries(page):
            s3.delete_object(Bucket=bucket, Key=key, VersionId=version)
            gone.append((key, version))
        if not page["IsTruncated"]:
            break
        marker = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
    assert sorted(gone) == sorted(expected)
    assert entries(s3.list_object_versions(Bucket=bucket)) == []


def test_a_version_marker_needs_a_key_marker(s3, filled):
    bucket, expected = filled
    with refused("InvalidArgument"):
        s3.list_object_versions(Bucket=bucket, VersionIdMarker=expected[0][1])


def test_unversioned_buckets_list_null_versions(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    page = s3.list_object_versions(Bucket=bucket)
    assert entries(page) == [("k", "null")] and page["Versions"][0]["IsLatest"] is True


def test_encoded_names(s3, raw, bucket):
    s3.put_object(Bucket=bucket, Key="a b\u0001ü", Body=b"x")
    answer = raw.request("GET", f"/{bucket}", query={"versions": "", "encoding-type": "url"})
    assert "<Key>a%20b%01%C3%BC</Key>" in answer.body.decode()
