"""The page's lists, checks and figures, without an API server."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend
from airflow_providers_secrets.lookup.answers import answers_of
from airflow_providers_secrets.stores.base import Identity
from airflow_providers_secrets.ui import listing
from airflow_providers_secrets.ui.listing import Row
from tests.support.airflow_process import VERSION


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
    for number in (0, -1):
        assert "Page 1 of 2" in shown(app, page, page=number)


def test_a_link_to_another_page_keeps_the_filter(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row(f"a&b-{one:03}", None, ["a store", "another"]) for one in range(2 * app.PER_PAGE + 1)]
    text = shown(app, page_of(app, rows, monkeypatch), match="A&b", show="shadowed", page=2)
    links = [dict(parse_qsl(html.unescape(link))) for link in re.findall(r'href="variables\?([^"]*)"', text)]
    kept = {"match": "A&b", "show": "shadowed"}
    assert links == [
        {**kept, "page": "2", "fresh": "true"},
        {**kept, "page": "1"},
        {**kept, "page": "3"},
        {**kept, "page": "2", "check": "true"},
    ]


def test_a_rows_link_is_of_its_own_team(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(app, page_of(app, [Row("x&y", "red", ["a store"]), Row("x&y", None, ["a store"])], monkeypatch))
    links = re.findall(r'href="variable\?([^"]*)"', text)
    assert [dict(parse_qsl(html.unescape(link))) for link in links] == [{"id": "x&y", "team": "red"}, {"id": "x&y"}]


def test_what_a_source_says_of_an_id_is_text(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    markup = "<b>'\""
    row = Row(markup, markup, [markup, markup], name=markup, version=markup, refused=markup)
    unusable = Row(markup, None, [markup], unusable=markup)
    assert "<b>" not in shown(app, page_of(app, [row, unusable], monkeypatch), check=True)


def test_what_is_refused_or_shadowed_is_counted_and_shown_alone(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(9)
    rows[0].add_source("another")
    for row in rows[1:3]:
        row.refused = "it matches a pattern"
    for row in rows[3:6]:
        row.unusable = "its port is not a number"
    text = shown(app, page_of(app, rows, monkeypatch), match="id-00")
    assert "9 variables, 1 of them in more than one source, 2 not looked up, 3 that Airflow cannot parse." in " ".join(
        text.split()
    )
    for show, ids in (("all", range(9)), ("shadowed", [0]), ("refused", [1, 2]), ("invalid", [3, 4, 5])):
        text = shown(app, page_of(app, rows, monkeypatch), show=show)
        assert re.findall(r">id-00(\d)<", text) == [str(one) for one in ids], show


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
        third = await page.listing("variables", fresh=True)
        assert third is not second
        third.done.clear()  # as if it were in progress
        moment.now += app.KEPT + 1
        assert await page.listing("variables", fresh=True) is third

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

    known: dict[str, Any] = {}

    async def identities(_: Any) -> dict[str, Any]:
        return known

    monkeypatch.setattr(page, "identities", identities)
    health: Callable[..., Any] = app._health

    def shown_now() -> str:
        return bytes(asyncio.run(health(page)).body).decode()

    text = shown_now()
    assert "<dt>Answered from caches</dt><dd>55 %</dd>" in text  # 6 of 11
    assert "<dt>Median of the latest calls</dt><dd>250.0 ms</dd>" in text
    assert '<th scope="row">ValueError</th><td>1</td>' in text
    assert '<th scope="row">shared_cache</th><td>off</td>' in text
    assert ("being asked…" in text, 'data-again="health"' in text) == (True, True)
    for ok, told in ((True, "<dd>caller"), (False, '<dd><span class="bad">caller</span>')):
        known["Vault"] = app.Identified("caller", ok, 12.3, 0.0)
        text = shown_now()
        assert (f"{told} (12 ms)</dd>" in text, "data-again" in text) == (True, False)

    shared = VaultBackend(url="http://127.0.0.1:1", token="t", shared_cache="file")
    page._backends = SimpleNamespace(ours=[("Vault", shared)], notices=[])
    assert '<th scope="row">shared_cache</th><td>on</td>' in shown_now()


class Manager:
    """An auth manager, of Airflow 3.2 and later, whose users are sets of what they may read: kinds and teams."""

    def filter_authorized_connections(self, *, conn_ids: set[str], user: Any, team_name: str | None = None) -> set[str]:
        return conn_ids if ("connections", team_name) in user else set()

    def filter_authorized_variables(
        self, *, variable_keys: set[str], user: Any, team_name: str | None = None
    ) -> set[str]:
        return variable_keys if ("variables", team_name) in user else set()


class OlderManager:
    """An auth manager of Airflow 3.1, which has no teams."""

    def is_authorized_connection(self, *, method: str, details: Any, user: Any) -> bool:
        return (method, details.conn_id, ("connections", None) in user) == ("GET", "x", True)

    def is_authorized_variable(self, *, method: str, details: Any, user: Any) -> bool:
        return (method, details.key, ("variables", None) in user) == ("GET", "x", True)


@pytest.mark.parametrize("kind", ["connections", "variables"])
def test_a_user_sees_what_airflow_lets_that_user_read_of_this_kind(
    app: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rows = [Row("x", None), Row("x", "red"), Row("x", "blue"), Row("y", "red")]
    other = "variables" if kind == "connections" else "connections"
    monkeypatch.setattr(app, "get_auth_manager", Manager)
    for teams, seen in (([None], [0]), (["blue"], [2]), ([None, "red"], [0, 1, 3])):
        user = {
            *((kind, team) for team in teams),
            *((other, team) for team in (None, "red", "blue") if team not in teams),
        }
        assert [rows.index(row) for row in app.visible(kind, rows, user)] == seen
    monkeypatch.setattr(app, "get_auth_manager", OlderManager)
    rows = [Row("x", None), Row("y", None)]
    assert app.visible(kind, rows, {(kind, None)}) == rows[:1]
    assert app.visible(kind, rows, {(other, None)}) == []


@pytest.mark.parametrize("secret_id", ["red--x", "_RED___x"])
def test_an_id_that_names_a_team_takes_the_permission_of_that_team_as_well(
    app: Any, monkeypatch: pytest.MonkeyPatch, secret_id: str
) -> None:
    asked: list[tuple[str, str | None]] = []

    def explained(_: Any, __: str, secret_id: str, team: str | None) -> None:
        asked.append((secret_id, team))
        raise ValueError

    monkeypatch.setattr(app, "_explained", explained)
    monkeypatch.setattr(app, "multi_team", lambda: True)
    monkeypatch.setattr(app, "get_auth_manager", Manager)
    page = page_of(app, [], monkeypatch)
    for team in ("red", "blue"):
        with pytest.raises(app.HTTPException):
            asyncio.run(app._explain(page, "variables", {("variables", team)}, secret_id, "blue"))
    assert asked == []
    asyncio.run(app._explain(page, "variables", {("variables", "red"), ("variables", "blue")}, secret_id, "blue"))
    assert asked == [(secret_id, "blue")]


@pytest.mark.parametrize(
    ("may_read", "answered"),
    [("connections", {"connections", "connection", "health"}), ("variables", {"variables", "variable"})],
)
def test_each_path_asks_for_the_permission_of_its_kind(
    app: Any, monkeypatch: pytest.MonkeyPatch, may_read: str, answered: set[str]
) -> None:
    from airflow.api_fastapi.core_api import security
    from fastapi.testclient import TestClient

    manager = SimpleNamespace(
        is_authorized_connection=lambda **_: may_read == "connections",
        is_authorized_variable=lambda **_: may_read == "variables",
    )
    monkeypatch.setattr(security, "get_auth_manager", lambda: manager)

    async def an_answer(*_: Any) -> Any:
        return app.HTMLResponse("")

    for name in ("_list", "_explain", "_health"):
        monkeypatch.setattr(app, name, an_answer)
    made = app.make_app()
    made.dependency_overrides[security.get_user] = object
    client = TestClient(made)
    paths = ("connections", "variables", "connection", "variable", "health")
    answers = {path: client.get(f"/{path}") for path in paths}
    assert {path: answer.status_code for path, answer in answers.items()} == {
        path: 200 if path in answered else 403 for path in paths
    }
    for path, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        sent = client.get(f"/{path}")
        assert (sent.headers["Content-Type"].partition(";")[0], sent.headers["X-Content-Type-Options"]) == (
            kind,
            "nosniff",
        )
    refused = [answer for answer in answers.values() if answer.status_code == 403]
    assert all("You may not see this. It takes Airflow&#39;s permission" in answer.text for answer in refused)


def test_an_explanation_tells_a_final_failure_from_an_absence(app: Any) -> None:
    def told(**explained: Any) -> str:
        nothing = {"kind": "variables", "secret_id": "x", "team": None, "members": (), "elsewhere": (), "winner": None,
                   "shadowed": (), "final": False}  # fmt: skip
        explanation = app.explanation.ChainExplanation(**{**nothing, **explained})
        text = bytes(
            app.rendered(
                "explain.html", here="variables", kind="variables", secret_id="x", team="", notices=(), with_teams=False,
                explained=explanation, problem=None, members=(), elsewhere=explanation.elsewhere,
                not_asked=app.explanation.not_asked(explanation),
            ).body
        ).decode()  # fmt: skip
        return " ".join(html.unescape(re.sub("<[^>]*>", "", text.partition("<h2>")[2].partition("</main>")[0])).split())

    assert "Airflow finds it nowhere." in told()
    assert "Airflow stops here: the failure is final." in told(final=True)
    unusable = app.explanation.Elsewhere("environment", holds=True, problem="it is no URI")
    assert "environment: holds it, but Airflow cannot use it: it is no URI" in told(elsewhere=(unusable,))


@pytest.mark.skipif(VERSION < (3, 1), reason="pages came with Airflow 3.1")
def test_the_menus_link_is_relative_for_an_airflow_behind_a_path() -> None:
    from airflow_providers_secrets.ui.plugin import SecretsPage

    assert [view["href"] for view in SecretsPage.external_views] == ["secrets-page/connections"]
