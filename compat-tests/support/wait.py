"""Waiting for a condition with a deadline, instead of for a time."""

import time


def wait_until(condition, deadline=30.0, what="the condition"):
    """Returns the first true answer of `condition`; fails when the deadline passes first."""
    end = time.monotonic() + deadline
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not hold within {deadline:g} s")
        time.sleep(0.02)  # between two looks; nothing relies on its length
