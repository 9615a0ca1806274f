"""Redis as it is run for many: with passwords, over TLS, watched by Sentinels, as a cluster; and a way to hang it."""

import os
import signal
import subprocess
from contextlib import ExitStack, contextmanager

from . import database
from .ports import free_port
from .wait import wait_until


class Redis(database.Redis):
    """A Redis server with options of its own. `password` is that of the default user."""

    def __init__(self, home, *options, password=None):
        super().__init__(home)
        self.options = options
        self.password = password
        self.url = f"redis://:{password}@127.0.0.1:{self.port}" if password else self.url

    def _command(self):
        secured = ["--requirepass", self.password, "--masterauth", self.password] if self.password else []
        return [*super()._command(), *secured, *self.options]

    def command(self, *words):
        client = [database.program("redis-cli"), "-h", "127.0.0.1", "-p", self.port, *words]
        environment = os.environ | ({"REDISCLI_AUTH": self.password} if self.password else {})
        return self._run(client, check=False, env=environment).stdout.strip()

    def hang(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)


class TlsRedis(Redis):
    """A Redis server that speaks TLS alone; `authority` is the certificate that its own is verified by."""

    def _prepare(self):
        super()._prepare()
        self.authority = self.home / "ca.pem"
        if self.authority.exists():
            return
        openssl = database.program("openssl")
        key = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
        extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
        self._run([openssl, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test", *extensions])
        self._run([openssl, "req", *key[:3], "-keyout", "redis.key", "-out", "redis.csr", "-subj", "/CN=redis"])
        (self.home / "extensions").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        signed_by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        self._run(
            [openssl, "x509", "-req", "-in", "redis.csr", *signed_by, "-out", "redis.pem", "-extfile", "extensions"]
        )

    def _command(self):
        plain = super()._command()
        plain[plain.index("--port") + 1] = 0
        files = ["--tls-cert-file", "redis.pem", "--tls-key-file", "redis.key", "--tls-ca-cert-file", "ca.pem"]
        return [*plain, "--tls-port", self.port, *files, "--tls-auth-clients", "no"]

    def command(self, *words):
        client = [database.program("redis-cli"), "-h", "127.0.0.1", "-p", self.port, "--tls", "--cacert", self.authority]
        return self._run([*client, *words], check=False).stdout.strip()


class Sentinel(Redis):
    """A Sentinel that calls `primary` main and replaces it after a second of silence."""

    def __init__(self, home, primary):
        super().__init__(home)
        self.primary = primary

    def _prepare(self):
        super()._prepare()
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor main 127.0.0.1 {self.primary.port} 1",
            "sentinel down-after-milliseconds main 5000",
            "sentinel failover-timeout main 10000",
            f"sentinel auth-pass main {self.primary.password}",
        ]
        # It is rewritten by the Sentinel itself.
        (self.home / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def _command(self):
        return [self.binary, self.home / "sentinel.conf", "--sentinel"]

    def primary_port(self):
        found = self.command("SENTINEL", "get-master-addr-by-name", "main").split()
        return int(found[1]) if len(found) == 2 else None


@contextmanager
def watched(directory, password):
    """A primary, its replica and a Sentinel that knows both."""
    with ExitStack() as stack:
        primary = stack.enter_context(Redis(directory / "primary", password=password))
        replica_of = ("--replicaof", f"127.0.0.1 {primary.port}")
        replica = stack.enter_context(Redis(directory / "replica", *replica_of, password=password))
        wait_until(lambda: "master_link_status:up" in replica.command("INFO", "replication"), 60, "replication")
        sentinel = stack.enter_context(Sentinel(directory / "sentinel", primary))
        wait_until(lambda: "slaves=1" in sentinel.command("INFO", "sentinel"), 60, "the Sentinel's knowledge of the replica")
        yield primary, replica, sentinel


@contextmanager
def cluster(directory):
    """Three primaries that share the slots."""
    with ExitStack() as stack:
        members = []
        for number in range(3):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            members.append(stack.enter_context(Redis(directory / f"member-{number}", *options)))
        addresses = [f"127.0.0.1:{member.port}" for member in members]
        made = subprocess.run(
            [database.program("redis-cli"), "--cluster", "create", *addresses, "--cluster-yes"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        for member in members:
            wait_until(lambda: "cluster_state:ok" in member.command("CLUSTER", "INFO"), 60, "the cluster")
        yield members
