"""The server under test as a process: started on free ports, stopped by its own process id."""

import json
import os
import re
import signal
import subprocess
import threading
import urllib.request
from pathlib import Path

from .endpoint import Endpoint, Identity
from .ports import free_port

TOP = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("COMPAT_BINARY", TOP / "target" / "release" / "osproxy"))
ROOT = Identity("ROOTACCESSKEY0000001", "rootsecretkeyrootsecretkeyrootsecretkey1")
DOMAIN = "s3.localhost"
WEBSITE_DOMAIN = "s3-website.localhost"
READY_DEADLINE = 120.0
STOP_DEADLINE = 60.0


class Server:
    """One `osproxy serve` on a data directory. `start` after `kill` runs it again on the same data, on other ports unless
    they are given; `prefix` is a command that runs it, `host` where it listens for S3."""

    # Makes a database at a server and answers its URL; None: SQLite in the data directory.
    new_database = None

    def __init__(self, data_dir, env=None, identity=ROOT, arguments=(), ports=None, prefix=(), host="127.0.0.1"):
        self.data_dir = Path(data_dir)
        self.identity = identity
        if Server.new_database and "OSPROXY_META__URL" not in (env or {}):
            env = {"OSPROXY_META__URL": Server.new_database()} | (env or {})
        self.env = {"OSPROXY_S3__DOMAINS": DOMAIN, "OSPROXY_S3__WEBSITE_DOMAINS": WEBSITE_DOMAIN} | (env or {})
        self.arguments = list(arguments)
        self.ports = ports
        self.prefix = list(prefix)
        self.host = host
        self.process = None
        self.log = []
        self.s3_port = self.admin_port = None

    # --- life ---

    def start(self):
        self.launch()
        if not self._ready.wait(READY_DEADLINE):
            self.kill()
            raise AssertionError("server not ready in time:\n" + self.tail())
        if self.process.poll() is not None:
            raise AssertionError(f"server ended with {self.process.returncode}:\n" + self.tail())
        return self

    def launch(self):
        """Starts the process without waiting for it to be ready."""
        assert BINARY.exists(), f"{BINARY} is missing: cargo build --release"
        self.s3_port, self.admin_port = self.ports or (free_port(), free_port())
        command = [
            *self.prefix,
            BINARY,
            "serve",
            "--data-dir",
            self.data_dir,
            "--s3-listen",
            f"{self.host}:{self.s3_port}",
            "--admin-listen",
            f"127.0.0.1:{self.admin_port}",
            *self.arguments,
        ]
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=self._environment(),
            cwd=self.data_dir.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read_log, args=(self.process,), daemon=True)
        self._reader.start()

    def _environment(self):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("OSPROXY_")}
        if self.identity:
            inherited["OSPROXY_ROOT_ACCESS_KEY"] = self.identity.access_key
            inherited["OSPROXY_ROOT_SECRET_KEY"] = self.identity.secret_key
        if self.env.get("OSPROXY_META__URL"):
            # A relative directory is refused where nodes share a database: this one is of a node alone, or inherited.
            inherited["OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT"] = str(self.data_dir.absolute() / "blobs")
        return inherited | self.env

    def _read_log(self, process):
        for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip("\n")
            self.log.append(line)
            if re.search(r"\bready\b", line):
                self._ready.set()
        process.stderr.close()
        process.wait(STOP_DEADLINE)  # its log ends a little before the process does
        self._ready.set()  # the process ended: `start` looks at its exit code

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, deadline=STOP_DEADLINE):
        code = self.process.wait(deadline)
        self._reader.join(5)
        return code

    def stop(self):
        """Drains and returns the exit code."""
        if self.process is None or self.process.poll() is not None:
            return self.process and self.process.returncode
        self.signal()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("server did not stop after SIGTERM:\n" + self.tail()) from None

    def kill(self):
        """Ends it as a crash does."""
        self.process.kill()
        self.wait()

    def tail(self, lines=40):
        return "\n".join(self.log[-lines:])

    # --- asking it ---

    @property
    def endpoint(self):
        url = f"http://{self.host}:{self.s3_port}"
        return Endpoint(url, self.identity, domain=DOMAIN, website_domain=WEBSITE_DOMAIN)

    def admin(self, path):
        """Status and text of a GET on the admin listener."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ask(self, method, path, body=None):
        """Status and document of a request to the admin API, with the server's token."""
        run = json.loads((self.data_dir / "run.json").read_text())
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", method=method)
        request.add_header("Authorization", f"Bearer {run['token']}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def lines(self, path, body=None):
        """The lines with which the admin API answers to what may take long."""
        run = json.loads((self.data_dir / "run.json").read_text())
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", method="POST")
        request.add_header("Authorization", f"Bearer {run['token']}")
        request.add_header("Accept", "application/x-ndjson")
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.headers["Content-Type"] == "application/x-ndjson"
            return [json.loads(line) for line in answer]

    def metrics(self):
        """Samples of /metrics as {(name, frozenset of label pairs): value}."""
        status, text = self.admin("/metrics")
        assert status == 200, text
        return parse_metrics(text)

    def metric(self, name, **labels):
        """The sum over all samples of `name` that carry these labels."""
        wanted = set(labels.items())
        return sum(value for (sample, found), value in self.metrics().items() if sample == name and wanted <= found)

    def successes(self):
        """How often each S3 operation was answered with success."""
        counts = {}
        for (name, labels), value in self.metrics().items():
            labels = dict(labels)
            is_s3 = labels.get("operation", "")[:1].isupper()  # the rest are the listeners' own
            if name == "osproxy_requests_total" and is_s3 and labels["status"].startswith("2"):
                counts[labels["operation"]] = counts.get(labels["operation"], 0) + value
        return counts

    def memory(self, field="VmHWM"):
        """Peak (VmHWM) or present (VmRSS) resident bytes of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.M)[1]) * 1024

    def command(self, *words, check=True):
        """Runs a subcommand of the binary on this server's data directory."""
        done = subprocess.run(
            [str(BINARY), *map(str, words), "--data-dir", str(self.data_dir)],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"osproxy {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def stats(self):
        return json.loads(self.command("stats", "--json").stdout)

    def create_tenant(self, name):
        self.command("tenants", "create", name)

    def create_key(self, tenant, access_key, secret_key):
        self.command("keys", "create", "--tenant", tenant, "--access-key", access_key, "--secret-key", secret_key)
        return Identity(access_key, secret_key)


def parse_metrics(text):
    samples = {}
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)(?: \d+)?", line)
        if found:
            labels = frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or ""))
            samples[found[1], labels] = float(found[3])
    return samples
