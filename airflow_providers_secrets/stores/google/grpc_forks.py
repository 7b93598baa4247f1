"""Whether this process may speak gRPC, which does not survive a fork.

A child has gRPC's locks as they were at the fork, and none of its threads: it may wait for one of them for ever, with
Python's own lock in hand, so that no deadline ends it. That needs a live gRPC thread in the parent, whoever started it;
a parent that only imported grpc has none. So each fork notes whether there was one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

THREADS: Final = ("event_engine", "grpc", "lifeguard", "timer_manager", "resolver-execut", "default-executo")
"""How the names of gRPC's threads begin (gRPC core, ``src/core``: ``Thread("…")``). Linux keeps 15 characters."""

FORKED_WITHOUT_EXEC: Final = 0x40
"""PF_FORKNOEXEC, a flag in ``/proc/self/stat`` (Linux, ``include/linux/sched.h``)."""


def is_alive() -> bool:
    """Tell whether this process has a gRPC thread; where that cannot be told, whether it has imported gRPC."""
    if "grpc" not in sys.modules:
        return False
    try:
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208  # in every fork: pathlib takes five times as long
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
    """Tell whether this process is a fork that has started no other program; true where that cannot be told."""
    try:
        # The name of the program, in brackets, may hold anything.
        flags = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[6]
        return bool(int(flags) & FORKED_WITHOUT_EXEC)
    except (OSError, ValueError, IndexError):
        return True


_alive_at_fork = is_alive()
"""Noted here too: this module may be imported by another hook of the very fork that it is to note."""
_channel_opened = False
_forbidden = "grpc" in sys.modules and _is_forked()
"""In a child, gRPC may have come from the parent, whose forks nobody was noting then."""


def may_speak() -> bool:
    """Tell whether this process may open a gRPC channel."""
    return not _forbidden


def opening() -> None:
    """Note that a channel is about to be opened: from here on no child of this process may speak gRPC."""
    global _channel_opened  # noqa: PLW0603
    _channel_opened = True


def _before() -> None:
    global _alive_at_fork  # noqa: PLW0603
    _alive_at_fork = is_alive()


def _after_in_child() -> None:
    global _forbidden, _channel_opened  # noqa: PLW0603
    # A fork of a child that may not must not either: its memory is the same.
    _forbidden = _forbidden or _alive_at_fork or _channel_opened
    _channel_opened = False


os.register_at_fork(before=_before, after_in_child=_after_in_child)
