"""Keeps a fork from meeting OpenSSL at work in a thread that ends.

A thread that spoke TLS frees what OpenSSL kept for it as the very last thing, behind Python's back and behind one of
OpenSSL's global locks. A process forked in that moment inherits the lock held: its first TLS context waits for ever.
Airflow forks right after lookups, and every lookup has a thread of its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

LONGEST_WAIT: Final = 1.0
"""Seconds that a fork waits at most; a thread ends within a few milliseconds."""

_TASKS: Final = Path("/proc/self/task")

_ending: deque[int] = deque(maxlen=64)


def note_tls() -> None:
    """Remember that the calling thread spoke TLS and, if it is a lookup's, is about to end."""
    if threading.current_thread().name == "secrets-lookup":
        _ending.append(threading.get_native_id())


def let_threads_end() -> None:
    """Wait until the threads that were about to end have ended; where the system does not tell, not at all.

    Runs by itself before a fork.
    """
    latest = time.monotonic() + LONGEST_WAIT
    while _ending:
        thread = _ending.popleft()
        while (_TASKS / str(thread)).exists() and time.monotonic() < latest:
            time.sleep(0.0002)


os.register_at_fork(before=let_threads_end, after_in_child=_ending.clear)
