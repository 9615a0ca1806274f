"""Temporary keys: begun by STS on the S3 listener, narrowed by policies, and over in time."""

import json
from datetime import datetime, timezone
from urllib.request import urlopen

import pytest

from support.endpoint import Identity
from support.policy import client_of, statement
from support.raw import Raw
from support.refusal import refused
from support.wait import wait_until

ROLE = "arn:aws:iam::default:role/reader"


@pytest.fixture(scope="module")
def sts(endpoint):
    return client_of(endpoint, "sts")


@pytest.fixture
def held(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a/1", Body=b"one")
    return bucket


def assume(sts, policy=None, **more):
    wanted = {"RoleArn": ROLE, "RoleSessionName": "session-1"} | more
    if policy:
        wanted["Policy"] = json.dumps({"Version": "2012-10-17", "Statement": policy})
    return sts.assume_role(**wanted)


def get_only(bucket):
    made = statement(bucket, "s3:GetObject")
    del made["Principal"]
    return [made]


def test_a_role_has_the_rights_of_who_assumes_it(sts, endpoint, held):
    answer = assume(sts)
    credentials = answer["Credentials"]
    assert answer["AssumedRoleUser"]["Arn"] == "arn:aws:sts::default:assumed-role/reader/session-1"
    mine = client_of(endpoint, "s3", credentials)
    assert mine.get_object(Bucket=held, Key="a/1")["Body"].read() == b"one"
    mine.put_object(Bucket=held, Key="a/2", Body=b"x")
    left = (credentials["Expiration"] - datetime.now(timezone.utc)).total_seconds()
    assert 3500 < left <= 3600
    who = client_of(endpoint, "sts", credentials).get_caller_identity()
    assert who["Arn"] == answer["AssumedRoleUser"]["Arn"] and who["Account"] == "default"


def test_a_session_policy_narrows(sts, endpoint, held):
    mine = client_of(endpoint, "s3", assume(sts, get_only(held))["Credentials"])
    assert mine.get_object(Bucket=held, Key="a/1")["Body"].read() == b"one"
    for call in (
        lambda: mine.put_object(Bucket=held, Key="a/2", Body=b"x"),
        lambda: mine.list_objects_v2(Bucket=held),
        lambda: mine.create_bucket(Bucket=f"{held}-new"),
        lambda: mine.delete_bucket_policy(Bucket=held),
    ):
        with refused("AccessDenied"):
            call()
    assert mine.list_buckets()["Buckets"] == []


def test_a_session_token_has_the_rights_of_its_key(sts, endpoint, held):
    credentials = sts.get_session_token(DurationSeconds=900)["Credentials"]
    mine = client_of(endpoint, "s3", credentials)
    assert mine.get_object(Bucket=held, Key="a/1")["Body"].read() == b"one"
    who = client_of(endpoint, "sts", credentials).get_caller_identity()
    assert who["Arn"] == f"arn:aws:iam::default:user/{endpoint.identity.access_key}"


def test_a_temporary_key_is_nothing_without_its_token(sts, endpoint, held):
    credentials = assume(sts)["Credentials"]
    bare = endpoint.as_identity(Identity(credentials["AccessKeyId"], credentials["SecretAccessKey"]))
    with refused("InvalidAccessKeyId"):
        bare.client().get_object(Bucket=held, Key="a/1")
    wrong = client_of(endpoint, "s3", credentials | {"SessionToken": "A" * len(credentials["SessionToken"])})
    with refused("InvalidToken", 400):
        wrong.get_object(Bucket=held, Key="a/1")
    with refused("InvalidToken", 400):
        client_of(
            endpoint,
            "s3",
            {
                "AccessKeyId": endpoint.identity.access_key,
                "SecretAccessKey": endpoint.identity.secret_key,
                "SessionToken": credentials["SessionToken"],
            },
        ).get_object(Bucket=held, Key="a/1")


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_link_of_a_temporary_key_carries_its_token(sts, endpoint, held, version):
    mine = client_of(endpoint, "s3", assume(sts)["Credentials"], signature_version=version)
    url = mine.generate_presigned_url("get_object", Params={"Bucket": held, "Key": "a/1"})
    assert urlopen(url, timeout=30).read() == b"one"


def test_a_temporary_key_begins_no_session(sts, endpoint):
    credentials = assume(sts)["Credentials"]
    mine = client_of(endpoint, "sts", credentials)
    with refused("AccessDenied"):
        assume(mine)
    with refused("AccessDenied"):
        mine.get_session_token()


@pytest.mark.parametrize(
    "change, code, status",
    [
        ({"DurationSeconds": 899}, "ValidationError", 400),
        ({"DurationSeconds": 43201}, "ValidationError", 400),
        ({"RoleArn": "arn:aws:iam::default:user/x-and-so-on"}, "ValidationError", 400),
        ({"RoleArn": "arn:aws:iam::somebody-else:role/reader"}, "AccessDenied", 403),
        ({"RoleSessionName": "a b"}, "ValidationError", 400),
        ({"Policy": "{"}, "MalformedPolicyDocument", 400),
        ({"Policy": json.dumps({"Statement": {"Effect": "Allow", "Action": "s3:Nothing", "Resource": "*"}})},
         "MalformedPolicyDocument", 400),
        ({"Policy": " " * 2049}, "ValidationError", 400),
    ],
)
def test_wrong_requests_are_refused(endpoint, change, code, status):
    loose = client_of(endpoint, "sts", parameter_validation=False)
    with refused(code, status) as caught:
        assume(loose, **change)
    assert caught.value.response["Error"]["Type"] == "Sender"


def test_errors_of_signatures_have_the_form_of_sts(endpoint):
    wrong = endpoint.as_identity(Identity(endpoint.identity.access_key, "wrong" * 8))
    with refused("SignatureDoesNotMatch", 403):
        client_of(wrong, "sts").get_caller_identity()
    unknown = endpoint.as_identity(Identity("NOSUCHACCESSKEY00001", "wrong" * 8))
    with refused("InvalidClientTokenId", 403):
        client_of(unknown, "sts").get_caller_identity()
    answer = Raw(endpoint).request(
        "POST",
        "/",
        headers={"content-type": "application/x-www-form-urlencoded"},
        body=b"Action=GetCallerIdentity&Version=2011-06-15",
        anonymous=True,
    )
    assert answer.status == 403 and answer.xml.findtext("Error/Code") == "MissingAuthenticationToken"


def test_a_session_ends_with_its_parent(server, endpoint, s3, held):
    parent = server.create_key("default", "PARENTACCESSKEY00001", "parentsecretkeyparentsecretkeyparentsec1")
    own = endpoint.as_identity(parent)

    def begun():
        try:
            return assume(client_of(own, "sts"))["Credentials"]
        except client_of(own, "sts").exceptions.ClientError:
            return None

    credentials = wait_until(begun, 15, "the new key")
    mine = client_of(endpoint, "s3", credentials)
    assert mine.get_object(Bucket=held, Key="a/1")["Body"].read() == b"one"

    def works():
        try:
            mine.get_object(Bucket=held, Key="a/1")
            return True
        except mine.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "InvalidAccessKeyId"
            return False

    server.command("keys", "disable", parent.access_key)
    wait_until(lambda: not works(), 15, "the end of the disabled key's session")
    server.command("keys", "enable", parent.access_key)
    wait_until(works, 15, "the enabled key's session")
    server.command("keys", "delete", parent.access_key)
    wait_until(lambda: not works(), 15, "the end of the deleted key's session")


def test_temporary_keys_are_not_listed_among_keys(server, sts):
    key = assume(sts)["Credentials"]["AccessKeyId"]
    assert key not in server.command("keys", "list").stdout


def test_a_temporary_key_has_no_possession(sts, endpoint, held, server):
    """What it sends vouches for nobody: its repeated upload is read again."""
    mine = client_of(endpoint, "s3", assume(sts)["Credentials"])
    body = b"of a temporary key" * 100
    before = server.metric("osproxy_instant_uploads_total")
    for key in ("t/1", "t/2"):
        mine.put_object(Bucket=held, Key=key, Body=body)
    assert server.metric("osproxy_instant_uploads_total") == before
