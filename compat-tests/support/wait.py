"""Waiting for a condition with a deadline, instead of for a time."""

import time


def wait_until(condition, deadline=30.0, what="the condition"):
    """Returns the first true answer of `condition`; fails when the deadline passes first."""
    end = time.monotonic() + deadline
    while True:
        # Asked before the look, which may take long, as may anything before it: one that begins late enough decides.
        is_last = time.monotonic() > end
        answer = condition()
        if answer:
            return answer
        if is_last:
            raise AssertionError(f"{what} did not hold within {deadline:g} s")
        time.sleep(0.02)  # between two looks; nothing relies on its length
