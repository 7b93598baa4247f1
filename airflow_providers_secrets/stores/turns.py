"""How threads take turns, each until its own deadline."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from airflow_providers_secrets.stores.base import deadline, seconds_left


class Turn:
    """Lets one thread in at a time, and waits for no thread that is past its own deadline.

    Such a one may hang for long, in a server that sends a byte now and then, and nobody waits for what it will get.
    """

    def __init__(self) -> None:
        self._current = _Lock()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn.

        :raises TimeoutError: where it is not to be had before the caller's own deadline.
        """
        lock = self._current
        while not lock.acquire(min(seconds_left(), max(0.0, lock.until - time.monotonic()))):
            if not seconds_left():
                raise TimeoutError
            if self._current is lock:
                self._current = _Lock()
            lock = self._current
        try:
            yield
        finally:
            lock.release()


class _Lock:
    """A lock, and until when its holder counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.until = float("inf")

    def acquire(self, seconds: float) -> bool:
        if not self._lock.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX)):
            return False
        self.until = deadline.get()
        return True

    def release(self) -> None:
        self.until = float("inf")
        self._lock.release()
