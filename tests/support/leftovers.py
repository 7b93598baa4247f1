"""One directory for everything that a run of the tests writes, removed whatever ends the run."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

VARIABLE: Final = "SECRETS_TEST_DIRECTORY"
"""Names the directory of a run for its workers."""

REMOVER: Final = """
import shutil, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
sys.stdin.read()  # until every process that holds the other end has ended, however it did
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


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
