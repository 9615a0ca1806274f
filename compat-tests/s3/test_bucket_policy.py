"""Bucket policies: stored as they were written, refused when they are none, and obeyed everywhere."""

import json
from urllib.request import Request, urlopen

import pytest

from support.form import Form
from support.multipart import Upload
from support.policy import anonymous, document, put, statement
from support.raw import Raw
from support.refusal import refused

pytestmark = pytest.mark.op("PutBucketPolicy", "GetBucketPolicy", "DeleteBucketPolicy")


@pytest.fixture(scope="session")
def other(stranger):
    return stranger.client()


@pytest.fixture(scope="session")
def nobody(endpoint):
    return anonymous(endpoint)


@pytest.fixture
def held(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a/1", Body=b"one")
    s3.put_object(Bucket=bucket, Key="b/2", Body=b"two", Tagging="open=yes&x=1")
    return bucket


def test_a_policy_is_kept_as_it_was_written_until_it_is_deleted(s3, bucket):
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)
    text = json.dumps({"Statement": [statement(bucket, "s3:GetObject")], "Version": "2012-10-17"}, indent=1)
    s3.put_bucket_policy(Bucket=bucket, Policy=text)
    answer = s3.get_bucket_policy(Bucket=bucket)
    assert answer["Policy"] == text
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/json"
    assert s3.delete_bucket_policy(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)
    s3.delete_bucket_policy(Bucket=bucket)


@pytest.mark.parametrize(
    "change",
    [
        {"Effect": "Perhaps"},
        {"Principal": "bob"},
        {"Principal": {"AWS": "arn:aws:iam::nobody-here-of-that-name:root"}},
        {"Action": "s3:Frobnicate"},
        {"Action": "s3:ListBucket"},
        {"Resource": "arn:aws:s3:::somebody-elses-bucket/*"},
        {"Condition": {"StringIs": {"aws:Referer": "x"}}},
        {"Condition": {"StringEquals": {"s3:no-such-key": "x"}}},
        {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/99"}}},
        {"Colour": "red"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_no_policy_is_refused(s3, bucket, change):
    with refused("MalformedPolicy", 400):
        put(s3, bucket, statement(bucket, "s3:GetObject") | change)
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)


@pytest.mark.parametrize("text", ["", "x", "{", "[]", "{}", '{"Version":"2012-10-17"}'])
def test_what_is_no_json_or_has_no_statement_is_refused(s3, bucket, text):
    with refused({"MalformedPolicy", "MissingRequestBodyError"}, 400):
        s3.put_bucket_policy(Bucket=bucket, Policy=text)


def test_a_policy_has_a_size(s3, bucket):
    long = statement(bucket, "s3:GetObject", Sid="x" * 21_000)
    with refused({"MalformedPolicy", "PolicyTooLarge", "EntityTooLarge"}, 400):
        put(s3, bucket, long)


def test_everybody_may_do_what_is_allowed_and_no_more(s3, nobody, other, held):
    for client in (nobody, other):
        with refused("AccessDenied"):
            client.get_object(Bucket=held, Key="a/1")
    put(s3, held, statement(held, "s3:GetObject", "/a/*"))
    for client in (nobody, other):
        assert client.get_object(Bucket=held, Key="a/1")["Body"].read() == b"one"
        assert client.head_object(Bucket=held, Key="a/1")["ContentLength"] == 3
        for call in (
            lambda c: c.get_object(Bucket=held, Key="b/2"),
            lambda c: c.put_object(Bucket=held, Key="a/1", Body=b"x"),
            lambda c: c.delete_object(Bucket=held, Key="a/1"),
            lambda c: c.list_objects_v2(Bucket=held),
            lambda c: c.get_bucket_policy(Bucket=held),
            lambda c: c.delete_bucket_policy(Bucket=held),
        ):
            with refused("AccessDenied"):
                call(client)
    s3.delete_bucket_policy(Bucket=held)
    with refused("AccessDenied"):
        nobody.get_object(Bucket=held, Key="a/1")


def test_what_is_missing_is_shown_to_those_who_may_list(s3, nobody, held):
    put(s3, held, statement(held, "s3:GetObject"))
    with refused("AccessDenied"):
        nobody.get_object(Bucket=held, Key="missing")
    with refused("403"):
        nobody.head_object(Bucket=held, Key="missing")
    put(s3, held, statement(held, "s3:GetObject"), statement(held, "s3:ListBucket", ""))
    with refused("NoSuchKey"):
        nobody.get_object(Bucket=held, Key="missing")
    with refused("404"):
        nobody.head_object(Bucket=held, Key="missing")


def test_a_denial_wins_also_over_the_owner(s3, held):
    put(
        s3,
        held,
        statement(held, "s3:GetObject"),
        statement(held, "s3:GetObject", "/b/*", effect="Deny"),
    )
    assert s3.get_object(Bucket=held, Key="a/1")["Body"].read() == b"one"
    with refused("AccessDenied"):
        s3.get_object(Bucket=held, Key="b/2")


def test_an_owner_that_denies_itself_can_take_it_back(s3, held):
    put(s3, held, statement(held, "s3:*", "", "/*", effect="Deny"))
    with refused("AccessDenied"):
        s3.list_objects_v2(Bucket=held)
    with refused("AccessDenied"):
        s3.get_object(Bucket=held, Key="a/1")
    s3.delete_bucket_policy(Bucket=held)
    assert s3.list_objects_v2(Bucket=held)["KeyCount"] == 2


def test_another_account_is_named_by_its_id(s3, nobody, other, held):
    owner = other.list_buckets()["Owner"]["ID"]
    put(s3, held, statement(held, ["s3:GetObject", "s3:PutObject"], principal={"CanonicalUser": owner}))
    assert other.get_object(Bucket=held, Key="a/1")["Body"].read() == b"one"
    other.put_object(Bucket=held, Key="a/theirs", Body=b"new")
    with refused("AccessDenied"):
        nobody.get_object(Bucket=held, Key="a/1")
    with refused("AccessDenied"):
        other.delete_object(Bucket=held, Key="a/1")


@pytest.mark.op("DeleteObjects")
def test_each_key_of_a_batch_is_asked_for_itself(s3, nobody, held):
    put(s3, held, statement(held, "s3:DeleteObject", "/a/*"))
    answer = nobody.delete_objects(Bucket=held, Delete={"Objects": [{"Key": "a/1"}, {"Key": "b/2"}]})
    assert [deleted["Key"] for deleted in answer["Deleted"]] == ["a/1"]
    assert [(error["Key"], error["Code"]) for error in answer["Errors"]] == [("b/2", "AccessDenied")]
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=held)["Contents"]] == ["b/2"]


@pytest.mark.op("CopyObject", "UploadPartCopy")
def test_a_copy_needs_its_source_and_its_tags(s3, other, held, make_bucket):
    theirs = make_bucket(other)
    untagged, tagged = {"Bucket": held, "Key": "a/1"}, {"Bucket": held, "Key": "b/2"}
    with refused("AccessDenied"):
        other.copy_object(Bucket=theirs, Key="k", CopySource=untagged)
    put(s3, held, statement(held, "s3:GetObject"))
    other.copy_object(Bucket=theirs, Key="k", CopySource=untagged)
    assert other.get_object(Bucket=theirs, Key="k")["Body"].read() == b"one"
    with refused("AccessDenied"):
        other.copy_object(Bucket=theirs, Key="k", CopySource=tagged)
    other.copy_object(Bucket=theirs, Key="k", CopySource=tagged, TaggingDirective="REPLACE", Tagging="a=b")
    Upload(other, theirs, "p").copy(1, untagged)
    put(s3, held, statement(held, ["s3:GetObject", "s3:GetObjectTagging"]))
    other.copy_object(Bucket=theirs, Key="k", CopySource=tagged)
    assert len(other.get_object_tagging(Bucket=theirs, Key="k")["TagSet"]) == 2


def test_conditions_on_the_request(s3, nobody, held):
    put(
        s3,
        held,
        statement(held, "s3:ListBucket", "", condition={"StringLike": {"s3:prefix": "a/*"}}),
        statement(held, "s3:GetObject", condition={"StringEquals": {"aws:UserAgent": "the right one"}}),
    )
    assert nobody.list_objects_v2(Bucket=held, Prefix="a/")["KeyCount"] == 1
    for prefix in ({}, {"Prefix": "b/"}):
        with refused("AccessDenied"):
            nobody.list_objects_v2(Bucket=held, **prefix)
    with refused("AccessDenied"):
        nobody.get_object(Bucket=held, Key="a/1")
    url = f"{nobody.meta.endpoint_url}/{held}/a/1"
    assert urlopen(Request(url, headers={"User-Agent": "the right one"}), timeout=30).read() == b"one"


def test_conditions_on_where_it_comes_from(s3, nobody, held):
    def only(condition):
        put(s3, held, statement(held, "s3:GetObject", condition=condition))

    only({"IpAddress": {"aws:SourceIp": ["127.0.0.0/8", "::1/128"]}})
    assert nobody.get_object(Bucket=held, Key="a/1")["Body"].read() == b"one"
    only({"NotIpAddress": {"aws:SourceIp": ["127.0.0.0/8", "::1/128"]}})
    with refused("AccessDenied"):
        nobody.get_object(Bucket=held, Key="a/1")
    only({"Bool": {"aws:SecureTransport": "false"}})
    assert nobody.get_object(Bucket=held, Key="a/1")["Body"].read() == b"one"
    only({"Bool": {"aws:SecureTransport": "true"}})
    with refused("AccessDenied"):
        nobody.get_object(Bucket=held, Key="a/1")


def test_nobody_says_for_itself_where_it_comes_from(s3, endpoint, held):
    put(s3, held, statement(held, "s3:GetObject", condition={"IpAddress": {"aws:SourceIp": "203.0.113.7"}}))
    answer = Raw(endpoint).request(
        "GET", f"/{held}/a/1", headers={"x-forwarded-for": "203.0.113.7"}, anonymous=True
    )
    assert answer.status == 403


@pytest.mark.op("GetObjectTagging", "PutObjectTagging")
def test_conditions_on_tags(s3, nobody, held):
    put(
        s3,
        held,
        statement(held, "s3:GetObject", condition={"StringEquals": {"s3:ExistingObjectTag/open": "yes"}}),
        statement(
            held,
            "s3:PutObjectTagging",
            condition={"ForAllValues:StringEquals": {"s3:RequestObjectTagKeys": ["open", "x"]}},
        ),
    )
    assert nobody.get_object(Bucket=held, Key="b/2")["Body"].read() == b"two"
    with refused("AccessDenied"):
        nobody.get_object(Bucket=held, Key="a/1")
    with refused("AccessDenied"):
        nobody.put_object_tagging(Bucket=held, Key="a/1", Tagging={"TagSet": [{"Key": "no", "Value": "1"}]})
    nobody.put_object_tagging(Bucket=held, Key="a/1", Tagging={"TagSet": [{"Key": "open", "Value": "yes"}]})
    assert nobody.get_object(Bucket=held, Key="a/1")["Body"].read() == b"one"


def test_conditions_on_what_is_written(s3, other, bucket):
    put(
        s3,
        bucket,
        statement(bucket, ["s3:PutObject", "s3:PutObjectTagging"]),
        statement(
            bucket,
            "s3:PutObject",
            effect="Deny",
            condition={"StringEquals": {"s3:x-amz-storage-class": "REDUCED_REDUNDANCY"}},
        ),
        statement(
            bucket, "s3:PutObject", effect="Deny", condition={"StringEquals": {"s3:RequestObjectTag/secret": "yes"}}
        ),
    )
    other.put_object(Bucket=bucket, Key="k", Body=b"x")
    other.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="secret=no")
    with refused("AccessDenied"):
        other.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="REDUCED_REDUNDANCY")
    with refused("AccessDenied"):
        other.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="secret=yes")


def test_versions_are_asked_for_apart(s3, nobody, bucket):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"]
    put(s3, bucket, statement(bucket, ["s3:GetObject", "s3:DeleteObject"]))
    assert nobody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
    with refused("AccessDenied"):
        nobody.get_object(Bucket=bucket, Key="k", VersionId=version)
    with refused("AccessDenied"):
        nobody.delete_object(Bucket=bucket, Key="k", VersionId=version)
    answer = nobody.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": version}]})
    assert [error["Code"] for error in answer["Errors"]] == ["AccessDenied"]
    put(s3, bucket, statement(bucket, "s3:GetObjectVersion"))
    assert nobody.get_object(Bucket=bucket, Key="k", VersionId=version)["Body"].read() == b"1"
    with refused("AccessDenied"):
        nobody.get_object(Bucket=bucket, Key="k")


@pytest.mark.op("PutBucketPolicy")
def test_the_expected_owner_is_the_buckets(s3, other, held):
    put(s3, held, statement(held, "s3:GetObject"))
    mine, theirs = s3.list_buckets()["Owner"]["ID"], other.list_buckets()["Owner"]["ID"]
    assert other.get_object(Bucket=held, Key="a/1", ExpectedBucketOwner=mine)["Body"].read() == b"one"
    with refused("AccessDenied"):
        other.get_object(Bucket=held, Key="a/1", ExpectedBucketOwner=theirs)
    with refused("AccessDenied"):
        s3.get_object(Bucket=held, Key="a/1", ExpectedBucketOwner=theirs)


def test_a_presigned_link_has_the_rights_of_who_signed_it(s3, other, held):
    url = other.generate_presigned_url("get_object", Params={"Bucket": held, "Key": "a/1"})
    with pytest.raises(Exception, match="403"):
        urlopen(url, timeout=30)
    put(s3, held, statement(held, "s3:GetObject", condition={"StringEquals": {"s3:authType": "REST-QUERY-STRING"}}))
    assert urlopen(url, timeout=30).read() == b"one"
    with refused("AccessDenied"):
        other.get_object(Bucket=held, Key="a/1")


@pytest.mark.op("PostObject")
def test_a_form_that_nobody_signed_needs_everybodys_permission(s3, raw, bucket):
    post = lambda: Form(raw, bucket).post(b"hello", fields={"key": "up"})
    assert post().code == "AccessDenied"
    put(s3, bucket, statement(bucket, "s3:PutObject"))
    assert post().status == 204
    assert s3.get_object(Bucket=bucket, Key="up")["Body"].read() == b"hello"


@pytest.mark.op("GetBucketPolicyStatus")
def test_a_policy_is_public_or_not(s3, other, bucket):
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy_status(Bucket=bucket)
    owner = {"CanonicalUser": other.list_buckets()["Owner"]["ID"]}
    for made, public in [
        (statement(bucket, "s3:GetObject"), True),
        (statement(bucket, "s3:GetObject", principal=owner), False),
        (statement(bucket, "s3:GetObject", effect="Deny"), False),
        (statement(bucket, "s3:GetObject", condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/24"}}), False),
        (statement(bucket, "s3:GetObject", condition={"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}), True),
    ]:
        put(s3, bucket, made)
        assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] == public, made


def test_document_is_compared_with_its_digest(s3, raw, bucket):
    text = document(statement(bucket, "s3:GetObject")).encode()
    answer = raw.request(
        "PUT", f"/{bucket}", {"policy": ""}, headers={"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}, body=text
    )
    assert answer.code == "BadDigest"
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)
