"""What ends with a run of the tests, whatever ends it: a directory for all that it writes, and every process of its."""

from __future__ import annotations

import atexit
import ctypes
import functools
import multiprocessing.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Final

VARIABLE: Final = "SECRETS_TEST_DIRECTORY"
"""Names the directory of a run for its workers."""

REMOVER: Final = """
import contextlib, os, shutil, signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
sys.stdin.read()  # until every process that holds the other end has ended, however it did

def knows(process, directory=os.fsencode(sys.argv[1])):
    with contextlib.suppress(OSError), open(f"/proc/{process}/environ", "rb") as environment:
        return directory in environment.read() + os.fsencode(os.readlink(f"/proc/{process}/cwd"))
    return False

for _ in range(200):
    processes = os.listdir("/proc") if os.path.isdir("/proc") else []
    running = [int(name) for name in processes if name.isdigit() and int(name) != os.getpid() and knows(name)]
    for process in running:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    if not running:
        break
    time.sleep(0.05)
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""
"""Ends whatever process still has the directory in its environment, as every one has that the run's processes start, or
works in it, as redis-server does, which writes its title over its environment; removes the directory then."""


@functools.cache
def directory(name: str = "") -> str:
    """Return the run's directory, or make one in it."""
    if name:
        made = Path(directory()) / name
        made.mkdir(exist_ok=True)
        return str(made)
    known = os.environ.get(VARIABLE)
    if known and Path(known).is_dir():
        return known
    made = Path(tempfile.mkdtemp(prefix="airflow-secrets-tests-"))
    os.environ[VARIABLE] = str(made)
    # An exit handler would not run after a SIGKILL, and would run before those of others that still write.
    # Whatever this process starts with the pipe's end inherited would keep the directory: nothing inherits it.
    _keep.append(
        subprocess.Popen(
            [sys.executable, "-I", "-c", REMOVER, str(made)],
            stdin=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
    )
    return str(made)


_keep: list[subprocess.Popen[bytes]] = []
"""Referred to until the interpreter ends, which closes the pipe."""


# Forked children have nothing in their environment that tells whose they are.

LONGEST_CHILD: Final = 200
"""Seconds after which a forked child of the tests is ended: one that hangs would keep open whatever the run waits for.
Less than ``faulthandler_timeout``, which ends the test that waits for it."""

PR_SET_PDEATHSIG: Final = 1
"""See prctl(2)."""

_owner = os.getpid()
_forking: list[threading.Thread] = []


def _before_fork() -> None:
    _forking[:] = [threading.current_thread()]


def _after_fork_in_child() -> None:
    signal.alarm(LONGEST_CHILD)
    # The signal comes with the end of the thread that forked, so it is for the main thread's children alone.
    if _forking == [_main_thread] and _prctl and os.getppid() == _owner:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_children() -> None:
    """End the children that a test has left: multiprocessing would wait for them before the interpreter ends."""
    if os.getpid() == _owner:
        for child in multiprocessing.active_children():
            child.kill()


def bind_children() -> None:
    """Have no forked child outlive this process, nor :data:`LONGEST_CHILD` seconds."""
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
    # Before multiprocessing's own handler, which is registered by the import above.
    atexit.register(_end_children)


_main_thread = threading.main_thread()
_prctl = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
