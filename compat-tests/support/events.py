"""Receivers of events: a webhook that keeps what it gets, and a Redis server."""

import json
import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .ports import free_port
from .wait import wait_until


class Hook:
    """A webhook. `answers` says what the next requests get; without one they get 200."""

    def __init__(self, port=0):
        hook = self
        self.received = []  # (headers, document) of the requests that were answered with success
        self.refused = 0
        self.answers = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status = hook.answers.pop(0) if hook.answers else 200
                if status == 200:
                    hook.received.append((dict(self.headers), json.loads(body)))
                else:
                    hook.refused += 1
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port or free_port()), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def records(self):
        """The records in order, without test events."""
        return [record for _, document in list(self.received) for record in document.get("Records", [])]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


@contextmanager
def redis(directory):
    """A Redis server of its own: yields its port and a way to run a command of it."""
    port = free_port()
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def command(*words):
        done = subprocess.run(
            ["redis-cli", "-p", str(port), "--json", *words], capture_output=True, text=True, timeout=20
        )
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else None

    try:
        wait_until(lambda: command("PING") == "PONG", what="the Redis server")
        yield port, command
    finally:
        process.kill()
        process.wait()


def has_redis():
    return bool(shutil.which("redis-server") and shutil.which("redis-cli"))
