"""The page itself: a small FastAPI application with server-rendered HTML. It never writes, and shows no value."""

from __future__ import annotations

import asyncio
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import jinja2
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails, VariableDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_connection, requires_access_variable
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from airflow_providers_secrets import __version__
from airflow_providers_secrets.backends._members import AIRFLOWS_DENIAL
from airflow_providers_secrets.errors import SecretsError
from airflow_providers_secrets.lookup import explanation, operations
from airflow_providers_secrets.lookup.answers import answers_of
from airflow_providers_secrets.lookup.awaiting import in_a_thread
from airflow_providers_secrets.lookup.plan import MAX_ID_LENGTH, TEAM_SEP, Kind, multi_team
from airflow_providers_secrets.lookup.sources import OF_TEAM, Environment, Metastore
from airflow_providers_secrets.ui.listing import (
    KEPT,
    Backends,
    Listing,
    Row,
    age_in_words,
    configured_backend,
    matching,
)

HERE: Final = Path(__file__).parent
PER_PAGE: Final = 100
"""Ids per page of a list."""
PATIENCE: Final = 0.6
"""Seconds for which a request waits for a listing; then it shows what there is, and the browser reloads the page."""
AT_A_TIME: Final = 4
"""Maximum number of listings, checks and explanations that run at a time in one event loop."""
CHECKED: Final = 25
"""Maximum number of ids that one check reads."""

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Id = Annotated[str, Query(alias="id")]

templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
)
templates.filters["age"] = age_in_words
templates.filters["identity"] = id


class Wanted(BaseModel):
    """The part of a list to show.

    :ivar match: a part of the id.
    :ivar show: all, shadowed, refused or invalid.
    :ivar check: look the first ids up.
    :ivar fresh: list again, unless a listing is in progress.
    """

    match: str = ""
    show: str = "all"
    page: int = 1
    check: bool = False
    fresh: bool = False


class Identified(NamedTuple):
    """A store's answer about who is asking.

    :param ok: whether it answered.
    :param at: when it did or failed, by the monotonic clock.
    """

    said: str
    ok: bool
    milliseconds: float
    at: float


class Page:
    """The page's state in one API server: its backends, and the latest listings."""

    def __init__(self) -> None:
        self._listings: dict[Kind, Listing] = {}
        self._tasks: dict[Kind, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_A_TIME)
        self._backends: Backends | None = None
        self._identities: dict[str, asyncio.Task[Identified]] = {}

    async def backends(self) -> Backends:
        """Return the sources that the API server's Airflow asks."""
        if self._backends is None:
            self._backends = await in_a_thread(lambda: Backends(configured_backend()))
        return self._backends

    async def listing(self, kind: Kind, *, fresh: bool) -> Listing:
        """Return the latest listing of *kind*, which may be in progress; start a new one if it is too old."""
        backends = await self.backends()
        found = self._listings.get(kind)  # from here to the next await, no other request starts one
        if found is None or (found.done.is_set() and (fresh or found.age > KEPT)):
            found = self._listings[kind] = Listing(backends, kind)
            self._tasks[kind] = asyncio.create_task(self.bounded(found.make))
        await asyncio.wait((self._tasks[kind],), timeout=PATIENCE)
        return found

    async def bounded(self, work: Callable[[], Any]) -> Any:
        """Run *work* in a thread, at most :data:`AT_A_TIME` at once."""
        async with self._turns:
            return await in_a_thread(work)

    async def identities(self, backends: Backends) -> dict[str, Identified]:
        """Return the identity that each store sees, for the stores that have answered or failed by now."""
        for title, backend in backends.ours:
            known = self._identities.get(title)
            if known is None or (known.done() and time.monotonic() - known.result().at > KEPT):
                self._identities[title] = asyncio.create_task(self._identified(backend))
        if self._identities:
            await asyncio.wait(self._identities.values(), timeout=PATIENCE)
        return {title: task.result() for title, task in self._identities.items() if task.done()}

    async def _identified(self, backend: Any) -> Identified:
        started = time.monotonic()
        said, ok = "this store cannot say", True
        try:
            if identity := await self.bounded(lambda: operations.identify(backend)):
                said = identity.who
        except Exception as error:  # noqa: BLE001  # a store's thread may raise anything
            said, ok = in_words(error), False
        now = time.monotonic()
        return Identified(said, ok, (now - started) * 1000, now)


def in_words(error: Exception) -> str:
    """Return the message of an error of ours or of Airflow's denial, which replaces one; of any other, only the class.

    The messages of other errors may contain anything.
    """
    if isinstance(error, SecretsError) or type(error).__name__ == AIRFLOWS_DENIAL:
        return str(error)
    return f"unexpected {type(error).__name__}"


def visible(kind: Kind, rows: list[Row], user: Any) -> list[Row]:
    """Return the rows that Airflow's auth manager lets *user* see, each under its own team."""
    by_team: dict[str | None, set[str]] = {}
    for row in rows:
        by_team.setdefault(row.team, set()).add(row.secret_id)
    allowed = {team: _allowed(kind, ids, user, team) for team, ids in by_team.items()}
    return [row for row in rows if row.secret_id in allowed[row.team]]


def _allowed(kind: Kind, ids: set[str], user: Any, team: str | None) -> set[str]:
    manager: Any = get_auth_manager()
    if not hasattr(manager, "filter_authorized_connections"):  # Airflow 3.1, which has no teams
        if kind == "connections":
            return {
                one
                for one in ids
                if manager.is_authorized_connection(method="GET", details=ConnectionDetails(conn_id=one), user=user)
            }
        return {
            one
            for one in ids
            if manager.is_authorized_variable(method="GET", details=VariableDetails(key=one), user=user)
        }
    of_team: Any = {"team_name": team} if team else {}
    if kind == "connections":
        return set(manager.filter_authorized_connections(conn_ids=ids, user=user, **of_team))
    return set(manager.filter_authorized_variables(variable_keys=ids, user=user, **of_team))


def rendered(name: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return one page."""
    text = templates.get_template(name).render(version=__version__, **values)
    return HTMLResponse(text, status, HEADERS)


def make_app() -> FastAPI:
    """Return a new application. It uses Airflow's API, so only an API server calls this."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    page = Page()

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, error: StarletteHTTPException) -> HTMLResponse:
        refusals = {
            401: "You are not logged in. Log in to Airflow, and open this page again.",
            403: "You may not see this. It takes Airflow's permission to read connections, or variables.",
            404: "There is no such page.",
        }
        return rendered("refused.html", error.status_code, here="", text=refusals.get(error.status_code, "It failed."))

    app.add_exception_handler(RequestValidationError, _unreadable)

    @app.get("/")
    async def start() -> RedirectResponse:
        return RedirectResponse("connections", headers=HEADERS)

    @app.get("/page.css")
    async def style() -> FileResponse:
        return FileResponse(HERE / "static" / "page.css", headers={"X-Content-Type-Options": "nosniff"})

    @app.get("/page.js")
    async def script() -> FileResponse:
        return FileResponse(HERE / "static" / "page.js", headers={"X-Content-Type-Options": "nosniff"})

    @app.get("/connections", dependencies=[Depends(requires_access_connection("GET"))])
    async def connections(user: GetUserDep, wanted: Annotated[Wanted, Query()]) -> HTMLResponse:
        return await _list(page, "connections", user, wanted)

    @app.get("/variables", dependencies=[Depends(requires_access_variable("GET"))])
    async def variables(user: GetUserDep, wanted: Annotated[Wanted, Query()]) -> HTMLResponse:
        return await _list(page, "variables", user, wanted)

    @app.get("/connection", dependencies=[Depends(requires_access_connection("GET"))])
    async def connection(user: GetUserDep, secret_id: Id = "", team: str = "") -> HTMLResponse:
        return await _explain(page, "connections", user, secret_id, team)

    @app.get("/variable", dependencies=[Depends(requires_access_variable("GET"))])
    async def variable(user: GetUserDep, secret_id: Id = "", team: str = "") -> HTMLResponse:
        return await _explain(page, "variables", user, secret_id, team)

    @app.get("/health", dependencies=[Depends(requires_access_connection("GET"))])
    async def health() -> HTMLResponse:
        return await _health(page)

    return app


async def _unreadable(_: Request, __: Exception) -> HTMLResponse:
    return rendered("refused.html", 400, here="", text="A value in this page's address cannot be read.")


async def _list(page: Page, kind: Kind, user: Any, wanted: Wanted) -> HTMLResponse:
    listing = await page.listing(kind, fresh=wanted.fresh)
    backends = await page.backends()
    rows, found, done = await in_a_thread(lambda: _seen(kind, listing, user, wanted))
    pages = max(1, -(-len(found) // PER_PAGE))
    at = min(max(1, wanted.page), pages)
    shown = found[(at - 1) * PER_PAGE : at * PER_PAGE]
    checked = await page.bounded(lambda: _checked(backends, kind, shown[:CHECKED])) if wanted.check else {}
    return rendered(
        "list.html",
        here=kind,
        kind=kind,
        rows=shown,
        total=len(rows),
        found=len(found),
        shadowed=sum(bool(row.shadowed) for row in rows),
        refused=sum(row.refused is not None for row in rows),
        invalid=sum(row.unusable is not None for row in rows),
        notices=backends.notices,
        problems=list(listing.problems),
        done=done,
        age=listing.age,
        match=wanted.match,
        show=wanted.show,
        at=at,
        pages=pages,
        check=wanted.check,
        checked=checked,
        most_checked=CHECKED,
        with_teams=multi_team(),
    )


def _seen(kind: Kind, listing: Listing, user: Any, wanted: Wanted) -> tuple[list[Row], list[Row], bool]:
    listed, done = listing.so_far()
    rows = visible(kind, listed, user)
    return rows, matching(rows, wanted.match, wanted.show), done


def _checked(backends: Backends, kind: Kind, rows: list[Row]) -> dict[int, str]:
    """Look each row up as Airflow would, and return the results in words."""
    said: dict[int, str] = {}
    lookups = dict(backends.ours)
    until = time.monotonic() + max([backend.config.timeout for backend in lookups.values()], default=0.0)
    for row in rows:
        backend = lookups.get(row.answers or "")
        if backend is None or time.monotonic() > until:
            continue
        try:
            found = operations.read(backend, kind, row.secret_id, row.team) is not None
            said[id(row)] = "Airflow can use it" if found else "not found"
        except Exception as error:  # noqa: BLE001  # it may be Airflow's own denial, which replaces one of ours
            said[id(row)] = in_words(error)
    return said


async def _explain(page: Page, kind: Kind, user: Any, secret_id: str, team: str) -> HTMLResponse:
    team = team.strip()
    backends = await page.backends()
    values: dict[str, Any] = {
        "here": kind, "kind": kind, "secret_id": secret_id, "team": team, "notices": backends.notices,
        "with_teams": multi_team(), "explained": None, "problem": None, "members": None, "elsewhere": (),
        "not_asked": (),
    }  # fmt: skip
    if not secret_id:
        return rendered("explain.html", **values)
    whose = _teams_of(secret_id, team)
    if not await in_a_thread(lambda: all(_allowed(kind, {secret_id}, user, one) for one in whose)):
        raise HTTPException(403)
    if len(secret_id) > MAX_ID_LENGTH:
        values["problem"] = f"No source is asked: the id is longer than {MAX_ID_LENGTH} characters."
        return rendered("explain.html", **values)
    try:
        explained = await page.bounded(lambda: _explained(backends, kind, secret_id, team or None))
        values["explained"] = explained
        values["members"] = getattr(explained, "members", None)
        values["elsewhere"] = explained.elsewhere
        values["not_asked"] = explanation.not_asked(explained)
    except Exception as error:  # noqa: BLE001  # the page reports any error
        values["problem"] = in_words(error)
    return rendered("explain.html", **values)


def _teams_of(secret_id: str, team: str) -> set[str | None]:
    """Return the teams whose secret this may be: the given one, and those that the id itself names."""
    teams: set[str | None] = {team} if team else set()
    if multi_team():
        if spelled := OF_TEAM.fullmatch(secret_id):
            teams.add(spelled.group(1).lower())
        if of_team := secret_id.rpartition(TEAM_SEP)[0]:
            teams.add(of_team)
    return teams or {None}


def _explained(backends: Backends, kind: Kind, secret_id: str, team: str | None) -> Any:
    others = (Environment(), Metastore())
    if backends.is_chain:
        return explanation.explain_chain(backends.configured.members, kind, secret_id, team, others)
    if backends.ours:
        return explanation.explain(backends.ours[0][1], kind, secret_id, team, others)
    explained = explanation.explain_chain((), kind, secret_id, team, others)
    if backends.configured is None:
        return explained
    foreign = explanation.Elsewhere(type(backends.configured).__qualname__, None, "it is of another package")
    return dataclasses.replace(explained, elsewhere=(foreign, *explained.elsewhere))


async def _health(page: Page) -> HTMLResponse:
    backends = await page.backends()
    identities = await page.identities(backends)
    stores = []
    for title, backend in backends.ours:
        answers = answers_of(backend.config)
        counts = answers.counts.so_far()
        answered = counts["hits"] + counts["negative_hits"] + counts["shared_hits"]
        recent = list(answers.counts.recent)
        settings = ("cache_ttl", "cache_negative_ttl", "max_stale", "cache_size", "timeout", "max_attempts",
                    "on_denied", "on_unavailable", "on_invalid", "on_revoked")  # fmt: skip
        stores.append(
            {
                "title": title,
                "store": backend.store,
                "identity": identities.get(title),
                "counts": {name: count for name, count in counts.items() if not name.startswith("errors.")},
                "errors": {name.removeprefix("errors."): n for name, n in counts.items() if name.startswith("errors.")},
                "rate": answered / (answered + counts["calls"]) if answered + counts["calls"] else None,
                "median": statistics.median(recent) * 1000 if recent else None,
                "state": answers.state(),
                "settings": {name: backend.options[name] for name in settings}
                | {"shared_cache": "on" if backend.options["shared_cache"] else "off"},
            }
        )
    done = len(identities) == len(stores)
    return rendered("health.html", here="health", stores=stores, notices=backends.notices, done=done)
