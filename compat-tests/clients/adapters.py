"""Each client behind the same few verbs, so that one set of tests drives them all."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache"
BIN = Path(sys.executable).parent
DEADLINE = 300
MINUTES = 10  # a presigned URL's life
PART_MIB = 8


class Client:
    """A client with its credentials in a home of its own.

    `cannot` names the keys (of support.keys.UNUSUAL_KEYS) that the client itself cannot express, each with the reason.
    `seen` collects the S3 operations that the server answered well while the client ran.
    """

    name = ""
    cannot = {}
    missing_is_silent = False  # a download of nothing ends well

    def __init__(self, endpoint, home, operations=None):
        self.endpoint, self.home = endpoint, home
        self.operations = operations  # counts the server's successful requests by operation
        self.seen = set()
        home.mkdir(parents=True, exist_ok=True)

    @classmethod
    def missing(cls):
        """Why the client cannot run here, or None."""
        return None if (BIN / cls.name).exists() else f"{cls.name} is not installed"

    def env(self):
        identity = self.endpoint.identity
        return os.environ | {
            "HOME": str(self.home),
            "AWS_ACCESS_KEY_ID": identity.access_key,
            "AWS_SECRET_ACCESS_KEY": identity.secret_key,
            "AWS_DEFAULT_REGION": self.endpoint.region,
            "AWS_REGION": self.endpoint.region,
        }

    @contextmanager
    def watched(self):
        before = self.operations() if self.operations else {}
        yield
        after = self.operations() if self.operations else {}
        self.seen |= {name for name, count in after.items() if count > before.get(name, 0)}

    def run(self, *command, stdin=None, check=True, env=None):
        """The standard output of a command; a failure shows what the client said."""
        with self.watched():
            done = subprocess.run(
                [str(word) for word in command],
                env=self.env() | (env or {}),
                input=stdin,
                cwd=self.home,
                capture_output=True,
                timeout=DEADLINE,
            )
        if check and done.returncode != 0:
            said = (done.stderr + done.stdout).decode(errors="replace")[-3000:]
            raise AssertionError(f"{self.name} {' '.join(map(str, command[1:]))} ended with {done.returncode}:\n{said}")
        return done.stdout if check else done

    def upload(self, bucket, files):
        for key, path in files.items():
            self.put(bucket, key, path)

    def download(self, bucket, files):
        for key, path in files.items():
            self.get(bucket, key, path)


class AwsCli(Client):
    name = "aws"
    cannot = {"trailing slash": "`s3 cp` takes the key for a folder and adds the file's name"}

    def aws(self, *words, **options):
        return self.run(BIN / "aws", "--endpoint-url", self.endpoint.url, *words, **options)

    def make_bucket(self, bucket):
        self.aws("s3", "mb", f"s3://{bucket}")

    def remove_bucket(self, bucket):
        self.aws("s3", "rb", f"s3://{bucket}")

    def buckets(self):
        return [line.split()[2] for line in self.aws("s3", "ls").decode().splitlines()]

    def put(self, bucket, key, path):
        self.aws("s3", "cp", "--only-show-errors", path, f"s3://{bucket}/{key}")

    def get(self, bucket, key, path):
        self.aws("s3", "cp", "--only-show-errors", f"s3://{bucket}/{key}", path)

    def upload_tree(self, folder, bucket, prefix):
        self.aws("s3", "cp", "--recursive", "--only-show-errors", folder, f"s3://{bucket}/{prefix}")

    def download_tree(self, bucket, prefix, folder):
        self.aws("s3", "cp", "--recursive", "--only-show-errors", f"s3://{bucket}/{prefix}", folder)

    def keys(self, bucket, prefix=""):
        found = self.aws(
            "s3api",
            "list-objects-v2",
            "--bucket",
            bucket,
            "--prefix",
            prefix,
            "--query",
            "Contents[].Key",
            "--output",
            "json",
        )
        return json.loads(found) or []

    def remove_all(self, bucket, prefix=""):
        self.aws("s3", "rm", "--recursive", "--only-show-errors", f"s3://{bucket}/{prefix}")

    def presign(self, bucket, key, method):
        if method == "GET":
            return self.aws("s3", "presign", "--expires-in", MINUTES * 60, f"s3://{bucket}/{key}").decode().strip()


class Rclone(Client):
    name = "rclone"
    missing_is_silent = True  # an empty folder to rclone
    cannot = {
        name: "rclone takes keys for paths and cleans them"
        for name in ("double slash", "leading slash", "dot segments", "only dots", "trailing slash")
    } | {"newline": "rclone lists control characters as pictures of them"}

    def env(self):
        identity = self.endpoint.identity
        remote = {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ACCESS_KEY_ID": identity.access_key,
            "SECRET_ACCESS_KEY": identity.secret_key,
            "ENDPOINT": self.endpoint.url,
            "REGION": self.endpoint.region,
            "UPLOAD_CUTOFF": f"{PART_MIB}M",
            "CHUNK_SIZE": f"{PART_MIB}M",
        }
        own = {name: value for name, value in os.environ.items() if not name.startswith(("RCLONE_", "AWS_"))}
        return (
            own
            | {"HOME": str(self.home), "RCLONE_CONFIG": str(self.home / "rclone.conf")}
            | {f"RCLONE_CONFIG_S3_{name}": value for name, value in remote.items()}
        )

    def rclone(self, *words, **options):
        (self.home / "rclone.conf").touch()
        return self.run(BIN / "rclone", "--retries", 1, "--low-level-retries", 1, *words, **options)

    def make_bucket(self, bucket):
        self.rclone("mkdir", f"s3:{bucket}")

    def remove_bucket(self, bucket):
        self.rclone("rmdir", f"s3:{bucket}")

    def buckets(self):
        return [line.rstrip("/") for line in self.rclone("lsf", "s3:").decode().splitlines()]

    def put(self, bucket, key, path):
        self.rclone("copyto", path, f"s3:{bucket}/{key}")

    def get(self, bucket, key, path):
        self.rclone("copyto", f"s3:{bucket}/{key}", path)

    def upload_tree(self, folder, bucket, prefix):
        self.rclone("copy", "--transfers", 8, folder, f"s3:{bucket}/{prefix}")

    def download_tree(self, bucket, prefix, folder):
        self.rclone("copy", "--transfers", 8, f"s3:{bucket}/{prefix}", folder)

    def keys(self, bucket, prefix=""):
        found = json.loads(self.rclone("lsjson", "-R", "--files-only", "--no-modtime", f"s3:{bucket}/{prefix}"))
        return [prefix + entry["Path"] for entry in found]

    def remove_all(self, bucket, prefix=""):
        self.rclone("delete", f"s3:{bucket}/{prefix}")

    def presign(self, bucket, key, method):
        if method == "GET":
            return self.rclone("link", "--expire", f"{MINUTES}m", f"s3:{bucket}/{key}").decode().strip()


class S5cmd(Client):
    name = "s5cmd"
    cannot = {"trailing slash": "s5cmd takes the key for a folder and adds the file's name"}

    def s5cmd(self, *words, **options):
        return self.run(BIN / "s5cmd", "--endpoint-url", self.endpoint.url, *words, **options)

    def make_bucket(self, bucket):
        self.s5cmd("mb", f"s3://{bucket}")

    def remove_bucket(self, bucket):
        self.s5cmd("rb", f"s3://{bucket}")

    def buckets(self):
        return [line.split()[-1].removeprefix("s3://") for line in self.s5cmd("ls").decode().splitlines()]

    def put(self, bucket, key, path):
        self.s5cmd("cp", "--raw", "--part-size", PART_MIB, path, f"s3://{bucket}/{key}")

    def get(self, bucket, key, path):
        self.s5cmd("cp", "--raw", "--part-size", PART_MIB, f"s3://{bucket}/{key}", path)

    def upload_tree(self, folder, bucket, prefix):
        self.s5cmd("--numworkers", 16, "cp", f"{folder}/", f"s3://{bucket}/{prefix}")

    def download_tree(self, bucket, prefix, folder):
        self.s5cmd("--numworkers", 16, "cp", f"s3://{bucket}/{prefix}*", f"{folder}/")

    def keys(self, bucket, prefix=""):
        lines = self.s5cmd("--json", "ls", f"s3://{bucket}/{prefix}*").decode().splitlines()
        return [json.loads(line)["key"].removeprefix(f"s3://{bucket}/") for line in lines]

    def remove_all(self, bucket, prefix=""):
        self.s5cmd("rm", f"s3://{bucket}/{prefix}*")

    def presign(self, bucket, key, method):
        if method == "GET":
            return self.s5cmd("presign", "--expire", f"{MINUTES}m", f"s3://{bucket}/{key}").decode().strip()


class S3cmd(Client):
    name = "s3cmd"
    cannot = {
        "trailing slash": "s3cmd takes the key for a folder and adds the file's name",
        "newline": "s3cmd ends the key there",
    }

    def s3cmd(self, *words, **options):
        config = self.home / "s3cfg"
        host, identity = self.endpoint.netloc, self.endpoint.identity
        config.write_text(
            f"[default]\naccess_key = {identity.access_key}\nsecret_key = {identity.secret_key}\n"
            f"host_base = {host}\nhost_bucket = {host}\nuse_https = {self.endpoint.secure}\n"
            f"bucket_location = {self.endpoint.region}\nmultipart_chunk_size_mb = {PART_MIB}\nmax_retries = 1\n"
        )
        return self.run(BIN / "s3cmd", "-c", config, "--no-progress", *words, **options, env={"LC_ALL": "C.UTF-8"})

    def make_bucket(self, bucket):
        self.s3cmd("mb", f"s3://{bucket}")

    def remove_bucket(self, bucket):
        self.s3cmd("rb", f"s3://{bucket}")

    def buckets(self):
        return [line.split()[-1].removeprefix("s3://") for line in self.s3cmd("ls").decode().splitlines()]

    def put(self, bucket, key, path):
        self.s3cmd("put", path, f"s3://{bucket}/{key}")

    def get(self, bucket, key, path):
        self.s3cmd("get", "--force", f"s3://{bucket}/{key}", path)

    def upload_tree(self, folder, bucket, prefix):
        self.s3cmd("put", "--recursive", f"{folder}/", f"s3://{bucket}/{prefix}")

    def download_tree(self, bucket, prefix, folder):
        self.s3cmd("get", "--recursive", f"s3://{bucket}/{prefix}", f"{folder}/")

    def keys(self, bucket, prefix=""):
        text = self.s3cmd("ls", "--recursive", f"s3://{bucket}/{prefix}").decode()
        return [part.split("\n20")[0].rstrip("\n") for part in text.split(f"s3://{bucket}/")[1:]]

    def remove_all(self, bucket, prefix=""):
        self.s3cmd("del", "--recursive", "--force", f"s3://{bucket}/{prefix}")

    def presign(self, bucket, key, method):
        if method == "GET":
            return self.s3cmd("signurl", f"s3://{bucket}/{key}", f"+{MINUTES * 60}").decode().strip()


class Sdk(Client):
    """A library, driven by a small program of ours that carries out a list of steps."""

    driver = []

    def steps(self, *steps):
        endpoint = {
            "url": self.endpoint.url,
            "region": self.endpoint.region,
            "access_key": self.endpoint.identity.access_key,
            "secret_key": self.endpoint.identity.secret_key,
        }
        job = json.dumps({"endpoint": endpoint, "steps": steps})
        return json.loads(self.run(*self.driver, stdin=job.encode()))

    def make_bucket(self, bucket):
        self.steps(["make_bucket", bucket])

    def remove_bucket(self, bucket):
        self.steps(["remove_bucket", bucket])

    def buckets(self):
        return self.steps(["buckets"])[0]

    def put(self, bucket, key, path):
        self.upload(bucket, {key: path})

    def get(self, bucket, key, path):
        self.download(bucket, {key: path})

    def upload(self, bucket, files):
        self.steps(*(["upload", bucket, key, str(path)] for key, path in files.items()))

    def download(self, bucket, files):
        self.steps(*(["download", bucket, key, str(path)] for key, path in files.items()))

    def upload_tree(self, folder, bucket, prefix):
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        self.upload(bucket, {prefix + path.relative_to(folder).as_posix(): path for path in files})

    def download_tree(self, bucket, prefix, folder):
        files = {key: Path(folder) / key.removeprefix(prefix) for key in self.keys(bucket, prefix)}
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        self.download(bucket, files)

    def keys(self, bucket, prefix=""):
        return self.steps(["keys", bucket, prefix])[0]

    def remove_all(self, bucket, prefix=""):
        self.steps(["remove_all", bucket, prefix])

    def presign(self, bucket, key, method):
        return self.steps(["presign", bucket, key, method])[0]


class Boto3(Sdk):
    name = "boto3"
    driver = [sys.executable, HERE / "drivers" / "sdk.py", "boto3"]

    @classmethod
    def missing(cls):
        return None


class Boto3Old(Sdk):
    name = "boto3 1.35"
    driver = [CACHE / "venv-boto3-1.35" / "bin" / "python", HERE / "drivers" / "sdk.py", "boto3"]

    @classmethod
    def missing(cls):
        return None if cls.driver[0].exists() else "its virtual environment is not set up"


class Minio(Sdk):
    name = "minio-py"
    driver = [sys.executable, HERE / "drivers" / "sdk.py", "minio"]
    cannot = {name: "minio-py refuses keys with . or .. as a segment" for name in ("dot segments", "only dots")}

    @classmethod
    def missing(cls):
        return None


class JavaScript(Sdk):
    name = "aws-sdk-js"
    driver = ["node", HERE / "drivers" / "sdk.cjs"]

    @classmethod
    def missing(cls):
        if not shutil.which("node"):
            return "node is not installed"
        return (
            None
            if (CACHE / "node" / "node_modules" / "@aws-sdk" / "client-s3").exists()
            else "its npm packages are not set up"
        )

    def env(self):
        return super().env() | {"NODE_PATH": str(CACHE / "node" / "node_modules")}


ALL = [AwsCli, Boto3, Boto3Old, Rclone, S5cmd, S3cmd, Minio, JavaScript]
