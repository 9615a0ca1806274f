"""ListObjects v1 and v2 against a model, for many key sets and page sizes."""

import pytest

from support.keys import UNUSUAL_KEYS
from support.listing import expected_entries
from support.raw import assert_refused
from support.refusal import refused

pytestmark = pytest.mark.op("ListObjects", "ListObjectsV2")


def fill(s3, bucket, keys):
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    return sorted(keys, key=str.encode)


def entries(page):
    """Keys and common prefixes of a page in one order."""
    keys = [entry["Key"] for entry in page.get("Contents", [])]
    prefixes = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
    assert keys == sorted(keys, key=str.encode) and prefixes == sorted(prefixes, key=str.encode)
    return sorted(keys + prefixes, key=str.encode)


def walk_v2(s3, bucket, page_size, **query):
    found, token = [], None
    for _ in range(10_000):
        page = s3.list_objects_v2(
            Bucket=bucket, MaxKeys=page_size, **query, **({"ContinuationToken": token} if token else {})
        )
        new = entries(page)
        assert page["KeyCount"] == len(new) <= page_size and page["MaxKeys"] == page_size
        assert new or not page["IsTruncated"], "an empty page that claims more"
        found += new
        token = page.get("NextContinuationToken")
        assert page["IsTruncated"] == (token is not None)
        if not token:
            return found
    raise AssertionError("the listing does not end")


def walk_v1(s3, bucket, page_size, **query):
    found = []
    for _ in range(10_000):
        page = s3.list_objects(Bucket=bucket, MaxKeys=page_size, **query)
        new = entries(page)
        assert len(new) <= page_size
        found += new
        if not page["IsTruncated"]:
            return found
        # NextMarker may be left out without a delimiter; then the last key is the marker.
        assert "NextMarker" in page or "Delimiter" not in query
        query["Marker"] = page.get("NextMarker", new[-1])
    raise AssertionError("the listing does not end")


ALPHABETS = {
    "few letters": "ab/",
    "slashes and neighbours": "a/./-0",  # characters just below and above the delimiter
    "unicode": "aé/\U0001f98a日\uffee",  # UTF-8 order is not UTF-16 order
    "encoded": "a %+&<>\"'?#",
}


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_listing_agrees_with_the_model(s3, bucket, rng, alphabet):
    letters = ALPHABETS[alphabet]
    keys = {"".join(rng.choices(letters, k=rng.randint(1, 8))) for _ in range(70)}
    keys = fill(s3, bucket, keys)
    prefixes = ["", keys[0][:1], rng.choice(keys)[:2], rng.choice(keys), "zz-none"]
    for prefix in prefixes:
        for delimiter in (None, "/", rng.choice(letters), "a/"):
            query = {"Prefix": prefix} | ({"Delimiter": delimiter} if delimiter else {})
            expected = expected_entries(keys, prefix, delimiter)
            for page_size in rng.sample([1, 2, 3, 7, 50, 1000], 3):
                assert walk_v2(s3, bucket, page_size, **query) == expected, (query, page_size)
                assert walk_v1(s3, bucket, page_size, **query) == expected, (query, page_size)


def test_start_after_and_marker_agree_with_the_model(s3, bucket, rng):
    keys = fill(s3, bucket, {"".join(rng.choices("ab/c", k=rng.randint(1, 6))) for _ in range(60)})
    starts = [*rng.sample(keys, 10), "", "0", "a", "b/", "zzz", keys[-1]]
    for start in starts:
        expected = [key for key in keys if key.encode() > start.encode()]
        for page_size in (3, 1000):
            assert walk_v2(s3, bucket, page_size, StartAfter=start) == expected
            assert walk_v1(s3, bucket, page_size, Marker=start) == expected


def test_more_than_1000_keys_need_a_second_page(s3, bucket, pool):
    keys = [f"k{number:04}" for number in range(1005)]
    list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b""), keys))
    page = s3.list_objects_v2(Bucket=bucket)
    assert page["KeyCount"] == 1000 and page["MaxKeys"] == 1000 and page["IsTruncated"]
    rest = s3.list_objects_v2(Bucket=bucket, ContinuationToken=page["NextContinuationToken"])
    assert entries(page) + entries(rest) == keys
    asked_for_more = s3.list_objects_v2(Bucket=bucket, MaxKeys=5000)
    assert asked_for_more["KeyCount"] == 1000 and asked_for_more["IsTruncated"]


def test_entry_describes_the_object(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    entry = s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert (entry["Key"], entry["Size"], entry["ETag"], entry["StorageClass"]) == ("k", 5, put["ETag"], "STANDARD")
    head = s3.head_object(Bucket=bucket, Key="k")
    assert entry["LastModified"].replace(microsecond=0) == head["LastModified"]


def test_owner_is_in_v1_and_in_v2_only_on_request(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    owner = s3.list_buckets()["Owner"]["ID"]
    assert s3.list_objects(Bucket=bucket)["Contents"][0]["Owner"]["ID"] == owner
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"]["ID"] == owner


def test_query_is_echoed(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"")
    page = s3.list_objects_v2(Bucket=bucket, Prefix="a", Delimiter="/", StartAfter="A", MaxKeys=7)
    assert (page["Name"], page["Prefix"], page["Delimiter"], page["StartAfter"], page["MaxKeys"]) == (
        bucket,
        "a",
        "/",
        "A",
        7,
    )
    assert entries(page) == ["a/"]
    page = s3.list_objects(Bucket=bucket, Prefix="a", Delimiter="/", Marker="A", MaxKeys=7)
    assert (page["Name"], page["Prefix"], page["Delimiter"], page["Marker"], page["MaxKeys"]) == (
        bucket,
        "a",
        "/",
        "A",
        7,
    )


def test_encoding_type_url_encodes_keys_prefixes_and_delimiter(raw, s3, bucket):
    keys = ["a b", "a+b", "ä/x", "\x01ctl", "a&<b>", "p%/q"]
    fill(s3, bucket, keys)
    answer = raw.request("GET", f"/{bucket}", {"list-type": "2", "encoding-type": "url"})
    assert answer.xml.findtext("EncodingType") == "url"
    found = {element.text for element in answer.xml.iterfind("Contents/Key")}
    assert found >= {"a%2Bb", "%01ctl", "a%26%3Cb%3E", "p%25/q", "%C3%A4/x"} and found & {"a+b", "a%20b"}
    answer = raw.request("GET", f"/{bucket}", {"encoding-type": "url", "delimiter": "/", "prefix": "ä"})
    assert answer.xml.findtext("Prefix") == "%C3%A4"
    assert [element.text for element in answer.xml.iterfind("CommonPrefixes/Prefix")] == ["%C3%A4/"]
    s3.delete_object(Bucket=bucket, Key="\x01ctl")  # XML cannot name it, so DeleteObjects cannot either


def test_without_encoding_type_keys_are_plain(raw, s3, bucket):
    keys = fill(s3, bucket, ["a b", "a+b", "ä/x", "a&<b>", "p%/q", "\U0001f98a"])
    answer = raw.request("GET", f"/{bucket}", {"list-type": "2"})
    assert [element.text for element in answer.xml.iterfind("Contents/Key")] == keys
    assert answer.xml.find("EncodingType") is None


def test_unusual_keys_page_by_page(s3, bucket):
    keys = fill(s3, bucket, list(UNUSUAL_KEYS.values()))
    assert walk_v2(s3, bucket, 1) == keys
    assert walk_v1(s3, bucket, 1) == keys
    for key in keys:
        assert key in entries(s3.list_objects_v2(Bucket=bucket, Prefix=key))


def test_listing_while_keys_come_and_go_is_steady(s3, bucket):
    keys = fill(s3, bucket, [f"k{n:02}" for n in range(20)])
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=10)
    s3.delete_object(Bucket=bucket, Key=keys[9])  # the last one seen: the token may not depend on it
    s3.put_object(Bucket=bucket, Key="k05x", Body=b"")
    s3.put_object(Bucket=bucket, Key="k15x", Body=b"")
    rest = s3.list_objects_v2(Bucket=bucket, ContinuationToken=page["NextContinuationToken"])
    assert entries(rest) == sorted([*keys[10:], "k15x"])


def test_zero_keys_asked_for(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    assert page["KeyCount"] == 0 and page["IsTruncated"] is False
    assert s3.list_objects(Bucket=bucket, MaxKeys=0)["IsTruncated"] is False


def test_empty_bucket(s3, bucket):
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert "Contents" not in s3.list_objects(Bucket=bucket)


@pytest.mark.parametrize(
    "query",
    [
        {"list-type": "2", "max-keys": "-1"},
        {"list-type": "2", "max-keys": "many"},
        {"max-keys": "-1"},
        {"list-type": "2", "continuation-token": "not a token"},
        {"list-type": "2", "encoding-type": "morse"},
        {"encoding-type": "morse"},
    ],
    ids=lambda query: " ".join(f"{k}={v}" for k, v in query.items()),
)
def test_bad_argument_is_refused(raw, bucket, query):
    assert_refused(raw.request("GET", f"/{bucket}", query), "InvalidArgument", 400)


def test_missing_bucket_is_refused(s3, bucket_names):
    name = next(bucket_names)
    with refused("NoSuchBucket"):
        s3.list_objects(Bucket=name)
    with refused("NoSuchBucket"):
        s3.list_objects_v2(Bucket=name)
