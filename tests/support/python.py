"""The processes of the contract suite."""

from airflow_providers_secrets.testing.processes import BLOCKED, BLOCKED_AFTER_AIRFLOW, TIMEOUT, next_line, run_python

__all__ = ["BLOCKED", "BLOCKED_AFTER_AIRFLOW", "TIMEOUT", "next_line", "run_python"]
