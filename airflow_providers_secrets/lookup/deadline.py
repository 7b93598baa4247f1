"""Work that its caller waits for until a deadline, and no longer."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from airflow_providers_secrets.errors import raise_interruption
from airflow_providers_secrets.lookup import forks
from airflow_providers_secrets.stores.base import deadline, given_up

Function = TypeVar("Function", bound=Callable[..., Any])

LINGER: Final = 0.2
"""Seconds for which a thread waits for more work. Starting one per call would cost half of a small call's CPU time."""


LONGEST_SLEEP: Final = 0.5
"""Seconds after which a waiting thread wakes up to handle signals. A signal that came just before the thread fell
asleep, or that the system delivered to another thread, does not wake it: Ctrl-C or ``AirflowTaskTimeout`` would wait
until the deadline."""


def waited(event: threading.Event, until: float) -> bool:
    """Wait for *event*, at most until the monotonic time *until*, and return whether it is set.

    Signal handlers still run meanwhile, at most :data:`LONGEST_SLEEP` seconds late.
    """
    while not event.wait(max(0.0, min(until - time.monotonic(), LONGEST_SLEEP))):
        if time.monotonic() >= until:
            return event.is_set()
    return True


ROOM: Final = 16 * 1024
"""Words of Python's own stack that a :func:`roomy` function claims; at least as many are then free for its callees."""


def roomy(function: Function) -> Function:
    """Reserve room on Python's stack for what *function* calls.

    From 3.11 on, that stack is made of chunks of 16 KiB (``push_chunk`` in CPython's ``pystate.c``). A call that does
    not fit into the current chunk maps another one, and unmaps it on return; a loop at such a boundary pays for that at
    each call. A function that claims more than a chunk gets one of its own. The part of it that is never touched takes
    no memory.
    """
    function.__code__ = function.__code__.replace(co_stacksize=ROOM)
    return function


class DeadlineCall:  # not generic: that takes as long as reading this module
    """One piece of work in a daemon thread, so that it can hold up neither its caller nor the interpreter's exit.

    A thread does one piece of work at a time, then waits :data:`LINGER` seconds for another; work that hangs occupies
    only its own thread. Before a fork, idle threads end.

    :param work: called with an event that is set once nobody waits any more.
    :param seconds: how long :meth:`finished` waits.
    :param left_behind: called with this call when its caller stops waiting before the work is done.
    :param ended_late: called with this call when such abandoned work ends after all.
    """

    result: Any = None
    error: Exception | None = None

    def __init__(
        self,
        work: Callable[[threading.Event], Any],
        seconds: float,
        left_behind: Callable[[DeadlineCall], None] = lambda _: None,
        ended_late: Callable[[DeadlineCall], None] = lambda _: None,
    ) -> None:
        self._work = work
        self._until = time.monotonic() + seconds
        self._left_behind = left_behind
        self._ended_late = ended_late
        self._given_up = threading.Event()
        self._finished = threading.Event()
        self._unclaimed = [self]
        self._context = contextvars.copy_context()
        self._context.run(deadline.set, self._until)
        self._context.run(given_up.set, self._given_up.is_set)
        self._hand_over()

    @property
    def has_ended(self) -> bool:
        """Whether the work is done, in time or not."""
        return self._finished.is_set()

    def finished(self) -> bool:
        """Wait until the deadline at most, and return whether the work is done.

        After the deadline, or after any exception here, the work is abandoned.
        """
        try:
            return waited(self._finished, self._until)
        finally:
            # No lock: a signal handler may start a lookup while its thread is here.
            if not self._finished.is_set():
                self._left_behind(self)
                self._given_up.set()
                if self._finished.is_set():  # it ended between the two checks
                    self._ended_late(self)

    def _hand_over(self) -> None:
        with contextlib.suppress(IndexError):
            if _idle.pop().takes(self):
                return
        try:
            _Worker(self).start()
        except RuntimeError as error:
            raise_interruption(error)
            # The interpreter is shutting down, or the host has no thread left: do the work here, within the SDK's own
            # time-outs.
            self.run()

    def run(self) -> None:
        """Do the work, unless another thread has begun it."""
        try:
            self._unclaimed.pop()
        except IndexError:
            return
        self._context.run(self._run)

    def _run(self) -> None:
        try:
            self.result = self._work(self._given_up)
        except Exception as error:  # noqa: BLE001  # raised again by the thread that waits for it
            # Without the frames of an SDK, whose local variables hold requests and answers.
            self.error = error.with_traceback(None)
        finally:
            self._finished.set()
            if self._given_up.is_set():
                self._ended_late(self)


class _Worker(threading.Thread):
    """Does one piece of work, and then waits for more.

    Whoever takes it out of :data:`_idle` may hand it the next one. No lock: a signal handler may start a lookup, or
    raise, between any two steps here.
    """

    def __init__(self, first: DeadlineCall) -> None:
        super().__init__(name="secrets-lookup", daemon=True)
        self._inbox: queue.SimpleQueue[DeadlineCall | None] = queue.SimpleQueue()
        self._inbox.put(first)
        self._ended = False

    def takes(self, call: DeadlineCall) -> bool:
        """Hand over *call*, and return whether this thread can still see it."""
        self._inbox.put(call)
        return not self._ended

    def end(self) -> None:
        """Make this thread end now."""
        self._inbox.put(None)
        if self.native_id is not None:
            forks.thread_ending(self.native_id)

    def run(self) -> None:
        try:
            while call := self._next():
                call.run()
                del call  # or what was read would stay in memory
                _idle.append(self)
        finally:
            self._ended = True
            forks.thread_ending(threading.get_native_id())
            with contextlib.suppress(queue.Empty):  # it arrived just before others could see the end
                if call := self._inbox.get_nowait():
                    call.run()

    def _next(self) -> DeadlineCall | None:
        try:
            return self._inbox.get(timeout=LINGER)
        except queue.Empty:
            pass
        try:
            _idle.remove(self)
        except ValueError:  # another thread took it, and is about to hand over a call, or was interrupted
            with contextlib.suppress(queue.Empty):
                return self._inbox.get(timeout=LINGER)
        return None


_idle: deque[_Worker] = deque()


def end_idle_threads() -> None:
    """Make every idle thread end: a forked child would have none of them."""
    while _idle:
        with contextlib.suppress(IndexError):
            _idle.pop().end()


forks.before_waiting.append(end_idle_threads)
forks.in_child.append(_idle.clear)
