"""Servers in processes of their own, which end with the tests, however those end."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from airflow_providers_secrets.testing.processes import next_line

BehindTls = Callable[[int], tuple[str, str]]
"""Puts TLS in front of a plain server's port; gives its URL, and the CA bundle that trusts it."""

GUARD: Final = """
import os, signal, subprocess, sys, threading
server = None
signal.signal(signal.SIGTERM, lambda *_: server.kill() if server else os._exit(1))
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def end_with_parent():
    sys.stdin.read()  # until the parent has closed its end, or has ended
    server.kill()
threading.Thread(target=end_with_parent, daemon=True).start()
sys.exit(server.wait())
"""


def started(command: Sequence[str], **how: Any) -> subprocess.Popen[str]:
    """Start *command*, which ends when :func:`stop` is called, or this process ends.

    :param how: further arguments of :class:`subprocess.Popen`.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", GUARD, *command],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests, which may still need their servers to clean up
        **how,
    )
    owner = os.getpid()
    atexit.register(lambda: stop(process) if os.getpid() == owner else None)
    return process


def lines_until(mark: str, process: subprocess.Popen[str]) -> list[str]:
    """Return what a server writes up to a line with *mark* in it, by which it is ready; go on reading behind that.

    :raises AssertionError: with what it wrote, where it ended or hung before.
    """
    lines: list[str] = []
    while mark not in (lines or [""])[-1]:
        try:
            lines.append(next_line(process, end=lambda: stop(process)))
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{''.join(lines[-20:])}") from None
    assert process.stdout is not None
    # A full pipe would block the server.
    threading.Thread(target=process.stdout.read, daemon=True).start()
    return lines


def stop(process: subprocess.Popen[str]) -> None:
    """End a server and wait until it has ended."""
    assert process.stdin is not None
    # By a signal, since a forked child may hold the pipe open, and by the pipe, for when the guard is not that far yet.
    process.terminate()
    process.stdin.close()
    process.wait(30)
