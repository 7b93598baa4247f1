"""What a backend tells the lookup: which store, how to reach it, how long answers are valid."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_providers_secrets.lookup.cache import Lifetimes
    from airflow_providers_secrets.stores.base import Store


class StoreConfig:  # not a NamedTuple: creating such a class takes longer than importing a module
    """Everything about a store that the backends of a process share when they agree on it.

    :param title: the store in words, for messages.
    :param slug: the backend's module, which names metrics.
    :param store: the store's class, as ``module:Class``.
    :param options: the options that identify the client.
    :param fingerprint: a digest of class and options: backends that agree on it share client, login and cache.
    :param identity: a digest of what identifies the store and who asks it, for entries that outlive the process;
        empty if there are none.
    """

    __slots__ = ("fingerprint", "identity", "options", "slug", "store", "title")

    def __init__(  # noqa: PLR0913, PLR0917  # one for each property of a store
        self, title: str, slug: str, store: str, options: Mapping[str, Any], fingerprint: bytes, identity: bytes
    ) -> None:
        self.title = title
        self.slug = slug
        self.store = store
        self.options = options
        self.fingerprint = fingerprint
        self.identity = identity

    def __repr__(self) -> str:
        return f"StoreConfig({self.title!r})"

    @property
    def timeout(self) -> float:
        """Seconds for a whole lookup, attempts and pauses included."""
        return float(self.options["timeout"])

    @property
    def max_attempts(self) -> int:
        """The maximum number of attempts for each name that a lookup asks for."""
        return int(self.options["max_attempts"])

    @property
    def lifetimes(self) -> Lifetimes:
        """How long answers are valid, and how many are kept."""
        from airflow_providers_secrets.lookup.cache import Lifetimes

        return Lifetimes(
            *(self.options[name] for name in ("cache_ttl", "cache_negative_ttl", "max_stale", "cache_size"))
        )

    @property
    def shared_cache(self) -> tuple[str, ...]:
        """Where processes share answers, the nearest place first; empty if they do not."""
        where: tuple[str, ...] = self.options["shared_cache"]
        return where

    def make_store(self) -> Store:
        """Import the store's module, and make the store."""
        module, _, name = self.store.partition(":")
        store_class = getattr(importlib.import_module(module), name)
        store: Store = store_class(self.options)
        return store
