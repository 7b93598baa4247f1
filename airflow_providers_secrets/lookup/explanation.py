"""One lookup explained, through a store or a chain: what is asked for, and what each source holds.

Each function returns data and prints nothing. The data holds no secret value.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_providers_secrets.errors import LookupFailed, SecretsError, Unusable
from airflow_providers_secrets.lookup.answers import answers_of
from airflow_providers_secrets.lookup.connection_text import fields_of
from airflow_providers_secrets.lookup.inventory import why_unusable
from airflow_providers_secrets.lookup.operations import store_capabilities
from airflow_providers_secrets.lookup.outcomes import ERRORS, policy_option
from airflow_providers_secrets.stores.base import Outcome

if TYPE_CHECKING:
    from typing import Any

    from airflow_providers_secrets.backends._members import Member
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin
    from airflow_providers_secrets.lookup.plan import Kind
    from airflow_providers_secrets.lookup.sources import Source

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
    return known[1] if known and why_unusable(backend, kind, known[0]) is None else None


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

    def made(role: str, outcome: str, reason: str | None = None, **more: Any) -> MemberAnswer:
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
