"""The page's checks, without an API server."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_providers_secrets.ui.listing import Row


def test_a_check_reads_so_many_ids_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a request to the store, and the page shows a hundred."""
    app = pytest.importorskip("airflow_providers_secrets.ui.app", reason="Airflow 3.1+ only", exc_type=ImportError)
    rows = [Row(f"id-{number:02}", None, ["a store"]) for number in range(app.CHECKED + 5)]
    backend = SimpleNamespace(config=SimpleNamespace(timeout=60.0))
    read: list[str] = []

    async def listed(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(so_far=lambda: (rows, True), problems=[], age=0.0)

    monkeypatch.setattr(app, "visible", lambda *_: rows)
    monkeypatch.setattr(app.operations, "read", lambda _, __, secret_id, ___: read.append(secret_id))
    page = app.Page()
    page._backends = SimpleNamespace(ours=[("a store", backend)], notices=[])
    monkeypatch.setattr(page, "listing", listed)
    asyncio.run(app._list(page, "variables", None, app.Wanted(check=True)))
    assert read == [row.secret_id for row in rows[: app.CHECKED]]
