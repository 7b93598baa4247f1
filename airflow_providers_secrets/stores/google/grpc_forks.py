"""Whether this process may use gRPC, which does not survive a fork.

A child has gRPC's locks as they were at the fork, and none of its threads. It may wait for such a lock forever while
holding the GIL, so that no deadline ends the wait. That takes a live gRPC thread in the parent, whoever started it;
a parent that only imported grpc has none. So each fork records whether there was one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

THREADS: Final = ("event_engine", "grpc", "lifeguard", "timer_manager", "resolver-execut", "default-executo")
"""Prefixes of the names of gRPC's threads (gRPC core, ``src/core``: ``Thread("…")``). Linux keeps 15 characters."""

FORKED_WITHOUT_EXEC: Final = 0x40
"""PF_FORKNOEXEC, a flag in ``/proc/self/stat`` (Linux, ``include/linux/sched.h``)."""


def is_alive() -> bool:
    """Tell whether this process has a gRPC thread or, if that cannot be determined, whether it has imported gRPC."""
    if "grpc" not in sys.modules:
        return False
    try:
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208  # runs in every fork, and pathlib takes five times as long
            try:
                with open(f"/proc/self/task/{thread}/comm") as comm:  # noqa: PTH123
                    if comm.read(15).startswith(THREADS):
                        return True
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
    except OSError:
        return True
    return False


def _is_forked() -> bool:
    """Tell whether this process is a fork without an exec since; true if that cannot be determined."""
    try:
        # The program's name, in parentheses, may contain anything.
        flags = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[6]
        return bool(int(flags) & FORKED_WITHOUT_EXEC)
    except (OSError, ValueError, IndexError):
        return True


_alive_at_fork = is_alive()
"""Also recorded at import: another hook of a fork may import this module during that very fork."""
_channel_opened = False
_forbidden = "grpc" in sys.modules and _is_forked()
"""In a forked child, gRPC may have been imported by the parent, before this module was there to record the fork."""


def may_speak() -> bool:
    """Tell whether this process may open a gRPC channel."""
    return not _forbidden


def opening() -> None:
    """Record that a channel is about to be opened: from now on no child of this process may use gRPC."""
    global _channel_opened  # noqa: PLW0603
    _channel_opened = True


def _before() -> None:
    global _alive_at_fork  # noqa: PLW0603
    _alive_at_fork = is_alive()


def _after_in_child() -> None:
    global _forbidden, _channel_opened  # noqa: PLW0603
    # Forks of a child that may not use gRPC may not either: they have the same memory.
    _forbidden = _forbidden or _alive_at_fork or _channel_opened
    _channel_opened = False


os.register_at_fork(before=_before, after_in_child=_after_in_child)
