"""Behind nginx and HAProxy: whatever they make of 100 Continue, an upload is whole, and known content still one."""

import shutil
import socket
import subprocess

import pytest

from support.wait import wait_until

NGINX = """
daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log; worker_processes 1; {user}
events {{ worker_connections 64; }}
http {{
  access_log off; client_max_body_size 0;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  upstream gateway {{ server {upstream}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_set_header Connection ""; proxy_request_buffering {buffering}; proxy_buffering off;
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
  server only {upstream}
"""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(params=["nginx", "nginx that buffers", "haproxy"])
def balanced(request, tmp_path, endpoint):
    """The endpoint behind a balancer of its own."""
    program = request.param.split()[0]
    found = shutil.which(program, path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
    if not found:
        pytest.skip(f"{program} is not installed")
    port, config = free_port(), tmp_path / "balancer.conf"
    config.write_text(
        {"nginx": NGINX, "haproxy": HAPROXY}[program].format(
            dir=tmp_path,
            port=port,
            upstream=endpoint.netloc,
            user="user root;" if tmp_path.owner() == "root" else "",
            buffering="on" if "buffers" in request.param else "off",
        )
    )
    command = [found, "-f", config] if program == "haproxy" else [found, "-c", config]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), 10, f"{program} on its port")
        yield endpoint.at(f"http://127.0.0.1:{port}").client()
    finally:
        process.terminate()
        process.wait(10)


def test_known_and_new_content_arrive_whole(balanced, s3, bucket, rng):
    body = rng.randbytes(300_000)
    for number in range(12):
        balanced.put_object(Bucket=bucket, Key=f"known{number}", Body=body)
        assert s3.get_object(Bucket=bucket, Key=f"known{number}")["Body"].read() == body
        new = rng.randbytes(5_000_000 if number == 0 else 20_000)
        balanced.put_object(Bucket=bucket, Key=f"new{number}", Body=new)
        assert balanced.get_object(Bucket=bucket, Key=f"new{number}")["Body"].read() == new
