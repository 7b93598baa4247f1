"""What a store lists: the ids that lookups find there, those close to an absent one, and those that other sources hold.

Each function returns data and prints nothing. The data holds no secret value.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_providers_secrets.errors import ConfigurationError, SecretsError, Unusable
from airflow_providers_secrets.lookup.access import store_of
from airflow_providers_secrets.lookup.answers import Answers, answers_of
from airflow_providers_secrets.lookup.plan import TEAM_SEP, Kind, LookupPlan, team_and_id
from airflow_providers_secrets.stores.base import ListedSecret, Store
from airflow_providers_secrets.stores.capabilities import Lists

if TYPE_CHECKING:
    from typing import Any

    from airflow_providers_secrets.backends.mixin import SecretLookupMixin
    from airflow_providers_secrets.lookup.sources import Source

MakePlan = Callable[[Kind, str, "str | None"], LookupPlan]

BATCH_SECONDS: Final = 0.2
"""Seconds for which one step of a listing collects names; a page that takes longer ends the step."""


@dataclass(frozen=True)
class ListedId:
    """One id that a store holds under a prefix.

    :param secret_id: the id as lookups ask for it, in the store's spelling; a team's own id begins with ``team--``.
    :param name: the store's name.
    :param version: the current version in the store's spelling, if the listing has it.
    :param changed: when that version was written, if the listing has it.
    :param refused: why no lookup asks for it, or ``None``.
    :param unusable: why Airflow could not parse it; ``None`` if it could, or if the listing does not have the text.
    """

    kind: Kind
    secret_id: str
    name: str
    version: str | None = None
    changed: dt.datetime | None = None
    refused: str | None = None
    unusable: str | None = None


def listed_ids(backend: SecretLookupMixin, kind: Kind, within: float | None = None) -> Iterator[ListedId]:
    """Yield every id of *kind* that the store holds under the backend's prefixes, as its pages arrive.

    Each step has the backend's ``timeout``; the listing as a whole has none. If a page fails and another attempt may
    help, the listing restarts and yields only what it has not yielded yet.

    :param within: seconds for the whole listing; what is listed by then is yielded.
    :raises ConfigurationError: if the kind is off, the store cannot list, or the options do not say what.
    :raises LookupFailed: if a page cannot be obtained.
    """
    prefixes = backend.rule(kind).prefixes
    if prefixes is None:
        off = backend.why_off(kind)
        raise ConfigurationError(f"{off[0].upper()}{off[1:]}.")
    if not isinstance(store_of(backend.config), Lists):
        raise ConfigurationError(f"{backend.store} cannot list.")
    if reason := backend.why_unlisted():
        raise ConfigurationError(f"{backend.store} cannot list: {reason}.")
    seen: set[str] = set()
    until = None if within is None else time.monotonic() + within
    for prefix in dict.fromkeys(prefixes):
        for secret in stream(answers_of(backend.config), backend.name_start(prefix), until):
            secret_id = backend.id_of(prefix, secret.name)
            if secret_id is None or secret.name in seen:
                continue
            seen.add(secret.name)
            yield ListedId(
                kind,
                secret_id,
                secret.name,
                secret.version,
                secret.changed,
                _refused(backend, kind, secret_id),
                None if secret.text is None else why_unusable(backend, kind, secret.text),
            )


def why_unusable(backend: SecretLookupMixin, kind: Kind, stored: str) -> str | None:
    """Return why Airflow could not parse what is *stored*, without any of it; ``None`` if it could."""
    try:
        backend.decode(kind, stored)
    except Unusable as error:
        return str(error)
    return None


def _refused(backend: SecretLookupMixin, kind: Kind, secret_id: str) -> str | None:
    plan = backend.plan(kind, secret_id)
    if plan.reason and TEAM_SEP in secret_id:
        # A team's own secret, which only that team's lookups ask for.
        team, _, of_team = secret_id.rpartition(TEAM_SEP)
        plan = backend.plan(kind, of_team, team) if team and of_team else plan
    return plan.reason


def stream(  # noqa: C901  # one loop, and its step
    answers: Answers, prefix: str, until: float | None = None
) -> Iterator[ListedSecret]:
    """Yield each secret that the store lists under *prefix* once, at most *until* a time of the monotonic clock.

    See :func:`listed_ids`.
    """
    listing: Iterator[ListedSecret] | None = None
    seen: set[str] = set()
    starts = 0  # since the last new name

    def step(store: Store, client: Any) -> tuple[list[ListedSecret], bool]:
        nonlocal listing, starts
        if listing is None:
            starts += 1
            assert isinstance(store, Lists)
            listing = store.listing(client, prefix)
        batch: list[ListedSecret] = []
        ends = time.monotonic() + BATCH_SECONDS
        try:
            for secret in listing:
                batch.append(secret)
                if time.monotonic() > ends:
                    return batch, False
        except BaseException:
            # A generator that has raised is exhausted: continuing with it would cut the listing short.
            listing = None
            raise
        return batch, True

    ended = False
    while not ended:
        within = answers.config.timeout
        if until is not None:
            within = min(within, until - time.monotonic())
            if within <= 0:
                return
        batch, ended = answers.access.call(prefix, within, step, "list")
        for secret in batch:
            if secret.name not in seen:
                seen.add(secret.name)
                starts = 1
                yield secret
        if starts > answers.config.max_attempts and not ended:
            raise answers.access.failure(prefix, None, f"the listing broke off {starts - 1} times", act="list")


# What an absent id may have meant.

NEAR: Final = 0.75
"""The minimum similarity of two ids, as difflib measures it: 1 is identical, a swapped pair in ten letters is 0.9."""
MOST_NEAR: Final = 3
NEAR_SECONDS: Final = 3.0
"""Seconds for which listings are read to find them."""


def near_ids(
    asked: Iterable[tuple[SecretLookupMixin, MakePlan]], kind: Kind, secret_id: str, team: str | None = None
) -> tuple[str, ...]:
    """Return up to three ids that are almost *secret_id* and that lookups of *team* find in the stores.

    A store that may not be listed contributes none; one that takes too long, only what it has listed by then.

    :param asked: the backends whose stores are listed, each with the function that plans its lookup of an id.
    """
    known: dict[str, str] = {}
    spellings = [secret_id.casefold()]
    until = time.monotonic() + NEAR_SECONDS
    for backend, plan in asked:
        spellings.append(backend.normalised(secret_id).casefold())
        with contextlib.suppress(SecretsError):
            within = min(backend.config.timeout, until - time.monotonic())
            for one in listed_ids(backend, kind, within):
                found = _asked_as(plan, one, team)
                if found is not None and found != secret_id:
                    known.setdefault(found.casefold(), found)
    near = dict.fromkeys(
        one
        for spelling in dict.fromkeys(spellings)
        for one in difflib.get_close_matches(spelling, known, MOST_NEAR, NEAR)
    )
    return tuple(known[one] for one in near)[:MOST_NEAR]


def _asked_as(plan: MakePlan, listed: ListedId, team: str | None) -> str | None:
    """Return the id by which lookups of *team* ask for what is *listed*; ``None`` if they do not."""
    secret_id = listed.secret_id.removeprefix(f"{team}{TEAM_SEP}") if team else listed.secret_id
    # Another team's secret must not be suggested.
    return secret_id if listed.name in plan(listed.kind, secret_id, team).names else None


# What is shadowed.


@dataclass(frozen=True)
class Shadowing:
    """An id that both the store and other sources hold."""

    listed: ListedId
    sources: tuple[str, ...]


def shadowing(
    backend: SecretLookupMixin, kind: Kind, listed: Iterable[ListedId], others: Sequence[Source]
) -> Iterator[Shadowing]:
    """Yield those of *listed* that *others* hold as well: their values are never used while the store answers.

    Ids are compared in the store's spelling, since several may be one name there; a team's own with that team's own.

    :raises SecretsError: if a source cannot be read.
    """
    held = [
        (source, {name for team, secret_id in source.ids(kind) for name in own_names(backend, kind, secret_id, team)})
        for source in others
    ]
    for one in listed:
        if one.refused is not None:
            continue
        team, secret_id = team_and_id(one.secret_id.lower())
        small = own_names(backend, kind, secret_id, team)
        holding = [
            source.title
            for source, names in held
            if one.name in names or (source.small_letters and not names.isdisjoint(small))
        ]
        if holding:
            yield Shadowing(one, tuple(holding))


def own_names(backend: SecretLookupMixin, kind: Kind, secret_id: str, team: str | None) -> set[str]:
    """Return the store's names of an id; for a *team*'s id, only those that are the team's own."""
    names = set(backend.plan(kind, secret_id, team).names)
    return names - set(backend.plan(kind, secret_id).names) if team else names
