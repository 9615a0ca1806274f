"""What a client program does: link, upload, merge, link, download, compare."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.native import MIB, PART, ok, parameters, refused

NAME = "example file？?@$.txt"
SIZES = [0, 1, 511, MIB, MIB + 1, int(2.6 * MIB), 100 * MIB]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("access", ["open", "basic"])
def test_a_file_comes_back_as_it_went(native_server, rng, access, size):
    server = native_server(access)
    client = server.native(identity=server.identity if access == "basic" else None)
    data = rng.randbytes(size)
    uid = client.upload(NAME, data)
    body, meta = client.fetch(uid)
    assert hashlib.md5(body).digest() == hashlib.md5(data).digest()
    assert meta == {
        "srcName": NAME,
        "dstName": f"{uid}.txt",
        "height": 0,
        "width": 0,
        "md5": hashlib.md5(data).hexdigest(),
        "size": str(size),
    }


def test_many_programs_at_once(open_client, rng):
    files = [rng.randbytes(rng.choice([0, 1000, PART, PART + 1, 3 * PART])) for _ in range(12)]

    def run(data):
        uid = open_client.upload("a.bin", data)
        return open_client.fetch(uid)[0] == data

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(run, files))


def test_parts_may_come_in_any_order_and_again(open_client, rng):
    data = rng.randbytes(3 * PART + 17)
    parts = [data[start : start + PART] for start in range(0, len(data), PART)]
    [links] = ok(open_client.upload_links("a.mp4"))
    uid = links["uid"]
    assert ok(open_client.checkpoint(uid)) == []
    for number in (4, 2):
        ok(open_client.put_part(links, number, parts[number - 1]))
    assert ok(open_client.checkpoint(uid)) == [2, 4]
    md5 = hashlib.md5(data).hexdigest()
    # What is missing is told, and the parts stay.
    refused(open_client.merge(links, 4, len(data), md5), 422)
    assert ok(open_client.checkpoint(uid)) == [2, 4]
    assert ok(open_client.download_links(uid)) is None
    ok(open_client.put_part(links, 1, b"not this"))
    for number in (3, 1):
        ok(open_client.put_part(links, number, parts[number - 1]))
    refused(open_client.merge(links, 4, len(data) + 1, md5), 422)
    refused(open_client.merge(links, 3, len(data), md5), 422)
    refused(open_client.merge(links, 5, len(data), md5), 422)
    assert ok(open_client.merge(links, 4, len(data), md5)) == ""
    assert open_client.fetch(uid)[0] == data
    # The client may not have heard the answer; another whole is another matter.
    assert ok(open_client.merge(links, 4, len(data), md5)) == ""
    refused(open_client.merge(links, 4, len(data), "0" * 32), 422)
    refused(open_client.checkpoint(uid), 422)
    refused(open_client.put_part(links, 1, parts[0]), 422)
    assert open_client.fetch(uid)[0] == data


def test_a_uid_is_written_once(open_client, rng):
    data = rng.randbytes(2000)
    [links] = ok(open_client.upload_links("a.bin"))
    assert ok(open_client.download_links(links["uid"])) is None
    ok(open_client.put_whole(links, data))
    # Again with the same bytes, for a client that did not hear the answer; never with others.
    ok(open_client.put_whole(links, data))
    refused(open_client.put_whole(links, data + b"x"), 422)
    digest = hashlib.md5(data).hexdigest()
    refused(open_client.put_whole(links, b"other bytes", md5=digest), 422)
    assert open_client.fetch(links["uid"])[0] == data


def test_wrong_digests_leave_nothing_behind(open_client, open_server, rng):
    data = rng.randbytes(300_000)
    [links] = ok(open_client.upload_links("a.bin"))
    refused(open_client.put_whole(links, data, md5="0" * 32), 422)
    refused(open_client.put_part(links, 1, data, md5="0" * 32), 422)
    assert ok(open_client.checkpoint(links["uid"])) == []
    assert ok(open_client.download_links(links["uid"])) is None
    ok(open_client.put_part(links, 1, data))
    refused(open_client.merge(links, 1, len(data), "0" * 32), 422)
    ok(open_client.put_whole(links, data))
    assert open_client.fetch(links["uid"])[0] == data


def test_links_are_in_request_order_one_per_distinct_path(open_client):
    paths = [f"{number}.txt" for number in range(49)] + ["0.txt"]
    answered = ok(open_client.upload_links(*paths))
    assert [links["path"] for links in answered] == paths[:49]
    assert len({links["uid"] for links in answered}) == 49
    for links in answered:
        for url in (links["url"]["single"], *links["url"]["multi"].values()):
            assert parameters(url)["uid"] == links["uid"]
            assert list(parameters(url)) == ["uid", "date", "expire", "signature"]


@pytest.mark.parametrize(
    "path, bucket, key",
    [
        ("a/b/photo.JPG", "image", "{}.jpg"),
        ("film.mpeg", "video", "{}.mpeg"),
        ("song.flac", "audio", "{}.flac"),
        ("c:\\texts\\x.docx", "doc", "{}.docx"),
        ("x.tar.gz", "archive", "{}.gz"),
        ("x.txt", "unknown", "{}.txt"),
        ("Makefile", "unknown", "{}"),
    ],
)
def test_the_extension_chooses_bucket_and_key(open_client, path, bucket, key):
    uid = open_client.upload(path, b"x")
    [link] = ok(open_client.download_links(uid))
    known = parameters(link["url"])
    assert list(known) == ["uid", "name", "online", "date", "expire", "bucket", "object", "signature"]
    assert (known["bucket"], known["object"]) == (bucket, key.format(uid))
    assert link["meta"]["dstName"] == key.format(uid)


def test_of_many_writers_of_one_uid_one_wins(open_client, rng, pool):
    for _ in range(5):
        [links] = ok(open_client.upload_links("a.bin"))
        bodies = [rng.randbytes(rng.choice([100, 50_000])) for _ in range(8)]
        ok(open_client.put_part(links, 1, b"joined"))
        merge = pool.submit(open_client.merge, links, 1, 6, hashlib.md5(b"joined").hexdigest())
        answers = list(pool.map(lambda body: open_client.put_whole(links, body), bodies))
        winners = [body for body, answer in zip(bodies, answers, strict=True) if answer.status == 200]
        if merge.result().status == 200:
            winners.append(b"joined")
        assert len(winners) == 1, answers
        for answer in answers:
            if answer.status != 200:
                refused(answer, 422)
        assert open_client.fetch(links["uid"])[0] == winners[0]


def test_equal_writers_of_one_uid_all_win(open_client, rng, pool):
    data = rng.randbytes(50_000)
    [links] = ok(open_client.upload_links("a.bin"))
    for answer in pool.map(lambda _: open_client.put_whole(links, data), range(8)):
        ok(answer)
    assert open_client.fetch(links["uid"])[0] == data


def test_memory_stays_bounded(own_native_server, rng, pool):
    server = own_native_server("open")
    client = server.native()
    data = rng.randbytes(8 * MIB)
    links = ok(client.upload_links(*(f"{number}.bin" for number in range(16))))
    for sent in [pool.submit(client.put_whole, one, data) for one in links]:
        ok(sent.result())
    assert server.memory() < 256 * MIB
