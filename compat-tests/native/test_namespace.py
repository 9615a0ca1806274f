"""Both APIs are one namespace: what one writes, the other sees, ranges and deletes; and bytes are stored once."""

import hashlib
import json

import pytest
from botocore.exceptions import ClientError

from support.native import MIB, PART, V1, ok, refused
from support.wait import wait_until

PROMPT = {"OSPROXY_MERGE__DELAY_SECONDS": "0", "OSPROXY_JOBS__POLL_SECONDS": "1"}


def merged(server):
    """Waits until all merges are done, and answers what became of each."""

    def done():
        jobs = json.loads(server.command("jobs", "list", "--type", "merge", "--json").stdout)["jobs"]
        return jobs if jobs and all(job["state"] == "done" for job in jobs) else None

    return {job["report"]["outcome"] for job in wait_until(done, 60, "the merge")}


@pytest.fixture
def bucket(s3, rng):
    name = f"own-{rng.getrandbits(48):x}"
    s3.create_bucket(Bucket=name)
    return name


def uid_of(answer):
    return answer["ResponseMetadata"]["HTTPHeaders"]["x-osproxy-uid"]


@pytest.mark.parametrize("size", [1000, 100_000, 2 * PART + 5])
def test_sent_here_read_and_deleted_by_s3(client, s3, rng, size):
    data = rng.randbytes(size)
    uid = client.upload("a b？.png", data)
    place = {"Bucket": "image", "Key": f"{uid}.png"}
    head = s3.head_object(**place)
    assert head["ContentLength"] == size and head["ContentType"] == "image/png"
    assert uid_of(head) == uid
    assert head["Metadata"]["filename"] == "a%20b%EF%BC%9F%2Epng"
    assert s3.get_object(**place)["Body"].read() == data
    assert s3.get_object(**place, Range="bytes=100-199")["Body"].read() == data[100:200]
    listed = s3.list_objects_v2(Bucket="image", Prefix=uid)["Contents"]
    assert [(entry["Key"], entry["Size"]) for entry in listed] == [(f"{uid}.png", size)]
    if size <= PART:
        assert head["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    s3.delete_object(**place)
    assert ok(client.download_links(uid)) is None
    refused(client.checkpoint(uid), 404)


@pytest.mark.parametrize("size", [0, 1000, 100_000])
def test_put_by_s3_read_here(client, s3, bucket, rng, size):
    data = rng.randbytes(size)
    put = s3.put_object(Bucket=bucket, Key="folder/x y.bin", Body=data)
    body, meta = client.fetch(uid_of(put))
    assert body == data
    assert (meta["srcName"], meta["dstName"]) == ("x y.bin", "folder/x y.bin")
    assert (meta["md5"], meta["size"]) == (hashlib.md5(data).hexdigest(), str(size))


def test_every_version_keeps_its_uid(client, s3, bucket):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first, second = (s3.put_object(Bucket=bucket, Key="k", Body=body) for body in (b"one", b"two"))
    assert client.fetch(uid_of(first))[0] == b"one"
    assert client.fetch(uid_of(second))[0] == b"two"
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert client.fetch(uid_of(second))[0] == b"two"
    s3.delete_object(Bucket=bucket, Key="k", VersionId=second["VersionId"])
    assert ok(client.download_links(uid_of(second))) is None
    assert marker["DeleteMarker"] and client.fetch(uid_of(first))[0] == b"one"


def test_an_overwritten_object_is_gone(client, s3, bucket):
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"one")
    [link] = ok(client.download_links(uid_of(first)))
    s3.put_object(Bucket=bucket, Key="k", Body=b"two")
    refused(client.download(link["url"]), 404)
    assert ok(client.download_links(uid_of(first))) is None


def test_uploads_are_uploads_of_s3(client, s3):
    [links] = ok(client.upload_links("a.wav"))
    key = f"{links['uid']}.wav"
    ok(client.put_part(links, 1, b"x" * 1000))
    listed = s3.list_multipart_uploads(Bucket="audio", Prefix=key)["Uploads"]
    assert [upload["Key"] for upload in listed] == [key]
    upload = {"Bucket": "audio", "Key": key, "UploadId": listed[0]["UploadId"]}
    parts = s3.list_parts(**upload)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in parts] == [(1, 1000)]
    s3.abort_multipart_upload(**upload)
    refused(client.checkpoint(links["uid"]), 404)
    refused(client.put_part(links, 2, b"x"), 404)
    refused(client.put_whole(links, b"x"), 404)


def test_an_upload_of_this_api_can_be_completed_by_s3(client, s3):
    [links] = ok(client.upload_links("a.zip"))
    key, data = f"{links['uid']}.zip", b"x" * 1000
    ok(client.put_part(links, 1, data))
    [upload] = s3.list_multipart_uploads(Bucket="archive", Prefix=key)["Uploads"]
    parts = [{"PartNumber": 1, "ETag": hashlib.md5(data).hexdigest()}]
    s3.complete_multipart_upload(
        Bucket="archive", Key=key, UploadId=upload["UploadId"], MultipartUpload={"Parts": parts}
    )
    assert client.fetch(links["uid"])[0] == data


def narrow_client(server, tmp_path, *resources):
    """A client whose key may get and put there and nowhere else."""
    policy = tmp_path / "policy.json"
    statement = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": list(resources)}
    policy.write_text(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    pair = json.loads(server.command("keys", "create", "--policy", policy, "--json").stdout)
    identity = server.identity.__class__(pair["access_key"], pair["secret_key"])
    return server.native(identity=identity, all_routes=True)


def test_policies_of_keys_and_buckets_count(basic_server, client, s3, bucket, tmp_path):
    narrow = narrow_client(basic_server, tmp_path, "arn:aws:s3:::image/*", f"arn:aws:s3:::{bucket}/public/*")
    public = uid_of(s3.put_object(Bucket=bucket, Key="public/a", Body=b"a"))
    private = uid_of(s3.put_object(Bucket=bucket, Key="private/a", Body=b"b"))
    assert narrow.fetch(public)[0] == b"a"
    assert [link["uid"] for link in ok(narrow.download_links(private, public))] == [public]
    picture = narrow.upload("a.png", b"x")
    assert narrow.fetch(picture)[0] == b"x"
    refused(narrow.upload_links("a.pdf"), 401)
    # A permission that is withdrawn ends the links made with it.
    [link] = ok(narrow.download_links(public))
    [links] = ok(narrow.upload_links("b.png"))
    deny = {"Effect": "Deny", "Principal": "*", "Action": ["s3:GetObject"], "Resource": f"arn:aws:s3:::{bucket}/*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    refused(narrow.download(link["url"]), 404)
    ok(narrow.put_whole(links, b"x"))


def test_who_may_not_put_makes_no_buckets(own_native_server, tmp_path):
    server = own_native_server("basic")
    policy = tmp_path / "policy.json"
    statement = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::elsewhere/*"]}
    policy.write_text(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    pair = json.loads(server.command("keys", "create", "--policy", policy, "--json").stdout)
    narrow = server.native(identity=server.identity.__class__(pair["access_key"], pair["secret_key"]), all_routes=True)
    refused(narrow.upload_links("a.png"), 401)
    refused(narrow.resume(("0" * 32, "a.mp4")), 401)
    for route, wanted in (
        ("/uploads", {"name": "a.pdf"}),
        ("/resume", {"objects": [{"name": "a.zip", "sha256": "0" * 64, "size": 1}]}),
    ):
        answer = narrow.send("POST", V1 + route, json.dumps(wanted).encode(), narrow.basic())
        assert answer.status == 403, answer
    s3 = server.endpoint.client()
    assert s3.list_buckets()["Buckets"] == []
    server.native(identity=server.identity, all_routes=True).upload("a.png", b"x")
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["image"]


def test_open_access_reaches_the_buckets_of_this_api_alone(open_server, open_client):
    s3 = open_server.endpoint.client()
    s3.create_bucket(Bucket="somebody-elses")
    uid = uid_of(s3.put_object(Bucket="somebody-elses", Key="k.txt", Body=b"private"))
    assert ok(open_client.download_links(uid)) is None
    refused(open_client.get("/proxy", uid=uid), 404)
    own = uid_of(s3.put_object(Bucket="doc", Key="k.pdf", Body=b"shared")) if bucket_there(s3) else None
    if own:
        assert open_client.fetch(own)[0] == b"shared"


def bucket_there(s3):
    try:
        s3.create_bucket(Bucket="doc")
    except ClientError as error:
        assert error.response["Error"]["Code"] == "BucketAlreadyOwnedByYou"
    return True


def test_equal_bytes_are_stored_once(own_native_server, rng):
    server = own_native_server("basic")
    client = server.native(identity=server.identity, all_routes=True)
    s3 = server.endpoint.client()
    data = rng.randbytes(700_000)
    first = client.upload("a.bin", data)
    stored = server.stats()["stored_bytes"]
    assert stored >= len(data)
    second = client.upload("b.png", data)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=data)
    [links] = ok(client.upload_links("c.bin"))
    ok(client.put_part(links, 1, data))
    ok(client.merge(links, 1, len(data), hashlib.md5(data).hexdigest()))
    assert server.stats()["stored_bytes"] == stored
    s3.delete_object(Bucket="unknown", Key=f"{first}.bin")
    assert client.fetch(second)[0] == client.fetch(links["uid"])[0] == data


def test_the_md5_that_a_client_told_of_parts_is_answered_and_held_against_the_same_merge(own_native_server, rng):
    server = own_native_server("basic", **PROMPT)
    client = server.native(identity=server.identity, all_routes=True)
    data, told = rng.randbytes(2 * PART), hashlib.md5(b"other").hexdigest()
    [links] = ok(client.upload_links("a.bin"))
    for number in (1, 2):
        ok(client.put_part(links, number, data[(number - 1) * PART : number * PART]))
    ok(client.merge(links, 2, len(data), told))
    merged(server)
    assert client.fetch(links["uid"])[1]["md5"] == told
    found = client.send("GET", f"{V1}/objects/{links['uid']}", headers=client.basic()).json
    assert found["md5"] == told
    ok(client.merge(links, 2, len(data), told))
    refused(client.merge(links, 2, len(data), hashlib.md5(data).hexdigest()), 422)


class TestResume:
    """Instant upload needs possession: this access key sent these bytes itself."""

    def pair(self, data, path="again.bin"):
        return hashlib.md5(data).hexdigest(), path

    def test_of_what_this_key_has_sent(self, client, rng):
        data = rng.randbytes(300_000)
        assert ok(client.resume(self.pair(data)))[0]["uid"] == ""
        first = client.upload("a.bin", data)
        [found] = ok(client.resume(self.pair(data)))
        assert found["uid"] not in ("", first)
        body, meta = client.fetch(found["uid"])
        assert body == data and meta["srcName"] == "again.bin"
        upper = self.pair(data)[0].upper()
        assert ok(client.resume((upper, "a.bin")))[0]["md5"] == upper

    def test_of_what_this_key_has_put_by_s3(self, client, s3, bucket, rng):
        data = rng.randbytes(300_000)
        s3.put_object(Bucket=bucket, Key="k", Body=data)
        [found] = ok(client.resume(self.pair(data)))
        assert client.fetch(found["uid"])[0] == data
        # The other way round it is S3's own instant upload, for what this API made.
        s3.delete_object(Bucket=bucket, Key="k")
        assert ok(client.resume(self.pair(data)))[0]["uid"]

    def test_not_of_what_a_link_holder_has_sent(self, client, basic_server, rng):
        data = rng.randbytes(300_000)
        [links] = ok(client.upload_links("a.bin"))
        ok(basic_server.native().put_whole(links, data))
        assert ok(client.resume(self.pair(data)))[0]["uid"] == ""

    def test_not_of_what_another_key_has_sent(self, client, basic_server, rng):
        data = rng.randbytes(300_000)
        client.upload("a.bin", data)
        pair = json.loads(basic_server.command("keys", "create", "--json").stdout)
        identity = basic_server.identity.__class__(pair["access_key"], pair["secret_key"])
        other = basic_server.native(identity=identity, all_routes=True)
        assert ok(other.resume(self.pair(data)))[0]["uid"] == ""

    def test_not_after_the_last_reference_is_gone(self, client, s3, rng):
        data = rng.randbytes(300_000)
        uid = client.upload("a.bin", data)
        s3.delete_object(Bucket="unknown", Key=f"{uid}.bin")
        assert ok(client.resume(self.pair(data)))[0]["uid"] == ""

    def test_not_by_an_md5_that_a_client_only_told(self, client, rng):
        data, other = rng.randbytes(2 * PART), rng.randbytes(300_000)
        [links] = ok(client.upload_links("a.bin"))
        for number in (1, 2):
            ok(client.put_part(links, number, data[(number - 1) * PART : number * PART]))
        told = hashlib.md5(other).hexdigest()
        ok(client.merge(links, 2, len(data), told))
        assert ok(client.resume((told, "a.bin")))[0]["uid"] == ""

    @pytest.mark.parametrize("part, first, outcome", [(1, None, "written"), (5, None, "known"), (5, "piece", "shared")])
    def test_of_parts_that_were_merged(self, own_native_server, rng, part, first, outcome):
        server = own_native_server("basic", **PROMPT)
        pair = json.loads(server.command("keys", "create", "--json").stdout)
        identity = server.identity.__class__(pair["access_key"], pair["secret_key"])
        other = server.native(identity=identity, all_routes=True)
        client = server.native(identity=server.identity, all_routes=True)
        data = rng.randbytes(3 * part * MIB)
        if first:
            [links] = ok(other.upload_links("other.bin"))
            ok(other.put_whole(links, data))
        [links] = ok(client.upload_links("a.bin"))
        for number in range(3):
            ok(client.put_part(links, number + 1, data[number * part * MIB : (number + 1) * part * MIB]))
        ok(client.merge(links, 3, len(data), hashlib.md5(data).hexdigest()))
        assert merged(server) == {outcome}
        [found] = ok(client.resume(self.pair(data)))
        assert found["uid"] and client.fetch(found["uid"])[0] == data
        item = {"name": "b.bin", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        asked = json.dumps({"objects": [item]}).encode()
        assert client.send("POST", V1 + "/resume", asked, client.basic()).json[0]["uid"]
        assert bool(ok(other.resume(self.pair(data)))[0]["uid"]) == bool(first)
        assert bool(other.send("POST", V1 + "/resume", asked, other.basic()).json[0]["uid"]) == bool(first)

    def test_not_of_parts_that_several_have_sent(self, own_native_server, rng):
        server = own_native_server("basic", **PROMPT)
        client = server.native(identity=server.identity, all_routes=True)
        data = rng.randbytes(3 * MIB)
        [links] = ok(client.upload_links("a.bin"))
        for number, sender in enumerate((client, server.native(), client)):
            ok(sender.put_part(links, number + 1, data[number * MIB : (number + 1) * MIB]))
        ok(client.merge(links, 3, len(data), hashlib.md5(data).hexdigest()))
        assert merged(server) == {"written"}
        assert ok(client.resume(self.pair(data)))[0]["uid"] == ""

    def test_of_merged_parts_in_open_access_where_it_is_allowed(self, own_native_server, rng):
        server = own_native_server("open", OSPROXY_NATIVE__OPEN_RESUME="true", **PROMPT)
        client, data = server.native(), rng.randbytes(3 * MIB)
        client.upload("a.bin", data)
        assert merged(server) == {"written"}
        [found] = ok(client.resume(self.pair(data)))
        assert found["uid"] and client.fetch(found["uid"])[0] == data

    @pytest.mark.parametrize("name", ["", "x" * 3000, "b.pdf"], ids=["none", "too long", "denied"])
    @pytest.mark.parametrize("version", [0, 1])
    def test_what_is_refused_makes_nothing(self, basic_server, s3, tmp_path, rng, version, name):
        narrow = narrow_client(basic_server, tmp_path, "arn:aws:s3:::image/*")
        data = rng.randbytes(300_000)
        narrow.upload("a.png", data)
        before = s3.list_object_versions(Bucket="image")["Versions"]
        if version == 0:
            refused(narrow.resume(self.pair(data, "good.png"), ("0" * 32, name)), 401 if name == "b.pdf" else 422)
        else:
            item = {"name": "good.png", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            asked = json.dumps({"objects": [item, {**item, "name": name, "sha256": "0" * 64}]}).encode()
            answer = narrow.send("POST", V1 + "/resume", asked, narrow.basic())
            assert answer.status == (403 if name == "b.pdf" else 422), answer
        assert s3.list_object_versions(Bucket="image")["Versions"] == before

    @pytest.mark.parametrize("version", [0, 1])
    def test_a_digest_that_is_none_makes_nothing(self, client, s3, rng, version):
        data = rng.randbytes(300_000)
        client.upload("a.wav", data)
        before = s3.list_object_versions(Bucket="audio")["Versions"]
        if version == 0:
            refused(client.resume(self.pair(data, "good.wav"), ("x", "b")), 422)
        else:
            item = {"name": "good.wav", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            asked = json.dumps({"objects": [item, {**item, "sha256": "x"}]}).encode()
            answer = client.send("POST", V1 + "/resume", asked, client.basic())
            assert answer.status == 422, answer
        assert s3.list_object_versions(Bucket="audio")["Versions"] == before

    def test_not_in_open_access(self, open_client, rng):
        data = rng.randbytes(300_000)
        open_client.upload("a.bin", data)
        assert ok(open_client.resume(self.pair(data)))[0]["uid"] == ""

    def test_in_open_access_where_it_is_allowed_and_of_these_buckets_alone(self, native_server, rng):
        server = native_server("open", open_resume="true")
        client, s3 = server.native(), server.endpoint.client()
        private, shared = rng.randbytes(300_000), rng.randbytes(300_000)
        s3.create_bucket(Bucket="somebody-elses")
        s3.put_object(Bucket="somebody-elses", Key="k", Body=private)
        client.upload("a.bin", shared)
        answered = ok(client.resume(self.pair(private), self.pair(shared)))
        assert answered[0]["uid"] == "" and client.fetch(answered[1]["uid"])[0] == shared
