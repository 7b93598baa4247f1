"""One lookup, top to bottom: id → plan → answers → decode → what Airflow gets."""

from __future__ import annotations

import logging
import sys
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

    :param for_many: also load what costs more than it saves a single child, which may look nothing up.
    :raises ConfigurationError: if the shared cache cannot be used and the user must fix it.
    :raises MissingDependencyError: if an SDK is not installed.
    """
    if config.shared_cache:
        from airflow_providers_secrets.lookup import shared_cache

        shared_cache.load_client(config)
    # The first lookup of a connection needs it.
    from airflow_providers_secrets.lookup import decoding  # noqa: F401

    if "asyncio" in sys.modules:  # or no child is likely to await one
        from airflow_providers_secrets.lookup import awaiting  # noqa: F401

    loaded_store(config)
    prepare_for_children(config)
    if for_many:
        prepare_store_for_children(config)


def resolve(backend: SecretLookupMixin, kind: Kind, secret_id: str, team_name: str | None) -> str | None:
    """Return the text that Airflow parses, or ``None`` if the store proves that there is none.

    :raises LookupFailed: if there is no answer; Airflow then asks its next source.
    """
    plan: LookupPlan | None = None
    failure: SecretsError
    try:
        try:
            plan = backend.plans[kind, secret_id, team_name]
        except (KeyError, TypeError):  # not seen yet, or not even hashable
            plan = _planned(backend, kind, secret_id, team_name)
        return _answered(backend, kind, plan)
    except SecretsError as error:
        failure = error
    except Exception as error:  # noqa: BLE001  # nothing else may leave: Airflow would ask a weaker source
        raise_interruption(error)
        failure = _unexpected(backend, plan.names[0] if plan and plan.names else secret_id, error)
    # For each store: in a chain, one that is down must not hide why another one fails.
    warn((type(failure), kind, backend.config.fingerprint), "%s lookup failed: %s", kind.capitalize(), failure)
    # Raised from here, without the frames below: error trackers may send their local variables.
    raise _as_policy_says(backend, failure.with_traceback(None)) from None


def from_memory(
    backend: SecretLookupMixin, kind: Kind, secret_id: str, team_name: str | None
) -> tuple[str | None] | None:
    """Return what :func:`resolve` would return if this process's memory alone has the answer, else ``None``.

    Asks nothing, imports nothing and waits for nothing. Whatever would raise or warn is left to :func:`resolve`.
    """
    try:
        plan = backend.plans[kind, secret_id, team_name]
    except (KeyError, TypeError):
        return None
    return answers_of(backend.config).decoded_in_memory(kind, plan.names)


def _answered(backend: SecretLookupMixin, kind: Kind, plan: LookupPlan) -> str | None:
    """Return the text of the first candidate that the store has, as Airflow parses it.

    During an outage, a name that was absent before it is passed over, so that the last known value of a later one can
    be served. A new answer of the store for a later one is no such value: the store is up, and the first name may exist
    by now.
    """
    # For a single name, read() computes the deadline, and only if memory has no answer.
    deadline = answers_of(backend.config).deadline() if len(plan.steps) > 1 else None
    passed_over: LookupFailed | None = None
    since = 0.0
    for name, prefix in plan.steps:
        try:
            entry = answers_of(backend.config).read(name, prefix, deadline)
        except LookupFailed as error:
            if error.store_has_spoken or not answers_of(backend.config).was_absent(name):
                raise
            passed_over, since = error.with_traceback(None), cache.clock()
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


def _planned(backend: SecretLookupMixin, kind: Kind, secret_id: str, team_name: str | None) -> LookupPlan:
    """Plan a lookup and cache the plan; log what the caller should know of it."""
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
    if plan.names:
        backend.warn_about(plan, kind, secret_id, team_name)
    if len(backend.plans) >= MAX_CACHED_PLANS:
        backend.plans.clear()
    backend.plans[kind, secret_id, team_name] = plan
    return plan


def _decoded(  # noqa: PLR0913, PLR0917  # all of them describe one step
    backend: SecretLookupMixin, kind: Kind, name: str, prefix: str | None, deadline: float | None, entry: Entry
) -> str | None:
    """Decode an entry once each time it is fetched; return ``None`` if it has disappeared from the store since.

    :raises InvalidSecret: naming the reason, not the value.
    """
    answers = answers_of(backend.config)
    reason = _reason_against(backend, kind, entry)
    if reason and answers.note_unusable(entry):
        # What another process left was found in the first half of the lookup's time: the second half remains.
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
    """Decode *entry*, or return why that is impossible."""
    assert entry.text is not None
    try:
        entry.decoded[kind] = backend.decode(kind, entry.text)
    except Unusable as error:
        return str(error)
    return None


def _unexpected(backend: SecretLookupMixin, name: str, error: Exception) -> SecretsError:
    """Make the error for what no table foresees, without its text, which may hold anything."""
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
