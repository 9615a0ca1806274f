"""Writes the compatibility table between two marker comments of a README, from the results of a run.

  table.py RESULTS.jsonl README.md

Rows are S3 operations, columns the S3 suite and the clients. A cell says `yes` when every test of that column which
exercised the operation passed, `partial` when some did, `no` when none did, and nothing where none ran. For the suite a
test names its operations; for a client they are what the server saw it do.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

BEGIN, END = "<!-- compatibility table: begin -->", "<!-- compatibility table: end -->"
CLIENTS = {
    "aws": "aws cli",
    "boto3": "boto3",
    "boto3 1.35": "boto3 1.35",
    "rclone": "rclone",
    "s5cmd": "s5cmd",
    "s3cmd": "s3cmd",
    "minio-py": "minio-py",
    "aws-sdk-js": "JavaScript SDK",
}


def read(path):
    """{operation: {column: [outcomes]}}; skipped tests say nothing."""
    found = defaultdict(lambda: defaultdict(list))
    for line in Path(path).read_text().splitlines():
        record = json.loads(line)
        if record["outcome"] != "skipped":
            for operation in record["ops"]:
                found[operation][record["client"]].append(record["outcome"] == "passed")
    return found


def cell(outcomes):
    if not outcomes:
        return ""
    return "yes" if all(outcomes) else "partial" if any(outcomes) else "no"


def table(found):
    columns = [None, *(name for name in CLIENTS if any(name in by_column for by_column in found.values()))]
    heads = ["Operation", "S3 suite (tests)", *(CLIENTS[name] for name in columns[1:])]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for operation in sorted(found):
        cells = [cell(found[operation][column]) for column in columns]
        if cells[0]:
            cells[0] += f" ({len(found[operation][None])})"
        lines.append("| " + " | ".join([operation, *cells]) + " |")
    return "\n".join(lines)


def main(results, readme):
    readme = Path(readme)
    text = readme.read_text()
    if BEGIN not in text or END not in text:
        sys.exit(f"{readme.name} has no marker comments: {BEGIN} and {END}")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{table(read(results))}\n{END}{after}")


if __name__ == "__main__":
    main(*sys.argv[1:])
