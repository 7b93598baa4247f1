"""What a process reads of Airflow's configuration for its children, without a command or a secrets backend."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, Final

from airflow_providers_secrets.lookup.notices import left_to_children

BACKENDS: Final = __name__.partition(".")[0] + ".backends."
"""What the paths of this package's own classes start with."""


@functools.cache
def build_backend_of_workers() -> None:
    """Build the backend of ``[workers]``, once, so that it is known what children will look up with.

    Airflow builds it in them alone, once they have been forked: in those of a DAG processor or a LocalExecutor. One
    whose options a command or a secrets backend gives is left to them. Its warnings are, too.
    """
    configuration: Any = sys.modules.get("airflow.configuration")
    if configuration is None:
        return
    path = configuration.conf.get("workers", "secrets_backend", fallback=None) or ""
    # A class of others may start a thread, fork or wait, in a hook in which some of Python's locks are held for the
    # fork: the process would hang. For the same reason, a chain leaves members of others to the children.
    if path.startswith(BACKENDS) and is_at_hand("workers", "secrets_backend_kwargs"):
        with left_to_children():
            configuration.get_custom_secret_backend(worker_mode=True)  # which records itself


def is_at_hand(section: str, option: str) -> bool:
    """Return whether reading an option of Airflow would neither run a command nor ask a secrets backend."""
    conf = getattr(sys.modules.get("airflow.configuration"), "conf", None)
    return conf is not None and (
        f"AIRFLOW__{section}__{option}".upper() in os.environ
        or not (conf.has_option(section, f"{option}_cmd") or conf.has_option(section, f"{option}_secret"))
    )
