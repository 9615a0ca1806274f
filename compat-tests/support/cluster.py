"""Several nodes on one database: real processes, the ways between them and the database, and load on all of them.

    with Cluster(tmp_path, postgres) as cluster:
        cluster.nodes[0].endpoint.client().put_object(...)
        cluster.gates[1].close()     # node 1 is cut off from the database: bytes stop, connections stay
"""

import hashlib
import random
import socket
import subprocess
import threading
import time
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from .database import program
from .server import Server
from .threads import Threads
from .wait import wait_until

MASTER_KEY = "5a" * 32
SIZES = [100, 20_000, 300_000, 1_500_000]
FAILED = (BotoCoreError, ClientError, HTTPClientError, OSError)


class Gate:
    """A TCP relay that can be closed: then nothing passes and nobody is told, as when a cable is pulled."""

    def __init__(self, target):
        self.target = target
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._open.clear()

    def open(self):
        self._open.set()

    def end(self):
        self._open.set()
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self.target)
            except OSError:
                if self._listener.fileno() < 0:
                    return
                client.close()
                continue
            for source, sink in ((client, server), (server, client)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    def _relay(self, source, sink):
        try:
            while piece := source.recv(65536):
                self._open.wait()
                sink.sendall(piece)
        except OSError:
            pass
        self._open.wait()
        for end, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
            try:
                end.shutdown(how)
            except OSError:
                pass


class Held:
    """A transaction on PostgreSQL, open with the locks that one statement took."""

    def __init__(self, url, sql):
        words = [program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url]
        self._client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._client.stdin.write(f"BEGIN; {sql};\n\\echo taken\n")
        self._client.stdin.flush()
        for line in self._client.stdout:
            if line.strip() == "taken":
                return
        raise AssertionError(f"no lock by {sql}")

    def release(self):
        self._client.stdin.write("ROLLBACK;\n")
        self._client.stdin.close()
        self._client.wait(20)


class Cluster:
    """Nodes on one database and one backend, each through a gate of its own."""

    def __init__(self, home, database, env=None, nodes=3, node_env=None, arguments=()):
        self.home = Path(home)
        self.home.mkdir(parents=True, exist_ok=True)
        self.database = database
        self.url = database.create()
        self.blobs = self.home / "shared"
        common = {
            "OSPROXY_MASTER_KEY": MASTER_KEY,
            "OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT": str(self.blobs),
        } | (env or {})
        self.gates, self.nodes = [], []
        for number in range(nodes):
            gate = Gate(("127.0.0.1", database.port))
            own = common | {
                "OSPROXY_META__URL": self.url.replace(f":{database.port}/", f":{gate.port}/"),
                "OSPROXY_NODE__NAME": f"node{number}",
            }
            own |= (node_env or (lambda number: {}))(number)
            self.gates.append(gate)
            self.nodes.append(Server(self.home / f"node{number}", env=own, arguments=arguments))

    def __enter__(self):
        # All at the same moment, on an empty database.
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            assert node._ready.wait(60) and node.process.poll() is None, f"a node did not start:\n{node.tail()}"
        return self

    def __exit__(self, *_):
        for gate in self.gates:
            gate.open()
        for node in self.nodes:
            if node.process and node.process.poll() is None:
                node.kill()
        for gate in self.gates:
            gate.end()

    def clients(self, **config):
        return [node.endpoint.client(**config) for node in self.nodes]

    def query(self, sql):
        return self.database.query(self.url, sql)

    def hold(self, sql):
        """Runs a statement in a transaction on PostgreSQL that stays open until it is released."""
        return Held(self.url, sql)

    def node_ids(self):
        return {int(row) for row in self.query("SELECT id FROM nodes")}

    def no_panic(self):
        for node in self.nodes:
            assert not any("panicked" in line for line in node.log), node.tail()

    def files(self):
        """The names of the blobs that lie in the shared directory."""
        return {path.name for path in self.blobs.glob("[0-9a-f][0-9a-f]/*")}

    def names(self):
        """The names that rows give."""
        return self._names("")

    def live_names(self):
        """Those of blobs that are to stay: of one that is being deleted, the bytes go before the row."""
        return self._names("JOIN blobs ON blobs.id = blob_id WHERE copies.state = 'live' AND blobs.state = 'live'")

    def _names(self, which):
        column = "encode(name, 'escape')" if "postgres" in self.url else "CAST(name AS CHAR)"
        return set(self.query(f"SELECT {column} FROM copies {which}"))

    def collect(self, node=0):
        """A pass of the collector and a sweep, now."""
        self.nodes[node].command("gc")

    def settles(self, deadline=120):
        """Waits until what lies at the backend is what rows name: no more and no less."""

        def same():
            found, named = self.files(), self.names()
            return found == named

        wait_until(same, deadline, "as many blobs as rows name")

    def whole(self):
        """No id was given twice, nothing refers to what is not there, and all bytes that rows name lie there."""
        uids = self.query("SELECT uid FROM objects UNION ALL SELECT uid FROM versions")
        assert len(uids) == len(set(uids)), "a UID was given twice"
        missing = self.live_names() - self.files()
        missing &= self.live_names()  # collected between the two looks
        assert not missing, f"{len(missing)} blobs that rows name are gone"


def serves(node, deadline=60):
    """Waits until a node is ready and puts; one that finds itself dead first refuses and then is away for a moment."""
    client = node.endpoint.client()

    def ready():
        try:
            client.put_object(Bucket="bucket", Key="serves", Body=b"x")
            return node.admin("/readyz")[0] == 200
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503, error
            return False
        except FAILED:
            return False

    wait_until(ready, deadline, "a node that is ready")


class Load(Threads):
    """Threads that put, read back and delete objects of their own, each on nodes at random, and note what was answered.

    What was acknowledged must be seen at once on every node that answers; a node that does not answer, or answers 503, is
    fine; anything else is wrong.
    """

    def __init__(self, cluster, seed, threads=6, bucket="bucket", sizes=SIZES, patience=60):
        self.cluster, self.bucket, self.sizes, self.patience = cluster, bucket, sizes, patience
        self.acknowledged, self.wrong, self.refusals = {}, [], 0
        self.uids = []
        self.done = 0
        self._lock = threading.Lock()
        seeds = random.Random(seed)
        super().__init__((number, random.Random(seeds.random())) for number in range(threads))

    def __exit__(self, kind, *error):
        super().__exit__(kind, *error)
        if kind is None:
            assert not self.wrong, self.wrong[:5]

    def more(self, count, deadline=120):
        """Waits until so many more writes have been acknowledged."""
        wanted = self.done + count
        wait_until(lambda: self.done >= wanted or self.wrong, deadline, f"{count} more acknowledged writes")

    def _run(self, number, rng):
        clients = {}
        for turn in range(1_000_000):
            if self.stopping.is_set():
                return
            client = self._client(clients, rng)
            key = f"{number}/{turn % 40}"
            body = rng.randbytes(rng.choice(self.sizes))
            digest = hashlib.sha256(body).digest()
            with self._lock:
                before = self.acknowledged.pop(key, None)
            try:
                answer = client.put_object(Bucket=self.bucket, Key=key, Body=body)
            except FAILED as error:
                self._note(error, f"put {key}")
                # Done or not: the key holds this body or the one before.
                with self._lock:
                    self.acknowledged[key] = (before or (None,)) + (digest,)
                continue
            with self._lock:
                self.acknowledged[key] = (digest,)
                self.uids.append(answer["ResponseMetadata"]["HTTPHeaders"]["x-osproxy-uid"])
                self.done += 1
            reader = self._client(clients, rng)
            try:
                found = reader.get_object(Bucket=self.bucket, Key=key)["Body"].read()
                if found != body:
                    self.wrong.append(f"{key} of {len(body)} bytes reads otherwise after it was put")
                listed = reader.list_objects_v2(Bucket=self.bucket, Prefix=key, MaxKeys=50).get("Contents", [])
                if key not in [entry["Key"] for entry in listed]:
                    self.wrong.append(f"{key} is not listed after it was put")
                if turn % 5 == 4:
                    with self._lock:
                        self.acknowledged[key] = (digest, None)
                    client.delete_object(Bucket=self.bucket, Key=key)
                    with self._lock:
                        self.acknowledged[key] = (None,)
                    try:
                        reader.head_object(Bucket=self.bucket, Key=key)
                        self.wrong.append(f"{key} is there after it was deleted")
                    except ClientError as error:
                        if error.response["Error"]["Code"] != "404":
                            raise
            except FAILED as error:
                self._note(error, f"get, list or delete {key}")

    def _client(self, clients, rng):
        """A client of some node; a node that was started again has another port."""
        endpoint = rng.choice(self.cluster.nodes).endpoint
        if endpoint.url not in clients:
            clients[endpoint.url] = endpoint.client(read_timeout=self.patience, connect_timeout=5)
        return clients[endpoint.url]

    def _note(self, error, what):
        if isinstance(error, ClientError):
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status != 503:
                self.wrong.append(f"{what}: {status} {error.response['Error']}")
                return
        self.refusals += 1
        time.sleep(0.05)  # so that a node that is away is not asked in a tight loop

    def check(self, clients):
        """Every acknowledged object is whole, as each of the nodes reads it."""
        assert len(self.uids) == len(set(self.uids)), "a UID was given twice"
        for number, (key, allowed) in enumerate(sorted(self.acknowledged.items())):
            client = clients[number % len(clients)]
            try:
                found = hashlib.sha256(client.get_object(Bucket=self.bucket, Key=key)["Body"].read()).digest()
            except ClientError as error:
                assert error.response["Error"]["Code"] == "NoSuchKey", error
                found = None
            assert found in allowed or (None in allowed and found is None), f"{key} was acknowledged otherwise"


