"""TCP ports that the servers of a test are told to listen on.

They are not the ones that the system gives to connections: such a port, found free, may be an outgoing connection's a
moment later, before the server listens.
"""

import os
import random
import socket

LOWEST = 10_000


def _candidates():
    """Each once, before any comes again; workers of one run have different ones."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as limits:
            first_of_connections = int(limits.read().split()[0])
    except OSError:
        first_of_connections = 32_768
    # Where connections get nearly all ports there is no better choice than any.
    end = first_of_connections if first_of_connections > 2 * LOWEST else 65_536
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = range(LOWEST + worker, end, workers)
    begin = random.SystemRandom().randrange(len(ports))
    while True:
        yield from ports[begin:]
        yield from ports[:begin]


_ports = _candidates()


def free_port():
    """A port of 127.0.0.1 that nothing listens on, and that no other caller was given for a long time."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


if __name__ == "__main__":
    print(free_port())
