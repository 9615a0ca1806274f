"""pytest plugin: records each test's outcome for the compatibility table, and ends with one plain line."""

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / ".cache" / "results.jsonl"

# What a test notes about itself: the client it drove, and the operations that the server saw from it.
CLIENT = pytest.StashKey[str]()
SEEN_OPS = pytest.StashKey[set]()
_PHASES = pytest.StashKey[dict]()

totals = {"passed": 0, "failed": 0, "skipped": 0}
_records = []


def is_whole_run(config):
    """Only a run of everything against our own server may replace the results that the table is made of."""
    chosen = any(config.getoption(name) for name in ("keyword", "markexpr", "endpoint", "backend"))
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not chosen


def pytest_sessionfinish(session):
    if not _is_worker(session.config) and is_whole_run(session.config):
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("".join(json.dumps(record) + "\n" for record in _records))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    phases = item.stash.setdefault(_PHASES, {})
    phases[report.when] = report.outcome
    if report.when == "teardown":
        marked = _named(item, "op")
        # It goes with the report from the process that ran the test to the one that counts.
        report.record = {
            "test": item.nodeid,
            "outcome": next(o for o in ("failed", "skipped", "passed") if o in phases.values()),
            "client": item.stash.get(CLIENT, None),
            "ops": sorted(marked | item.stash.get(SEEN_OPS, set())),
            "unsupported": sorted(_named(item, "unsupported")),
        }
    return report


def pytest_runtest_logreport(report):
    if record := getattr(report, "record", None):
        totals[record["outcome"]] += 1
        _records.append(record)


def _is_worker(config):
    """Whether this process only runs tests for another."""
    return hasattr(config, "workerinput")


def _named(item, marker):
    return {operation for mark in item.iter_markers(marker) for operation in mark.args}


def pytest_unconfigure(config):
    if any(totals.values()) and not _is_worker(config):
        print("{passed} passed, {failed} failed, {skipped} skipped".format(**totals))
