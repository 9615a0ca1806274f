"""A server with the native API, in both modes of access, and what all tests of it watch."""

import re

import pytest

from support.native import V0, Native, NativeServer


@pytest.fixture(scope="session")
def native_server(tmp_path_factory, server_database):
    """Starts servers of this session by name, each once: native_server("basic")."""
    running = {}

    def start(access, **env):
        name = "-".join([access, *env.values()])
        if name not in running:
            running[name] = NativeServer(tmp_path_factory.mktemp("native") / "data", access, env).start()
        return running[name]

    yield start
    for server in running.values():
        code = server.stop()
        assert code == 0, f"the server ended with {code}:\n{server.tail()}"
        assert not any("panicked" in line for line in server.log), server.tail()


@pytest.fixture(scope="session")
def openapi(native_server):
    """The OpenAPI document."""
    answer = native_server("open").native().get("/swagger/openapi.json")
    assert answer.status == 200, answer
    return answer.json


@pytest.fixture(autouse=True)
def every_answer_is_described(openapi):
    """Holds the status of every answer that a test gets against the document."""
    Native.answered.clear()
    yield
    missing = {answer for answer in Native.answered if not is_described(openapi, *answer)}
    assert not missing, f"not in the OpenAPI document: {sorted(missing)}"


def is_described(document, method, target, status):
    path, method = target.split("?")[0], "get" if method == "HEAD" else method.lower()
    if path.startswith(V0 + "/swagger"):
        return True
    for template, operations in document["paths"].items():
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path):
            return str(status) in operations[method]["responses"] if method in operations else status == 405
    # What names no route.
    return status == 404


@pytest.fixture
def open_server(native_server):
    return native_server("open")


@pytest.fixture
def open_client(open_server):
    """A client that needs no credentials, as those of the original."""
    return open_server.native()


@pytest.fixture
def basic_server(native_server):
    return native_server("basic")


@pytest.fixture
def client(basic_server):
    """A client that says who it is on every route."""
    return basic_server.native(identity=basic_server.identity, all_routes=True)


@pytest.fixture
def s3(basic_server):
    return basic_server.endpoint.client()


@pytest.fixture
def own_native_server(tmp_path):
    """Makes servers that belong to one test alone: own_native_server("open")."""
    started = []

    def make(access, **env):
        server = NativeServer(tmp_path / f"data-{len(started)}", access)
        server.env |= env
        started.append(server)
        return server.start()

    yield make
    for server in started:
        if server.process and server.process.poll() is None:
            server.kill()
