"""What an operator does with a store besides listing it: read, write and delete an id, and find out who is asking.

Each function returns data and prints nothing. The data holds no secret value unless the function says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

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
from airflow_providers_secrets.lookup.answers import answers_of
from airflow_providers_secrets.lookup.connection_text import fields_of
from airflow_providers_secrets.stores.base import EXISTS, MALFORMED, Identity, Outcome, Store, StoreError, Written
from airflow_providers_secrets.stores.capabilities import Deletes, Identifies, Lists, Writes

if TYPE_CHECKING:
    from typing import Any

    from airflow_providers_secrets.backends.mixin import SecretLookupMixin
    from airflow_providers_secrets.lookup.plan import Kind, LookupPlan


class AlreadyExists(LookupFailed, FileExistsError):
    """A write that should create a name found that it exists."""


def store_capabilities(backend: SecretLookupMixin) -> dict[str, bool]:
    """Return which of list, write, delete and identify the backend's store supports."""
    store = store_of(backend.config)
    protocols = {"list": Lists, "write": Writes, "delete": Deletes, "identify": Identifies}
    return {act: isinstance(store, protocol) for act, protocol in protocols.items()}


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
    return asked_plan(backend, kind, secret_id, team).names[0]


def asked_plan(backend: SecretLookupMixin, kind: Kind, secret_id: str, team: str | None = None) -> LookupPlan:
    """Return what a lookup asks for; there is at least one name.

    :raises ConfigurationError: if no lookup would ask for *secret_id*, saying why.
    """
    plan = backend.plan(kind, secret_id, team)
    if not plan.names:
        raise ConfigurationError(f"{backend.store} is not asked for {quoted(secret_id)} ({kind}): {plan.reason}.")
    return plan


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
    stored, then = backend.merged(stored, held)
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
