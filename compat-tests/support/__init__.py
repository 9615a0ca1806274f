"""What the suites share: a server to start, clients to talk to it, and ways to wait, sign and compare."""
