"""Policies on access keys: what their holders may do, and which buckets they are shown."""

import json
import secrets

import pytest

from support.endpoint import Identity
from support.policy import put, statement
from support.refusal import refused
from support.wait import wait_until



def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def rule(action, *resources, effect="Allow", **more):
    resources = [f"arn:aws:s3:::{resource}" for resource in resources] or "*"
    return {"Effect": effect, "Action": action, "Resource": resources} | more


@pytest.fixture
def key():
    """An access key of no other test: what is known of a name is known for a second."""
    return Identity(f"NARROW{secrets.token_hex(7).upper()}", secrets.token_hex(20))


@pytest.fixture
def narrow(server, endpoint, key, tmp_path):
    """Makes the key with a policy and returns its client, once the key is known."""

    def give(*statements):
        file = tmp_path / "policy.json"
        file.write_text(policy(*statements))
        made = server.command(
            "keys", "create", "--access-key", key.access_key, "--secret-key", key.secret_key, "--policy", file
        )
        assert key.access_key in made.stdout
        client = endpoint.as_identity(key).client()
        wait_until(lambda: known(client), 15, "the new key")
        return client

    yield give
    server.command("keys", "delete", key.access_key, check=False)


def known(client):
    try:
        client.list_buckets()
    except client.exceptions.ClientError as error:
        return error.response["Error"]["Code"] != "InvalidAccessKeyId"
    return True


def test_a_key_does_what_its_policy_allows(narrow, key, s3, bucket):
    s3.put_object(Bucket=bucket, Key="a/1", Body=b"one")
    s3.put_object(Bucket=bucket, Key="b/2", Body=b"two")
    mine = narrow(rule("s3:GetObject", f"{bucket}/a/*"), rule("s3:PutObject", f"{bucket}/${{aws:username}}/*"))
    assert mine.get_object(Bucket=bucket, Key="a/1")["Body"].read() == b"one"
    mine.put_object(Bucket=bucket, Key=f"{key.access_key}/x", Body=b"x")
    for call in (
        lambda: mine.get_object(Bucket=bucket, Key="b/2"),
        lambda: mine.get_object(Bucket=bucket, Key="a/missing"),
        lambda: mine.put_object(Bucket=bucket, Key="a/1", Body=b"x"),
        lambda: mine.list_objects_v2(Bucket=bucket),
        lambda: mine.delete_bucket_policy(Bucket=bucket),
        lambda: mine.create_bucket(Bucket=f"{bucket}-new"),
    ):
        with refused("AccessDenied"):
            call()


def test_a_buckets_policy_adds_to_a_keys_own(narrow, key, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    mine = narrow(rule("s3:ListBucket", bucket))
    with refused("AccessDenied"):
        mine.get_object(Bucket=bucket, Key="k")
    named = {"AWS": f"arn:aws:iam::default:user/{key.access_key}"}
    put(s3, bucket, statement(bucket, "s3:GetObject", principal=named))
    assert mine.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    # The account's name leaves it to the account what its keys may do.
    put(s3, bucket, statement(bucket, "s3:GetObject", principal={"AWS": "default"}))
    with refused("AccessDenied"):
        mine.get_object(Bucket=bucket, Key="k")


def test_a_key_is_shown_the_buckets_it_may_list(narrow, make_bucket):
    names = sorted(make_bucket() for _ in range(5))
    shown = names[1::2]
    mine = narrow(rule("s3:ListBucket", *shown))
    assert [b["Name"] for b in mine.list_buckets()["Buckets"]] == shown
    pages, token = [], None
    for _ in range(10):
        more = {"ContinuationToken": token} if token else {}
        page = mine.list_buckets(MaxBuckets=1, **more)
        assert len(page["Buckets"]) <= 1
        pages += [b["Name"] for b in page["Buckets"]]
        token = page.get("ContinuationToken")
        if not token:
            break
    assert pages == shown and token is None


def test_a_key_that_may_list_all_buckets_is_shown_all(narrow, make_bucket):
    names = {make_bucket() for _ in range(2)}
    mine = narrow(rule("s3:ListAllMyBuckets"))
    assert names <= {b["Name"] for b in mine.list_buckets()["Buckets"]}


def test_a_key_may_be_denied_the_list(narrow, make_bucket):
    mine = narrow(rule("s3:*"), rule("s3:ListAllMyBuckets", effect="Deny"))
    with refused("AccessDenied"):
        mine.list_buckets()


def test_a_key_makes_the_buckets_it_may(narrow, s3, bucket_names):
    name = next(bucket_names)
    mine = narrow(rule(["s3:CreateBucket", "s3:DeleteBucket"], f"{name}-team-*"))
    mine.create_bucket(Bucket=f"{name}-team-a")
    mine.delete_bucket(Bucket=f"{name}-team-a")
    with refused("AccessDenied"):
        mine.create_bucket(Bucket=name)


def test_a_policy_is_set_shown_and_deleted_on_a_running_server(server, narrow, key, s3, bucket, tmp_path):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    mine = narrow(rule("s3:ListBucket", bucket))

    def reads():
        try:
            return mine.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
        except mine.exceptions.ClientError:
            return False

    assert not reads()
    text = policy(rule("s3:GetObject", f"{bucket}/*"))
    file = tmp_path / "new.json"
    file.write_text(text)
    server.command("keys", "policy", "set", key.access_key, file)
    wait_until(reads, 15, "the new policy")
    assert server.command("keys", "policy", "show", key.access_key).stdout.strip() == text
    server.command("keys", "policy", "delete", key.access_key)

    def lists():
        try:
            return mine.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
        except mine.exceptions.ClientError:
            return False

    wait_until(lists, 15, "the end of the policy")
    assert server.command("keys", "policy", "show", key.access_key).stdout.strip() == "none"
    shown = json.loads(server.command("keys", "policy", "show", key.access_key, "--json").stdout)
    assert shown == {"access_key": key.access_key, "policy": None}


@pytest.mark.parametrize("text", ["{", "{}", '{"Statement":{"Effect":"Allow","Action":"s3:Nothing","Resource":"*"}}'])
def test_what_is_no_policy_is_refused(server, narrow, tmp_path, text):
    file = tmp_path / "wrong.json"
    file.write_text(text)
    refusal = server.command("keys", "create", "--policy", file, check=False)
    assert refusal.returncode == 1 and "policy" in refusal.stderr
    refusal = server.command("keys", "policy", "set", "NOSUCHKEY", tmp_path / "missing.json", check=False)
    assert refusal.returncode == 1 and "missing.json" in refusal.stderr
