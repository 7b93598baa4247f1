"""Keeps a fork from falling into the middle of what other threads do.

The child of a fork has the forking thread alone, and every lock as it was. So it waits for ever

- for a module that another thread was importing, once it imports it too; and
- in its first TLS context, where a thread that had spoken TLS was just ending: the last thing it does, behind
  Python's back, is to free what OpenSSL kept for it, behind one of OpenSSL's global locks.

Airflow forks right after lookups, and every lookup has a thread of its own. So a fork waits for both: some
milliseconds, as a rule.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

LONGEST_WAIT: Final = 1.0
"""Seconds that a fork waits at most. Making a client may hang on a network; a fork must not."""

_importing = threading.RLock()
_forking = threading.local()
_ending: deque[int] = deque(maxlen=64)


@contextlib.contextmanager
def unforked() -> Iterator[None]:
    """Let no fork of another thread happen meanwhile, unless this takes longer than :data:`LONGEST_WAIT`."""
    with _importing:
        yield


def note_end() -> None:
    """Remember that the calling thread is about to end."""
    _ending.append(threading.get_native_id())


def let_threads_end() -> None:
    """Wait until the threads that were about to end have ended; where the system does not tell, not at all."""
    latest = time.monotonic() + LONGEST_WAIT
    while _ending:
        thread = f"/proc/self/task/{_ending.popleft()}"
        while os.path.exists(thread) and time.monotonic() < latest:  # noqa: PTH110  # pathlib would be imported for it
            time.sleep(0.0002)


def _before() -> None:
    _forking.waited = _importing.acquire(timeout=LONGEST_WAIT)
    let_threads_end()


def _after_in_parent() -> None:
    if _forking.waited:
        _importing.release()


def _after_in_child() -> None:
    global _importing  # noqa: PLW0603
    _importing = threading.RLock()
    _ending.clear()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
