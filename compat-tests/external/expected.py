#!/usr/bin/env python3
"""The list of public s3-tests that do not pass yet: compares a run with it, or writes it anew.

  expected.py compare RESULTS.jsonl LIST    exit status 1 when a test fails that the list does not name
  expected.py write   RESULTS.jsonl LIST    keeps the reasons that the list has

A line of the list is the test's name, a tab, and the reason.
"""

import json
import sys
from pathlib import Path

from rules import excluded, load_exclusions

UNEXPLAINED = "to be explained"
HEADER = "# Public s3-tests that do not pass yet. name<TAB>reason; written by external/expected.py\n"


def read_list(path):
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split("\t", 1) for line in lines if line and not line.startswith("#"))


def read_results(path):
    """{name: result} of the tests that no exclusion names."""
    rules = load_exclusions(Path(__file__).with_name("exclusions.txt"))
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return {
        row["name"]: row["result"] for row in rows if not excluded(row["name"], row["module"], row["markers"], rules)
    }


def main(mode, results_path, list_path):
    list_path = Path(list_path)
    results, expected = read_results(results_path), read_list(list_path)
    if not results:
        sys.exit(f"no results in {results_path}")
    failing = sorted(name for name, result in results.items() if result not in ("passed", "skipped"))
    if mode == "write":
        # A list may be renewed from a run of some tests only: the others keep their lines.
        kept = {name: reason for name, reason in expected.items() if name not in results}
        renewed = kept | {name: expected.get(name, UNEXPLAINED) for name in failing}
        list_path.write_text(HEADER + "".join(f"{name}\t{reason}\n" for name, reason in sorted(renewed.items())))
        print(f"{len(renewed)} expected failures, {sum(r == UNEXPLAINED for r in renewed.values())} to be explained")
        return 0
    unexpected = [name for name in failing if name not in expected]
    mended = sorted(name for name in expected if results.get(name) == "passed")
    for name in unexpected:
        print(f"fails, and is not expected to: {name}")
    for name in mended:
        print(f"passes, though listed as failing: {name}")
    print(f"{len(results)} run, {len(failing)} failing, {len(unexpected)} of them unexpected, {len(mended)} mended")
    return 1 if unexpected else 0


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("compare", "write"):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
