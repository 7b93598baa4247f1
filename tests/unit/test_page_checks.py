"""The page's lists, checks and figures, without an API server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend
from airflow_providers_secrets.lookup.answers import answers_of
from airflow_providers_secrets.stores.base import Identity
from airflow_providers_secrets.ui import listing
from airflow_providers_secrets.ui.listing import Row


@pytest.fixture
def app() -> Any:
    return pytest.importorskip("airflow_providers_secrets.ui.app", reason="Airflow 3.1+ only", exc_type=ImportError)


@pytest.fixture
def moment(app: Any, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The page's monotonic clock, which a test sets."""
    moment = SimpleNamespace(now=1000.0)
    for module in (app, listing):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: moment.now))
    return moment


def page_of(app: Any, rows: list[Row], monkeypatch: pytest.MonkeyPatch, timeout: float = 60.0) -> Any:
    """Return a page on one store that has listed these *rows*, all of which the user may see."""

    async def listed(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(so_far=lambda: (rows, True), problems=[], age=0.0)

    backend = SimpleNamespace(config=SimpleNamespace(timeout=timeout))
    page = app.Page()
    page._backends = SimpleNamespace(ours=[("a store", backend)], notices=[])
    monkeypatch.setattr(app, "visible", lambda *_: rows)
    monkeypatch.setattr(page, "listing", listed)
    return page


def rows_of(number: int) -> list[Row]:
    return [Row(f"id-{one:03}", None, ["a store"]) for one in range(number)]


def shown(app: Any, of: Any, **wanted: Any) -> str:
    answer = asyncio.run(app._list(of, "variables", None, app.Wanted(**wanted)))
    return bytes(answer.body).decode()


def test_a_check_reads_so_many_ids_at_most(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a request to the store, and the page shows a hundred."""
    rows = rows_of(app.CHECKED + 5)
    read: list[str] = []
    monkeypatch.setattr(app.operations, "read", lambda _, __, secret_id, ___: read.append(secret_id))
    shown(app, page_of(app, rows, monkeypatch), check=True)
    assert read == [row.secret_id for row in rows[: app.CHECKED]]


def test_a_check_ends_once_a_lookup_would(app: Any, moment: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is slow must not keep the page from being shown for 25 times as long."""
    read: list[str] = []

    def slow(_: Any, __: Any, secret_id: str, ___: Any) -> None:
        read.append(secret_id)
        moment.now += 40.0

    monkeypatch.setattr(app.operations, "read", slow)
    text = shown(app, page_of(app, rows_of(5), monkeypatch, timeout=60.0), check=True)
    assert read == ["id-000", "id-001"]
    assert text.count("not found") == 2


def test_a_failure_that_is_not_ours_is_told_by_its_class(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("S3cr3t")

    monkeypatch.setattr(app.operations, "read", fail)
    text = shown(app, page_of(app, rows_of(1), monkeypatch), check=True)
    assert "unexpected ValueError" in text
    assert "S3cr3t" not in text


def test_the_last_page_holds_what_is_left(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of(app, rows_of(app.PER_PAGE + 1), monkeypatch)
    first, second = (shown(app, page, page=number) for number in (1, 2))
    assert "Page 1 of 2" in first
    assert "id-100" not in first
    assert "Page 2 of 2" in second
    assert "id-100" in second
    assert "id-099" not in second
    assert "Page 2 of 2" in shown(app, page, page=3)


def test_a_listing_is_made_again_when_it_is_too_old_or_told_to(app: Any, moment: SimpleNamespace) -> None:
    page = app.Page()
    page._backends = SimpleNamespace(members=[], ours=[], notices=[])

    async def listings() -> None:
        first = await page.listing("variables", fresh=False)
        moment.now += app.KEPT
        assert await page.listing("variables", fresh=False) is first
        moment.now += 0.1
        second = await page.listing("variables", fresh=False)
        assert second is not first
        assert await page.listing("variables", fresh=True) is not second

    asyncio.run(listings())


def test_who_asks_is_asked_again_when_that_is_too_old(
    app: Any, moment: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def identify(_: Any) -> Identity:
        asked.append(moment.now)
        return Identity(f"caller {len(asked)}")

    monkeypatch.setattr(app.operations, "identify", identify)
    page, backends = app.Page(), SimpleNamespace(ours=[("a store", object())])

    async def told() -> str:
        return str((await page.identities(backends))["a store"].said)

    async def in_turn() -> list[str]:
        first = await told()
        moment.now += app.KEPT
        second = await told()
        moment.now += 0.1
        return [first, second, await told()]

    assert asyncio.run(in_turn()) == ["caller 1", "caller 1", "caller 2"]


def test_health_shows_figures_in_the_units_that_it_names(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = VaultBackend(url="http://127.0.0.1:1", token="t")
    counts = answers_of(backend.config).counts
    counts.hits, counts.negative_hits, counts.shared_hits = 1, 2, 3
    for seconds in (0.002, 0.25, 7.0, 7.0):
        counts.called(seconds)
    counts.called(0.25, ValueError())
    page = app.Page()
    page._backends = SimpleNamespace(ours=[("Vault", backend)], notices=[])

    async def nobody(_: Any) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(page, "identities", nobody)
    health: Callable[..., Any] = app._health
    text = bytes(asyncio.run(health(page)).body).decode()
    assert "<dt>Answered from caches</dt><dd>55 %</dd>" in text  # 6 of 11
    assert "<dt>Median of the latest calls</dt><dd>250.0 ms</dd>" in text
    assert '<th scope="row">ValueError</th><td>1</td>' in text
