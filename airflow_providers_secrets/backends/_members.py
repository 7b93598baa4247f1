"""The members of a chain: what each one is asked for, and how its answers and failures are treated."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from airflow_providers_secrets.backends.mixin import SecretLookupMixin
from airflow_providers_secrets.errors import (
    AccessDenied,
    InvalidSecret,
    SecretsError,
    StoreUnavailable,
    Unusable,
    raise_interruption,
)
from airflow_providers_secrets.lookup.calls import LookUp, airflows_call, makes_objects, overrides, own_call
from airflow_providers_secrets.lookup.forks import no_fork
from airflow_providers_secrets.lookup.plan import MAX_ID_LENGTH, Kind, LookupPlan
from airflow_providers_secrets.options import CONNECTION_FIELDS

ALL_IDS: Final = re.compile("")
"""The pattern of a member that is asked for every id."""


AIRFLOWS_DENIAL: Final = "AirflowSecretsBackendAccessDenied"


class ForeignError(Exception):
    """Another package's backend failed. Its message may contain anything, so only the exception's class is kept.

    :param kind: the class of the exception that it raised.
    """

    def __init__(self, kind: type[Exception]) -> None:
        super().__init__(kind.__name__)
        self.kind = kind


class Member:
    """One backend of a chain.

    :param position: its place in the order, from 1.
    :param name: the name that the configuration gives it.
    :param backend: the backend itself.
    :param lookups: its lookup function for each kind that it looks up at all.
    :param patterns: for each kind, which ids it is asked for; ``None``: for none.
    :param optional: whether the next member is asked if this one fails.
    """

    __slots__ = ("backend", "lookups", "name", "optional", "patterns", "position", "title")

    def __init__(  # noqa: PLR0913  # one for each property of a member
        self,
        position: int,
        name: str,
        backend: Any,
        lookups: Mapping[Kind, LookUp],
        patterns: Mapping[Kind, re.Pattern[str] | None],
        *,
        optional: bool,
    ) -> None:
        self.position = position
        self.name = name
        self.backend = backend
        self.lookups = lookups
        self.patterns = patterns
        self.optional = optional
        self.title = f"member {position} ({name})"

    def __repr__(self) -> str:
        return f"<{self.title}>"

    @property
    def is_ours(self) -> bool:
        """Whether its backend is one of this package's stores, which logs its own failures."""
        return isinstance(self.backend, SecretLookupMixin)

    def plan(self, kind: Kind, secret_id: str, team_name: str | None = None) -> LookupPlan:
        """Return the names that it would be asked for, or why it is skipped. Sends no request.

        Members from other packages choose their own names, so their plan contains the id instead.
        """
        if reason := self.passed_over_for(kind, secret_id):
            return LookupPlan(reason=reason)
        if isinstance(self.backend, SecretLookupMixin):
            return self.backend.plan(kind, secret_id, team_name)
        if not isinstance(secret_id, str):
            return LookupPlan(reason="it is not a string", refused=True)
        return LookupPlan((secret_id,), (None,))

    def passed_over_for(self, kind: Kind, secret_id: str) -> str | None:
        """Return why the chain does not ask this member for an id, or ``None`` if it does."""
        reason = self.off_for(kind)
        pattern = self.patterns[kind]
        if reason is None and pattern is not None and pattern is not ALL_IDS and not matches(pattern, secret_id):
            reason = f"the id does not match its pattern {kind!r}"
        return reason

    def off_for(self, kind: Kind) -> str | None:
        """Return why the chain asks this member for no id of *kind* at all, or ``None`` if it asks for some."""
        if self.patterns[kind] is None:
            return f"its {kind!r} is null, so it is never asked for {kind}"
        if kind not in self.lookups:
            return f"this backend does not look up {kind}"
        return None

    def look_up(self, kind: Kind, secret_id: str, team_name: str | None = None) -> Any:
        """Return what this member alone has for an id, whether or not the chain asks it. This is a secret value.

        :raises Exception: as :meth:`failure` returns it.
        """
        if kind not in self.lookups:
            return None
        try:
            return self.lookups[kind](secret_id, team_name)
        except Exception as error:  # noqa: BLE001  # another package may raise anything
            failure = self.failure(kind, secret_id, error)
        # Without the member's frames, whose local variables may hold values.
        raise failure.with_traceback(None) from None

    def failure(self, kind: Kind, secret_id: str, error: Exception) -> Exception:
        """Return the error that leaves the chain for *error*: this package's own, or Airflow's denial, which is final.

        An exception from another package may contain anything, so only its class is kept.
        """
        if isinstance(error, SecretsError) or _airflows_denial(type(error)):
            return error
        raised = error.kind if isinstance(error, ForeignError) else type(error)
        store, code = f"Chain {self.title}", raised.__name__
        if denial := _airflows_denial(raised):
            cure = "That backend keeps Airflow from asking any other source."
            return denial(str(AccessDenied(store, secret_id, code, cure)))
        cure = f"Fix what that backend reports, or set 'optional' of member {self.position} to true to pass it over."
        if issubclass(raised, NotImplementedError):
            cure = f"Set {kind!r} of member {self.position} to null."
        return StoreUnavailable(store, secret_id, code, cure)


def matches(pattern: re.Pattern[str], secret_id: object) -> bool:
    """Tell whether *pattern* matches *secret_id*. The pattern is not tried on ids that every store refuses."""
    return isinstance(secret_id, str) and len(secret_id) <= MAX_ID_LENGTH and pattern.match(secret_id) is not None


def own_lookups(backend: SecretLookupMixin) -> dict[Kind, LookUp]:
    """Return the lookup functions of a backend of this package."""
    lookups: dict[Kind, LookUp] = {
        "connections": own_call(backend, SecretLookupMixin, "get_conn_value", "conn_id"),
        "variables": own_call(backend, SecretLookupMixin, "get_variable", "key"),
        "config": lambda key, _: backend.get_config(key),
    }
    if makes_objects(backend):
        lookups["connections"] = _by_object(backend)
    if type(backend).get_config is SecretLookupMixin.get_config:
        # get_config would warn about an absent value that the next member may have.
        lookups["config"] = lambda key, _: backend._lookup("config", key, None)  # noqa: SLF001  # same package
    return lookups


def foreign_lookups(backend: Any, title: str) -> dict[Kind, LookUp]:
    """Return the lookup functions of a backend of another package: the methods that Airflow itself would call.

    A kind is left out if the class only inherits Airflow's base method, which looks nothing up.
    """
    lookups: dict[Kind, LookUp] = {}
    if makes_objects(backend) or (
        overrides(backend, "get_conn_uri") and not overrides(backend, "get_conn_value")  # Airflow 2
    ):
        lookups["connections"] = _without_words(_by_object(backend))
    elif overrides(backend, "get_conn_value"):
        value_of = _without_words(airflows_call(backend.get_conn_value, "conn_id"))
        lookups["connections"] = lambda conn_id, team_name: checked_connection(
            f"Chain {title}", conn_id, value_of(conn_id, team_name)
        )
    if overrides(backend, "get_variable"):
        lookups["variables"] = _without_words(airflows_call(backend.get_variable, "key"))
    if overrides(backend, "get_config"):
        lookups["config"] = _without_words(lambda key, _: backend.get_config(key))
    return lookups


def _by_object(backend: Any) -> LookUp:
    connection_of = airflows_call(backend.get_connection, "conn_id")
    return lambda conn_id, team_name: connection_text(connection_of(conn_id, team_name))


def _without_words(look_up: LookUp) -> LookUp:
    """Wrap *look_up* so that of any error, whichever package raises it, only the class gets out."""

    def looked_up(secret_id: str, team_name: str | None) -> Any:
        try:
            return look_up(secret_id, team_name)
        except Exception as error:  # noqa: BLE001  # another package may raise anything
            raise_interruption(error)
            raised = type(error)
        raise ForeignError(raised)

    return looked_up


def connection_text(connection: Any) -> str | None:
    """Return a connection object as the JSON text from which Airflow constructs an equal one.

    A task thus gets the connection class that tasks get, whatever class a member returns. The id is left out, since
    the caller knows it, and Airflow normalises the type as it does for any text (``-`` becomes ``_``).
    """
    if not connection:
        return None
    fields = {name: getattr(connection, name, None) for name in CONNECTION_FIELDS}
    return json.dumps({name: value for name, value in fields.items() if value is not None})


def checked_connection(store: str, conn_id: str, text: str | None) -> str | None:
    """Return the text of a connection once it is known that Airflow can read it; empty means absent, as in Airflow.

    :raises InvalidSecret: if Airflow would misread it, lose a part of it, or swallow the error of parsing it.
    """
    if not text:
        return None
    with no_fork():
        from airflow_providers_secrets.lookup import decoding
    try:
        return decoding.connection(text)
    except Unusable as error:
        reason = str(error)
    raise InvalidSecret(store, conn_id, reason, "Rewrite it in a form that Airflow reads.")


class EnvironmentVariables:
    """The member ``env``: Airflow's own environment variables ``AIRFLOW_CONN_…`` and ``AIRFLOW_VAR_…``.

    Airflow's class is imported at the first lookup: its module needs Airflow's configuration, which may be constructing
    the chain at this moment.
    """

    def __init__(self) -> None:
        self._airflows: Any = None

    def lookups(self) -> dict[Kind, LookUp]:
        """Return its lookup functions. Configuration values have no such variables."""
        return {"connections": self._connection, "variables": self._variable}

    def _connection(self, conn_id: str, team_name: str | None) -> str | None:
        if not isinstance(conn_id, str):
            return None
        text = self._backend().get_conn_value(conn_id, **_team(team_name))
        return checked_connection("Environment", f"AIRFLOW_CONN_{conn_id.upper()}", text)

    def value_in_memory(self, kind: Kind, secret_id: str, team_name: str | None) -> tuple[str | None] | None:
        """Return what the environment holds; ``None`` before the first lookup, and if a lookup would raise."""
        if self._airflows is None:
            return None
        with contextlib.suppress(InvalidSecret):
            return (self.lookups()[kind](secret_id, team_name),)
        return None

    def _variable(self, key: str, team_name: str | None) -> str | None:
        if not isinstance(key, str):
            return None
        value: str | None = self._backend().get_variable(key, **_team(team_name))
        return value

    def _backend(self) -> Any:
        if self._airflows is None:
            with no_fork():
                from airflow.secrets.environment_variables import EnvironmentVariablesBackend

            self._airflows = EnvironmentVariablesBackend()
        return self._airflows


def _team(team_name: str | None) -> dict[str, str]:
    return {"team_name": team_name} if team_name else {}  # Airflow before 3.2 has no teams


def _airflows_denial(raised: type) -> type[Exception] | None:
    """Return Airflow's denial if *raised* is one.

    It is recognised by name, since Airflow's module of exceptions is slow to import, and older versions have no such
    class.
    """
    return next((kind for kind in raised.__mro__ if kind.__name__ == AIRFLOWS_DENIAL), None)
