"""Work that its caller waits for until a deadline, and no longer."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from airflow_providers_secrets.errors import raise_interruption
from airflow_providers_secrets.lookup import forks
from airflow_providers_secrets.stores.base import deadline, given_up

Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Any])

LINGER: Final = 0.2
"""Seconds for which a thread waits for more work. Starting one for each call costs half of a small call's CPU time."""


LONGEST_SLEEP: Final = 0.5
"""Seconds after which a thread that waits looks for signals. One that came just before it fell asleep, or that the
system gave to another thread, does not wake it: Ctrl-C or ``AirflowTaskTimeout`` would wait until the deadline."""


def waited(event: threading.Event, until: float) -> bool:
    """Wait for *event* until the monotonic time *until* at most, and tell whether it is set.

    A signal's handler runs meanwhile, after :data:`LONGEST_SLEEP` seconds at the latest.
    """
    while not event.wait(max(0.0, min(until - time.monotonic(), LONGEST_SLEEP))):
        if time.monotonic() >= until:
            return event.is_set()
    return True


ROOM: Final = 16 * 1024
"""Words of Python's own stack that a roomy function claims; at least as many are then free for what it calls."""


def roomy(function: Function) -> Function:
    """Give what *function* calls room on Python's stack.

    From 3.11 on, that stack is made of chunks of 16 KiB (``push_chunk`` in CPython's ``pystate.c``). A call that does
    not fit into one has the next mapped, and unmapped as it returns; so a loop just there pays for that at each call.
    A function that claims more than a chunk has one of its own. What of it is never touched takes no memory.
    """
    function.__code__ = function.__code__.replace(co_stacksize=ROOM)
    return function


class DeadlineCall(Generic[Result]):
    """One piece of work in a daemon thread, so that neither its caller nor the interpreter's exit waits.

    A thread does one piece of work at a time, and waits :data:`LINGER` seconds for another; work that hangs holds its
    own thread alone. Before a fork, idle threads end.

    :param work: called with an event that is set once nobody waits any more.
    :param seconds: how long :meth:`finished` waits.
    :param left_behind: called with this call when its caller stops waiting.
    :param ended_late: called with this call when such work ends after all.
    """

    result: Result | None = None
    error: Exception | None = None

    def __init__(
        self,
        work: Callable[[threading.Event], Result],
        seconds: float,
        left_behind: Callable[[DeadlineCall[Result]], None] = lambda _: None,
        ended_late: Callable[[DeadlineCall[Result]], None] = lambda _: None,
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
        """Wait until the deadline at most; after that, or after any exception here, the work is left behind."""
        try:
            return waited(self._finished, self._until)
        finally:
            # No lock: a signal's handler may look something up while its thread is just here.
            if not self._finished.is_set():
                self._left_behind(self)
                self._given_up.set()
                if self._finished.is_set():  # it ended between the two looks
                    self._ended_late(self)

    def _hand_over(self) -> None:
        with contextlib.suppress(IndexError):
            if _idle.pop().takes(self):
                return
        try:
            _Worker(self).start()
        except RuntimeError as error:
            raise_interruption(error)
            # The interpreter is ending, or the host has no thread left: work here, within the SDK's own time-outs.
            self.run()

    def run(self) -> None:
        """Do the work, unless somebody else has begun it."""
        try:
            self._unclaimed.pop()
        except IndexError:
            return
        self._context.run(self._run)

    def _run(self) -> None:
        try:
            self.result = self._work(self._given_up)
        except Exception as error:  # noqa: BLE001  # raised again where it is waited for
            # Without the frames of an SDK, whose local variables hold requests and answers.
            self.error = error.with_traceback(None)
        finally:
            self._finished.set()
            if self._given_up.is_set():
                self._ended_late(self)


class _Worker(threading.Thread):
    """Does one piece of work, and then waits for more.

    Who takes it out of :data:`_idle` may hand it the next one. No lock: a signal's handler may look something up, or
    raise, between any two steps here.
    """

    def __init__(self, first: DeadlineCall[Any]) -> None:
        super().__init__(name="secrets-lookup", daemon=True)
        self._inbox: queue.SimpleQueue[DeadlineCall[Any] | None] = queue.SimpleQueue()
        self._inbox.put(first)
        self._ended = False

    def takes(self, call: DeadlineCall[Any]) -> bool:
        """Hand over *call*, and tell whether this thread can still see it."""
        self._inbox.put(call)
        return not self._ended

    def end(self) -> None:
        """Have this thread end now."""
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
            with contextlib.suppress(queue.Empty):  # it came just before this thread was seen to have ended
                if call := self._inbox.get_nowait():
                    call.run()

    def _next(self) -> DeadlineCall[Any] | None:
        try:
            return self._inbox.get(timeout=LINGER)
        except queue.Empty:
            pass
        try:
            _idle.remove(self)
        except ValueError:  # somebody took it, and is about to hand something over, or was interrupted
            with contextlib.suppress(queue.Empty):
                return self._inbox.get(timeout=LINGER)
        return None


_idle: deque[_Worker] = deque()


def end_idle_threads() -> None:
    """Have every thread end that waits for work: a child of a fork would have none of them."""
    while _idle:
        with contextlib.suppress(IndexError):
            _idle.pop().end()


forks.before_waiting.append(end_idle_threads)
forks.in_child.append(_idle.clear)
