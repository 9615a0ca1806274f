"""Version 1: the same abilities, with proper methods and status codes."""

import base64
import hashlib

import pytest

from support.native import PART, V1, V1Client, ok


@pytest.fixture
def v1(client):
    return V1Client(client)


def test_whole(v1, client, rng):
    data = rng.randbytes(100_000)
    upload = v1.begin("x y.png")
    uid = upload["uid"]
    assert upload == {"uid": uid, "bucket": "image", "key": f"{uid}.png", "state": "open", "parts": []}
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    route = f"/uploads/{uid}/content"
    for wrong in (
        ("Content-Digest", f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"),
        ("Content-MD5", base64.b64encode(bytes(16)).decode()),
        ("Content-MD5", "x"),
        ("Content-Digest", "sha-256=x"),
    ):
        v1.send("PUT", route, data, [wrong], status=422)
    wrong = [("Content-Digest", "sha-512=:AA==:"), ("Content-Digest", f"sha-256=:{base64.b64encode(bytes(32)).decode()}:")]
    v1.send("PUT", route, data, wrong, status=422)
    headers = [("Content-Digest", "sha-512=:AA==:"), ("Content-Digest", f"sha-256=:{digest}:"), ("Content-MD5", md5)]
    made = v1.send("PUT", route, data, headers, status=201).json
    modified = made.pop("modified")
    assert modified.endswith("Z") and made == {
        "uid": uid,
        "name": "x y.png",
        "bucket": "image",
        "key": f"{uid}.png",
        "is_current": True,
        "size": len(data),
        "etag": f'"{hashlib.md5(data).hexdigest()}"',
        "content_type": "image/png",
        "md5": hashlib.md5(data).hexdigest(),
    }
    again = v1.send("PUT", route, data, headers, status=201).json
    assert again == {**made, "modified": modified}
    assert v1.send("PUT", route, data, status=201).json == again
    other = data[:-1] + bytes([data[-1] ^ 1])
    for body, said in ((other, []), (data[:-1], []), (b"", []), (data, [("Content-MD5", base64.b64encode(bytes(16)).decode())])):
        v1.send("PUT", route, body, said, status=409)
    assert v1.send("GET", f"/uploads/{uid}", status=200).json["state"] == "complete"
    answer = v1.send("GET", f"/objects/{uid}/content", status=200)
    assert answer.body == data and answer.headers["etag"] == made["etag"]
    answer = v1.send("GET", f"/objects/{uid}/content", headers=[("Range", "bytes=5-9")], status=206)
    assert answer.body == data[5:10]
    v1.send("GET", f"/objects/{uid}/content", headers=[("If-None-Match", made["etag"])], status=304)
    v1.send("GET", f"/objects/{uid}/content", headers=[("If-Match", '"x"')], status=412)
    cut = [("If-None-Match", '"x"'), ("If-None-Match", f'"y", {made["etag"]}')]
    v1.send("GET", f"/objects/{uid}/content", headers=cut, status=304)
    cut = [("If-Match", '"x"'), ("If-Match", made["etag"])]
    v1.send("GET", f"/objects/{uid}/content", headers=cut, status=200)
    v1.send("GET", f"/objects/{uid}/content", headers=[("Range", "bytes=100000-")], status=416)
    assert client.fetch(uid)[0] == data
    assert v1.send("DELETE", f"/objects/{uid}").status == 204
    v1.send("DELETE", f"/objects/{uid}", status=404)
    v1.send("GET", f"/objects/{uid}", status=404)


def test_parts(v1, client, rng):
    data = rng.randbytes(2 * PART + 3)
    uid = v1.begin()["uid"]
    for number in (3, 1, 2):
        part = data[(number - 1) * PART : number * PART]
        answer = v1.send("PUT", f"/uploads/{uid}/parts/{number}", part, status=200).json
        assert answer == {"number": number, "size": len(part), "md5": hashlib.md5(part).hexdigest()}
    found = v1.send("GET", f"/uploads/{uid}", status=200).json
    assert [part["number"] for part in found["parts"]] == [1, 2, 3] and found["state"] == "open"
    for number in ("0", "10001", "x"):
        v1.send("PUT", f"/uploads/{uid}/parts/{number}", b"x", status=422)
    v1.send("POST", f"/uploads/{uid}/complete", {"parts": 2, "size": len(data)}, status=422)
    v1.send("POST", f"/uploads/{uid}/complete", {"parts": 3, "size": 1}, status=422)
    whole = {"parts": 3, "size": len(data)}
    made = v1.send("POST", f"/uploads/{uid}/complete", whole, status=201).json
    assert made["size"] == len(data) and made["md5"] is None
    v1.send("POST", f"/uploads/{uid}/complete", whole, status=201)
    v1.send("POST", f"/uploads/{uid}/complete", {"parts": 2, "size": len(data)}, status=409)
    v1.send("PUT", f"/uploads/{uid}/parts/1", b"x", status=409)
    v1.send("PUT", f"/uploads/{uid}/content", data, status=409)
    assert client.fetch(uid)[0] == data


def test_abort(v1):
    uid = v1.begin()["uid"]
    v1.send("PUT", f"/uploads/{uid}/parts/1", b"x", status=200)
    assert v1.send("POST", f"/uploads/{uid}/abort").status == 204
    v1.send("POST", f"/uploads/{uid}/abort", status=404)
    v1.send("PUT", f"/uploads/{uid}/content", b"x", status=404)
    v1.send("GET", f"/uploads/{uid}", status=404)


def test_links(v1, basic_server):
    stranger = V1Client(basic_server.native())
    uid, other = v1.begin()["uid"], v1.begin()["uid"]
    wanted = {"purpose": "upload", "uid": uid, "expires_in_seconds": 60}
    link = v1.send("POST", "/links", wanted, status=201).json
    assert link["url"].startswith(f"{V1}/uploads/{uid}/content?") and link["expires_at"].endswith("Z")
    stranger.send("PUT", link["url"].replace(uid, other), b"x", status=422)
    stranger.send("GET", link["url"].replace(f"{uid}/content", other), status=422)
    stranger.send("GET", link["url"].replace("uploads", "objects"), status=422)
    stranger.send("PUT", link["url"].replace("expire=60", "expire=61"), b"x", status=422)
    stranger.send("PUT", link["url"].replace("content", "parts/1"), b"x", status=200)
    stranger.send("PUT", link["url"], b"bytes", status=201)
    link = v1.send("POST", "/links", {"purpose": "download", "uid": uid}, status=201).json
    answer = stranger.send("GET", link["url"], status=200)
    assert answer.body == b"bytes" and answer.headers["content-disposition"].startswith("attachment; ")
    stranger.send("PUT", link["url"].replace("objects", "uploads"), b"x", status=422)
    v1.send("POST", "/links", {"purpose": "download", "uid": other}, status=404)
    v1.send("POST", "/links", {"purpose": "upload", "uid": uid}, status=409)
    v1.send("POST", "/links", {"purpose": "delete", "uid": uid}, status=422)
    v1.send("POST", "/links", {"purpose": "download", "uid": uid, "expires_in_seconds": 604801}, status=422)


def test_resume_by_sha256(v1, client, rng):
    data = rng.randbytes(100)
    item = {"name": "b.txt", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    assert v1.send("POST", "/resume", {"objects": [item]}, status=200).json[0]["uid"] is None
    client.upload("a.txt", data)
    found = v1.send("POST", "/resume", {"objects": [item, {**item, "size": 99}]}, status=200).json
    assert found[1]["uid"] is None and client.fetch(found[0]["uid"])[0] == data
    v1.send("POST", "/resume", {"objects": [item] * 51}, status=422)
    v1.send("POST", "/resume", {"objects": [{**item, "sha256": "x"}]}, status=422)


def test_credentials_are_always_wanted(v1, client, open_server):
    uid = client.upload("a.txt", b"x")
    stranger = V1Client(open_server.native())
    for server in (stranger, v1):
        for method, route in (
            ("POST", "/uploads"),
            ("POST", "/links"),
            ("POST", "/resume"),
            ("GET", f"/uploads/{uid}"),
            ("PUT", f"/uploads/{uid}/content"),
            ("POST", f"/uploads/{uid}/complete"),
            ("POST", f"/uploads/{uid}/abort"),
            ("GET", f"/objects/{uid}"),
            ("GET", f"/objects/{uid}/content"),
            ("DELETE", f"/objects/{uid}"),
        ):
            answer = server.send(method, route, b"{}" if method != "GET" else None, signed=False, status=401)
            assert answer.headers["www-authenticate"].startswith("Basic ")


def test_a_uid_has_one_form(v1):
    uid = v1.begin()["uid"]
    for other in (f"+{uid}", f"0{uid}", f"{uid}%20"):
        v1.send("GET", f"/uploads/{other}", status=404)
    v1.send("PUT", f"/uploads/{uid}/parts/+1", b"x", status=422)
    v1.send("GET", f"/uploads/{uid}", status=200)


def test_what_no_route_answers_is_a_problem_document(v1):
    v1.send("GET", "/none", status=404)
    v1.send("GET", V1, status=404)
    assert "POST" in v1.send("PATCH", "/uploads", status=405).headers["allow"]
    v1.send("PATCH", "/objects/7", status=405)
    v1.send("GET", "/objects/7", headers=[("x-long", "x" * 40_000)], status=431)


@pytest.mark.parametrize("uid", ["7", "x", "-1", "99999999999999999999", "%FF"])
def test_what_is_not_there(v1, uid):
    for method, route in (("GET", f"objects/{uid}/content"), ("PUT", f"uploads/{uid}/parts/1"), ("POST", f"uploads/{uid}/abort")):
        answer = v1.send(method, f"/{route}", status=404)
        assert answer.headers["request-id"] == answer.headers["x-amz-request-id"]
    for method, route in (("GET", "objects"), ("DELETE", "objects"), ("GET", "uploads")):
        v1.send(method, f"/{route}/{uid}", status=404)


def test_wrong_documents(v1):
    for body in (b"", b"{", {"name": ""}, {"name": "a", "more": 1}, {}):
        v1.send("POST", "/uploads", body, status=422)
    assert ok(v1.native.get("/ping")) == "pong"
