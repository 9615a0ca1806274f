"""Fixtures of the client tests: each client, files to send, and what the client did on the wire."""

import random

import pytest

from clients import adapters
from clients.trees import write_tree
from support.keys import CLIENT_SIZES
from support.results import CLIENT, SEEN_OPS


@pytest.fixture
def make_client(request, endpoint, tmp_path):
    """Makes a client of a class, or skips with the reason why it cannot run here."""

    def make(kind):
        reason = kind.missing()
        if reason:
            pytest.skip(f"{kind.name}: {reason}")
        operations = None
        if not request.config.getoption("endpoint"):
            operations = request.getfixturevalue("server").successes
        client = kind(endpoint, tmp_path / "home", operations)
        request.node.stash[CLIENT] = kind.name
        request.node.stash[SEEN_OPS] = client.seen
        return client

    return make


@pytest.fixture(params=adapters.ALL, ids=lambda kind: kind.name)
def client(request, make_client):
    return make_client(request.param)


@pytest.fixture(scope="session")
def sized_files(request, tmp_path_factory):
    """Files of the sizes at which a client or a server changes its way, by name."""
    rng = random.Random(request.config.getoption("seed"))
    folder = tmp_path_factory.mktemp("sized")
    files = {}
    for size in CLIENT_SIZES:
        files[f"{size} bytes"] = folder / f"{size} bytes"
        files[f"{size} bytes"].write_bytes(rng.randbytes(size))
    return files


@pytest.fixture
def many_files(tmp_path):
    """More files than one page of a listing, in folders."""
    return write_tree(tmp_path / "many", [f"d{n % 7}/f {n:04}" for n in range(1005)])
