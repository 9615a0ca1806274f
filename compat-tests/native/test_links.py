"""One link opens one uid for one purpose until its time."""

import hashlib
import time
from datetime import datetime, timedelta, timezone

import pytest

from support.native import BOUNDARY, form, ok, parameters, refused
from support.wait import wait_until

SWAGGER = ("", "/", "/index.html", "/page.js", "/page.css", "/openapi.json", "/doc.json")


@pytest.fixture
def file(client):
    return client.upload("secret.txt", b"the bytes")


def link_of(client, uid, expire=3600):
    [link] = ok(client.download_links(uid, expire=expire))
    return link["url"]


def test_a_link_needs_no_credentials(client, basic_server, file):
    answer = basic_server.native().download(link_of(client, file))
    assert (answer.status, answer.body) == (200, b"the bytes")


@pytest.mark.parametrize("name", ["uid", "date", "expire", "name", "bucket", "object", "signature"])
def test_any_other_value_is_refused(client, file, name):
    other = client.upload("secret.txt", b"other bytes")
    link = link_of(client, file)
    changed = {
        "uid": other,
        "date": "2026-01-01T00:00:00Z",
        "expire": "3601",
        "name": "other.txt",
        "bucket": "image",
        "object": f"{other}.txt",
        "signature": parameters(link_of(client, other))["signature"],
    }[name]
    refused(client.download(link, **{name: changed}), 422)
    refused(client.download(link, **{name: None}), 422)
    refused(client.download(link, **{name: ""}), 422)
    assert client.download(link).status == 200


@pytest.mark.parametrize("name", ["uid", "expire"])
@pytest.mark.parametrize("before", ["0", "+", "-", " "])
def test_numbers_have_one_form(client, file, name, before):
    link = link_of(client, file)
    changed = {name: before + parameters(link)[name]}
    assert refused(client.download(link, **changed), 422) == f"{name}: not understood"
    [links] = ok(client.upload_links("a.txt"))
    changed = {name: before + parameters(links["url"]["single"])[name]}
    assert refused(client.put_whole(links, b"x", **changed), 422) == f"{name}: not understood"


@pytest.mark.parametrize("num, size", [("01", 1), (1, "01"), ("+1", 1), (1, "+1")])
def test_what_is_said_of_a_whole_has_one_form(client, num, size):
    [links] = ok(client.upload_links("a.txt"))
    ok(client.put_part(links, 1, b"x"))
    refused(client.put_part(links, "01", b"x"), 422)
    md5 = hashlib.md5(b"x").hexdigest()
    assert "not understood" in refused(client.merge(links, num, size, md5), 422)
    ok(client.merge(links, 1, 1, md5))


def test_every_character_of_a_signature_counts(client, file):
    link = link_of(client, file)
    signature = parameters(link)["signature"]
    for place in range(0, len(signature), 5):
        changed = signature[:place] + ("A" if signature[place] != "A" else "B") + signature[place + 1 :]
        refused(client.download(link, signature=changed), 422)
    for changed in (signature[:-1], signature + "A", signature.upper(), "A" * 5000, signature + "="):
        refused(client.download(link, signature=changed), 422)


def test_a_copied_signature_opens_no_other_purpose(client, file):
    [links] = ok(client.upload_links("a.txt"))
    upload = parameters(links["url"]["single"])
    download = parameters(link_of(client, file))
    # An upload's signature for a download, of its own uid and of another.
    known = {**download, "date": upload["date"], "expire": upload["expire"], "signature": upload["signature"]}
    refused(client.download(link_of(client, file), **known), 422)
    refused(client.download(link_of(client, file), **{**known, "uid": upload["uid"]}), 422)
    # A download's signature for an upload.
    refused(client.put_whole(links, b"x", signature=download["signature"]), 422)
    refused(client.put_whole(links, b"x", **{n: download[n] for n in ("uid", "date", "expire", "signature")}), 422)
    # An upload's signature for another uid.
    [others] = ok(client.upload_links("b.txt"))
    refused(client.put_whole(others, b"x", signature=upload["signature"]), 422)
    assert ok(client.checkpoint(others["uid"])) == []
    ok(client.put_whole(links, b"x"))


def test_a_link_ends(client, file):
    def opens():
        # Whoever stands still for longer than it lives sees only its end.
        link = link_of(client, file, expire=2)
        return link if client.download(link).status == 200 else None

    link = wait_until(opens, 30, "a link that opens")
    wait_until(lambda: client.download(link).status != 200, 30, "its end")
    assert "expired" in refused(client.download(link), 422)


@pytest.mark.parametrize("date", ["2026-01-01 00:00:00", "0", "x", "2026-13-01T00:00:00Z"])
def test_a_date_that_is_none_is_refused(client, file, date):
    assert refused(client.download(link_of(client, file), date=date), 422) == "date: not understood"


@pytest.mark.parametrize("minutes, problem", [(3, "signature"), (7, "date"), (60 * 24 * 365, "date")])
def test_a_date_is_at_most_five_minutes_ahead(client, file, minutes, problem):
    # The signature is not of this date: what is said tells whether the date was taken.
    ahead = datetime.now(timezone.utc) + timedelta(minutes=minutes)
    answer = client.download(link_of(client, file), date=f"{ahead:%Y-%m-%dT%H:%M:%SZ}")
    told = {"signature": "the signature is not that of this link", "date": "the link's date or expire is not possible"}
    assert refused(answer, 422) == told[problem]


@pytest.mark.parametrize("header", ["Bearer x", "Basic !", "Basic Tk9TVUNIS0VZOng=", "AWS4-HMAC-SHA256 Credential=x"])
def test_a_link_opens_whatever_credentials_come_along(client, basic_server, file, header):
    foreign = [("Authorization", header)]
    assert client.download(link_of(client, file), headers=foreign).body == b"the bytes"
    data = f"sent with {header}".encode() * 20_000
    digest = hashlib.md5(data).hexdigest()
    [links] = ok(client.upload_links("a.bin"))
    target = client.rebuild(links["url"]["single"], md5=digest)
    kind = [("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")]
    ok(client.send("PUT", target, form(data), [*kind, *foreign]))
    # Nobody gains possession by them.
    assert ok(client.resume((digest, "a.bin")))[0]["uid"] == ""


def test_no_credentials_no_links(basic_server, client, file):
    for stranger in (
        basic_server.native(),
        basic_server.native(identity=basic_server.identity.__class__("NOSUCHKEY", "nosuchsecret")),
        basic_server.native(identity=basic_server.identity.__class__(basic_server.identity.access_key, "wrong")),
    ):
        for answer in (
            stranger.upload_links("a.txt"),
            stranger.download_links(file),
            stranger.resume(("0" * 32, "a")),
            stranger.checkpoint(file),
            stranger.get("/proxy", uid=file),
            stranger.get("/ping"),
            stranger.get("/health"),
            *(stranger.get(f"/swagger{page}") for page in SWAGGER),
        ):
            refused(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Basic ")
    answer = client.send("GET", "/api/storage/v0/checkpoint?uid=7", headers=[("Authorization", "Bearer x")])
    refused(answer, 401)
    assert ok(client.get("/ping")) == "pong" and ok(client.get("/health")) == "ready"
    assert {client.get(f"/swagger{page}").status for page in SWAGGER} == {200, 308}


def test_a_link_ends_with_the_key_that_made_it(basic_server, client, file):
    made = basic_server.command("keys", "create", "--json").stdout
    import json

    pair = json.loads(made)
    identity = basic_server.identity.__class__(pair["access_key"], pair["secret_key"])
    issuer = basic_server.native(identity=identity)
    link = link_of(issuer, file)
    [links] = ok(issuer.upload_links("a.txt"))
    assert client.download(link).status == 200
    basic_server.command("keys", "disable", pair["access_key"])
    deadline = time.monotonic() + 10
    while client.download(link).status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    refused(client.download(link), 401)
    refused(client.put_whole(links, b"x"), 401)


def test_open_access_is_for_addresses_and_not_for_names(open_client):
    for host, status in (("evil.example:8888", 401), ("localhost:8888", 200), ("127.0.0.1", 200)):
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", open_client.port, timeout=30)
        connection.request("POST", "/api/storage/v0/link/upload", b'{"filePath":["a"]}', {"Host": host})
        assert connection.getresponse().status == status, host
        connection.close()


def test_another_tenants_key_is_nobody_here(basic_server, file):
    basic_server.create_tenant("other")
    identity = basic_server.create_key("other", "OTHERACCESSKEY000001", "othersecretkeyothersecretkeyothersecret1")
    refused(basic_server.native(identity=identity).download_links(file), 401)


def test_links_hold_after_a_restart_and_a_crash(own_native_server):
    server = own_native_server("open")
    client = server.native()
    uid = client.upload("a.txt", b"bytes")
    link = link_of(client, uid)
    [links] = ok(client.upload_links("b.txt"))
    server.kill()
    server.start()
    client = server.native()
    assert client.download(link).body == b"bytes"
    ok(client.put_whole(links, b"later"))
    assert client.fetch(links["uid"])[0] == b"later"


def test_a_name_cannot_make_headers(open_client):
    name = 'a"; filename="b\r\nSet-Cookie: c=1;？é.txt'
    uid = open_client.upload(name, b"x")
    [link] = ok(open_client.download_links(uid))
    answer = open_client.download(link["url"])
    assert answer.status == 200 and "set-cookie" not in answer.headers
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith('inline; filename="') and disposition.count('"') == 2
    assert "filename*=UTF-8''" in disposition and "%EF%BC%9F%C3%A9.txt" in disposition
    saved = open_client.download(link["url"], online="0")
    assert saved.headers["content-disposition"].startswith("attachment; ")
    refused(open_client.download(link["url"], online="2"), 422)
