"""What of public access a bucket blocks: new lists, lists there are, new policies, and policies there are."""

import pytest

from support.policy import anonymous, put, statement
from support.refusal import refused

pytestmark = pytest.mark.op("PutPublicAccessBlock", "GetPublicAccessBlock", "DeletePublicAccessBlock")
NAMES = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


@pytest.fixture(scope="session")
def other(stranger):
    return stranger.client()


@pytest.fixture(scope="session")
def nobody(endpoint):
    return anonymous(endpoint)


@pytest.fixture
def open_bucket(s3, bucket):
    s3.delete_public_access_block(Bucket=bucket)
    s3.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    )
    return bucket


def block(s3, bucket, *names):
    wanted = {name: name in names for name in NAMES}
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=wanted)
    return wanted


def test_a_block_is_set_shown_and_deleted(s3, open_bucket):
    with refused("NoSuchPublicAccessBlockConfiguration", 404):
        s3.get_public_access_block(Bucket=open_bucket)
    wanted = block(s3, open_bucket, "BlockPublicAcls", "BlockPublicPolicy")
    assert s3.get_public_access_block(Bucket=open_bucket)["PublicAccessBlockConfiguration"] == wanted
    s3.delete_public_access_block(Bucket=open_bucket)
    with refused("NoSuchPublicAccessBlockConfiguration", 404):
        s3.get_public_access_block(Bucket=open_bucket)


def test_public_lists_are_not_set(s3, open_bucket):
    block(s3, open_bucket, "BlockPublicAcls")
    s3.put_object(Bucket=open_bucket, Key="k", Body=b"x", ACL="bucket-owner-full-control")
    for canned in ("public-read", "public-read-write", "authenticated-read"):
        for call in (
            lambda: s3.put_bucket_acl(Bucket=open_bucket, ACL=canned),
            lambda: s3.put_object_acl(Bucket=open_bucket, Key="k", ACL=canned),
            lambda: s3.put_object(Bucket=open_bucket, Key="k", Body=b"", ACL=canned),
            lambda: s3.create_multipart_upload(Bucket=open_bucket, Key="k", ACL=canned),
            lambda: s3.copy_object(
                Bucket=open_bucket, Key="c", CopySource={"Bucket": open_bucket, "Key": "k"}, ACL=canned
            ),
        ):
            with refused("AccessDenied"):
                call()


def test_public_lists_do_not_count(s3, nobody, other, open_bucket):
    s3.put_object(Bucket=open_bucket, Key="k", Body=b"x", ACL="public-read")
    s3.put_bucket_acl(Bucket=open_bucket, ACL="public-read")
    assert nobody.get_object(Bucket=open_bucket, Key="k")["Body"].read() == b"x"
    block(s3, open_bucket, "IgnorePublicAcls")
    for client in (nobody, other):
        with refused("AccessDenied"):
            client.get_object(Bucket=open_bucket, Key="k")
        with refused("AccessDenied"):
            client.list_objects_v2(Bucket=open_bucket)
    s3.delete_public_access_block(Bucket=open_bucket)
    assert nobody.get_object(Bucket=open_bucket, Key="k")["Body"].read() == b"x"


def test_public_policies_are_not_set(s3, other, open_bucket):
    block(s3, open_bucket, "BlockPublicPolicy")
    with refused("AccessDenied"):
        put(s3, open_bucket, statement(open_bucket, "s3:GetObject"))
    owner = {"CanonicalUser": other.list_buckets()["Owner"]["ID"]}
    put(s3, open_bucket, statement(open_bucket, "s3:GetObject", principal=owner))


def test_public_policies_count_for_the_own_account_alone(s3, nobody, other, open_bucket):
    s3.put_object(Bucket=open_bucket, Key="k", Body=b"x")
    put(s3, open_bucket, statement(open_bucket, "s3:GetObject"))
    block(s3, open_bucket, "RestrictPublicBuckets")
    assert s3.get_object(Bucket=open_bucket, Key="k")["Body"].read() == b"x"
    for client in (nobody, other):
        with refused("AccessDenied"):
            client.get_object(Bucket=open_bucket, Key="k")
    owner = {"CanonicalUser": other.list_buckets()["Owner"]["ID"]}
    put(s3, open_bucket, statement(open_bucket, "s3:GetObject", principal=owner))
    assert other.get_object(Bucket=open_bucket, Key="k")["Body"].read() == b"x"
