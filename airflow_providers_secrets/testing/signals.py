"""Exceptions that come from a signal handler, as Airflow's time-out of a DAG file does."""

from __future__ import annotations

import contextlib
import faulthandler
import inspect
import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Final


class TimeIsUp(BaseException):
    """An exception that no ``except Exception`` catches."""


@contextlib.contextmanager
def raised_in_the_main_thread() -> Iterator[Callable[[], None]]:
    """Provide a function that makes the main thread raise :class:`TimeIsUp` as soon as it waits for another thread.

    The signal is sent by a thread that can run only once the main thread releases the GIL to fall asleep. A signal that
    arrives between the two wakes nobody, so it is sent again until it has been seen.
    """
    is_raised = threading.Event()

    def raise_it(*_: object) -> None:
        if not is_raised.is_set():
            is_raised.set()
            raise TimeIsUp

    main = threading.main_thread().ident
    assert main
    wait = threading.Condition.wait
    is_armed, is_over = threading.Event(), threading.Event()
    asleep = threading.Semaphore(0)

    def noticed(condition: threading.Condition, timeout: float | None = None) -> bool:
        if is_armed.is_set() and threading.get_ident() == main and not _starts_a_thread():
            is_armed.clear()
            asleep.release()
        return wait(condition, timeout)

    def send_once_it_waits() -> None:
        asleep.acquire()
        while not (is_raised.is_set() or is_over.is_set()):
            signal.pthread_kill(main, signal.SIGALRM)
            is_over.wait(0.05)

    sender = threading.Thread(target=send_once_it_waits, daemon=True)

    def arm() -> None:
        sender.start()
        is_armed.set()

    before = signal.signal(signal.SIGALRM, raise_it)
    setattr(threading.Condition, "wait", noticed)  # noqa: B010  # a method, to the type checker
    try:
        yield arm
    finally:
        # However the block ended: a sender that continued would raise in the middle of another test, or be waited for
        # for ever.
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # for a signal that is on its way
        setattr(threading.Condition, "wait", wait)  # noqa: B010
        is_over.set()
        asleep.release()
        if sender.ident is not None:
            sender.join(60)
            assert not sender.is_alive()
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def raised_where_a_wait_has_let_its_lock_go(*, as_a_thread_starts: bool) -> Iterator[None]:
    """Raise :class:`TimeIsUp` once, at the one point of a wait in the main thread where the interpreter hides it.

    :param as_a_thread_starts: raise in the wait for a new thread to start, not in the wait for another thread's work.
    """
    let_go = getattr(threading.Condition, "_release_save")  # noqa: B009  # private, to the type checker
    is_raised = False

    def interrupted(condition: threading.Condition) -> object:
        nonlocal is_raised
        saved = let_go(condition)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and not is_raised and _starts_a_thread() == as_a_thread_starts:
            is_raised = True
            raise TimeIsUp
        return saved

    setattr(threading.Condition, "_release_save", interrupted)  # noqa: B010
    try:
        yield
    finally:
        setattr(threading.Condition, "_release_save", let_go)  # noqa: B010
    assert is_raised


def _starts_a_thread() -> bool:
    """Return whether this thread waits for another one to start, which nothing may interrupt."""
    frame = inspect.currentframe()
    while frame and frame.f_code is not threading.Thread.start.__code__:
        frame = frame.f_back
    return frame is not None


_WAIT: Final = {str(line) for _, _, line in threading.Condition.wait.__code__.co_lines()}
"""The lines of :mod:`threading` in which a thread waits for another one."""

_FRAME: Final = re.compile(r'  File "(.*)", line (\d+) in (.*)')


def waits_for_another(thread: int | None) -> bool:
    """Return whether *thread* waits for another one's work, and not for it to start.

    It must be one of the hundred threads that were started last: faulthandler reports no more.
    """
    frames = _frames_of(thread)
    if not frames or frames[0][0] != threading.__file__ or frames[0][1] not in _WAIT:
        return False
    return (threading.__file__, "start") not in [(file, function) for file, _, function in frames]


def _frames_of(thread: int | None) -> list[tuple[str, str, str]]:
    """Return file, line and function of each of a thread's frames, the most recent first.

    Reading the frame objects of a running thread makes CPython 3.11 end with a segmentation fault; faulthandler reads
    all of them in one step.
    """
    if thread is None:
        return []
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        told = os.fsdecode(file.read())
    # The heading is "Thread 0x…" or "Current thread 0x…", from Python 3.14 on with the thread's name behind.
    block = re.search(rf"hread 0x0*{thread:x} .*\n((?:  .*\n)*)", told)
    return _FRAME.findall(block[1]) if block else []
