"""A temporary Airflow home for one command, separate from the user's own."""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

FOREIGN: Final = ("AIRFLOW", "AWS_", "VAULT_")
"""Prefixes of the environment variables with the user's own configuration."""


@contextlib.contextmanager
def throwaway_airflow() -> Iterator[Path]:
    """Make a new ``AIRFLOW_HOME`` and, until the end, remove the user's Airflow and cloud from the environment.

    Airflow must not have been imported yet: it reads its configuration once per process.
    """
    with tempfile.TemporaryDirectory(prefix="airflow-secrets-", ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        ours = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            # Without this, Airflow 2.11 warns at every start.
            "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        with _environment({name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)} | ours):
            yield home


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
