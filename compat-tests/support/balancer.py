"""nginx or HAProxy as a plain process in front of nodes, with its file of `deploy/compose` and other addresses."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from .ports import free_port
from .wait import wait_until

COMPOSE = Path(__file__).resolve().parents[2] / "deploy" / "compose"
FILES = {"nginx": COMPOSE / "nginx.conf", "haproxy": COMPOSE / "haproxy.cfg"}
LISTENERS = {
    "haproxy": (r"^  bind :9000$", "  bind 127.0.0.1:{}"),
    "nginx": (r"^    listen 9000;$", "    listen 127.0.0.1:{};"),
}
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Balancer:
    """A balancer of one kind, in front of three nodes that are given by their ports of S3 and of administration; as a
    context manager it runs. `buffers`: nginx takes a whole upload before it passes it on. `falls`: HAProxy takes a node for
    one that is down after so many checks."""

    def __init__(self, kind, directory, nodes, buffers=False, falls=None):
        self.kind = kind
        self.directory = Path(directory)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.file = self.directory / f"{kind}.conf"
        self.program = shutil.which(kind, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        self.process = None
        text = FILES[kind].read_text()
        for number, (s3, admin) in enumerate(nodes, 1):
            check = f" port {admin}" if kind == "haproxy" else ""
            text = self._replaced(text, rf"\bnode{number}:9000\b", f"127.0.0.1:{s3}{check}")
        pattern, replacement = LISTENERS[kind]
        text = self._replaced(text, pattern, replacement.format(self.port))
        if buffers:
            text = self._replaced(text, r"proxy_request_buffering off;", "proxy_request_buffering on;")
        if falls and kind == "haproxy":
            text = self._replaced(text, r"\bfall 2\b", f"fall {falls}")
        self._write(text)

    def _replaced(self, text, pattern, replacement):
        text, found = re.subn(pattern, replacement, text, flags=re.M)
        assert found == 1, f"{found} times {pattern} in {FILES[self.kind]}"
        return text

    def _write(self, text):
        if self.kind == "nginx":
            paths = "".join(f" {name}_temp_path {self.directory}/{name};" for name in TEMPORARY)
            text = text.replace("http {", "http {" + paths, 1)
            user = "user root;" if os.getuid() == 0 else ""
            text = f"daemon off; pid {self.directory}/nginx.pid; error_log stderr; {user}\n{text}"
        self.file.write_text(text)

    def check(self):
        """What the program says of the configuration."""
        words = {"haproxy": ["-c", "-f"], "nginx": ["-t", "-c"]}[self.kind]
        return subprocess.run([self.program, *words, self.file], capture_output=True, text=True, timeout=60)

    def __enter__(self):
        words = {"haproxy": ["-db", "-f"], "nginx": ["-c"]}[self.kind]
        with open(self.directory / "balancer.log", "wb") as log:
            self.process = subprocess.Popen([self.program, *words, self.file], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(self._answers, 60, f"{self.kind} on its port")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def _answers(self):
        assert self.process.poll() is None, (self.directory / "balancer.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True
