"""Work that its caller waits for until a deadline, and no longer."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from airflow_providers_secrets.forks import note_end

Result = TypeVar("Result")


class Bounded(Generic[Result]):
    """One piece of work in a daemon thread of its own, so that neither its caller nor the interpreter's exit waits.

    :param work: called with an event that is set once nobody waits any more.
    :param left_behind: called with 1 when the caller stops waiting, and with -1 when such work ends after all.
    """

    result: Result | None = None
    error: Exception | None = None

    def __init__(
        self, work: Callable[[threading.Event], Result], left_behind: Callable[[int], None] = lambda _: None
    ) -> None:
        self._work = work
        self._left_behind = left_behind
        self._given_up = threading.Event()
        self._finished = threading.Event()
        self._state = threading.Lock()
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._run_and_end,), name="secrets-lookup", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is ending, or the host has no thread left: work here, within the SDK's own time-outs.
            context.run(self._run)

    def finished_within(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds; after that, or after any exception here, the work is left behind."""
        try:
            self._finished.wait(timeout)
        finally:
            with self._state:
                late = not self._finished.is_set()
                if late:
                    self._given_up.set()
                    self._left_behind(+1)
        return not late

    def _run_and_end(self) -> None:
        try:
            self._run()
        finally:
            note_end()

    def _run(self) -> None:
        try:
            self.result = self._work(self._given_up)
        except Exception as error:  # noqa: BLE001  # raised again where it is waited for
            # Without the frames of an SDK, whose local variables hold requests and answers.
            self.error = error.with_traceback(None)
        finally:
            with self._state:
                self._finished.set()
                if self._given_up.is_set():
                    self._left_behind(-1)
