"""What tests of lookups share: options, times, and ways to read an answer or a failure."""

from __future__ import annotations

import base64
import logging
import re
import threading
from collections.abc import Callable
from typing import Any, Final

import pytest

from airflow_providers_secrets.errors import LookupFailed
from airflow_providers_secrets.lookup import access
from airflow_providers_secrets.testing.proxy import Reply
from airflow_providers_secrets.testing.rig import Rig

LOOKUP: Final = {"connections": "get_conn_value", "variables": "get_variable", "config": "get_config"}
VALUE: Final = {"connections": "postgres://u:p@h:5432/db", "variables": "as typed", "config": "sqlite://"}

TTL, NEGATIVE_TTL, MAX_STALE = 60.0, 30.0, 900.0
"""The defaults, as documented."""

KEY: Final = base64.urlsafe_b64encode(b"k" * 32).decode()
"""A value of ``shared_cache_key``."""

ONE_TRY: Final[dict[str, Any]] = {"max_attempts": 1}


HOSTILE: Final[tuple[Any, ...]] = (
    "",
    "..",
    "../connections/found",
    "a/../../x",
    "./a",
    "a//b",
    "/a",
    "a/",
    "nul\0",
    "line\nbreak",
    "\x1b[31mred",
    7,
)
"""Ids that are not allowed anywhere."""


DRIP: Final = Reply(200, b" " * 10_000, {"Content-Type": "application/json"}, drip=0.1)
"""An answer that takes longer than any test waits, and never keeps a time-out between two bytes waiting."""


class Clock:
    """A clock that a test sets by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Waits:
    """How long callers wait for calls to the store.

    :ivar granted: the seconds that the lookup granted to each call.
    :ivar shortened: turns them into the seconds that the caller waits, so that no test has to sit out a hanging call.
    :ivar on_wait: called whenever a caller starts to wait.
    """

    def __init__(self) -> None:
        self.granted: list[float] = []
        self.shortened: Callable[[float], float] = lambda seconds: seconds
        self.on_wait: Callable[[], object] = lambda: None


def ask(backend: Any, kind: str, secret_id: str) -> str | None:
    answer: str | None = getattr(backend, LOOKUP[kind])(secret_id)
    return answer


def stored(rig: Rig, key: str, value: str) -> str:
    """Write a variable, and return its name in the store."""
    path = rig.path("variables", key)
    rig.put(path, value)
    return path


def needs(rig: Rig, method: str) -> None:
    """Skip a test if the rig's store lacks *method*; :mod:`~airflow_providers_secrets.stores.base` has the methods."""
    store = access.store_of(rig.backend().config)
    if not hasattr(store, method):
        pytest.skip(f"{type(store).__name__} has no method {method!r}")


def needs_fault(rig: Rig, fault: str) -> None:
    """Skip a test if the protocol of the rig's store cannot have *fault*."""
    if fault in rig.missing_faults:
        pytest.skip(f"the protocol has no {fault}")


def failing(lookup: Callable[[], object], times: int = 1) -> list[LookupFailed]:
    """Call *lookup*, and return what it raises each time."""
    errors = []
    for _ in range(times):
        with pytest.raises(LookupFailed) as raised:
            lookup()
        errors.append(raised.value)
    return errors


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the package's own warnings."""
    ours = (record for record in caplog.records if record.name.startswith("airflow_providers_secrets"))
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


def credentials(rig: Rig) -> list[str]:
    """Return the values of the rig's options that must not appear anywhere."""
    words = re.compile("secret|password|token|keyfile")
    return [value for name, value in rig.options().items() if words.search(name) and isinstance(value, str)]


def hanging() -> list[threading.Thread]:
    """Return the threads of lookups that have not ended after a while."""
    threads = [thread for thread in threading.enumerate() if thread.name == "secrets-lookup"]
    for thread in threads:
        thread.join(30)
    return [thread for thread in threads if thread.is_alive()]
