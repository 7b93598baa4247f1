"""Work that its caller waits for until a deadline, and no longer."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from airflow_providers_secrets.lookup.forks import thread_ending
from airflow_providers_secrets.stores.base import deadline

Result = TypeVar("Result")


class DeadlineCall(Generic[Result]):
    """One piece of work in a daemon thread of its own, so that neither its caller nor the interpreter's exit waits.

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
        context = contextvars.copy_context()
        context.run(deadline.set, self._until)
        self._thread = threading.Thread(
            target=context.run, args=(self._run_and_end,), name="secrets-lookup", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:
            # The interpreter is ending, or the host has no thread left: work here, within the SDK's own time-outs.
            context.run(self._run)

    def finished(self) -> bool:
        """Wait until the deadline at most; after that, or after any exception here, the work is left behind."""
        try:
            return self._finished.wait(max(0.0, self._until - time.monotonic()))
        finally:
            # No lock: a signal's handler may look something up while its thread is just here.
            if not self._finished.is_set():
                self._left_behind(self)
                self._given_up.set()
                if self._finished.is_set():  # it ended between the two looks
                    self._ended_late(self)

    def _run_and_end(self) -> None:
        try:
            self._run()
        finally:
            thread_ending()

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
