"""What a backend tells the lookup: which store, how it is reached, how long answers count."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_providers_secrets.lookup.cache import Lifetimes
    from airflow_providers_secrets.stores.base import Store


class StoreConfig:  # no NamedTuple: making one takes longer than importing a module
    """Everything about a store that the backends of a process share when they agree on it.

    :param title: the store in words, for messages.
    :param slug: the backend's module, which names metrics.
    :param store: the store's class, as ``module:Class``.
    :param options: the options that identify the client.
    :param fingerprint: a digest of class and options: who agrees on it shares client, login and cache.
    :param identity: a digest of what says which store it is and who asks, for entries that outlive the process;
        empty where there are none.
    """

    __slots__ = ("fingerprint", "identity", "options", "slug", "store", "title")

    def __init__(  # noqa: PLR0913, PLR0917  # one for each thing that there is to say of a store
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
        """How often the store is asked at most in one lookup."""
        return int(self.options["max_attempts"])

    @property
    def lifetimes(self) -> Lifetimes:
        """How long answers count, and how many are kept."""
        from airflow_providers_secrets.lookup.cache import Lifetimes

        return Lifetimes(
            *(self.options[name] for name in ("cache_ttl", "cache_negative_ttl", "max_stale", "cache_size"))
        )

    @property
    def shared_cache(self) -> tuple[str, ...]:
        """Where processes share answers, the nearest place first; empty where they do not."""
        where: tuple[str, ...] = self.options["shared_cache"]
        return where

    @property
    def shared_cache_key(self) -> tuple[str, ...] | None:
        """The shared cache's Fernet keys; ``None`` for Airflow's own."""
        keys: tuple[str, ...] | None = self.options["shared_cache_key"]
        return keys

    @property
    def shared_cache_max_bytes(self) -> int:
        """The most that the shared cache takes of a host."""
        return int(self.options["shared_cache_max_bytes"])

    def make_store(self) -> Store:
        """Import the store's module, and make the store."""
        module, _, name = self.store.partition(":")
        store_class = getattr(importlib.import_module(module), name)
        store: Store = store_class(self.options)
        return store
