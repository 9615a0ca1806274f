"""Nodes in network namespaces of their own, and the wires that lead there, each of which can be cut.

    with Network(3) as network, Partitioned(tmp_path, network, postgres) as cluster:
        network.cut("database", 1)   # node 1 is cut off from the database and from nothing else
        network.heal("database", 1)

Every node has a wire of its own to each network. On a wire that is cut packets vanish and nobody is told. What listens for
nodes does so at this side's address in the network that it is for; the admin listener of a node is on the loopback of its
namespace. All of it needs root; what cannot be made raises `Missing`.
"""

import os
import random
import secrets
import shutil
import subprocess

from . import database
from .cluster import MASTER_KEY, Cluster
from .ports import free_port
from .server import BINARY, Server

# Clients ask nodes, nodes ask the database, the vendor and each other: each in a network of its own.
NETWORKS = ("clients", "database", "backend", "peers")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


class Missing(Exception):
    """Why there are no namespaces here."""


class Network:
    """The four networks, with a wire to each for so many nodes."""

    def __init__(self, nodes):
        self.nodes = range(nodes)
        # A name of an interface has at most 15 bytes.
        self.name = f"osp{secrets.token_hex(3)}"
        self.ip = shutil.which("ip", path=PATH)
        if not self.ip or os.getuid() != 0:
            raise Missing("network namespaces need root" if self.ip else "iproute2 is not installed")
        self._block = self._free_block()

    def _free_block(self):
        """The first three octets of networks that nothing is routed to, for each of ours the last one a step on."""
        taken = self._run("-4", "route", "show", "table", "all")
        for _ in range(100):
            block = f"10.{random.SystemRandom().randrange(128, 255)}."
            if block not in taken:
                return block
        raise Missing("no free addresses")

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        self.remove()
        left = self._run("netns", "list") + self._run("link", "show")
        assert self.name not in left, f"left behind:\n{left}"

    def _make(self):
        for network in NETWORKS:
            self._run("link", "add", self._bridge(network), "type", "bridge")
            self._run("addr", "add", f"{self.address(network)}/24", "dev", self._bridge(network))
            self._run("link", "set", self._bridge(network), "up")
        for node in self.nodes:
            space = self.namespace(node)
            self._run("netns", "add", space)
            self._run("-n", space, "link", "set", "lo", "up")
            for network in NETWORKS:
                wire = self._wire(network, node)
                self._run("link", "add", wire, "type", "veth", "peer", "name", network, "netns", space)
                self._run("-n", space, "addr", "add", f"{self.address(network, node)}/24", "dev", network)
                self._run("-n", space, "link", "set", network, "up")
                self._run("link", "set", wire, "up")
                self.heal(network, node)

    def remove(self):
        for node in self.nodes:
            self._run("netns", "delete", self.namespace(node), check=False)
        for network in NETWORKS:
            # A namespace takes its ends along, but not at once.
            for node in self.nodes:
                self._run("link", "delete", self._wire(network, node), check=False)
            self._run("link", "delete", self._bridge(network), check=False)

    def cut(self, network, node):
        """From now on nothing passes, as when a cable is pulled at the far end: the interface does not see it."""
        self._run("link", "set", self._wire(network, node), "nomaster")

    def heal(self, network, node):
        self._run("link", "set", self._wire(network, node), "master", self._bridge(network))

    def address(self, network, node=None):
        """That of a node, or of this side."""
        return f"{self._block}{NETWORKS.index(network)}.{1 if node is None else node + 10}"

    def block(self):
        return f"{self._block}0.0/16"

    def addresses(self):
        """All of them, as `no_proxy` wants them."""
        return ",".join(self.address(network, node) for network in NETWORKS for node in (None, *self.nodes))

    def namespace(self, node):
        return f"{self.name}-{node}"

    def inside(self, node):
        """The words that run a command where a node is."""
        return [self.ip, "netns", "exec", self.namespace(node)]

    def _bridge(self, network):
        return f"{self.name}{network[0]}"

    def _wire(self, network, node):
        return f"{self._bridge(network)}{node}"

    def _run(self, *words, check=True):
        done = subprocess.run([self.ip, *words], capture_output=True, text=True, timeout=30)
        if check and done.returncode != 0:
            raise Missing(f"ip {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout


class ReachedPostgres(database.Postgres):
    """PostgreSQL that listens in the network of databases too."""

    def __init__(self, home, network):
        super().__init__(home)
        self.network = network

    def _prepare(self):
        is_new = not (self.home / "data").exists()
        super()._prepare()
        if is_new:
            with open(self.home / "data" / "pg_hba.conf", "a") as access:
                access.write(f"host all all {self.network.block()} scram-sha-256\n")

    def _command(self):
        return [*super()._command(), "-c", f"listen_addresses=127.0.0.1,{self.network.address('database')}"]


class Partitioned(Cluster):
    """A node in each namespace, on one database."""

    def __init__(self, home, network, postgres, env=None, arguments=()):
        self.home, self.network, self.database, self.gates = home, network, postgres, []
        self.home.mkdir(parents=True, exist_ok=True)
        self.url = postgres.create()
        common = {
            "OSPROXY_MASTER_KEY": MASTER_KEY,
            "OSPROXY_META__URL": self.url.replace("127.0.0.1", network.address("database")),
            "NO_PROXY": network.addresses(),
            "no_proxy": network.addresses(),
        } | (env or {})
        self.nodes = [
            Server(
                self.home / f"node{node}",
                env=common
                | {
                    "OSPROXY_NODE__NAME": f"node{node}",
                    "OSPROXY_NODE__LISTEN": f"{network.address('peers', node)}:{free_port()}",
                },
                arguments=arguments,
                prefix=network.inside(node),
                host=network.address("clients", node),
            )
            for node in network.nodes
        ]

    def is_ready(self, node):
        """What the node says of itself, asked from where it is."""
        listener = f"127.0.0.1:{self.nodes[node].admin_port}"
        words = [*self.network.inside(node), str(BINARY), "health", "--admin-listen", listener]
        return subprocess.run(words, capture_output=True, timeout=60).returncode == 0

    def all_uids_differ(self):
        uids = self.query("SELECT uid FROM objects UNION ALL SELECT uid FROM versions")
        assert len(uids) == len(set(uids)), "a UID was given twice"
