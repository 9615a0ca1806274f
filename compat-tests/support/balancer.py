"""A balancer of `deploy/compose` as a plain process: its own file, with other addresses."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from .server import free_port
from .wait import wait_until

TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Balancer:
    """Runs the configuration `file` in front of `nodes`: by name, the ports of S3 and of administration."""

    def __init__(self, file, directory, nodes):
        self.kind = "nginx" if Path(file).name.startswith("nginx") else "haproxy"
        self.directory = Path(directory)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.file = self.directory / Path(file).name
        self.program = shutil.which(self.kind, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        self.process = None
        text = Path(file).read_text()
        for name, (s3, admin) in nodes.items():
            check = f" port {admin}" if self.kind == "haproxy" else ""
            text, found = re.subn(rf"\b{name}:9000\b", f"127.0.0.1:{s3}{check}", text)
            assert found == 1, f"{found} addresses of {name} in {file}"
        listen = {"haproxy": (r"^  bind :9000$", "  bind 127.0.0.1:{}"), "nginx": (r"^    listen 9000;$", "    listen 127.0.0.1:{};")}
        pattern, replacement = listen[self.kind]
        text, found = re.subn(pattern, replacement.format(self.port), text, flags=re.M)
        assert found == 1, f"{found} listeners in {file}"
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
        wait_until(self._answers, 15, f"{self.kind} on its port")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)

    def _answers(self):
        assert self.process.poll() is None, (self.directory / "balancer.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True
