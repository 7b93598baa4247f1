"""The page's listings, without an API server."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_providers_secrets.ui import listing


def test_a_listing_that_took_long_is_new_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be made again for whoever waited for it, and never be shown."""
    now = 1000.0

    class Slow:
        def rule(self, _: str) -> SimpleNamespace:
            nonlocal now
            now += listing.KEPT + 1
            assert made.age == listing.KEPT + 1  # the longest listing is bounded by this
            return SimpleNamespace(prefixes=None)

    monkeypatch.setattr(listing, "time", SimpleNamespace(monotonic=lambda: now))
    member = SimpleNamespace(patterns={"connections": "all"})
    backends = SimpleNamespace(members=[("slow", Slow(), member)])
    made = listing.Listing(backends, "connections")  # type: ignore[arg-type]
    made.make()
    assert made.done.is_set()
    assert made.problems == ["slow is not asked for connections: its prefix is null."]
    assert made.age == 0
    now += 3
    assert made.age == 3
