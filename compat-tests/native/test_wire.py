"""The frozen shapes, byte for byte, and what a client may leave out or send besides."""

import hashlib
import json
import re

import pytest

from support.native import BOUNDARY, V0, V1, form, ok, parameters, refused
from support.raw import read_answer
from support.wait import wait_until

MD5_EMPTY = hashlib.md5(b"").hexdigest()


def test_ping_and_health(open_client):
    for route, text in (("/ping", b"pong"), ("/health", b"ready")):
        answer = open_client.get(route)
        assert answer.status == 200
        assert answer.body == b'{"code":0,"message":"ok","data":"%b"}' % text
        assert answer.headers["content-type"] == "application/json; charset=utf-8"


def test_upload_links_byte_for_byte(open_client):
    answer = open_client.upload_links("a/b.txt", expire=60)
    query = r"\?uid=(\d+)&date=\d{4}-\d\d-\d\dT\d\d%3A\d\d%3A\d\dZ&expire=60&signature=[A-Za-z0-9_-]{55}"
    shape = (
        r'\{"code":0,"message":"ok","data":\[\{"uid":"(\d+)","url":\{"single":"/api/storage/v0/upload'
        + query
        + r'","multi":\{"upload":"/api/storage/v0/upload/multi'
        + query
        + r'","merge":"/api/storage/v0/upload/merge'
        + query
        + r'"\}\},"path":"a/b.txt"\}\]\}'
    )
    found = re.fullmatch(shape, answer.body.decode())
    assert found and len(set(found.groups())) == 1, answer.body


def test_download_links_byte_for_byte(open_client):
    uid = open_client.upload("a b.txt", b"")
    answer = open_client.download_links("1", "x", uid, uid, expire=60)
    shape = (
        r'\{"code":0,"message":"ok","data":\[\{"uid":"%s","url":"/api/storage/v0/download\?uid=%s&name=a\+b.txt'
        r"&online=1&date=\d{4}-\d\d-\d\dT\d\d%%3A\d\d%%3A\d\dZ&expire=60&bucket=unknown&object=%s.txt"
        r'&signature=[A-Za-z0-9_-]{55}","meta":\{"srcName":"a b.txt","dstName":"%s.txt","height":0,"width":0,'
        r'"md5":"%s","size":"0"\}\}\]\}'
    ) % (uid, uid, uid, uid, MD5_EMPTY)
    assert re.fullmatch(shape, answer.body.decode()), answer.body
    assert open_client.download_links("1").body == b'{"code":0,"message":"ok","data":null}'
    assert open_client.download_links().body == b'{"code":0,"message":"ok","data":null}'


def test_other_shapes_byte_for_byte(open_client):
    [links] = ok(open_client.upload_links("a.txt"))
    assert open_client.checkpoint(links["uid"]).body == b'{"code":0,"message":"ok","data":[]}'
    answer = open_client.put_part(links, 2, b"x")
    assert answer.body == b'{"code":0,"message":"ok","data":""}'
    assert open_client.checkpoint(links["uid"]).body == b'{"code":0,"message":"ok","data":[2]}'
    answer = open_client.resume((MD5_EMPTY, "a.txt"), (MD5_EMPTY, "b.txt"))
    assert answer.body == b'{"code":0,"message":"ok","data":[{"md5":"%b","uid":""}]}' % MD5_EMPTY.encode()
    assert open_client.put_whole(links, b"x").body == b'{"code":0,"message":"ok","data":""}'


def test_a_name_for_the_request_comes_back(open_client):
    answer = open_client.send("GET", V0 + "/ping", headers=[("request-id", "abc-123")])
    assert answer.headers["request-id"] == "abc-123"
    made = open_client.get("/ping").headers
    assert made["request-id"] == made["x-amz-request-id"]
    answer = open_client.send("GET", V0 + "/checkpoint?uid=7", headers=[("request-id", "abc-124")])
    refused(answer, 404)
    assert answer.headers["request-id"] == "abc-124"
    assert open_client.send("GET", V0 + "/ping", headers=[("request-id", "x" * 129)]).headers["request-id"] != "x" * 129


def test_the_name_of_a_request_is_on_every_answer_and_in_the_log(own_native_server):
    server = own_native_server("open", OSPROXY_LOG__LEVEL="info,access=debug")
    client = server.native()
    too_long = ("x-long", "x" * 40_000)
    for number, (method, target, headers, status) in enumerate(
        [
            ("GET", V0 + "/ping", [], 200),
            ("GET", V0 + "/swagger/index.html", [], 200),
            ("GET", V0 + "/swagger/openapi.json", [], 200),
            ("GET", V0 + "/swagger/", [], 308),
            ("GET", "/none", [], 404),
            ("DELETE", V0 + "/ping", [], 405),
            ("GET", V0 + "/ping", [too_long], 431),
            ("GET", V1 + "/objects/7", [too_long], 431),
            ("GET", V1 + "/none", [], 404),
        ]
    ):
        answer = client.send(method, target, headers=[("request-id", f"named-{number}"), *headers])
        assert answer.status == status and answer.headers["request-id"] == f"named-{number}", target
        wait_until(lambda: any(f"named-{number}" in line for line in server.log), 30, "the line of the access log")
    [line] = [line for line in server.log if "named-0" in line]
    assert "client_request" in line and "access" in line


@pytest.mark.parametrize(
    "route, document",
    [
        ("/link/upload", {"filePath": []}),
        ("/link/upload", {"filePath": [f"{number}" for number in range(51)]}),
        ("/link/upload", {"filePath": ["a/"]}),
        ("/link/upload", {"filePath": [""]}),
        ("/link/upload", {"filePath": ["x" * 3000]}),
        ("/link/upload", {"filePath": "a"}),
        ("/link/upload", {}),
        ("/link/upload", {"filePath": ["a"], "expire": -1}),
        ("/link/upload", {"filePath": ["a"], "expire": 604801}),
        ("/link/upload", b"{"),
        ("/link/upload", b""),
        ("/link/upload", b"[" + b"1," * 200_000),
        ("/link/download", {"uid": ["1"] * 201}),
        ("/link/download", {"uid": [1]}),
        ("/link/download", {"uid": ["1"], "expire": 604801}),
        ("/resume", {"data": [{"md5": MD5_EMPTY, "path": "a"}] * 51}),
        ("/resume", {"data": [{"md5": "x", "path": "a"}]}),
        ("/resume", {"data": [{"md5": MD5_EMPTY, "path": ""}]}),
        ("/resume", {"data": [{"md5": MD5_EMPTY}]}),
    ],
)
def test_wrong_documents_are_refused(open_client, route, document):
    refused(open_client.post(route, document), 422)


def test_unknown_fields_and_parameters_are_ignored(open_client):
    links = ok(open_client.post("/link/upload", {"filePath": ["a.txt"], "expire": 0, "more": {"x": 1}}))[0]
    assert parameters(links["url"]["single"])["expire"] == "86400"
    ok(open_client.put_whole(links, b"x", other="1"))
    assert open_client.fetch(links["uid"])[0] == b"x"


def test_a_parameter_counts_however_many_others_come_before_it(open_client):
    [links] = ok(open_client.upload_links("a.txt"))
    others = "&".join(f"x{number}=1" for number in range(200))
    answer = open_client.send("GET", f"{V0}/checkpoint?{others}&uid={links['uid']}")
    assert ok(answer) == []
    refused(open_client.send("GET", f"{V0}/checkpoint?uid={links['uid']}&{others}&uid=8"), 422)


def test_fifty_long_paths_are_taken(open_client):
    paths = [f"{'folder/' * 850}{number}.txt" for number in range(50)]
    assert [links["path"] for links in ok(open_client.upload_links(*paths))] == paths


def test_two_values_of_one_parameter_are_refused(open_client):
    answer = open_client.send("GET", f"{V0}/checkpoint?uid=7&uid=8")
    assert "uid" in refused(answer, 422)


@pytest.mark.parametrize("uid, status", [("7", 404), ("x", 422), ("-1", 422), ("07", 422), ("", 422), (None, 422)])
@pytest.mark.parametrize("route", ["/checkpoint", "/proxy"])
def test_uids_that_are_not_there(open_client, route, uid, status):
    refused(open_client.get(route, uid=uid), status)


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", "", "1.5"])
def test_wrong_part_numbers_are_refused(open_client, number):
    [links] = ok(open_client.upload_links("a.txt"))
    refused(open_client.put_part(links, 1, b"x", chunkNum=number), 422)
    ok(open_client.put_part(links, 10000, b"x"))


def test_what_is_no_form_is_refused(open_client):
    [links] = ok(open_client.upload_links("a.txt"))
    md5 = hashlib.md5(b"x").hexdigest()
    target = open_client.rebuild(links["url"]["single"], md5=md5)
    kind = [("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")]
    refused(open_client.send("PUT", target, b"x", kind), 422)
    refused(open_client.send("PUT", target, form(b"x", field="other"), kind), 422)
    refused(open_client.send("PUT", target, form(b"x")[:-10], kind), 422)
    refused(open_client.send("PUT", target, form(b"x"), [("Content-Type", "text/plain")]), 422)
    refused(open_client.send("PUT", target, form(b"x")), 422)
    refused(open_client.send("PUT", target), 422)
    assert ok(open_client.checkpoint(links["uid"])) == []
    ok(open_client.put_whole(links, b"x"))


def test_a_body_with_a_length_is_as_good(open_client):
    [links] = ok(open_client.upload_links("a.txt"))
    body = form(b"hello")
    target = open_client.rebuild(links["url"]["single"], md5=hashlib.md5(b"hello").hexdigest())
    head = (
        f"PUT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    )
    import socket

    with socket.create_connection(("127.0.0.1", open_client.port), timeout=30) as sock:
        sock.sendall(head.encode() + body)
        assert read_answer(sock).status == 200


def test_other_paths_and_methods_are_refused(open_client):
    refused(open_client.send("GET", "/"), 404)
    refused(open_client.send("GET", V0 + "/none"), 404)
    answer = open_client.send("DELETE", V0 + "/ping")
    assert answer.status == 405 and "GET" in answer.headers["allow"]
    assert answer.json["code"] == 0 and answer.json["data"] == ""


def test_the_documents_are_served_from_the_binary(open_client):
    document = open_client.send("GET", V0 + "/swagger/openapi.json")
    assert document.status == 200 and json.loads(document.body)["openapi"].startswith("3.")
    assert open_client.send("GET", V0 + "/swagger/doc.json").body == document.body
    page = open_client.send("GET", V0 + "/swagger/index.html")
    assert page.status == 200 and b"http://" not in page.body and b"https://" not in page.body
    for name in re.findall(rb'(?:src|href)="([^"]+)"', page.body):
        assert open_client.send("GET", f"{V0}/swagger/{name.decode()}").status == 200, name
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert open_client.send("GET", V0 + "/swagger/").headers["location"].endswith("/swagger/index.html")


def test_proxy_names_this_node_for_its_own_disk(open_client, open_server, request):
    uid = open_client.upload("a.bin", b"x" * 100_000)
    if request.config.getoption("database"):
        refused(open_client.get("/proxy", uid=uid), 404)
    else:
        assert ok(open_client.get("/proxy", uid=uid)) == f"127.0.0.1:{open_server.native_port}"


def test_operations_are_counted_and_no_signature_is_logged(own_native_server):
    server = own_native_server("open", OSPROXY_LOG__LEVEL="info,access=debug,osproxy=trace")
    client = server.native()
    uid = client.upload("a.bin", b"x")
    [link] = ok(client.download_links(uid))
    client.download(link["url"])
    signature = parameters(link["url"])["signature"]
    for name in ("native.v0.upload", "native.v0.download"):
        count = lambda: server.metric("osproxy_requests_total", operation=name, status="200")
        wait_until(lambda: count() == 1, 30, f"the count of {name}")
    wait_until(lambda: any("native.v0.download" in line for line in server.log), 30, "the line in the log")
    assert not any(signature in line for line in server.log)
