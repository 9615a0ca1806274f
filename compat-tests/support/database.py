"""PostgreSQL, MariaDB, MySQL and Redis of one's own: real servers on free ports, in a temporary directory, stopped by process id.

    with Postgres(tmp_path) as postgres:
        url = postgres.create()          # a new, empty database: postgres://postgres:...@127.0.0.1:PORT/NAME
        postgres.query(url, "SELECT 1")  # the answer's lines, columns separated by tabs

`conftest.py` has the fixtures `postgres`, `mariadb`, `mysql` and `redis`, which start one server a session and skip where the program is
not installed.
"""

import itertools
import os
import pwd
import re
import secrets
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from .ports import free_port
from .wait import wait_until

START_DEADLINE = 60.0
STOP_DEADLINE = 60.0
SUPPORT = Path(__file__).resolve().parent
PATH = os.pathsep.join(
    [
        *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), key=lambda name: [int(n) for n in re.findall(r"\d+", name)])[
            ::-1
        ],
        os.environ.get("PATH", ""),
        "/usr/sbin",
        "/usr/local/sbin",
    ]
)


class Missing(Exception):
    """The program is not installed."""


def program(name):
    found = shutil.which(name, path=PATH)
    if not found:
        raise Missing(f"{name} is not installed")
    return found


class Process:
    """One server process: its directory, its port, its life."""

    user = None  # whom it runs as where we are root: database servers refuse to be root
    program = None  # what must be installed

    def __init__(self, home):
        self.home = Path(home)
        self.port = free_port()
        self.process = None
        self.names = (f"osproxy_{number}" for number in itertools.count())

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Starts it, also again after `stop` or `kill`, on the same port and data."""
        self._prepare()
        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen(
                self._as_user(self._command()),
                cwd=self.home,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        def answers():
            assert self.process.poll() is None, f"{self.program} did not start:\n{self.tail()}"
            return self._answers()

        try:
            wait_until(answers, START_DEADLINE, f"the start of {self.program}")
            self._started()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self):
        """Ends it in order."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self._wait()

    def kill(self):
        """Ends it as a crash does."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self._wait()

    def _wait(self):
        try:
            self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_DEADLINE)

    def tail(self, lines=30):
        log = self.home / "log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def _prepare(self):
        """Makes its data where there is none."""
        self.home.mkdir(parents=True, exist_ok=True)
        if self._user():
            # Temporary directories belong to the caller alone; the server has to pass through them.
            for directory in self.home.resolve().parents:
                if directory.is_relative_to(Path(tempfile.gettempdir()).resolve()) and directory.owner() == "root":
                    directory.chmod(directory.stat().st_mode | 0o011)
            shutil.chown(self.home, self.user)

    def _user(self):
        return self.user if os.getuid() == 0 else None

    def _as_user(self, command):
        command = [str(word) for word in command]
        if not self._user():
            return command
        group = pwd.getpwnam(self.user).pw_gid
        return ["setpriv", "--reuid", self.user, "--regid", str(group), "--clear-groups", "--", *command]

    def _environment(self):
        """The caller's own place for temporary files may be closed to the server's user."""
        return os.environ | {"TMPDIR": str(self.home)}

    def _run(self, command, as_user=False, check=True, env=None, **options):
        done = subprocess.run(
            self._as_user(command) if as_user else [str(word) for word in command],
            cwd=self.home,
            env=self._environment() | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )
        assert not check or done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}\n{self.tail()}"
        return done

    def _started(self):
        pass


class Database(Process):
    """A database server that makes databases on demand."""

    def create(self):
        """The URL of a new, empty database."""
        name = next(self.names)
        self._create(name)
        return self.url(name)

    def url(self, name):
        user, password = self.credentials
        return f"{self.scheme}://{user}:{password}@127.0.0.1:{self.port}/{name}"

    def query(self, url, sql):
        """What the database's own client prints: one line a row, columns separated by tabs."""
        return self._query(urlsplit(url).path.strip("/"), sql).splitlines()


class Postgres(Database):
    user = "postgres"
    program = "postgres"
    scheme = "postgres"

    def __init__(self, home):
        super().__init__(home)
        self.credentials = ("postgres", secrets.token_hex(8))
        self.binary = program("postgres")

    def _prepare(self):
        super()._prepare()
        if not (self.home / "data").exists():
            password = self.home / "password"
            password.write_text(self.credentials[1])
            if self._user():
                shutil.chown(password, self.user)
            self._run(
                [program("initdb"), "-D", self.home / "data", "-U", "postgres", "-A", "scram-sha-256"]
                + ["--pwfile", password, "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions"],
                as_user=True,
            )

    def _command(self):
        settings = {
            "listen_addresses": "127.0.0.1",
            # None: the path of a socket has at most 107 bytes.
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "64MB",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self.binary, "-D", self.home / "data", "-p", self.port, *words]

    def _answers(self):
        ready = [program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", self.port]
        return self._run(ready, check=False).returncode == 0

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(2)  # fast: without waiting for clients
            self._wait()

    def _create(self, name):
        self._query("postgres", f"CREATE DATABASE {name}")

    def _query(self, name, sql):
        words, environment = self._psql(name)
        return self._run([*words, "-c", sql], env=environment).stdout

    def _psql(self, name):
        client = [program("psql"), "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"]
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", self.credentials[0], "-d", name]
        return [*client, *where], os.environ | {"PGPASSWORD": self.credentials[1], "PGCONNECT_TIMEOUT": "10"}

    @contextmanager
    def holding(self, url, sql):
        """Keeps a transaction open that has run `sql`, with the locks it took."""
        words, environment = self._psql(urlsplit(url).path.strip("/"))
        session = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            session.stdin.write(f"BEGIN;\n{sql};\nSELECT 'held';\n")
            session.stdin.flush()
            assert "held" in session.stdout.readline(), "the lock was not taken"
            yield
        finally:
            session.communicate("ROLLBACK;\n", timeout=30)


class MariaDb(Database):
    user = "mysql"
    program = "mariadbd"
    scheme = "mysql"

    def __init__(self, home):
        super().__init__(home)
        self.credentials = ("osproxy", secrets.token_hex(8))
        self.binary = self._binary()
        # A path of a socket has at most 107 bytes.
        self.socket = Path("/tmp") / f"osproxy-test-{secrets.token_hex(6)}.sock"

    def _binary(self):
        return program("mariadbd")

    def _prepare(self):
        super()._prepare()
        if not (self.home / "data").exists():
            self._run(
                [program("mariadb-install-db"), "--no-defaults", f"--datadir={self.home / 'data'}"]
                + ["--skip-test-db", "--auth-root-authentication-method=normal"],
                as_user=True,
            )

    def _command(self):
        return [
            self.binary,
            "--no-defaults",
            f"--datadir={self.home / 'data'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.socket}",
            f"--pid-file={self.home / 'pid'}",
            "--max-connections=200",
            "--innodb-flush-log-at-trx-commit=1",
            "--skip-log-bin",
        ]

    def _answers(self):
        return self._client(["-e", "SELECT 1"], check=False).returncode == 0

    def _started(self):
        user, password = self.credentials
        account = f"'{user}'@'127.0.0.1'"
        self._client(
            ["-e", f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO {account}"]
        )

    def stop(self):
        super().stop()
        self.socket.unlink(missing_ok=True)

    def _client(self, words, **options):
        return self._run([program("mariadb"), "--no-defaults", "-S", self.socket, "-u", "root", *words], **options)

    def _create(self, name):
        self._client(["-e", f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"])

    def _query(self, name, sql):
        return self._client(["--batch", "--skip-column-names", "-e", sql, name]).stdout


class MySql(MariaDb):
    """MySQL's own server, as `fetch-mysql` brings it; asked by MariaDB's client."""

    user = None
    program = "mysqld"

    def _binary(self):
        if not (SUPPORT.parent / ".cache/mysql").exists():
            raise Missing("MySQL's server could not be fetched, see compat-tests/support/fetch-mysql")
        return SUPPORT / "mysqld"

    def _prepare(self):
        Process._prepare(self)
        if not (self.home / "data").exists():
            self._run([self.binary, "--initialize-insecure", f"--datadir={self.home / 'data'}"])

    def _command(self):
        # Its script says already which files it reads.
        return [word for word in super()._command() if word != "--no-defaults"]


class Redis(Process):
    """A Redis server without persistence; `url` names it."""

    program = "redis-server"

    def __init__(self, home):
        super().__init__(home)
        self.binary = program("redis-server")
        self.url = f"redis://127.0.0.1:{self.port}"

    def _command(self):
        return [self.binary, "--bind", "127.0.0.1", "--port", self.port, "--save", "", "--appendonly", "no"]

    def _answers(self):
        return self.command("PING") == "PONG"

    def command(self, *words):
        """What redis-cli prints for a command."""
        client = [program("redis-cli"), "-h", "127.0.0.1", "-p", self.port, *words]
        return self._run(client, check=False).stdout.strip()
