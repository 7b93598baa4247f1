"""The DAG of ``airflow-secrets demo``; it is copied into the demo's own Airflow home.

Its task reads a connection and two variables as any task does, and records what it got.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path

try:
    from airflow.sdk import BaseHook, Variable, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task  # type: ignore[attr-defined,no-redef]
    from airflow.hooks.base import BaseHook  # type: ignore[attr-defined,no-redef]
    from airflow.models import Variable


@dag(schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc), catchup=False)
def demo() -> None:
    """Define the only task."""

    @task
    def read() -> None:
        """Look up each secret once."""
        answers = {
            "demo_uri": BaseHook.get_connection("demo_uri").get_uri(),
            "demo_var": Variable.get("demo_var"),
            "demo_env": Variable.get("demo_env"),
        }
        Path(os.environ["AIRFLOW_HOME"], "answers.json").write_text(json.dumps(answers), encoding="utf-8")

    read()


demo()
