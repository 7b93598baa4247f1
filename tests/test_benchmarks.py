"""The benchmark that checks answers, for a few seconds; those that measure are for a quiet machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_providers_secrets

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("shared", [False, True], ids=["each process", "shared"])
def test_soak(tmp_path: Path, *, shared: bool) -> None:
    place = ["--shared-cache", f"file://{tmp_path}/shared"] if shared else []
    run = subprocess.run(
        [sys.executable, "benchmarks/soak.py", "--seconds", "4", *place],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(Path(airflow_providers_secrets.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "wrong: 0" in run.stdout
    assert "found" in run.stdout
