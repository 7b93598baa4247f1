"""``airflow`` as ``airflow-secrets demo`` runs it: it records how long each lookup took."""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from pathlib import Path

from airflow_providers_secrets.lookup import resolve

_resolve = resolve.resolve
_RECORD = Path(os.environ["AIRFLOW_HOME"]) / "lookups.jsonl"


def _timed(backend: object, kind: str, secret_id: str, team_name: str | None) -> str | None:
    started = time.perf_counter()
    try:
        return _resolve(backend, kind, secret_id, team_name)  # type: ignore[arg-type]
    finally:
        with _RECORD.open("a", encoding="utf-8") as record:
            record.write(json.dumps([kind, secret_id, time.perf_counter() - started]) + "\n")


resolve.resolve = _timed

if __name__ == "__main__":
    sys.argv[0] = "airflow"
    runpy.run_module("airflow", run_name="__main__", alter_sys=True)
