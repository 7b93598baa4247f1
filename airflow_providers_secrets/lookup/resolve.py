"""One lookup, top to bottom: id → plan → answers → decode → what Airflow is told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_providers_secrets.errors import (
    InvalidSecret,
    LookupFailed,
    SecretsError,
    StoreUnavailable,
    Unusable,
    quoted,
    raise_interruption,
)
from airflow_providers_secrets.lookup import cache
from airflow_providers_secrets.lookup.access import loaded_store, prepare_store_for_children, store_of
from airflow_providers_secrets.lookup.answers import answers_of, prepare_for_children
from airflow_providers_secrets.lookup.config import StoreConfig
from airflow_providers_secrets.lookup.deadline import roomy
from airflow_providers_secrets.lookup.forks import no_fork
from airflow_providers_secrets.lookup.notices import warn
from airflow_providers_secrets.lookup.outcomes import advice, policy_option
from airflow_providers_secrets.lookup.plan import MAX_CACHED_PLANS, Kind, LookupPlan
from airflow_providers_secrets.stores.base import Outcome

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin
    from airflow_providers_secrets.lookup.cache import Entry

log = logging.getLogger(__name__)


@roomy
def prepare(config: StoreConfig, *, for_many: bool = True) -> None:
    """Load whatever a lookup of *config* will need: modules and data files, no socket, thread, login or network.

    :param for_many: also what costs more than one child would save that looks nothing up.
    :raises ConfigurationError: where the shared cache cannot be used and the user must fix it.
    :raises MissingDependencyError: where an SDK is not installed.
    """
    if config.shared_cache:
        from airflow_providers_secrets.lookup import shared_cache

        shared_cache.load_client(config)
    # Connections need it, at their first.
    from airflow_providers_secrets.lookup import decoding  # noqa: F401

    loaded_store(config)
    prepare_for_children(config)
    if for_many:
        prepare_store_for_children(config)


def resolve(backend: SecretLookupMixin, kind: Kind, secret_id: str, team_name: str | None) -> str | None:
    """Return the text that Airflow parses, or ``None`` where the store proves that there is none.

    :raises LookupFailed: where there is no answer; Airflow then asks its next source.
    """
    plan: LookupPlan | None = None
    failure: SecretsError
    try:
        try:
            plan = backend.plans[kind, secret_id, team_name]
        except (KeyError, TypeError):  # not seen yet, or no id at all
            plan = _planned(backend, kind, secret_id, team_name)
        return _answered(backend, kind, plan)
    except SecretsError as error:
        failure = error
    except Exception as error:  # noqa: BLE001  # nothing else may leave: Airflow would ask a weaker source
        raise_interruption(error)
        failure = _unexpected(backend, plan.names[0] if plan and plan.names else secret_id, error)
    # Of each store: in a chain, one that is down must not hide why another one fails.
    warn((type(failure), kind, backend.config.fingerprint), "%s lookup failed: %s", kind.capitalize(), failure)
    # From here, without the frames below: whoever reports the error may send their local variables.
    raise _as_policy_says(backend, failure.with_traceback(None)) from None


def from_memory(
    backend: SecretLookupMixin, kind: Kind, secret_id: str, team_name: str | None
) -> tuple[str | None] | None:
    """Return what :func:`resolve` would return where this process's memory alone tells, else ``None``.

    Asks nothing, imports nothing and waits for nothing. What would raise or warn is left to :func:`resolve`.
    """
    try:
        plan = backend.plans[kind, secret_id, team_name]
    except (KeyError, TypeError):
        return None
    return answers_of(backend.config).decoded_in_memory(kind, plan.names)


def _answered(backend: SecretLookupMixin, kind: Kind, plan: LookupPlan) -> str | None:
    """Return the first candidate's text that the store has, as Airflow parses it.

    In an outage, a name that was absent before it is passed over, for the sake of the last known value of a later one.
    What the store itself says of a later one meanwhile is no such value: it is up, and the first may be there by now.
    """
    # Of one name, the deadline is left to be made where memory does not tell.
    deadline = answers_of(backend.config).deadline() if len(plan.steps) > 1 else None
    passed_over: LookupFailed | None = None
    since = 0.0
    for name, prefix in plan.steps:
        try:
            entry = answers_of(backend.config).read(name, prefix, deadline)
        except LookupFailed as error:
            passed_over, since = _passed_over(backend, name, error), cache.clock()
            continue
        if passed_over is not None and entry.at >= since:
            break
        if entry.text is not None:
            decoded: str | None = entry.decoded.get(kind)
            if decoded is None:
                decoded = _decoded(backend, kind, name, prefix, deadline, entry)
            if decoded is not None:
                return decoded
    if passed_over is not None:
        raise passed_over
    return None


def _passed_over(backend: SecretLookupMixin, name: str, failure: LookupFailed) -> LookupFailed:
    """Return *failure* where it is an outage's, and *name* was absent before it; else raise it."""
    if not failure.store_has_spoken and answers_of(backend.config).was_absent(name):
        return failure.with_traceback(None)
    raise failure


def _planned(backend: SecretLookupMixin, kind: Kind, secret_id: str, team_name: str | None) -> LookupPlan:
    """Plan a lookup and keep the plan; say why nothing is looked up where nothing is."""
    plan = backend.plan(kind, secret_id, team_name)
    if plan.refused:
        warn(
            ("refused", kind, plan.reason),
            "%s: the id %s (%s) is not looked up: %s.",
            backend.store,
            quoted(secret_id),
            kind,
            plan.reason,
        )
        return plan
    if plan.reason:
        log.debug("%s: %s (%s) is not looked up: %s.", backend.store, quoted(secret_id), kind, plan.reason)
    if len(backend.plans) >= MAX_CACHED_PLANS:
        backend.plans.clear()
    backend.plans[kind, secret_id, team_name] = plan
    return plan


def _decoded(  # noqa: PLR0913, PLR0917  # of one step
    backend: SecretLookupMixin, kind: Kind, name: str, prefix: str | None, deadline: float | None, entry: Entry
) -> str | None:
    """Decode once for each time that an entry was fetched; ``None`` where it has gone from the store since.

    :raises InvalidSecret: naming the reason, not the value.
    """
    answers = answers_of(backend.config)
    reason = _reason_against(backend, kind, entry)
    if reason and answers.note_unusable(entry):
        # What another process left was found in the first half of the lookup's time.
        entry = answers.read(name, prefix, deadline or answers.deadline() - backend.config.timeout / 2)
        if entry.text is None:
            return None
        if reason := _reason_against(backend, kind, entry):
            answers.note_unusable(entry)
    if reason:
        cure = advice((reason,), Outcome.INVALID, store_of(backend.config).advice)
        failure = InvalidSecret(backend.store, name, reason, cure)
        answers.counts.failed(failure)
        raise failure
    decoded: str = entry.decoded[kind]
    return decoded


def _reason_against(backend: SecretLookupMixin, kind: Kind, entry: Entry) -> str | None:
    """Decode *entry*, or say why that cannot be done."""
    assert entry.text is not None
    try:
        entry.decoded[kind] = backend.decode(kind, entry.text)
    except Unusable as error:
        return str(error)
    return None


def _unexpected(backend: SecretLookupMixin, name: str, error: Exception) -> SecretsError:
    """Make the error that stands for what no table foresaw. Its own words may hold anything, and are left out."""
    cure = "Report this with the versions that 'airflow-secrets check' prints."
    return StoreUnavailable(backend.store, name, f"unexpected {type(error).__name__}", cure)


def _as_policy_says(backend: SecretLookupMixin, failure: SecretsError) -> Exception:
    """Return the error that lets Airflow ask its next source, or the one that forbids it."""
    option = policy_option(failure)
    if option is None or backend.options[option] == "next":
        return failure
    with no_fork():
        from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied

    return AirflowSecretsBackendAccessDenied(str(failure))
