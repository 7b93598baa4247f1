"""What a store may be able to do besides reading a name. A store that cannot lacks the method.

Separate from :mod:`.base`, since a lookup needs none of these classes: creating them takes as long as loading two
modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from airflow_providers_secrets.stores.base import Identity, ListedSecret, Written


@runtime_checkable
class Lists(Protocol):
    """A store that can list what it holds."""

    def listing(self, client: Any, prefix: str) -> Iterator[ListedSecret]:
        """Yield everything whose name starts with *prefix*, page by page. A listing that ends is complete.

        Nothing is yielded if there is nothing under *prefix*, whatever the store answers then: a code that means
        NOT_FOUND is an error here. A repeated or endless page token is a :class:`.base.StoreError`, never a short
        listing. Its steps may run in different threads, each with a deadline of its own: no context variable and no
        thread-local value may be kept across a ``yield``.
        """


@runtime_checkable
class Writes(Protocol):
    """A store that can be written to."""

    write_settings: ClassVar[Mapping[str, str]]
    """The settings of :meth:`write` by name, each with a one-line description (``key_id``, ``tier`` …)."""

    def write(
        self, client: Any, name: str, text: str, *, only_if_absent: bool = False, settings: Mapping[str, str] = ...
    ) -> Written:
        """Create *name*, or write a new version of it, by the store's own means. The SDK does not retry this.

        Whatever the name had besides its value (description, tags, key, type, other fields) stays as it was.

        :raises StoreError: with :data:`.EXISTS` if *only_if_absent* is set and the name exists.
        """


@runtime_checkable
class Deletes(Protocol):
    """A store from which a name can be deleted."""

    def delete(self, client: Any, name: str) -> None:
        """Delete *name*, recoverably if the store supports it.

        :raises Exception: one whose code means NOT_FOUND, if there is no such name.
        """


@runtime_checkable
class Identifies(Protocol):
    """A store that can say who is asking."""

    def identify(self, client: Any) -> Identity:
        """Ask the store, or whoever issued the login, who is asking."""
