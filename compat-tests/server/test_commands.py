"""The command line beside `serve`: identities of a running install, and statistics."""

import json

import pytest

from support.endpoint import Identity
from support.refusal import refused
from support.wait import wait_until


@pytest.fixture
def key(server):
    """A second access key of the default tenant."""
    identity = server.create_key("default", "TEMPORARYACCESSKEY01", "temporarysecretkeytemporarysecretkey0001")
    yield identity
    server.command("keys", "delete", identity.access_key, check=False)


def works(endpoint):
    try:
        endpoint.client().list_buckets()
        return True
    except endpoint.client().exceptions.ClientError:
        return False


def test_new_key_works_at_once_and_belongs_to_its_tenant(server, endpoint, s3, bucket, key):
    mine = endpoint.as_identity(key)
    wait_until(lambda: works(mine), 15, "the new key")
    assert bucket in [b["Name"] for b in mine.client().list_buckets()["Buckets"]]
    assert mine.client().list_buckets()["Owner"] == s3.list_buckets()["Owner"]


def test_disabled_and_deleted_key_stops_within_a_second_or_so(server, endpoint, key):
    mine = endpoint.as_identity(key)
    wait_until(lambda: works(mine), 15, "the new key")
    server.command("keys", "disable", key.access_key)
    wait_until(lambda: not works(mine), 15, "the end of the disabled key")
    server.command("keys", "delete", key.access_key)
    with refused("InvalidAccessKeyId"):
        mine.client().list_buckets()


def test_generated_key_is_printed_once_and_listed_without_its_secret(server, endpoint):
    pair = json.loads(server.command("keys", "create", "--json").stdout)
    identity = Identity(pair["access_key"], pair["secret_key"])
    wait_until(lambda: works(endpoint.as_identity(identity)), 15, "the generated key")
    listed = server.command("keys", "list").stdout
    assert identity.access_key in listed and identity.secret_key not in listed
    server.command("keys", "delete", identity.access_key)


def test_access_key_in_use_is_refused(server, key):
    again = server.command("keys", "create", "--access-key", key.access_key, "--secret-key", "x" * 40, check=False)
    assert again.returncode != 0 and key.access_key in again.stderr


def test_tenants_are_made_listed_and_deleted(server):
    server.create_tenant("third")
    assert "third" in server.command("tenants", "list").stdout
    assert server.command("tenants", "create", "third", check=False).returncode != 0
    server.command("tenants", "delete", "third")
    assert "third" not in server.command("tenants", "list").stdout


def test_tenant_that_owns_buckets_is_not_deleted(server, stranger, make_bucket):
    make_bucket(stranger.client())
    assert server.command("tenants", "delete", "second", check=False).returncode != 0
    stranger.client().list_buckets()


def test_unknown_command_is_a_usage_error(server):
    assert server.command("frobnicate", check=False).returncode == 2


def test_stats_count_objects_and_bytes(own_server):
    server = own_server()
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="counted")
    assert server.stats()["logical_bytes"] == 0
    s3.put_object(Bucket="counted", Key="a", Body=b"x" * 1000)
    s3.put_object(Bucket="counted", Key="b", Body=b"x" * 1000)
    s3.put_object(Bucket="counted", Key="c", Body=b"y" * 100_000)
    stats = server.stats()
    assert (stats["objects"], stats["contents"]) == (3, 2)
    assert (stats["logical_bytes"], stats["stored_bytes"]) == (102_000, 101_000)
    assert stats["ratio"] == pytest.approx(102_000 / 101_000, rel=0.01)
    human = server.command("stats").stdout
    assert "102" in human
