"""What a process reads of Airflow's configuration for its children, without a command or a secrets backend."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

OURS: Final = __name__.partition(".")[0] + "."
"""What the paths of this package's own classes start with."""


def build_backend_of_workers() -> None:
    """Build the backend of ``[workers]``, so that it is known what children will look up with.

    Airflow builds it in them alone, once they have been forked: in those of a DAG processor or a LocalExecutor. One of
    another package is left to them, and so is one whose options a command or a secrets backend gives.
    """
    configuration: Any = sys.modules.get("airflow.configuration")
    if configuration is None:
        return
    path = configuration.conf.get("workers", "secrets_backend", fallback=None) or ""
    if _is_ours(path) and is_at_hand("workers", "secrets_backend_kwargs"):
        configuration.get_custom_secret_backend(worker_mode=True)  # which records itself


def _is_ours(path: str) -> bool:
    """Return whether a class is this package's, or made from it and already imported."""
    module, _, name = path.rpartition(".")
    return path.startswith(OURS) or hasattr(getattr(sys.modules.get(module), name, None), "declared_options")


def is_at_hand(section: str, option: str) -> bool:
    """Return whether reading an option of Airflow would neither run a command nor ask a secrets backend."""
    conf = getattr(sys.modules.get("airflow.configuration"), "conf", None)
    return conf is not None and (
        f"AIRFLOW__{section}__{option}".upper() in os.environ
        or not (conf.has_option(section, f"{option}_cmd") or conf.has_option(section, f"{option}_secret"))
    )
