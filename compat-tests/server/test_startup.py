"""First start, second start, and configuration that must be refused."""

import configparser
import stat
import subprocess

import pytest

from support.endpoint import Identity
from support.refusal import refused
from support.server import BINARY


def test_second_start_finds_everything(own_server):
    server = own_server()
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="small", Body=b"x")
    s3.put_object(Bucket="kept", Key="large", Body=b"y" * 300_000)
    assert server.stop() == 0
    server.start()
    s3 = server.endpoint.client()
    assert s3.get_object(Bucket="kept", Key="small")["Body"].read() == b"x"
    assert s3.get_object(Bucket="kept", Key="large")["Body"].read() == b"y" * 300_000


def test_a_root_that_is_not_mounted_is_told_of_and_served(own_server):
    server = own_server()
    s3 = server.endpoint.client()
    s3.create_bucket(Bucket="kept")
    told = lambda: [line for line in server.log if "is it mounted?" in line]
    assert server.stop() == 0
    server.start()
    assert not told(), "it names nothing there yet"
    server.endpoint.client().put_object(Bucket="kept", Key="k", Body=b"y" * 300_000)
    root = server.data_dir / "blobs"
    for times in (1, 2):  # the second time with what the first start has made there
        assert server.stop() == 0
        if not (server.data_dir / "disk").exists():
            root.rename(server.data_dir / "disk")
        server.start()
        assert len(told()) == times and "ERROR" in told()[0].upper() and "local" in told()[0], told()
    server.endpoint.client().put_object(Bucket="kept", Key="new", Body=b"z" * 300_000)


def test_first_start_makes_a_root_key_that_only_the_owner_can_read(own_server):
    server = own_server(identity=None)
    file = server.data_dir / "root-credentials"  # in the form of an AWS credentials file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    credentials = configparser.ConfigParser()
    credentials.read(file)
    root = Identity(credentials["default"]["aws_access_key_id"], credentials["default"]["aws_secret_access_key"])
    server.endpoint.as_identity(root).client().create_bucket(Bucket="made-by-root")
    assert not any(root.secret_key in line for line in server.log), "the secret key is in the log"
    assert server.stop() == 0

    before = file.read_bytes()
    server.start()
    assert file.read_bytes() == before
    buckets = server.endpoint.as_identity(root).client().list_buckets()["Buckets"]
    assert [bucket["Name"] for bucket in buckets] == ["made-by-root"]


def test_data_directory_is_for_its_owner_alone(own_server):
    server = own_server()
    assert stat.S_IMODE(server.data_dir.stat().st_mode) & 0o077 == 0


def test_second_server_on_the_same_data_is_refused(own_server):
    first = own_server()
    second = own_server(start=False)
    second.launch()
    assert second.wait(30) != 0
    assert "data" in second.tail().lower()
    first.endpoint.client().list_buckets()


def test_wrong_secret_of_the_root_key_is_refused(own_server):
    server = own_server()
    wrong = server.endpoint.as_identity(Identity(server.identity.access_key, "wrong" * 8))
    with refused("SignatureDoesNotMatch"):
        wrong.client().list_buckets()


@pytest.mark.parametrize(
    "text, name",
    [
        ("[storage]\ndurabilty = 'relaxed'\n", "durabilty"),
        ("[sotrage]\n", "sotrage"),
        ("[storage]\ndurability = 'sometimes'\n", "durability"),
        ("[http]\nmax_requests = 'many'\n", "max_requests"),
    ],
)
def test_wrong_key_of_the_file_is_refused_by_name(own_server, tmp_path, text, name):
    file = tmp_path / "osproxy.toml"
    file.write_text(text)
    server = own_server(start=False, arguments=["--config", file])
    server.launch()
    assert server.wait(30) != 0
    assert name in server.tail()


def test_wrong_variable_is_refused_by_name(own_server):
    server = own_server(start=False, env={"OSPROXY_STORAGE__DURABILTY": "relaxed"})
    server.launch()
    assert server.wait(30) != 0
    assert "DURABILTY" in server.tail().upper()


@pytest.mark.parametrize(
    "variable, value, parts",
    [
        ("META__URL", "postgresx://u:hush@h/d", ["meta.url: ", "postgres://"]),
        ("META__URL", "postgres://u:hush@h:99999/d", ["meta.url: ", "HOST:PORT"]),
        ("META__URL", "postgres://u:hush@h/d?sslmod=verify-full", ["meta.url: ", "`sslmod`", "sslmode"]),
        ("META__URL", "mysql://u:hush@h/d?ssl-mode=VERIFY_ALL", ["meta.url: ", "`ssl-mode`"]),
        ("REDIS__URL", "redis-cluster://u:hush@h?foo=bar", ["redis.url: ", "`foo`", "node"]),
        ("BACKEND__DAV__OPTIONS__ENDPOINT", "htp://u:hush@127.0.0.1:1", ["backend.dav.options.endpoint: ", "https://"]),
        ("BACKEND__DAV__OPTIONS__ENDPOINT", "127.0.0.1:1", ["backend.dav.options.endpoint: ", "https://"]),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_by_name_and_without_its_password(variable, value, parts):
    env = {"OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT": "/shared", f"OSPROXY_{variable}": value}
    if "DAV" in variable:
        env["OSPROXY_BACKEND__DAV__SERVICE"] = "webdav"
    done = subprocess.run([BINARY, "config", "check"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert all(part in done.stderr for part in parts), done.stderr
    assert "hush" not in done.stdout + done.stderr


def test_a_master_key_made_for_a_server_database_is_warned_of(own_server, postgres):
    """It lies in this node's directory alone, which may go with the node."""
    made = "master key made"
    shared = own_server("shared", env={"OSPROXY_META__URL": postgres.create()})
    [line] = [line for line in shared.log if made in line]
    assert "WARN" in line and str(shared.data_dir / "master.key") in line and "OSPROXY_MASTER_KEY" in line
    shared.stop()
    shared.log.clear()
    shared.start()
    assert not any(made in line for line in shared.log), "it is kept now"
    given = {"OSPROXY_META__URL": postgres.create(), "OSPROXY_MASTER_KEY": "11" * 32}
    assert not any(made in line for line in own_server("given", env=given).log)


@pytest.mark.sqlite_only
def test_a_master_key_beside_its_database_is_not_warned_of(own_server):
    assert not any("master key made" in line for line in own_server().log)


def test_config_check(tmp_path):
    def check(text):
        file = tmp_path / "osproxy.toml"
        file.write_text(text)
        return subprocess.run([BINARY, "config", "check", "--config", file], capture_output=True, text=True, timeout=30)

    assert check("[storage]\ndurability = 'relaxed'\n").returncode == 0
    wrong = check("[storage]\nnonsense = 1\n")
    assert wrong.returncode != 0 and "nonsense" in wrong.stdout + wrong.stderr


def test_port_in_use_is_refused(own_server, server):
    busy = own_server(start=False, name="busy", arguments=["--native-listen", f"127.0.0.1:{server.s3_port}"])
    busy.launch()
    assert busy.wait(30) != 0
