"""nginx or HAProxy as a plain process in front of nodes: with a file of `deploy/compose`, or with one made for a test."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from .ports import free_port
from .wait import wait_until

TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

NGINX = """
worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 0;
  upstream gateway {{ {servers} keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_set_header Connection ""; proxy_request_buffering {buffering}; proxy_buffering off;
      proxy_next_upstream off;
    }}
  }}
}}
"""

# Without httpclose HAProxy keeps a connection on which an answer came before the body, and takes the next request
# for that body.
HAPROXY = """
defaults
  mode http
  option httpclose
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend clients
  bind 127.0.0.1:{port}
  default_backend gateway
backend gateway
  {servers}
"""


class Balancer:
    """A balancer of one kind; as a context manager it runs."""

    def __init__(self, kind, directory):
        self.kind = kind
        self.directory = Path(directory)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.file = self.directory / f"{kind}.conf"
        self.program = shutil.which(kind, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        self.process = None

    @classmethod
    def deployed(cls, file, directory, nodes):
        """With the configuration `file`, in front of `nodes`: by name, the ports of S3 and of administration."""
        own = cls("nginx" if Path(file).name.startswith("nginx") else "haproxy", directory)
        text = Path(file).read_text()
        for name, (s3, admin) in nodes.items():
            check = f" port {admin}" if own.kind == "haproxy" else ""
            text, found = re.subn(rf"\b{name}:9000\b", f"127.0.0.1:{s3}{check}", text)
            assert found == 1, f"{found} addresses of {name} in {file}"
        listen = {"haproxy": (r"^  bind :9000$", "  bind 127.0.0.1:{}"), "nginx": (r"^    listen 9000;$", "    listen 127.0.0.1:{};")}
        pattern, replacement = listen[own.kind]
        text, found = re.subn(pattern, replacement.format(own.port), text, flags=re.M)
        assert found == 1, f"{found} listeners in {file}"
        return own._write(text)

    @classmethod
    def plain(cls, kind, directory, addresses, buffers=False):
        """With a configuration of its own, in front of `addresses`."""
        own = cls(kind, directory)
        server = {"nginx": "server {1};", "haproxy": "server node{0} {1}"}[kind]
        servers = "\n  ".join(server.format(*numbered) for numbered in enumerate(addresses))
        text = {"nginx": NGINX, "haproxy": HAPROXY}[kind]
        return own._write(text.format(port=own.port, servers=servers, buffering="on" if buffers else "off"))

    def _write(self, text):
        if self.kind == "nginx":
            paths = "".join(f" {name}_temp_path {self.directory}/{name};" for name in TEMPORARY)
            text = text.replace("http {", "http {" + paths, 1)
            user = "user root;" if os.getuid() == 0 else ""
            text = f"daemon off; pid {self.directory}/nginx.pid; error_log stderr; {user}\n{text}"
        self.file.write_text(text)
        return self

    def check(self):
        """What the program says of the configuration."""
        words = {"haproxy": ["-c", "-f"], "nginx": ["-t", "-c"]}[self.kind]
        return subprocess.run([self.program, *words, self.file], capture_output=True, text=True, timeout=60)

    def __enter__(self):
        words = {"haproxy": ["-db", "-f"], "nginx": ["-c"]}[self.kind]
        with open(self.directory / "balancer.log", "wb") as log:
            self.process = subprocess.Popen([self.program, *words, self.file], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(self._answers, 15, f"{self.kind} on its port")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)

    def _answers(self):
        assert self.process.poll() is None, (self.directory / "balancer.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True
