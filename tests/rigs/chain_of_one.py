"""Chains that look like their only member: the contract's tests then go through the chain. One for each short name."""

from __future__ import annotations

import functools
import pkgutil
from typing import Any, ClassVar

from airflow_providers_secrets.backends.chain import SHORT_NAMES, ChainBackend


class ChainOfOne(ChainBackend):
    short_name: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        super().__init__(backends=[{"backend": self.short_name, "kwargs": options}])

    def __getattr__(self, name: str) -> Any:
        """What the tests read of a backend besides asking it."""
        if name.startswith("_") or name == "members":
            raise AttributeError(name)
        return getattr(self.members[0].backend, name)

    def plan(self, *args: Any) -> Any:
        ((_, plan),) = super().plan(*args)
        return plan


@functools.cache
def __getattr__(name: str) -> type[ChainOfOne]:
    if name not in SHORT_NAMES:
        raise AttributeError(name)
    pkgutil.resolve_name(SHORT_NAMES[name])  # so that constructing imports nothing
    return type(name, (ChainOfOne,), {"short_name": name})
