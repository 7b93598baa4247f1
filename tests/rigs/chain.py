"""Any rig with its backend as the only member of a chain. A class here is called by the rig's module and class: ``module/Class``."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

from airflow_providers_secrets.testing.proxy import Reply, Request
from tests.rigs import Answer, Rig, chain_of_one, running


class ChainRig(Rig):
    store_rig: ClassVar[str]
    """The rig that has the server, as ``module:Class``."""

    def __init__(self) -> None:
        self.inner: Rig = running(self.store_rig)
        short = short_name(self.inner)
        self.name = f"chain-of-{self.inner.name}"
        self.backend_class = getattr(chain_of_one, short)
        self.class_path = f"tests.rigs.chain_of_one.{short}"
        self.extra, self.sdk = self.inner.extra, self.inner.sdk
        self.prefix_option = self.inner.prefix_option
        self.ambient = self.inner.ambient
        self.missing_faults = self.inner.missing_faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def options(self) -> dict[str, Any]:
        return self.inner.options()

    def path(self, kind: str, secret_id: str, base: str | None = None, team: str | None = None) -> str:
        return self.inner.path(kind, secret_id, base, team)

    def put(self, path: str, text: str) -> None:
        self.inner.put(path, text)

    def remove(self, path: str) -> None:
        self.inner.remove(path)

    def answering(self, answer: Answer, *, listings: bool = False) -> contextlib.AbstractContextManager[None]:
        return self.inner.answering(answer, listings=listings)

    def faults(self) -> dict[str, Answer]:
        return self.inner.faults()

    @property
    def requests(self) -> list[Request]:
        return self.inner.requests

    def page(self, names: list[str], more: str | None) -> Reply:
        return self.inner.page(names, more)

    @property
    def calls(self) -> list[str]:
        return self.inner.calls

    def fault(self, fault: str, *, listings: bool = False) -> contextlib.AbstractContextManager[None]:
        return self.inner.fault(fault, listings=listings)

    def stop(self) -> None:
        self.inner.stop()


def short_name(rig: Rig) -> str:
    """The name of a rig's backend in a chain's configuration, which is that of its module."""
    return rig.class_path.split(".")[-2]


def __getattr__(name: str) -> type[ChainRig]:
    module, found, rig = name.partition("/")
    if not found:
        raise AttributeError(name)
    return type(rig, (ChainRig,), {"store_rig": f"{module}:{rig}"})
