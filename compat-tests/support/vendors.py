"""Vendors that the server under test keeps its blobs at, each started on free ports and stopped by its process id."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from functools import cached_property
from pathlib import Path

from .endpoint import Endpoint, Identity
from .ports import free_port
from .server import Server

CACHE = Path(__file__).parents[1] / ".cache"
RCLONE = CACHE / "venv" / "bin" / "rclone"
WEED = CACHE / "venv-vendors" / "bin" / "weed"
KEY = Identity("VENDORACCESSKEY00001", "vendorsecretkeyvendorsecretkeyvendorkey1")
BUCKET = "vendor-bucket"
START_DEADLINE = 60.0


def settings_for(vendor, name="vendor", **more):
    """The environment of a server that keeps every byte at `vendor`: nothing is short enough for a row."""
    settings = {"service": vendor.service} | {key: str(value) for key, value in (vendor.common | more).items()}
    env = {f"OSPROXY_BACKEND__{name}__{key}".upper(): value for key, value in settings.items()}
    env |= {f"OSPROXY_BACKEND__{name}__OPTIONS__{key}".upper(): value for key, value in vendor.options().items()}
    return env | {"OSPROXY_STORAGE__PLACEMENT": name, "OSPROXY_STORAGE__INLINE_MAX_BYTES": "0"}


class Vendor:
    """A service and how to reach it. One without a process is inside the server under test."""

    service = ""
    common = {}  # settings of the backend beside its service's options

    def __init__(self, directory):
        self.directory = Path(directory)
        self.process = None

    def start(self):
        return self

    def stop(self):
        pass

    def options(self):
        return {}


class FileSystem(Vendor):
    service = "fs"

    def options(self):
        return {"root": str(self.directory / "blobs")}


class ShortBlobs(FileSystem):
    """The file system in blobs of 1 MiB, so that longer bodies lie in several."""

    common = {"blob_max_bytes": 1 << 20}


class Memory(Vendor):
    service = "memory"


class Process(Vendor):
    """A vendor that is a process of its own on one HTTP port."""

    probe = "/"

    def start(self):
        self.port = free_port()
        self.log = open(self.directory / "log", "ab")
        self.process = subprocess.Popen(
            [str(word) for word in self.command()],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        try:
            self.await_answer()
            self.prepare()
        except BaseException:
            self.stop()
            raise
        return self

    def await_answer(self):
        """Any answer of HTTP will do."""
        deadline = time.monotonic() + START_DEADLINE
        while True:
            try:
                urllib.request.urlopen(self.url + self.probe, timeout=5).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                ended = self.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    said = (self.directory / "log").read_text(errors="replace")[-2000:]
                    raise AssertionError(f"{type(self).__name__} does not answer:\n{said}") from None
                time.sleep(0.1)

    def prepare(self):
        """What has to be there before blobs are."""

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


class S3Process(Process):
    service = "s3"

    def options(self):
        return {
            "endpoint": self.url,
            "bucket": BUCKET,
            "region": "us-east-1",
            "access_key_id": KEY.access_key,
            "secret_access_key": KEY.secret_key,
        }

    @cached_property
    def client(self):
        return Endpoint(self.url, KEY).client()

    def prepare(self):
        deadline = time.monotonic() + START_DEADLINE
        while True:
            try:
                self.client.create_bucket(Bucket=BUCKET)
                return
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


class RcloneS3(S3Process):
    def command(self):
        stored = self.directory / "data"
        stored.mkdir(exist_ok=True)
        key = f"{KEY.access_key},{KEY.secret_key}"
        config = ["--config", self.directory / "rclone.conf"]
        return [RCLONE, "serve", "s3", stored, "--auth-key", key, "--addr", f"127.0.0.1:{self.port}", *config]


class RcloneWebdav(Process):
    service = "webdav"

    def command(self):
        stored = self.directory / "data"
        stored.mkdir(exist_ok=True)
        login = ["--user", KEY.access_key, "--pass", KEY.secret_key]
        config = ["--config", self.directory / "rclone.conf"]
        return [RCLONE, "serve", "webdav", stored, *login, "--addr", f"127.0.0.1:{self.port}", *config]

    def options(self):
        return {"endpoint": self.url, "username": KEY.access_key, "password": KEY.secret_key}

    def stored(self):
        """The files that it holds."""
        return [path for path in (self.directory / "data").rglob("*") if path.is_file()]


class Seaweedfs(S3Process):
    def command(self):
        stored = self.directory / "data"
        stored.mkdir(exist_ok=True)
        credentials = {"accessKey": KEY.access_key, "secretKey": KEY.secret_key}
        identity = {
            "name": "vendor",
            "credentials": [credentials],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        identities = self.directory / "identities.json"
        identities.write_text(json.dumps({"identities": [identity]}))
        listeners = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
        listeners += ["filer.port", "filer.port.grpc", "s3.port.grpc"]
        self.ports = [free_port() for _ in listeners]
        return [
            WEED,
            "server",
            f"-dir={stored}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *(f"-{listener}={port}" for listener, port in zip(listeners, self.ports)),
            f"-filer.localSocket={self.directory / 'filer.sock'}",
            f"-s3.localSocket={self.directory / 's3.sock'}",
            "-s3",
            f"-s3.port={self.port}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.iam=false",
            f"-s3.config={identities}",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=40",
            "-master.telemetry=false",
        ]

    def stop(self):
        super().stop()
        # Its sockets for local calls are always here; the port tells ours from another server's.
        for port in self.ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


class Osproxy(S3Process):
    """This server as the vendor: a proxy on a proxy."""

    def start(self):
        self.server = Server(self.directory / "data", identity=KEY).start()
        self.process = self.server.process
        self.port = self.server.s3_port
        self.prepare()
        return self

    def stop(self):
        self.server.stop()


VENDORS = {
    "fs": FileSystem,
    "short-blobs": ShortBlobs,
    "memory": Memory,
    "rclone-s3": RcloneS3,
    "seaweedfs": Seaweedfs,
    "rclone-webdav": RcloneWebdav,
    "osproxy": Osproxy,
}


def missing(name):
    """What this vendor needs and does not have here."""
    needed = {"rclone-s3": RCLONE, "rclone-webdav": RCLONE, "seaweedfs": WEED}.get(name)
    return None if needed is None or os.access(needed, os.X_OK) else str(needed)
