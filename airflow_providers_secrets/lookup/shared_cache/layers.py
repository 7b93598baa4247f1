"""Several shared caches, the nearest first: the host's directory before the fleet's Redis."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from airflow_providers_secrets.lookup.shared_cache.entries import Found, SharedCache, StoredEntry, YoungEnough, never


class LayeredCache(SharedCache):
    """One cache made of several: what a farther one holds is copied to the nearer ones as it is, including its age.

    :param layers: opened with the same keys, identity and lifetime, the nearest first.
    """

    def __init__(self, layers: Sequence[SharedCache], keys: Sequence[str], identity: bytes, lifetime: float) -> None:
        super().__init__(keys, identity, lifetime)
        self._layers = layers
        self.where = ", ".join(layer.where for layer in layers)

    def is_there(self) -> bool:
        """Return whether every layer can still be used."""
        return all(layer.is_there() for layer in self._layers)

    def find(self, name: str, young_enough: YoungEnough = never) -> Found | None:
        """Return the newest entry; ask no layer behind the first one whose entry is still valid."""
        newest: Found | None = None
        for depth, layer in enumerate(self._layers):
            found = layer.find(name, young_enough)
            if found and (newest is None or found.entry.at > newest.entry.at):
                newest = found
                for nearer in self._layers[:depth]:
                    nearer.replace(name, found.token, found.raw)
            if newest and young_enough(newest.entry):
                break
        return newest

    @contextlib.contextmanager
    def flight(self, name: str, seconds: float, young_enough: YoungEnough = never) -> Iterator[None]:
        """Keep the host's processes from asking; then the fleet's, unless a nearer layer has the answer by now."""
        until = time.monotonic() + seconds
        with contextlib.ExitStack() as locks:
            for depth, layer in enumerate(self._layers):
                locks.enter_context(layer.flight(name, max(0.0, until - time.monotonic())))
                if depth + 1 < len(self._layers) and (found := layer.find(name)) and young_enough(found.entry):
                    break
            yield

    def probe(self) -> None:
        """Probe every layer."""
        for layer in self._layers:
            layer.probe()

    def entries(self) -> Iterator[StoredEntry]:
        """Yield the entries of every layer."""
        for layer in self._layers:
            yield from layer.entries()

    def clear(self) -> int:
        """Remove the entries of every layer."""
        return sum(layer.clear() for layer in self._layers)

    def remove(self, name: str) -> bool:
        """Remove what any layer has cached of *name*."""
        removed = [layer.remove(name) for layer in self._layers]
        return any(removed)

    def replace(self, name: str, token: str, raw: bytes) -> None:
        """Write the newest entry of *name* to every layer."""
        for layer in self._layers:
            layer.replace(name, token, raw)

    def drop(self, name: str) -> None:
        """Remove what any layer has cached of *name*."""
        for layer in self._layers:
            layer.drop(name)
