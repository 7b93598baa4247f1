"""What an operator does with a store: list, read, write, delete, find out who is asking, and explain one lookup.

Each function returns data and prints nothing. The data holds no secret value unless the function says so.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_providers_secrets.errors import (
    ConfigurationError,
    LookupFailed,
    SecretNotFound,
    SecretRevoked,
    SecretsError,
    Unusable,
    quoted,
)
from airflow_providers_secrets.lookup.access import MAX_VALUE_LENGTH, store_of
from airflow_providers_secrets.lookup.answers import Answers, answers_of
from airflow_providers_secrets.lookup.connection_text import fields_of
from airflow_providers_secrets.lookup.outcomes import ERRORS, policy_option
from airflow_providers_secrets.lookup.plan import TEAM_SEP, Kind, LookupPlan, team_and_id
from airflow_providers_secrets.stores.base import (
    EXISTS,
    MALFORMED,
    Identity,
    ListedSecret,
    Outcome,
    Store,
    StoreError,
    Written,
)
from airflow_providers_secrets.stores.capabilities import Deletes, Identifies, Lists, Writes

if TYPE_CHECKING:
    from typing import Any

    from airflow_providers_secrets.backends._members import Member
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin
    from airflow_providers_secrets.lookup.sources import Source

MakePlan = Callable[[Kind, str, "str | None"], LookupPlan]

BATCH_SECONDS: Final = 0.2
"""Seconds for which one step of a listing collects names; a page that takes longer ends the step."""


class AlreadyExists(LookupFailed, FileExistsError):
    """A write that should create a name found that it exists."""


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


def store_capabilities(backend: SecretLookupMixin) -> dict[str, bool]:
    """Return which of list, write, delete and identify the backend's store supports."""
    store = store_of(backend.config)
    protocols = {"list": Lists, "write": Writes, "delete": Deletes, "identify": Identifies}
    return {act: isinstance(store, protocol) for act, protocol in protocols.items()}


def listed_ids(backend: SecretLookupMixin, kind: Kind, within: float | None = None) -> Iterator[ListedId]:
    """Yield every id of *kind* that the store holds under the backend's prefixes, as its pages arrive.

    Each step has the backend's ``timeout``; the listing as a whole has none. If a page fails and another attempt may
    help, the listing restarts and yields only what it has not yielded yet.

    :param within: seconds for the whole listing; what is listed by then is yielded.
    :raises ConfigurationError: if the kind is off or the store cannot list.
    :raises LookupFailed: if a page cannot be obtained.
    """
    prefixes = backend.rule(kind).prefixes
    if prefixes is None:
        raise ConfigurationError(f"Lookups of {kind} are off: {backend.prefix_option.format(kind=kind)} is null.")
    if not isinstance(store_of(backend.config), Lists):
        raise ConfigurationError(f"{backend.store} cannot list.")
    seen: set[str] = set()
    until = None if within is None else time.monotonic() + within
    for prefix in dict.fromkeys(prefixes):
        for secret in stream(answers_of(backend.config), backend.prefix(prefix), until):
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
                None if secret.text is None else _unusable(backend, kind, secret.text),
            )


def _unusable(backend: SecretLookupMixin, kind: Kind, stored: str) -> str | None:
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
        try:
            batch, ended = answers.access.call(prefix, within, step, "list")
        except SecretNotFound:
            return
        for secret in batch:
            if secret.name not in seen:
                seen.add(secret.name)
                starts = 1
                yield secret
        if starts > answers.config.max_attempts and not ended:
            raise answers.access.failure(prefix, None, f"the listing broke off {starts - 1} times", act="list")


def read(backend: SecretLookupMixin, kind: Kind, secret_id: str, team: str | None = None) -> str | None:
    """Return what Airflow would get. This is a secret value.

    :param backend: may also be one of another package, whose methods may not know teams.
    :raises LookupFailed: as the lookup does.
    """
    if kind == "config":
        return backend.get_config(secret_id)
    get = backend.get_conn_value if kind == "connections" else backend.get_variable
    return get(secret_id) if team is None else get(secret_id, team)


def target_name(backend: SecretLookupMixin, kind: Kind, secret_id: str, team: str | None = None) -> str:
    """Return the one name under which *secret_id* is to be written: the first that a lookup asks for.

    :raises ConfigurationError: if no lookup would ask for it.
    """
    plan = backend.plan(kind, secret_id, team)
    if not plan.names:
        raise ConfigurationError(f"{backend.store} is not asked for {quoted(secret_id)} ({kind}): {plan.reason}.")
    return plan.names[0]


def exists(backend: SecretLookupMixin, name: str) -> bool:
    """Return whether the store has exactly *name*, whatever it holds; a lookup would try other names, and decode.

    :param name: as :func:`target_name` returns it.
    :raises LookupFailed: if the store gives no answer.
    """
    try:
        _held(backend, name)
    except SecretNotFound:
        return False
    return True


def _held(backend: SecretLookupMixin, name: str) -> str:
    """Return the text that the store has under exactly *name*; empty if there is something that is not text."""

    def exchange(store: Store, client: Any) -> str:
        try:
            return store.fetch(client, name).text
        except StoreError as error:
            # A value that is not text exists all the same; a malformed answer proves nothing.
            invalid = any(store.outcomes.get(code) is Outcome.INVALID for code in error.codes)
            if MALFORMED in error.codes or not invalid:
                raise
        return ""

    return answers_of(backend.config).access.call(name, backend.config.timeout, exchange)


def store_for_write(backend: SecretLookupMixin, settings: Iterable[str]) -> Writes:
    """Return the backend's store, which can be written to with *settings*.

    :raises ConfigurationError: if it cannot be written to, or if a setting is unknown.
    """
    store = store_of(backend.config)
    if not isinstance(store, Writes):
        raise ConfigurationError(f"{backend.store} cannot be written to.")
    if unknown := set(settings) - set(store.write_settings):
        known = ", ".join(sorted(store.write_settings)) or "none"
        raise ConfigurationError(f"{backend.store}: unknown setting {quoted(min(unknown))}; known: {known}.")
    return store


def encoded(backend: SecretLookupMixin, kind: Kind, name: str, text: str, *, only_if_absent: bool) -> str:
    """Return what to write under *name* so that a lookup then reads *text*.

    :raises Unusable: if Airflow could not parse *text*, or would read something else together with what the name keeps;
        or if it is longer than a lookup accepts.
    :raises LookupFailed: if the store does not say what the name holds.
    """
    stored = backend.encode(kind, text)
    too_long = f"it is longer than {MAX_VALUE_LENGTH} characters"  # not every store's own limit is below that
    if len(stored) > MAX_VALUE_LENGTH:
        raise Unusable(too_long)
    meant = backend.decode(kind, stored)
    if kind != "connections" or not backend.merges or only_if_absent:
        return stored
    try:
        held = _held(backend, name)
    except (SecretNotFound, SecretRevoked):
        return stored
    stored, then = backend.over(stored, held)
    try:
        spoilt = None if fields_of(backend.decode(kind, then)) == fields_of(meant) else "a lookup would read them, too"
    except Unusable as error:
        spoilt = str(error)
    if len(then) > MAX_VALUE_LENGTH:
        spoilt = too_long
    if spoilt:
        raise Unusable(
            f"the secret's other fields are kept, and make it unusable ({spoilt}): remove them first, or write a URI"
        )
    return stored


def write(  # noqa: PLR0913  # what a write is made of
    backend: SecretLookupMixin,
    kind: Kind,
    secret_id: str,
    text: str,
    *,
    team: str | None = None,
    only_if_absent: bool = False,
    settings: Mapping[str, str] | None = None,
) -> Written:
    """Write *text*, which Airflow would parse, by the store's own means; whatever else the name has stays.

    :param settings: the store's own settings of a write (:attr:`~.stores.capabilities.Writes.write_settings`).
    :raises AlreadyExists: if *only_if_absent* is set and the name exists.
    :raises ConfigurationError: if no lookup would ask for the name, the store cannot be written to, or a setting is
        unknown.
    :raises Unusable: if Airflow could not parse *text*, or not together with what the name keeps.
    :raises LookupFailed: if the store does not accept it.
    """
    failure: Exception
    try:
        return _written(backend, kind, secret_id, text, team, dict(settings or {}), only_if_absent=only_if_absent)
    except (SecretsError, Unusable) as error:
        failure = error.with_traceback(None)
    del text  # error trackers may send the local variables of the error's frames
    raise failure


def _written(  # noqa: PLR0913, PLR0917  # what a write is made of
    backend: SecretLookupMixin,
    kind: Kind,
    secret_id: str,
    text: str,
    team: str | None,
    settings: dict[str, str],
    *,
    only_if_absent: bool,
) -> Written:
    name = target_name(backend, kind, secret_id, team)
    store = store_for_write(backend, settings)
    stored = encoded(backend, kind, name, text, only_if_absent=only_if_absent)

    def exchange(_: Store, client: Any) -> Written | str:
        try:
            return store.write(client, name, stored, only_if_absent=only_if_absent, settings=settings)
        except StoreError as error:
            if EXISTS not in error.codes:
                raise
            return EXISTS

    try:
        written = answers_of(backend.config).access.call(name, backend.config.timeout, exchange, "write")
    finally:  # also if the write was made but its answer was lost
        _forget(backend, kind, secret_id, team)
    if isinstance(written, str):
        raise AlreadyExists(backend.store, name, EXISTS, "Allow it to be replaced, or use another id.", "write")
    return written


def delete(backend: SecretLookupMixin, kind: Kind, secret_id: str, team: str | None = None) -> str:
    """Delete an id, recoverably if the store can, and return the name that was deleted.

    :raises SecretNotFound: if there is none.
    :raises LookupFailed: if the store does not delete it.
    """
    name = target_name(backend, kind, secret_id, team)
    store = store_of(backend.config)
    if not isinstance(store, Deletes):
        raise ConfigurationError(f"{backend.store} cannot delete.")

    def exchange(_: Store, client: Any) -> bool:
        store.delete(client, name)
        return True

    try:
        answers_of(backend.config).access.call(name, backend.config.timeout, exchange, "delete")
    finally:
        _forget(backend, kind, secret_id, team)
    return name


def _forget(backend: SecretLookupMixin, kind: Kind, secret_id: str, team: str | None) -> None:
    """Make the next lookup ask the store for what has changed there."""
    name, prefix = backend.plan(kind, secret_id, team).steps[0]
    answers_of(backend.config).forget(name, prefix)


def identify(backend: SecretLookupMixin) -> Identity | None:
    """Return who is asking, according to the store; ``None`` if the store cannot say.

    :raises LookupFailed: if it gives no answer.
    """
    store = store_of(backend.config)
    if not isinstance(store, Identifies):
        return None
    access = answers_of(backend.config).access
    return access.call("who is asking", backend.config.timeout, lambda _, client: store.identify(client), "identify")


# One lookup, explained.

MISCONFIGURED: Final = Outcome.MISCONFIGURED.value
"""The outcome if the backend's configuration is wrong."""


@dataclass(frozen=True)
class NameAnswer:
    """What is known about one candidate name, and what the store says about it.

    :param memory: the state in this process's cache.
    :param shared: the state in the shared cache; ``None`` if there is no shared cache.
    :param outcome: one of :class:`~airflow_providers_secrets.stores.base.Outcome`'s values, or ``"not asked"``.
    :param code: the store's own code of a failure.
    :param message: the whole message of a failure.
    :param connected: whether the time includes loading the SDK, connecting and the login.
    :param cached_for: seconds for which Airflow still uses the shared cache's value although the store failed; ``None``
        if it has none.
    """

    name: str
    memory: str
    shared: str | None
    outcome: str
    code: str | None = None
    message: str | None = None
    milliseconds: float | None = None
    connected: bool = False
    cached_for: float | None = None


@dataclass(frozen=True)
class Elsewhere:
    """What another of Airflow's sources holds for the same id.

    :param holds: ``None`` if it could not be asked.
    :param problem: why it could not be asked, or why Airflow cannot use what it holds.
    """

    source: str
    holds: bool | None
    problem: str | None = None

    @property
    def answers(self) -> bool:
        """Whether Airflow would take the secret from it."""
        return bool(self.holds) and self.problem is None


@dataclass(frozen=True)
class Explanation:
    """The whole path of one lookup.

    :param reason: why no name is asked for, or ``None``.
    :param usable: whether Airflow can parse what the store holds; ``None`` if it holds nothing or gave no answer.
    :param unusable: why not.
    :param form: what it parses as: ``"URI"``, ``"JSON"`` or ``"text"``.
    :param fields: the connection's fields that are present, without values.
    :param winner: the source whose answer Airflow takes; ``None`` if none has one.
    :param shadowed: the sources that also hold the id, but are never asked.
    :param final: whether the failure stops Airflow from asking further sources (``on_denied`` and the like).
    :param lists: whether the store can list what it holds.
    :param writes: whether it can be written to.
    """

    kind: Kind
    secret_id: str
    team: str | None
    store: str
    enabled: bool
    pattern: str | None
    exclude_pattern: str | None
    reason: str | None
    names: tuple[NameAnswer, ...]
    usable: bool | None
    unusable: str | None
    form: str | None
    fields: tuple[str, ...]
    elsewhere: tuple[Elsewhere, ...]
    winner: str | None
    shadowed: tuple[str, ...]
    final: bool = False
    lists: bool = True
    writes: bool = True

    @property
    def failed(self) -> NameAnswer | None:
        """The name for which the store gave no answer, if there is one."""
        return next((answer for answer in self.names if answer.message), None)


def explain(
    backend: SecretLookupMixin, kind: Kind, secret_id: str, team: str | None = None, others: Sequence[Source] = ()
) -> Explanation:
    """Follow one lookup step by step. It asks the store itself, past every cache, as often as the lookup would.

    :param others: the sources that Airflow asks after the backend, in their order.
    """
    rule = backend.rule(kind)
    plan = backend.plan(kind, secret_id, team)
    answers = answers_of(backend.config)
    names: list[NameAnswer] = []
    text: str | None = None
    failure: SecretsError | None = None
    for name in plan.names:
        memory, shared = answers.cached(name)
        if text is not None or failure is not None:
            names.append(NameAnswer(name, memory, shared, "not asked"))
            continue
        connected = not answers.access.clients
        started = time.monotonic()
        code = message = cached_for = None
        try:
            text = answers.access.ask(name, backend.config.timeout)
            outcome = "found" if text is not None else "not found"
        except SecretsError as error:
            failure = error
            outcome, code, message = outcome_of(error), getattr(error, "code", None), str(error)
            cached_for = _cached_for(backend, kind, name, error)
        milliseconds = (time.monotonic() - started) * 1000
        names.append(NameAnswer(name, memory, shared, outcome, code, message, milliseconds, connected, cached_for))
    form, fields, unusable = _parsed(backend, kind, text) if text is not None else (None, (), None)
    elsewhere = tuple(_asked(source, kind, secret_id, team) for source in others)
    is_cached = any(name.cached_for for name in names)
    stops = _stops(backend, failure, unusable) and not is_cached
    sources = [
        (backend.store, is_cached or (text is not None and unusable is None)),
        *((one.source, one.answers) for one in elsewhere),
    ]
    holding = [source for source, holds in sources if holds]
    capabilities = store_capabilities(backend)
    return Explanation(
        kind=kind,
        secret_id=secret_id,
        team=team,
        store=backend.store,
        enabled=rule.prefixes is not None,
        pattern=rule.pattern.pattern if rule.pattern else None,
        exclude_pattern=rule.exclude.pattern if rule.exclude else None,
        reason=plan.reason,
        names=tuple(names),
        usable=None if text is None else unusable is None,
        unusable=unusable,
        form=form,
        fields=fields,
        elsewhere=elsewhere,
        winner=None if stops or not holding else holding[0],
        shadowed=() if stops else tuple(holding[1:]),
        final=stops,
        lists=capabilities["list"],
        writes=capabilities["write"],
    )


def _cached_for(backend: SecretLookupMixin, kind: Kind, name: str, error: SecretsError) -> float | None:
    known = answers_of(backend.config).shared_meanwhile(name, error) if isinstance(error, LookupFailed) else None
    return known[1] if known and _unusable(backend, kind, known[0]) is None else None


def outcome_of(error: SecretsError) -> str:
    """Return the word for an error's class: denied, unavailable, revoked, invalid, misconfigured."""
    return next((outcome.value for outcome, kind in ERRORS.items() if type(error) is kind), MISCONFIGURED)


def _parsed(backend: SecretLookupMixin, kind: Kind, stored: str) -> tuple[str | None, tuple[str, ...], str | None]:
    try:
        text = backend.decode(kind, stored)
        if kind != "connections":
            return "text", (), None
        return ("JSON" if text.lstrip().startswith("{") else "URI"), tuple(fields_of(text)), None
    except Unusable as error:
        return None, (), str(error)


def not_asked(explained: Explanation | ChainExplanation) -> tuple[str, ...]:
    """Return the sources that could not be asked, and whose answer Airflow would prefer to the one that is known."""
    titles = [one.source for one in explained.elsewhere]
    if explained.winner is None:
        before = explained.elsewhere
    else:
        before = explained.elsewhere[: titles.index(explained.winner) if explained.winner in titles else 0]
    return tuple(one.source for one in before if one.holds is None)


def _asked(source: Source, kind: Kind, secret_id: str, team: str | None) -> Elsewhere:
    try:
        return Elsewhere(source.title, source.text(kind, secret_id, team) is not None)
    except Unusable as error:
        return Elsewhere(source.title, holds=True, problem=str(error))
    except SecretsError as error:
        return Elsewhere(source.title, None, str(error))


def _stops(backend: SecretLookupMixin, failure: SecretsError | None, unusable: str | None) -> bool:
    """Return whether Airflow asks no further source."""
    if unusable is not None:
        return bool(backend.options["on_invalid"] == "fail")
    option = policy_option(failure) if failure else None
    return option is not None and backend.options[option] == "fail"


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
    secret_id = listed.secret_id
    if team and secret_id.startswith(f"{team}{TEAM_SEP}"):
        secret_id = secret_id.removeprefix(f"{team}{TEAM_SEP}")
    # Another team's secret must not be suggested.
    return secret_id if listed.name in plan(listed.kind, secret_id, team).names else None


# One lookup through a chain, explained.

ANSWERS: Final = "answers"
SHADOWED: Final = "shadowed"
HAS_NONE: Final = "has none"
SKIPPED: Final = "skipped"
PASSED_OVER: Final = "passed over"
ENDS: Final = "ends the lookup"
NOT_ASKED: Final = "not asked"


@dataclass(frozen=True)
class MemberAnswer:
    """What one member of a chain does in the lookup of an id.

    :param role: what it does in the chain: one of the words above.
    :param reason: why it is skipped or not asked.
    :param outcome: as :class:`NameAnswer` has it; ``"not asked"`` also for a member that is skipped.
    :param message: the whole message of a failure.
    :param way: the lookup's path through the member, if it is one of this package and is asked.
    """

    position: int
    name: str
    optional: bool
    role: str
    reason: str | None
    outcome: str
    message: str | None = None
    way: Explanation | None = None

    @property
    def title(self) -> str:
        """The member as messages name it."""
        return f"member {self.position} ({self.name})"


@dataclass(frozen=True)
class ChainExplanation:
    """The whole path of one lookup through a chain.

    Members after the one that answers are asked all the same, to see whether they are shadowed.

    :param winner: the member or other source whose answer Airflow takes; ``None`` if none has one.
    :param shadowed: the members and sources that also hold the id, but are never asked.
    :param final: whether the failure stops Airflow from asking further sources.
    """

    kind: Kind
    secret_id: str
    team: str | None
    members: tuple[MemberAnswer, ...]
    elsewhere: tuple[Elsewhere, ...]
    winner: str | None
    shadowed: tuple[str, ...]
    final: bool

    @property
    def failed(self) -> MemberAnswer | None:
        """The member whose failure ends the lookup, if there is one."""
        return next((member for member in self.members if member.role == ENDS), None)


def explain_chain(
    members: Sequence[Member], kind: Kind, secret_id: str, team: str | None = None, others: Sequence[Source] = ()
) -> ChainExplanation:
    """Follow one lookup through the members of a chain; see :func:`explain`.

    :param others: the sources that Airflow asks after the chain, in their order.
    """
    answers: list[MemberAnswer] = []
    decided: MemberAnswer | None = None
    final = False
    for member in members:
        answer, stops = _member_answer(member, kind, secret_id, team, decided)
        answers.append(answer)
        if decided is None and answer.role in (ANSWERS, ENDS):
            decided, final = answer, stops
    elsewhere = tuple(_asked(source, kind, secret_id, team) for source in others)
    holding = [answer.title for answer in answers if answer.role in (ANSWERS, SHADOWED)]
    of_env = any(answer.name == "env" and answer.role in (ANSWERS, SHADOWED) for answer in answers)
    # What the member env holds is not reported a second time.
    holding += [one.source for one in elsewhere if one.answers and not (of_env and one.source == "environment")]
    return ChainExplanation(
        kind=kind,
        secret_id=secret_id,
        team=team,
        members=tuple(answers),
        elsewhere=elsewhere,
        winner=None if final or not holding else holding[0],
        shadowed=() if final else tuple(holding[1:]),
        final=final,
    )


def _member_answer(
    member: Member, kind: Kind, secret_id: str, team: str | None, decided: MemberAnswer | None
) -> tuple[MemberAnswer, bool]:
    """Return what *member* does in the lookup of an id, and whether its failure is final.

    :param decided: the member before it that has answered or failed.
    """

    def made(role: str, outcome: str, **more: Any) -> MemberAnswer:
        reason = more.pop("reason", None)
        return MemberAnswer(member.position, member.name, member.optional, role, reason, outcome, **more)

    if reason := member.plan(kind, secret_id, team).reason:
        return made(SKIPPED, NOT_ASKED, reason=reason), False
    if decided is not None and decided.role == ENDS:
        return made(NOT_ASKED, NOT_ASKED, reason=f"{decided.title} failed"), False
    way: Explanation | None = None
    message: str | None = None
    is_cached = False
    if member.is_ours:
        way = explain(member.backend, kind, secret_id, team)
        outcome, final = "found" if way.usable else "not found", way.final
        if failed := way.failed:
            outcome, message = failed.outcome, failed.message
            is_cached = failed.cached_for is not None
        elif way.unusable:
            outcome, message = Outcome.INVALID.value, f"Airflow could not use it: {way.unusable}"
    else:
        outcome, message, final = _foreign_answer(member, kind, secret_id, team)
    if decided is not None:
        role = SHADOWED if outcome == "found" or is_cached else NOT_ASKED
        return made(role, outcome, reason=f"{decided.title} answers", message=message, way=way), False
    if message is None or is_cached:
        role = ANSWERS if outcome == "found" or is_cached else HAS_NONE
        return made(role, outcome, message=message, way=way), False
    role = PASSED_OVER if member.optional and not final else ENDS
    return made(role, outcome, message=message, way=way), final


def _foreign_answer(member: Member, kind: Kind, secret_id: str, team: str | None) -> tuple[str, str | None, bool]:
    """Ask a member of another package; return the outcome, the message of a failure, and whether that is final."""
    try:
        return ("not found" if member.lookups[kind](secret_id, team) is None else "found"), None, False
    except Exception as error:  # noqa: BLE001  # another package's class
        failure = member.failure(kind, secret_id, error)
    if isinstance(failure, SecretsError):
        return outcome_of(failure), str(failure), False
    return Outcome.DENIED.value, "It denies the lookup, and Airflow asks no other source.", True


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
