"""Virtual-host style: the bucket's name in the Host header."""

import pytest

from support.raw import assert_refused


@pytest.fixture
def host(endpoint, bucket):
    if not endpoint.domain:
        pytest.skip("no domain for virtual hosts: give --domain")
    return f"{bucket}.{endpoint.domain}:{endpoint.address[1]}"


@pytest.mark.op("PutObject", "GetObject", "HeadObject", "DeleteObject", "ListObjectsV2")
def test_objects_in_the_bucket_that_the_host_names(s3, raw, bucket, host):
    assert raw.request("PUT", "/a b/ü", host=host, body=b"hello").status == 200
    assert s3.get_object(Bucket=bucket, Key="a b/ü")["Body"].read() == b"hello"
    assert raw.request("GET", "/a b/ü", host=host).body == b"hello"
    listing = raw.request("GET", "/", {"list-type": "2"}, host=host)
    assert [element.text for element in listing.xml.iterfind("Contents/Key")] == ["a b/ü"]
    assert raw.request("HEAD", "/", host=host).status == 200
    assert raw.presigned("GET", "/a b/ü", host=host).body == b"hello"
    assert raw.request("DELETE", "/a b/ü", host=host).status == 204
    assert_refused(raw.request("GET", "/a b/ü", host=host), "NoSuchKey", 404)


@pytest.mark.op("PutObject")
def test_key_that_looks_like_the_bucket(s3, raw, bucket, host):
    assert raw.request("PUT", f"/{bucket}/k", host=host, body=b"x").status == 200
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [f"{bucket}/k"]


@pytest.mark.op("CreateBucket", "DeleteBucket")
def test_bucket_made_and_deleted_by_host(s3, raw, endpoint, bucket_names, host):
    name = next(bucket_names)
    other = f"{name}.{endpoint.domain}:{endpoint.address[1]}"
    assert raw.request("PUT", "/", host=other).status == 200
    assert name in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    assert raw.request("DELETE", "/", host=other).status == 204
    assert_refused(raw.request("GET", "/", {"list-type": "2"}, host=other), "NoSuchBucket", 404)


@pytest.mark.op("ListBuckets")
def test_bare_domain_is_path_style(raw, bucket, endpoint, host):
    bare = f"{endpoint.domain}:{endpoint.address[1]}"
    names = raw.request("GET", "/", host=bare)
    assert bucket in [element.text for element in names.xml.iterfind("Buckets/Bucket/Name")]
    assert raw.request("PUT", f"/{bucket}/k", host=bare, body=b"x").status == 200


@pytest.mark.op("GetObject")
def test_host_is_part_of_what_is_signed(raw, bucket, endpoint, host):
    other = lambda pairs: [(n, f"other-{v}" if n == "host" else v) for n, v in pairs]
    assert_refused(raw.request("GET", "/k", host=host, edit=other), "SignatureDoesNotMatch", 403)
