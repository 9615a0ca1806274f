"""Threads that work until they are told to stop."""

import threading


class Threads:
    """Threads that each run `_run`, with its arguments out of `each`, for as long as a `with` block lasts.

    `_run` looks at `stopping` before each of its turns. A thread that has not ended `deadline` seconds after the block is
    an error, unless the block has failed already.
    """

    def __init__(self, each, deadline=120):
        self.stopping = threading.Event()
        self._deadline = deadline
        self._threads = [threading.Thread(target=self._run, args=arguments, daemon=True) for arguments in each]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopping.set()
        for thread in self._threads:
            thread.join(self._deadline)
            assert kind or not thread.is_alive(), "a request hangs"

    def _run(self, *arguments):
        raise NotImplementedError
