"""What lies on the disk of an install that encrypts, and the keys that open it."""

import base64
import json
import sqlite3

import pytest

from support.refusal import refused

MIB = 1024 * 1024
#: Found again if any byte of it is stored as it was sent.
MARK = b"this text must not be found on the disk;"
CUSTOMER = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": b"k" * 32}


@pytest.fixture
def install(own_server):
    server = own_server()
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="safe")
    return server, s3


def marked(length):
    return (MARK * (length // len(MARK) + 1))[:length]


def files(server):
    """All that lies in the data directory but the log, with every write of SQLite in it."""
    return {path: path.read_bytes() for path in server.data_dir.rglob("*") if path.is_file()}


def keys(server, *words):
    return json.loads(server.command(*(words or ("encryption", "status")), "--json").stdout)


def read(s3, key, **kwargs):
    return s3.get_object(Bucket="safe", Key=key, **kwargs)["Body"].read()


KINDS = {
    "AES256": {"ServerSideEncryption": "AES256"},
    "kms": {"ServerSideEncryption": "aws:kms"},
    "customer": CUSTOMER,
}


@pytest.mark.sqlite_only
@pytest.mark.parametrize("kind", KINDS)
def test_the_disk_holds_no_plain_bytes(install, kind):
    server, s3 = install
    for size in (1000, 40_000, 300_000, 2 * MIB):
        s3.put_object(Bucket="safe", Key=f"k{size}", Body=marked(size), **KINDS[kind])
    upload = s3.create_multipart_upload(Bucket="safe", Key="m", **KINDS[kind])["UploadId"]
    key = CUSTOMER if kind == "customer" else {}
    parts = []
    for number, size in [(1, 5 * MIB), (2, 1000)]:
        part = s3.upload_part(
            Bucket="safe", Key="m", UploadId=upload, PartNumber=number, Body=marked(size), **key
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    s3.complete_multipart_upload(
        Bucket="safe", Key="m", UploadId=upload, MultipartUpload={"Parts": parts}, **key
    )
    found = [path for path, data in files(server).items() if MARK[:16] in data]
    assert not found
    secret = base64.b64encode(CUSTOMER["SSECustomerKey"])
    for path, data in files(server).items():
        assert CUSTOMER["SSECustomerKey"] not in data and secret not in data, path
    log = "\n".join(server.log)
    assert secret.decode() not in log
    # The test itself would notice.
    s3.put_object(Bucket="safe", Key="plain", Body=marked(1000))
    s3.put_object(Bucket="safe", Key="plain too", Body=marked(300_000))
    assert len([path for path, data in files(server).items() if MARK[:16] in data]) >= 2


def test_equal_bytes_are_stored_once_for_each_key(install):
    server, s3 = install
    body = marked(500_000)

    def stored(key, **kwargs):
        before = server.stats()["stored_bytes"]
        s3.put_object(Bucket="safe", Key=key, Body=body, **kwargs)
        return server.stats()["stored_bytes"] - before

    for name, kind in KINDS.items():
        assert stored(f"{name}-1", **kind) >= len(body), name
        expected = len(body) if name == "customer" else 0
        assert stored(f"{name}-2", **kind) >= expected, name
        if name != "customer":
            assert stored(f"{name}-3", **kind) == 0, name


def test_rotation_wraps_every_data_key_anew_and_loses_nothing(install):
    server, s3 = install
    server.command("jobs", "pause", "rewrap")  # it would wrap some of those that the command is to count
    bodies = {f"k{number}": marked(20 + 3000 * number) for number in range(60)}
    for name, body in bodies.items():
        s3.put_object(Bucket="safe", Key=name, Body=body, ServerSideEncryption="AES256")
    s3.put_object(Bucket="safe", Key="customer", Body=b"c" * 100, **CUSTOMER)
    [key] = keys(server)
    assert (key["version"], key["contents"], key["outdated"]) == (1, 60, 0)
    assert key["key_id"] is None and key["tenant"] == "default"
    report = keys(server, "encryption", "rotate")
    assert (report["rotated"], report["rewrap"]) == (1, {"rewrapped": 60, "failed": 0})
    [key] = keys(server)
    assert (key["version"], key["contents"], key["outdated"]) == (2, 60, 0)
    s3.put_object(Bucket="safe", Key="after", Body=b"a" * 100_000, ServerSideEncryption="AES256")
    server.stop()
    # Also when no server runs.
    report = keys(server, "encryption", "rotate", "--tenant", "default")
    assert (report["rotated"], report["rewrap"]["rewrapped"]) == (1, 61)
    server.start()
    s3 = server.endpoint.client()
    for name, body in bodies.items():
        assert read(s3, name) == body
    assert read(s3, "after") == b"a" * 100_000
    assert read(s3, "customer", **CUSTOMER) == b"c" * 100
    refusal = server.command("encryption", "rotate", "--tenant", "nobody", check=False)
    assert refusal.returncode == 1 and "nobody" in refusal.stderr


def test_objects_are_there_after_a_kill_and_gone_without_the_master_key(install):
    server, s3 = install
    for size in (100, 400_000):
        s3.put_object(Bucket="safe", Key=f"k{size}", Body=marked(size), ServerSideEncryption="AES256")
    server.kill()
    server.start()
    s3 = server.endpoint.client()
    for size in (100, 400_000):
        assert read(s3, f"k{size}") == marked(size)
    server.stop()
    key = server.data_dir / "master.key"
    text = key.read_text()
    key.unlink()
    refusal = server.command("encryption", "status", check=False)
    assert refusal.returncode == 1 and "master.key" in refusal.stderr
    key.write_text("ab" * 32)
    refusal = server.command("encryption", "status", check=False)
    assert refusal.returncode == 1 and "master key" in refusal.stderr
    key.write_text(text)
    server.start()
    assert read(server.endpoint.client(), "k100") == marked(100)


def test_a_disabled_kms_key_neither_takes_nor_gives_bytes(install):
    server, s3 = install
    server.command("jobs", "pause", "rewrap")  # it would wrap some of those that the command is to count
    server.command("kms", "create", "orders", "--alias", "mine", "--description", "for the orders")
    kms = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "orders"}
    put = s3.put_object(Bucket="safe", Key="k", Body=marked(300_000), **kms)
    assert put["SSEKMSKeyId"] == "orders"
    [listed] = keys(server, "kms", "list")
    assert (listed["key_id"], listed["alias"], listed["state"]) == ("orders", "mine", "enabled")
    assert (listed["contents"], listed["description"]) == (1, "for the orders")
    rule = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/mine"}
    s3.put_bucket_encryption(
        Bucket="safe",
        ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": rule}]},
    )
    assert s3.put_object(Bucket="safe", Key="d", Body=b"d")["SSEKMSKeyId"] == "orders"
    server.command("kms", "disable", "alias/mine")
    refusals = [
        lambda: read(s3, "k"),
        lambda: s3.put_object(Bucket="safe", Key="n", Body=b"x", **kms),
        lambda: s3.put_object(Bucket="safe", Key="n", Body=b"x"),
        lambda: s3.copy_object(Bucket="safe", Key="n", CopySource="safe/k", ServerSideEncryption="AES256"),
        lambda: s3.create_multipart_upload(Bucket="safe", Key="n", **kms),
    ]
    for call in refusals:
        with refused("KMS.DisabledException", 400):
            call()
    assert s3.head_object(Bucket="safe", Key="k")["SSEKMSKeyId"] == "orders"
    refusal = server.command("kms", "rotate", "orders", check=False)
    assert refusal.returncode == 1 and "disabled" in refusal.stderr
    server.command("kms", "enable", "orders")
    assert read(s3, "k") == marked(300_000)
    report = keys(server, "kms", "rotate", "orders")
    assert (report["rotated"], report["rewrap"]["rewrapped"]) == (1, 2)
    assert read(s3, "k") == marked(300_000)


def test_a_kms_key_is_its_tenants_alone(install):
    server, s3 = install
    server.create_tenant("second")
    server.command("kms", "create", "theirs", "--tenant", "second")
    with refused("KMS.NotFoundException", 400):
        s3.put_object(
            Bucket="safe", Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId="theirs"
        )
    for words in [
        ("kms", "create", "theirs", "--tenant", "second"),
        ("kms", "create", "a b"),
        ("kms", "create", "--alias", "aws/s3"),
        ("kms", "disable", "nothing"),
        ("kms", "enable", "theirs"),
    ]:
        assert server.command(*words, check=False).returncode == 1, words


def test_a_blob_that_was_changed_is_not_answered_as_if_it_were_whole(install):
    server, s3 = install
    s3.put_object(Bucket="safe", Key="k", Body=marked(500_000), ServerSideEncryption="AES256")
    [blob] = [path for path in (server.data_dir / "blobs").glob("*/*") if path.is_file()]
    data = bytearray(blob.read_bytes())
    data[200_000] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(data)
    with pytest.raises(Exception) as caught:
        read(s3, "k")
    assert "IncompleteRead" in str(caught.value) or "Connection broken" in str(caught.value), caught.value
    assert read(s3, "k", Range="bytes=0-65535") == marked(500_000)[:65536]
    data[200_000] ^= 1
    blob.write_bytes(data)
    assert read(s3, "k") == marked(500_000)


def test_customers_keys_can_be_kept_to_https(own_server):
    server = own_server(env={"OSPROXY_S3__CUSTOMER_KEYS": "https"})
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="safe")
    with refused("InvalidRequest", 400):
        s3.put_object(Bucket="safe", Key="k", Body=b"x", **CUSTOMER)

    def through_proxy(request, **_):
        request.headers["X-Forwarded-Proto"] = "https"

    s3.meta.events.register("before-send.s3", through_proxy)
    s3.put_object(Bucket="safe", Key="k", Body=b"x", **CUSTOMER)
    assert read(s3, "k", **CUSTOMER) == b"x"


@pytest.mark.sqlite_only
def test_the_database_tells_a_customers_content_by_nothing(install):
    server, s3 = install
    s3.put_object(Bucket="safe", Key="k", Body=marked(100_000), **CUSTOMER)
    server.stop()
    with sqlite3.connect(server.data_dir / "meta.db") as database:
        rows = database.execute("SELECT sha256, key_id FROM contents").fetchall()
    assert rows == [(None, None)]
