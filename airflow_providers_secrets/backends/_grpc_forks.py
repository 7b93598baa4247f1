"""Keeps gRPC out of the way of ``fork``.

gRPC's own threads do not exist in a forked child, and its locks stay as they were. So no channel may be open and
no call under way at the moment of a fork: before one, new calls wait, those under way get :data:`PATIENCE` seconds
to end, the rest are cancelled, and all channels are closed, upon which gRPC ends its threads, and they have ended.
Else the child might wait for one of gRPC's locks for ever, with Python's own lock in hand, in its first channel.
After it, parent and child open channels anew, and what was cancelled in the parent is sent again.

Nothing here imports gRPC.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

PATIENCE: Final = 0.5
"""Seconds that a fork waits for the calls under way, and again for what it cancelled and closed to end."""

Metadata = Sequence[tuple[str, str]]


class _Gate:
    """Lets calls in while no thread is about to fork."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._forking = 0
        # Threads that were there before any channel was open; None while none is.
        self._before: frozenset[int] | None = None
        self._channels: weakref.WeakSet[Channel] = weakref.WeakSet()

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def add(self, channel: Channel) -> None:
        with self._changed:
            self._channels.add(channel)

    def opening(self) -> None:
        with self._changed:
            if self._before is None:
                self._before = _threads()

    def close(self) -> None:
        with self._changed:
            self._forking += 1
            self._changed.wait_for(lambda: not self._inside, PATIENCE)
            channels = list(self._channels)
        latest = time.monotonic() + PATIENCE
        for channel in channels:
            channel.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._inside, PATIENCE)
        before = self._before
        if before is not None:
            while not _threads() <= before and time.monotonic() < latest:
                time.sleep(0.0005)
            self._before = None

    def open(self) -> None:
        with self._changed:
            self._forking -= 1
            self._changed.notify_all()


def _threads() -> frozenset[int]:
    """Give the ids of the threads that Python does not know, gRPC's among them; where the system tells them."""
    try:
        tasks = os.listdir("/proc/self/task")  # noqa: PTH208
    except OSError:
        return frozenset()
    known = {thread.native_id for thread in threading.enumerate()}
    return frozenset(map(int, tasks)) - known - {os.getpid(), threading.get_native_id()}


_gate = _Gate()


def _before_fork() -> None:
    _gate.close()


def _after_in_parent() -> None:
    _gate.open()


def _after_in_child() -> None:
    global _gate  # noqa: PLW0603
    _gate = _Gate()


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def held_off() -> contextlib.AbstractContextManager[None]:
    """Make forks wait for what runs in the block, for instance an import, for :data:`PATIENCE` seconds at most."""
    return _gate.passed()


class Channel:
    """A gRPC channel that is opened at its first call, and again after a fork in this process.

    Safe to share between threads; of no use in a forked child, which makes its own.

    :param make: opens a ``grpc.Channel``.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._channel: Any = None
        self._closings = 0
        _gate.add(self)

    def call(self, method: str, message: bytes, timeout: float, metadata: Metadata) -> bytes:
        """Make one unary call.

        :param timeout: seconds, interruptions by forks included.
        :raises grpc.RpcError: if it fails.
        """
        deadline = time.monotonic() + timeout
        while True:
            with _gate.passed():
                with self._lock:
                    channel, closings = self._opened(), self._closings
                try:
                    answer: bytes = channel.unary_unary(method)(
                        message, timeout=max(0.0, deadline - time.monotonic()), metadata=metadata
                    )
                    return answer
                except Exception:
                    # Cancelled by a fork of this process, or refused because the channel was closed by one.
                    if closings == self._closings or time.monotonic() >= deadline:
                        raise

    def _opened(self) -> Any:
        if self._channel is None:
            _gate.opening()
            self._channel = self._make()
        return self._channel

    def close(self) -> None:
        """End all calls and close the channel; the next call opens another one."""
        with self._lock:
            channel, self._channel = self._channel, None
            self._closings += channel is not None
        if channel is not None:
            channel.close()
