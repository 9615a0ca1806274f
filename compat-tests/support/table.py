"""Writes the compatibility table between two marker comments of a README, from the results of a run.

  table.py RESULTS.jsonl README.md

Rows are all S3 operations (support/operations.py), columns the S3 suite and the clients. The suite's column says `yes`
when every test that names the operation passed, `partial` with what is missing where that is declared or where some
tests failed, and `no` when tests saw the operation refused as not implemented, failed altogether, or there is none. A
client's cell says `yes` when every test in which the server saw the operation from it passed, `partial` when some did,
`no` when none did, and nothing where none ran.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.operations import OPERATIONS, PARTIAL

BEGIN, END = "<!-- compatibility table: begin -->", "<!-- compatibility table: end -->"
SUITE = None  # the column of tests that drive no client
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
    """Outcomes of the tests that exercised operations, {operation: {column: [passed]}}, and of those that saw them
    refused, {operation: [passed]}. Skipped tests say nothing."""
    found, refused = defaultdict(lambda: defaultdict(list)), defaultdict(list)
    for line in Path(path).read_text().splitlines():
        record = json.loads(line)
        if record["outcome"] != "skipped":
            passed = record["outcome"] == "passed"
            for operation in record["ops"]:
                found[operation][record["client"]].append(passed)
            for operation in record.get("unsupported", []):
                refused[operation].append(passed)
    return found, refused


def verdict(operation, outcomes, refused):
    """What the suite's column says of an operation, with the number of tests."""
    if not outcomes:
        return f"no ({len(refused)})" if refused else "no, not tested"
    count, passed = len(outcomes), sum(outcomes)
    if passed == 0:
        return f"no ({count})"
    missing = [PARTIAL[operation]] if operation in PARTIAL else []
    if passed < count:
        missing.append(f"{count - passed} of {count} tests fail")
    return f"partial: {'; '.join(missing)} ({count})" if missing else f"yes ({count})"


def cell(outcomes):
    if not outcomes:
        return ""
    return "yes" if all(outcomes) else "partial" if any(outcomes) else "no"


def table(found, refused):
    columns = [name for name in CLIENTS if any(name in by_column for by_column in found.values())]
    heads = ["Operation", "S3 suite (tests)", *(CLIENTS[name] for name in columns)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for operation in OPERATIONS:
        by_column = found.get(operation, {})
        cells = [verdict(operation, by_column.get(SUITE, []), refused.get(operation, []))]
        cells += [cell(by_column.get(name, [])) for name in columns]
        lines.append("| " + " | ".join([operation, *cells]) + " |")
    return "\n".join(lines)


def problems(found, refused):
    """What would make the table say something wrong."""
    for operation in sorted((found.keys() | refused.keys() | PARTIAL.keys()) - set(OPERATIONS)):
        yield f"{operation} is no S3 operation"
    for operation in sorted(operation for operation in refused if found.get(operation, {}).get(SUITE)):
        yield f"{operation} is both exercised and refused"
    for operation in sorted(operation for operation, outcomes in refused.items() if not all(outcomes)):
        yield f"{operation} is not refused as it should be"


def main(results, readme):
    readme = Path(readme)
    text = readme.read_text()
    if BEGIN not in text or END not in text:
        sys.exit(f"{readme.name} has no marker comments: {BEGIN} and {END}")
    found, refused = read(results)
    if wrong := list(problems(found, refused)):
        sys.exit("\n".join(wrong))
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{table(found, refused)}\n{END}{after}")


if __name__ == "__main__":
    main(*sys.argv[1:])
