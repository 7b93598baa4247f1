"""One rig for each server of a store: the contract suite runs on all of them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

PAGE = "*"
"""What :attr:`Rig.calls` holds for one page of a listing."""

FROM_THE_STORE = "X-From-The-Store"
"""The header of an answer of a rig's own store, which no check and no injected fault has given."""

FAULTS = (
    "denied",
    "throttled",
    "server-error",
    "proxy-404",
    "malformed",
    "truncated",
    "reset",
    "hang",
    "drip",
    "wrong-name",
)
"""The faults that every rig injects; see :meth:`Rig.fault`."""


class Rig(ABC):
    """A running server of one store, and a backend class that speaks to it.

    A rig lives for the whole session. Names are spelled here by the official rules, written independently of
    the code under test.
    """

    name: ClassVar[str]
    backend_class: ClassVar[type]
    class_path: ClassVar[str]
    extra: ClassVar[str]
    """The extra of the package that brings the SDK."""
    sdk: ClassVar[str]
    """The SDK's top module."""
    base_option: ClassVar[str] = "{kind}_prefix"

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The options that make a backend speak to this server. A JSON object."""

    def backend(self, **options: Any) -> Any:
        """A backend that asks the store at each lookup, unless *options* say otherwise."""
        return self.backend_class(**{**self.options(), "cache_ttl": 0, **options})

    @abstractmethod
    def path(self, kind: str, secret_id: str, base: str | None = None, team: str | None = None) -> str:
        """The store's name of a secret; *base* stands for the default prefix."""

    @abstractmethod
    def put(self, path: str, text: str) -> None:
        """Write a secret so that *text* is the value of a variable, or the URI or JSON of a connection."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Delete it for good."""

    @property
    @abstractmethod
    def calls(self) -> list[str]:
        """The names asked for so far, one for each request that reached the store's own port, logins left out.

        A page of a listing counts as :data:`PAGE`.
        """

    @abstractmethod
    def fault(self, fault: str, *, listings: bool = False) -> contextlib.AbstractContextManager[None]:
        """Let every answer, or with *listings* every page of a listing, be one of :data:`FAULTS` meanwhile."""

    @contextlib.contextmanager
    def counted(self) -> Iterator[list[str]]:
        """Give a list that holds, after the block, the names asked for in it."""
        seen: list[str] = []
        before = len(self.calls)
        yield seen
        seen.extend(self.calls[before:])

    @abstractmethod
    def stop(self) -> None:
        """End the server."""
