"""Access control lists of buckets and objects, canned and granted, and who owns what is written."""

import pytest

from support.multipart import Upload
from support.policy import anonymous, put, statement
from support.raw import assert_refused
from support.refusal import refused

pytestmark = pytest.mark.op("GetBucketAcl", "PutBucketAcl", "GetObjectAcl", "PutObjectAcl")
GROUP = "http://acs.amazonaws.com/groups/global/"


@pytest.fixture(scope="session")
def other(stranger):
    return stranger.client()


@pytest.fixture(scope="session")
def nobody(endpoint):
    return anonymous(endpoint)


@pytest.fixture(scope="session")
def me(s3):
    return s3.list_buckets()["Owner"]["ID"]


@pytest.fixture(scope="session")
def them(other):
    return other.list_buckets()["Owner"]["ID"]


@pytest.fixture
def open_bucket(s3, bucket):
    """A bucket whose lists count, wherever that has to be asked for."""
    s3.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    )
    return bucket


def grants(answer):
    return {
        (grant["Grantee"].get("ID") or grant["Grantee"]["URI"].removeprefix(GROUP), grant["Permission"])
        for grant in answer["Grants"]
    }


def grantee(owner):
    return {"Type": "CanonicalUser", "ID": owner}


def test_what_has_no_list_is_its_owners(s3, me, open_bucket):
    s3.put_object(Bucket=open_bucket, Key="k", Body=b"x")
    for answer in (s3.get_bucket_acl(Bucket=open_bucket), s3.get_object_acl(Bucket=open_bucket, Key="k")):
        assert answer["Owner"]["ID"] == me
        assert grants(answer) == {(me, "FULL_CONTROL")}
    with refused("NoSuchKey"):
        s3.get_object_acl(Bucket=open_bucket, Key="missing")
    with refused("NoSuchKey"):
        s3.put_object_acl(Bucket=open_bucket, Key="missing", ACL="private")


@pytest.mark.parametrize(
    "canned, extra",
    [
        ("private", set()),
        ("public-read", {("AllUsers", "READ")}),
        ("public-read-write", {("AllUsers", "READ"), ("AllUsers", "WRITE")}),
        ("authenticated-read", {("AuthenticatedUsers", "READ")}),
    ],
)
def test_canned_lists(s3, me, open_bucket, canned, extra):
    wanted = {(me, "FULL_CONTROL")} | extra
    s3.put_bucket_acl(Bucket=open_bucket, ACL=canned)
    assert grants(s3.get_bucket_acl(Bucket=open_bucket)) == wanted
    s3.put_object(Bucket=open_bucket, Key="put", Body=b"x", ACL=canned)
    s3.copy_object(Bucket=open_bucket, Key="copied", CopySource={"Bucket": open_bucket, "Key": "put"}, ACL=canned)
    upload = s3.create_multipart_upload(Bucket=open_bucket, Key="joined", ACL=canned)["UploadId"]
    part = s3.upload_part(Bucket=open_bucket, Key="joined", UploadId=upload, PartNumber=1, Body=b"x")
    s3.complete_multipart_upload(
        Bucket=open_bucket,
        Key="joined",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    s3.put_object(Bucket=open_bucket, Key="set", Body=b"x")
    s3.put_object_acl(Bucket=open_bucket, Key="set", ACL=canned)
    for key in ("put", "copied", "joined", "set"):
        assert grants(s3.get_object_acl(Bucket=open_bucket, Key=key)) == wanted, key


def test_a_copy_has_a_list_of_its_own(s3, me, open_bucket):
    s3.put_object(Bucket=open_bucket, Key="k", Body=b"x", ACL="public-read")
    s3.copy_object(Bucket=open_bucket, Key="copy", CopySource={"Bucket": open_bucket, "Key": "k"})
    assert grants(s3.get_object_acl(Bucket=open_bucket, Key="copy")) == {(me, "FULL_CONTROL")}


def test_public_object_is_readable_by_all_and_writable_by_none(s3, nobody, other, open_bucket):
    s3.put_object(Bucket=open_bucket, Key="open", Body=b"x", ACL="public-read")
    s3.put_object(Bucket=open_bucket, Key="signed", Body=b"y", ACL="authenticated-read")
    s3.put_object(Bucket=open_bucket, Key="mine", Body=b"z")
    assert nobody.get_object(Bucket=open_bucket, Key="open")["Body"].read() == b"x"
    assert other.get_object(Bucket=open_bucket, Key="signed")["Body"].read() == b"y"
    for client, key in ((nobody, "signed"), (nobody, "mine"), (other, "mine"), (nobody, "missing")):
        with refused("AccessDenied"):
            client.get_object(Bucket=open_bucket, Key=key)
    for client in (nobody, other):
        for call in (
            lambda c: c.put_object(Bucket=open_bucket, Key="open", Body=b""),
            lambda c: c.delete_object(Bucket=open_bucket, Key="open"),
            lambda c: c.get_object_acl(Bucket=open_bucket, Key="open"),
            lambda c: c.put_object_acl(Bucket=open_bucket, Key="open", ACL="private"),
            lambda c: c.get_object_tagging(Bucket=open_bucket, Key="open"),
        ):
            with refused("AccessDenied"):
                call(client)


def test_public_bucket_is_listed_by_all(s3, nobody, open_bucket):
    s3.put_bucket_acl(Bucket=open_bucket, ACL="public-read")
    s3.put_object(Bucket=open_bucket, Key="k", Body=b"x")
    assert nobody.list_objects_v2(Bucket=open_bucket)["KeyCount"] == 1
    nobody.head_bucket(Bucket=open_bucket)
    with refused("NoSuchKey"):
        nobody.get_object(Bucket=open_bucket, Key="missing")
    for call in (
        lambda: nobody.get_object(Bucket=open_bucket, Key="k"),
        lambda: nobody.put_object(Bucket=open_bucket, Key="n", Body=b"x"),
        lambda: nobody.get_bucket_acl(Bucket=open_bucket),
        lambda: nobody.get_bucket_location(Bucket=open_bucket),
    ):
        with refused("AccessDenied"):
            call()


PERMISSIONS = {
    "READ": {"list"},
    "WRITE": {"put"},
    "READ_ACP": {"get list"},
    "WRITE_ACP": {"set list"},
    "FULL_CONTROL": {"list", "put", "get list", "set list"},
}


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_bucket_grants(s3, other, me, them, open_bucket, permission):
    own = {"Grantee": grantee(me), "Permission": "FULL_CONTROL"}
    policy = {"Owner": {"ID": me}, "Grants": [own, {"Grantee": grantee(them), "Permission": permission}]}
    s3.put_bucket_acl(Bucket=open_bucket, AccessControlPolicy=policy)
    assert grants(s3.get_bucket_acl(Bucket=open_bucket)) == {(me, "FULL_CONTROL"), (them, permission)}
    calls = {
        "list": lambda: other.list_objects_v2(Bucket=open_bucket),
        "put": lambda: other.put_object(Bucket=open_bucket, Key="theirs", Body=b"x"),
        "get list": lambda: other.get_bucket_acl(Bucket=open_bucket),
        "set list": lambda: other.put_bucket_acl(Bucket=open_bucket, AccessControlPolicy=policy),
    }
    for name, call in calls.items():
        if name in PERMISSIONS[permission]:
            call()
        else:
            with refused("AccessDenied"):
                call()


@pytest.mark.parametrize("permission", ["READ", "READ_ACP", "WRITE_ACP", "FULL_CONTROL"])
def test_object_grants(s3, other, me, them, open_bucket, permission):
    s3.put_object(Bucket=open_bucket, Key="k", Body=b"x")
    policy = {"Owner": {"ID": me}, "Grants": [{"Grantee": grantee(them), "Permission": permission}]}
    s3.put_object_acl(Bucket=open_bucket, Key="k", AccessControlPolicy=policy)
    assert grants(s3.get_object_acl(Bucket=open_bucket, Key="k")) == {(them, permission)}
    calls = {
        "READ": lambda: other.get_object(Bucket=open_bucket, Key="k"),
        "READ_ACP": lambda: other.get_object_acl(Bucket=open_bucket, Key="k"),
        "WRITE_ACP": lambda: other.put_object_acl(Bucket=open_bucket, Key="k", AccessControlPolicy=policy),
    }
    for name, call in calls.items():
        if permission in (name, "FULL_CONTROL"):
            call()
        else:
            with refused("AccessDenied"):
                call()


def test_grant_headers(s3, me, them, open_bucket):
    s3.put_object(
        Bucket=open_bucket,
        Key="k",
        Body=b"x",
        GrantFullControl=f'id="{me}"',
        GrantRead=f'id="{them}", uri="{GROUP}AllUsers"',
        GrantReadACP=f"id={them}",
    )
    assert grants(s3.get_object_acl(Bucket=open_bucket, Key="k")) == {
        (me, "FULL_CONTROL"),
        (them, "READ"),
        ("AllUsers", "READ"),
        (them, "READ_ACP"),
    }
    s3.put_bucket_acl(Bucket=open_bucket, GrantWrite=f'uri="{GROUP}AuthenticatedUsers"', GrantFullControl=f"id={me}")
    assert grants(s3.get_bucket_acl(Bucket=open_bucket)) == {(me, "FULL_CONTROL"), ("AuthenticatedUsers", "WRITE")}


@pytest.mark.parametrize(
    "wrong, code",
    [
        ({"GrantRead": "id=0000"}, "InvalidArgument"),
        ({"GrantRead": 'uri="http://example.com/group"'}, "InvalidArgument"),
        ({"GrantRead": "somebody"}, "InvalidArgument"),
        ({"GrantRead": 'emailAddress="nobody@example.com"'}, "UnresolvableGrantByEmailAddress"),
        ({"GrantRead": f'uri="{GROUP}AllUsers"', "ACL": "private"}, "InvalidRequest"),
        ({"ACL": "public"}, "InvalidArgument"),
    ],
)
def test_wrong_headers_are_refused(s3, open_bucket, wrong, code):
    with refused(code, 400):
        s3.put_object(Bucket=open_bucket, Key="k", Body=b"x", **wrong)
    with refused(code, 400):
        s3.put_bucket_acl(Bucket=open_bucket, **wrong)
    with refused("404"):
        s3.head_object(Bucket=open_bucket, Key="k")


def test_wrong_documents_are_refused(s3, raw, me, them, open_bucket):
    def set_acl(body, **headers):
        return raw.request("PUT", f"/{open_bucket}", {"acl": ""}, headers=headers, body=body.encode())

    def list_of(owner, grantee, permission="READ"):
        return (
            f"<AccessControlPolicy><Owner><ID>{owner}</ID></Owner><AccessControlList><Grant>"
            f'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" {grantee}</Grantee>'
            f"<Permission>{permission}</Permission></Grant></AccessControlList></AccessControlPolicy>"
        )

    user = f'xsi:type="CanonicalUser"><ID>{me}</ID>'
    assert set_acl(list_of(me, user)).status == 200
    assert_refused(set_acl(list_of(them, user)), "AccessDenied", 403)
    assert_refused(set_acl(list_of(me, user, "EVERYTHING")), "MalformedACLError", 400)
    assert_refused(set_acl("<AccessControlPolicy>"), "MalformedACLError", 400)
    assert_refused(set_acl(list_of(me, 'xsi:type="CanonicalUser"><ID>0</ID>')), "InvalidArgument", 400)
    by_mail = 'xsi:type="AmazonCustomerByEmail"><EmailAddress>a@example.com</EmailAddress>'
    assert_refused(set_acl(list_of(me, by_mail)), "UnresolvableGrantByEmailAddress", 400)
    assert_refused(set_acl(list_of(me, 'xsi:type="Group"><URI>http://x</URI>')), "InvalidArgument", 400)
    assert_refused(set_acl(""), "MissingSecurityHeader", 400)
    assert_refused(set_acl(list_of(me, user), **{"x-amz-acl": "private"}), "UnexpectedContent", 400)


@pytest.mark.op("ListObjectsV2", "ListMultipartUploads", "ListParts")
def test_who_writes_owns(s3, other, me, them, open_bucket):
    s3.put_bucket_acl(Bucket=open_bucket, ACL="public-read-write")
    s3.put_object(Bucket=open_bucket, Key="mine", Body=b"x")
    other.put_object(Bucket=open_bucket, Key="theirs", Body=b"x")
    assert other.get_object_acl(Bucket=open_bucket, Key="theirs")["Owner"]["ID"] == them
    listed = s3.list_objects_v2(Bucket=open_bucket, FetchOwner=True)["Contents"]
    assert {entry["Key"]: entry["Owner"]["ID"] for entry in listed} == {"mine": me, "theirs": them}
    listed = other.list_objects(Bucket=open_bucket)["Contents"]
    assert {entry["Key"]: entry["Owner"]["ID"] for entry in listed} == {"mine": me, "theirs": them}
    upload = Upload(other, open_bucket, "upload")
    upload.put(1, b"x")
    assert upload.list()["Owner"]["ID"] == them
    (found,) = s3.list_multipart_uploads(Bucket=open_bucket)["Uploads"]
    assert found["Owner"]["ID"] == them and found["Initiator"]["ID"] == them
    upload.abort()


@pytest.mark.op("PutBucketOwnershipControls", "GetBucketOwnershipControls", "DeleteBucketOwnershipControls")
def test_ownership_is_set_shown_and_deleted(s3, raw, bucket):
    for wanted in ("BucketOwnerPreferred", "ObjectWriter", "BucketOwnerEnforced"):
        rules = {"Rules": [{"ObjectOwnership": wanted}]}
        s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=rules)
        assert s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"] == rules
    s3.delete_bucket_ownership_controls(Bucket=bucket)
    with refused("OwnershipControlsNotFoundError", 404):
        s3.get_bucket_ownership_controls(Bucket=bucket)
    wrong = b"<OwnershipControls><Rule><ObjectOwnership>Nobody</ObjectOwnership></Rule></OwnershipControls>"
    assert_refused(raw.request("PUT", f"/{bucket}", {"ownershipControls": ""}, body=wrong), "MalformedXML", 400)


@pytest.mark.op("PutBucketOwnershipControls", "CreateBucket")
def test_enforced_ownership_knows_no_lists(s3, other, nobody, me, bucket):
    s3.put_object(Bucket=bucket, Key="open", Body=b"x", ACL="public-read")
    s3.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    )
    with refused("AccessDenied"):
        nobody.get_object(Bucket=bucket, Key="open")
    assert grants(s3.get_object_acl(Bucket=bucket, Key="open")) == {(me, "FULL_CONTROL")}
    for call in (
        lambda: s3.put_bucket_acl(Bucket=bucket, ACL="public-read"),
        lambda: s3.put_object_acl(Bucket=bucket, Key="open", ACL="private"),
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read"),
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x", GrantRead=f'uri="{GROUP}AllUsers"'),
    ):
        with refused("AccessControlListNotSupported", 400):
            call()
    put(s3, bucket, statement(bucket, "s3:PutObject"))
    other.put_object(Bucket=bucket, Key="theirs", Body=b"x", ACL="bucket-owner-full-control")
    assert s3.get_object_acl(Bucket=bucket, Key="theirs")["Owner"]["ID"] == me


@pytest.mark.op("PutBucketOwnershipControls")
def test_a_bucket_with_a_list_is_not_made_one_without(s3, open_bucket):
    s3.put_bucket_acl(Bucket=open_bucket, ACL="public-read")
    with refused("InvalidBucketAclWithObjectOwnership", 400):
        s3.put_bucket_ownership_controls(
            Bucket=open_bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        )


@pytest.mark.op("CreateBucket")
def test_a_bucket_is_made_with_list_and_ownership(s3, me, bucket_names):
    name = next(bucket_names)
    with refused("InvalidBucketAclWithObjectOwnership", 400):
        s3.create_bucket(Bucket=name, ACL="public-read", ObjectOwnership="BucketOwnerEnforced")
    s3.create_bucket(Bucket=name, ACL="authenticated-read", ObjectOwnership="BucketOwnerPreferred")
    try:
        assert grants(s3.get_bucket_acl(Bucket=name)) == {(me, "FULL_CONTROL"), ("AuthenticatedUsers", "READ")}
        rules = s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]["Rules"]
        assert rules == [{"ObjectOwnership": "BucketOwnerPreferred"}]
    finally:
        s3.delete_bucket(Bucket=name)


def test_preferred_owner_gets_what_is_handed_over(s3, other, me, them, bucket):
    s3.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    )
    put(s3, bucket, statement(bucket, ["s3:PutObject", "s3:PutObjectAcl"]))
    other.put_object(Bucket=bucket, Key="given", Body=b"x", ACL="bucket-owner-full-control")
    other.put_object(Bucket=bucket, Key="kept", Body=b"x")
    assert s3.get_object_acl(Bucket=bucket, Key="given")["Owner"]["ID"] == me
    assert other.get_object_acl(Bucket=bucket, Key="kept")["Owner"]["ID"] == them
