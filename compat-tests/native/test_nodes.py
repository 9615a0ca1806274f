"""Two nodes on one database: a link of one opens on the other, and parts may go to either."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.native import PART, Native, ok, parameters

MASTER_KEY = "42" * 32


@pytest.fixture
def nodes(postgres, own_native_server, tmp_path):
    shared = {
        "OSPROXY_META__URL": postgres.create(),
        "OSPROXY_MASTER_KEY": MASTER_KEY,
        "OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT": str(tmp_path / "blobs"),
    }
    return [own_native_server("basic", **shared) for _ in range(2)]


def test_any_node_serves_any_request(nodes, rng):
    first, second = (node.native(identity=node.identity, all_routes=True) for node in nodes)
    data = rng.randbytes(4 * PART + 9)
    parts = [data[start : start + PART] for start in range(0, len(data), PART)]
    [links] = ok(first.upload_links("a.bin"))
    for number, part in enumerate(parts, 1):
        ok((first, second)[number % 2].put_part(links, number, part))
    assert ok(second.checkpoint(links["uid"])) == [1, 2, 3, 4, 5]
    ok(second.merge(links, len(parts), len(data), hashlib.md5(data).hexdigest()))
    [link] = ok(second.download_links(links["uid"]))
    assert first.download(link["url"]).body == data
    # One node's links hold when it is gone.
    nodes[1].kill()
    assert first.download(link["url"]).body == data
    assert Native(first.port).download(link["url"], headers=[("Range", "bytes=-9")]).body == data[-9:]


def test_nodes_that_begin_at_once_sign_with_one_key(nodes):
    clients = [node.native(identity=node.identity) for node in nodes for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda client: ok(client.upload_links("a.txt"))[0], clients))
    signatures = [parameters(links["url"]["single"])["signature"] for links in made]
    assert len({signature[:12] for signature in signatures}) == 1
    for client, links in zip(reversed(clients), made, strict=True):
        ok(client.put_whole(links, b"x"))
