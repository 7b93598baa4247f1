"""What the page lists: every id of a kind, which source answers it, and what that shadows. No value is kept.

A listing runs in its own thread and can be read while it runs. Each is used for :data:`KEPT` seconds by
everybody who opens the page, whatever part of it they may see.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airflow_providers_secrets.errors import SecretsError
from airflow_providers_secrets.lookup.plan import Kind, team_and_id
from airflow_providers_secrets.lookup.sources import Environment, Metastore, Source

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin

KEPT: Final = 15.0
"""Seconds for which a listing is used."""

LONGEST: Final = 60.0
"""Seconds after which a listing ends, with what it has by then."""

MOST_IDS: Final = 50_000
"""Maximum number of ids in a listing."""


@dataclass
class Row:
    """One id and the sources that hold it, in the order in which Airflow asks them.

    :param team: the team whose own secret it is, in multi-team mode.
    :param unusable: why Airflow could not parse the first source's value, if the listing tells.
    """

    secret_id: str
    team: str | None
    sources: list[str] = field(default_factory=list)
    name: str | None = None
    version: str | None = None
    changed: dt.datetime | None = None
    refused: str | None = None
    unusable: str | None = None

    @property
    def answers(self) -> str | None:
        """The source whose answer Airflow uses."""
        return self.sources[0] if self.sources else None

    @property
    def shadowed(self) -> list[str]:
        """The other sources that hold it, which are not asked."""
        return self.sources[1:]

    def add_source(self, title: str) -> None:
        """Add a source, once: several prefixes of one store may hold the id."""
        if title not in self.sources:
            self.sources.append(title)


class Backends:
    """The sources of the API server's search path that this package can list.

    :ivar members: the sources in search order, each with the title under which it is shown.
    :ivar notices: what cannot be listed, and why.
    """

    def __init__(self, configured: Any) -> None:
        from airflow_providers_secrets.backends.chain import ChainBackend
        from airflow_providers_secrets.backends.mixin import SecretLookupMixin

        self.configured = configured
        self.notices: list[str] = []
        self.members: list[tuple[str, SecretLookupMixin | Source, Any]] = []
        self.is_chain = isinstance(configured, ChainBackend)
        if configured is None:
            self.notices.append(
                "This API server has no secrets backend: [secrets] backend is not set. Airflow looks into the "
                "environment and the metastore alone."
            )
        elif isinstance(configured, ChainBackend):
            for member in configured.members:
                if isinstance(member.backend, SecretLookupMixin):
                    self.members.append((member.title, member.backend, member))
                elif member.name == "env":
                    self.members.append((member.title, Environment(), member))
                else:
                    self.notices.append(f"{member.title} cannot be listed: it is no store of this package.")
        elif isinstance(configured, SecretLookupMixin):
            self.members.append((configured.store, configured, None))
        else:
            self.notices.append(
                f"The API server's secrets backend is {type(configured).__module__}.{type(configured).__qualname__}, "
                "which is of another package: only its own tools can list it."
            )
        if not any(isinstance(source, Environment) for _, source, _ in self.members):
            self.members.append((Environment.title, Environment(), None))
        self.members.append((Metastore.title, Metastore(), None))

    @property
    def ours(self) -> list[tuple[str, SecretLookupMixin]]:
        """The backends of this package, with their titles."""
        from airflow_providers_secrets.backends.mixin import SecretLookupMixin

        return [(title, one) for title, one, _ in self.members if isinstance(one, SecretLookupMixin)]


def configured_backend() -> Any:
    """Return the secrets backend that is configured for this process's Airflow, or ``None``."""
    from airflow.configuration import ensure_secrets_loaded

    airflows = ("EnvironmentVariablesBackend", "MetastoreBackend")
    return next((one for one in ensure_secrets_loaded() if type(one).__name__ not in airflows), None)


class Listing:
    """One listing of a kind, in progress or complete. Any thread may read it."""

    def __init__(self, backends: Backends, kind: Kind) -> None:
        self.kind = kind
        self.problems: list[str] = []
        self.done = threading.Event()
        self._since = time.monotonic()
        self._backends = backends
        self._rows: list[Row] = []
        self._by_name: dict[tuple[int, str], Row] = {}
        self._by_id: dict[tuple[str | None, str], Row] = {}
        self._by_small_id: dict[tuple[str | None, str], Row] = {}

    def so_far(self) -> tuple[list[Row], bool]:
        """Return the rows so far, sorted by id, and whether the listing is complete."""
        done = self.done.is_set()  # read first: if it ended after the copy, a part would pass for the whole
        return sorted(self._rows.copy(), key=lambda row: row.secret_id), done

    @property
    def age(self) -> float:
        """Seconds since it ended or, while it is in progress, since it began.

        Otherwise a slow listing would be too old as soon as it is complete, and be repeated forever.
        """
        return time.monotonic() - self._since

    def make(self) -> None:
        """Ask every source, in search order. If one fails, the problem is recorded and the others are asked."""
        self._since = time.monotonic()  # it may have waited for other work
        try:
            for position, (title, source, member) in enumerate(self._backends.members):
                if member is not None and member.patterns[self.kind] is None:
                    continue
                try:
                    self._add_all(position, title, source, member)
                except SecretsError as error:
                    self.problems.append(str(error))
                except Exception as error:  # noqa: BLE001  # its message may contain anything
                    self.problems.append(f"{title} could not be listed: unexpected {type(error).__name__}.")
        finally:
            self._by_name.clear()
            self._by_id.clear()
            self._by_small_id.clear()
            self._since = time.monotonic()
            self.done.set()

    def _add_all(self, position: int, title: str, source: Any, member: Any) -> None:
        if isinstance(source, Source):
            for team, secret_id in source.ids(self.kind):
                if self._is_full(title):
                    return
                row = self._row_of(position, team, secret_id) or self._new_row(team, secret_id)
                row.add_source(title)
            return
        from airflow_providers_secrets.lookup.inventory import listed_ids, own_names

        if source.rule(self.kind).prefixes is None:
            self.problems.append(f"{title} is not asked for {self.kind}: {source.why_off(self.kind)}.")
            return
        # A store may spell an id differently, so rows are matched by the names that a lookup of a known id requests.
        asked = {name: row for row in self._rows for name in own_names(source, self.kind, row.secret_id, row.team)}
        for one in listed_ids(source, self.kind, max(0.0, LONGEST - self.age)):
            if self._is_full(title):
                return
            team, secret_id = team_and_id(one.secret_id)
            row = asked.get(one.name) or self._row_of(position, team, secret_id) or self._new_row(team, secret_id)
            self._by_name[position, one.name] = row
            reason = one.refused or (member.passed_over_for(self.kind, row.secret_id) if member else None)
            if row.name is None:
                row.name, row.version, row.changed, row.unusable = one.name, one.version, one.changed, one.unusable
            if reason is None:
                row.add_source(title)
            else:
                row.refused = row.refused or reason
        self._took_too_long(title)  # the time may have run out in pages without ids

    def _is_full(self, title: str) -> bool:
        if len(self._rows) >= MOST_IDS:
            self.problems.append(f"{title} holds more: the list ends after {MOST_IDS:,} ids.")
            return True
        return self._took_too_long(title)

    def _took_too_long(self, title: str) -> bool:
        if self.age < LONGEST:
            return False
        self.problems.append(f"{title} took too long: the list ends after {LONGEST:.0f} s.")
        return True

    def _row_of(self, position: int, team: str | None, secret_id: str) -> Row | None:
        """Return the row of the same secret, perhaps in another spelling, from a source before *position*."""
        from airflow_providers_secrets.lookup.inventory import own_names

        if row := self._by_id.get((team, secret_id)):
            return row
        if isinstance(self._backends.members[position][1], Environment):
            return self._by_small_id.get((team, secret_id))  # the environment ignores case
        for before, (_, source, _) in enumerate(self._backends.members[:position]):
            if isinstance(source, Environment) and (row := self._by_id.get(_small(team, secret_id))):
                return row
            if not isinstance(source, Source):
                for name in own_names(source, self.kind, secret_id, team):
                    if row := self._by_name.get((before, name)):
                        return row
        return None

    def _new_row(self, team: str | None, secret_id: str) -> Row:
        row = Row(secret_id, team)
        self._rows.append(row)
        self._by_id[team, secret_id] = self._by_small_id[_small(team, secret_id)] = row
        return row


def _small(team: str | None, secret_id: str) -> tuple[str | None, str]:
    return team and team.lower(), secret_id.lower()


def matching(rows: Iterable[Row], text: str, show: str) -> list[Row]:
    """Return the rows whose id contains *text* and that match *show*.

    Case counts for nothing, and ``_`` is ``-``: Azure Key Vault lists ``my-db`` for the ``my_db`` that a DAG asks for.
    """
    text = _folded(text)
    return [row for row in rows if _is(row, show) and text in _folded(row.secret_id)]


def _folded(text: str) -> str:
    return text.casefold().replace("_", "-")


def _is(row: Row, show: str) -> bool:
    if show == "shadowed":
        return bool(row.shadowed)
    if show == "refused":
        return row.refused is not None
    return show != "invalid" or row.unusable is not None


def age_in_words(changed: dt.datetime | None, now: dt.datetime | None = None) -> str:
    """Return how long ago something was changed, in a single unit."""
    if changed is None:
        return ""
    if changed.tzinfo is None:
        changed = changed.replace(tzinfo=dt.timezone.utc)
    seconds = max(0.0, ((now or dt.datetime.now(dt.timezone.utc)) - changed).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
