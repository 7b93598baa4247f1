"""Exceptions that come from a signal's handler, as Airflow's time-out of a DAG file does."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class TimeIsUp(BaseException):
    """What no ``except Exception`` catches."""


@contextlib.contextmanager
def raised_in_the_main_thread() -> Iterator[Callable[[], None]]:
    """Provide a function that lets the main thread raise :class:`TimeIsUp` as soon as it waits for another thread."""

    def raise_it(*_: object) -> None:
        raise TimeIsUp

    main = threading.main_thread().ident
    assert main

    is_over = threading.Event()

    def send_once_it_waits() -> None:
        while not is_over.is_set():
            if waits_for_another(main):
                signal.pthread_kill(main, signal.SIGALRM)
                return
            os.sched_yield()

    sender = threading.Thread(target=send_once_it_waits, daemon=True)
    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        yield sender.start
    finally:
        # Whatever ended the block: a sender that went on would raise in the midst of another test, or be waited for
        # for ever.
        is_over.set()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # what is on its way
        if sender.ident is not None:
            sender.join(60)  # it ends at its next look
            assert not sender.is_alive()
        signal.signal(signal.SIGALRM, before)


def waits_for_another(thread: int | None) -> bool:
    """Tell whether *thread* waits for another one's work, and not for it to start, which nothing may interrupt."""
    frame = _frame_of(thread)
    if frame is None or frame.f_code is not threading.Condition.wait.__code__:
        return False
    while frame is not None and frame.f_code is not threading.Thread.start.__code__:
        frame = frame.f_back
    return frame is None


def _frame_of(thread: int | None) -> FrameType | None:
    """Return where *thread* is. A garbage collection in the midst of that may deadlock CPython (its issue 106883)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames().get(thread) if thread is not None else None
    finally:
        if enabled:
            gc.enable()
