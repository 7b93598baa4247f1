"""Run Python in a separate process, since the tests' own process has imported everything."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any, Final

from airflow_providers_secrets.testing.rig import PATIENT, Rig

TIMEOUT: Final = 200.0
"""Seconds after which a process counts as hanging; 2 are usual."""

PATIENCE: Final = 60.0
"""Seconds after which a server that says nothing counts as hanging; it is usually ready within 2."""

BLOCKED: Final = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {sdk!r} or name.startswith({sdk!r} + "."):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""
"""Makes the module *sdk* appear not installed."""

BLOCKED_AFTER_AIRFLOW: Final = f"""
import airflow.configuration
{BLOCKED}
for name in [name for name in sys.modules if name == {{sdk!r}} or name.startswith({{sdk!r}} + ".")]:
    del sys.modules[name]
"""
"""The same after Airflow has loaded, which may need the module itself: the blocked modules are unloaded."""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def in_a_process(rig: Rig, code: str, **options: Any) -> list[str]:
    """Run *code* in a process that has Airflow loaded and has built ``backend``, and return what it printed."""
    module, _, name = rig.class_path.rpartition(".")
    given = {**rig.options(), **PATIENT, **options}
    preamble = (
        "import gc, os, signal, sys, threading, airflow.configuration, airflow.models\n"
        f"from {module} import {name} as Backend\n"
        "def fork(work):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        work()\n"
        "        sys.stdout.flush()\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        f"given = {given!r}\n"
        "backend = Backend(**given)\n"
    )
    run = run_python(preamble + textwrap.dedent(code), PYTHONUNBUFFERED="1", PYTHONWARNINGS="ignore")
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.splitlines()


def next_line(process: subprocess.Popen[str], end: Callable[[], object] | None = None) -> str:
    """Return the next line that *process* writes, with the newline; end it if none comes.

    :param end: ends it, if killing it would leave other processes that hold its output open.
    :raises AssertionError: if it ended, or was ended, before it wrote one.
    """
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE, end or process.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
    assert line, f"{process.args!r} ended, or wrote nothing for {PATIENCE:g} s"
    return line
