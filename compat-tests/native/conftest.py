"""A server with the native API, in both modes of access."""

import pytest

from support.native import NativeServer


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
