"""Runs a checkout of the public ceph s3-tests against osproxy and compares the outcome with expected-failures.txt."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import expected
from support.endpoint import Endpoint, Identity
from support.server import ROOT, Server

# Role in the suite: tenant and key. All three may be made in a running install, again and again.
ROLES = {
    "MAIN": ("default", Identity("S3TESTSMAINKEY000001", "s3testsmainsecrets3testsmainsecret000001")),
    "ALT": ("s3tests-alt", Identity("S3TESTSALTKEY0000001", "s3testsaltsecrets3testsaltsecret00000001")),
    "TENANT": ("s3tenant1", Identity("S3TESTSTENANTKEY0001", "s3teststenantsecrets3teststenantsecret01")),
}

# The KMS keys that the suite names where its configuration does not.
KMS_KEYS = ("testkey-1", "testkey-2")


def make_identities(server):
    """Tenants and keys for the roles, as settings for run.sh. What exists already stays."""
    settings = {}
    for role, (tenant, identity) in ROLES.items():
        if tenant != "default":
            server.command("tenants", "create", tenant, check=False)
        server.command(
            "keys",
            "create",
            "--tenant",
            tenant,
            "--access-key",
            identity.access_key,
            "--secret-key",
            identity.secret_key,
            check=False,
        )
        for key in KMS_KEYS:
            server.command("kms", "create", "--tenant", tenant, key, check=False)
        owner = Endpoint(server.endpoint.url, identity).client().list_buckets()["Owner"]
        settings |= {
            f"S3T_{role}_KEY": identity.access_key,
            f"S3T_{role}_SECRET": identity.secret_key,
            f"S3T_{role}_ID": owner["ID"],
            f"S3T_{role}_NAME": owner.get("DisplayName") or owner["ID"],
        }
    return settings


def main():
    parser = argparse.ArgumentParser(prog="run-s3tests", description=__doc__)
    parser.add_argument("checkout", type=Path, help="of the s3-tests")
    parser.add_argument("--data-dir", type=Path, help="of a running server; without it one is started for the run")
    parser.add_argument("--port", type=int, help="of the running server's S3 endpoint")
    parser.add_argument("--pytest", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--update", action="store_true", help="write expected-failures.txt from this run")
    options, arguments = parser.parse_known_args()
    if bool(options.data_dir) != bool(options.port):
        parser.error("--data-dir and --port go together")

    with tempfile.TemporaryDirectory() as folder:
        server = Server(options.data_dir or Path(folder) / "data", identity=ROOT if not options.data_dir else None)
        if options.data_dir:
            server.s3_port = options.port
        else:
            server.start()
        try:
            settings = make_identities(server) | {
                "S3TESTS": str(options.checkout.resolve()),
                "S3T_PORT": str(server.s3_port),
                "OUT": str(options.out),
                "PYTEST": str(options.pytest),
                "PYTHON": sys.executable,
            }
            ran = subprocess.run([HERE / "run.sh", *arguments], env=os.environ | settings)
        finally:
            server.stop()
    if ran.returncode:
        return ran.returncode
    return expected.main(
        "write" if options.update else "compare", options.out / "results.jsonl", HERE / "expected-failures.txt"
    )


if __name__ == "__main__":
    sys.exit(main())
