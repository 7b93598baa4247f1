"""Servers in processes of their own, which end with the tests, however those end."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

GUARD: Final = """
import subprocess, sys, threading
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


def stop(process: subprocess.Popen[str]) -> None:
    """End a server and wait until it has ended."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait(30)
