"""Python in a process of its own, since the tests' own has imported everything."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

TIMEOUT: Final = 300.0
"""Seconds after which a process counts as hanging; 2 are usual."""

BLOCKED: Final = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {sdk!r} or name.startswith({sdk!r} + "."):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""
"""Makes the module *sdk* one that is not installed."""

BLOCKED_AFTER_AIRFLOW: Final = f"""
import airflow.configuration
{BLOCKED}
for name in [name for name in sys.modules if name == {{sdk!r}} or name.startswith({{sdk!r}} + ".")]:
    del sys.modules[name]
"""
"""The same once Airflow has loaded, which may need the module for itself: what is blocked is unloaded."""


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
