"""The sources and targets of ``copy`` that are no file: the metastore, the environment, a backend's store."""

from __future__ import annotations

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from airflow_providers_secrets.cli.configuration import Configured, is_ours, ours
from airflow_providers_secrets.cli.copying import Blocked
from airflow_providers_secrets.cli.masking import shown_value
from airflow_providers_secrets.errors import (
    SecretsError,
    Unusable,
    quoted,
)
from airflow_providers_secrets.lookup import inventory, operations
from airflow_providers_secrets.lookup.access import loaded_store, store_of
from airflow_providers_secrets.lookup.connection_text import fields_of, is_text, json_of, uri_of
from airflow_providers_secrets.lookup.plan import TEAM_SEP, Kind
from airflow_providers_secrets.lookup.sources import Metastore, Source

PATIENCE: Final = {"timeout": 60, "max_attempts": 10}
"""Options of a backend during a copy, which waits for a store that throttles."""

LONGEST_ID: Final = 250
"""Maximum length of an id in the metastore's columns, in characters."""


class Origin(ABC):
    """The source of a copy.

    :ivar guesses: it cannot list and no ids were named, so some ids may exist only in the environment or metastore.
    :ivar identity: identifies it, without a credential.
    """

    title: str
    identity: str
    guesses: bool = False

    @abstractmethod
    def ids(self, kind: Kind) -> Iterable[str]:
        """Yield the ids."""

    @abstractmethod
    def text(self, kind: Kind, secret_id: str) -> str | None:
        """Return a value as Airflow would parse it.

        :raises Blocked: if it must not be copied from here.
        :raises Unusable: if nobody can use it.
        :raises SecretsError: if it cannot be read.
        """

    def spelt(self, secret_id: str) -> str:
        """Return how :meth:`ids` spells an id that Airflow asks for."""
        return secret_id

    def loses(self, kind: Kind, secret_id: str) -> str | None:  # noqa: ARG002  # a store loses nothing
        """Return what a copy of an id leaves behind, or ``None``."""
        return None


DESCRIPTION_LOST: Final = "its description is not copied, its value alone"


class FromSource(Origin):
    """The metastore or the environment."""

    def __init__(self, source: Source) -> None:
        self.title = source.title
        self.identity = source.identity()
        self._source = source

    def ids(self, kind: Kind) -> Iterable[str]:
        """Yield the ids that the source holds. A team's own id begins with ``team--`` and is not copied."""
        for team, secret_id in self._source.ids(kind):
            yield f"{team}{TEAM_SEP}{secret_id}" if team else secret_id

    def text(self, kind: Kind, secret_id: str) -> str | None:
        """Return a value of the source."""
        return self._source.text(kind, secret_id)

    def loses(self, kind: Kind, secret_id: str) -> str | None:
        """Return that a variable's description is lost: Airflow gets none from a secrets backend."""
        return DESCRIPTION_LOST if self._source.description(kind, secret_id) else None


def json_text(value: Any) -> str:
    """Return a value that a file holds as JSON text.

    :raises Unusable: if YAML parsed it as a type that JSON does not have.
    """
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        raise Unusable(
            "YAML reads a date or another type in it that JSON has not: put that in quotation marks"
        ) from None


class FromBackend(Origin):
    """A backend's store. This package's backends list their own ids; any other class is asked for *names*.

    :param names: the ids to request, by kind, if the class cannot list.
    """

    def __init__(self, configured: Configured, names: Mapping[Kind, Iterable[str]] | None) -> None:
        self._configured = configured
        self._backend = configured.fresh(**PATIENCE)
        self._ours = is_ours(self._backend)
        self._names = names
        self.title = self._backend.store if self._ours else configured.class_path
        self.identity = _identity_of(configured)

    def ids(self, kind: Kind) -> Iterable[str]:
        """Return the ids to request: for a member of a chain, those that the chain asks it for."""
        if self._names is not None:
            return list(self._names.get(kind, ()))
        if self._backend.rule(kind).prefixes is None:
            return ()
        return (
            one.secret_id
            for one in inventory.listed_ids(self._backend, kind)
            if one.refused is None and self._configured.passed_over_for(kind, one.secret_id) is None
        )

    def spelt(self, secret_id: str) -> str:
        """Return an id as the store lists it; ids that were named are as they were written."""
        return secret_id if self._names is not None else self._backend.normalised(secret_id)

    def text(self, kind: Kind, secret_id: str) -> str | None:
        """Look one id up."""
        failure: str
        if reason := self._configured.passed_over_for(kind, secret_id):
            raise Blocked(f"the source's chain does not ask this member: {reason}")
        try:
            if kind == "connections":
                return cast("str | None", self._backend.get_conn_value(secret_id))
            value = self._backend.get_variable(secret_id)
            # Airflow's reader of files returns what a file holds.
            return value if value is None or isinstance(value, str) else json_text(value)
        except (SecretsError, Unusable):
            raise
        except Exception as error:  # noqa: BLE001  # another package's class
            failure = type(error).__name__
        raise SecretsError(f"{self.title} gave no answer for {quoted(secret_id)}: {failure}.")


class Target(ABC):
    """The target of a copy.

    :ivar identity: identifies it, without a credential.
    """

    title: str
    identity: str
    parallel = True
    """Whether several threads may write at once."""
    needs_rights = True
    """Whether writing needs permissions of a policy."""
    rate: float | None = None
    """Maximum number of writes per second, if the store has a quota."""

    @abstractmethod
    def name(self, kind: Kind, secret_id: str) -> str:
        """Return the name under which an id will be stored; two ids with one name collide.

        :raises Blocked: if it cannot be written.
        """

    def spelt(self, secret_id: str) -> str:
        """Return *secret_id* as the target's names spell it."""
        return secret_id

    @abstractmethod
    def check(self, kind: Kind, text: str) -> None:
        """Check that the target can hold a value.

        :raises Blocked: if it cannot.
        """

    @abstractmethod
    def text(self, kind: Kind, secret_id: str) -> str | None:
        """Return what it holds now, bypassing every cache.

        :raises Unusable: if it holds something that Airflow could not use.
        """

    @abstractmethod
    def write(self, kind: Kind, secret_id: str, text: str, *, only_if_absent: bool) -> None:
        """Write one secret as a whole."""


class ToBackend(Target):
    """The store of one of this package's backends.

    :param settings: the store's own settings of a write.
    """

    def __init__(self, configured: Configured, settings: Mapping[str, str], *, as_uri: bool) -> None:
        ours(configured, "--to-member")
        self._configured = configured
        self.backend = configured.fresh(**PATIENCE)
        self.title = self.backend.store
        self.identity = _identity_of(configured)
        store = store_of(self.backend.config)
        self.rate = store.writes_per_second
        self._largest = store.largest_value_with(settings)
        self._settings = settings
        self._as_uri = as_uri

    def name(self, kind: Kind, secret_id: str) -> str:
        """Return the first name that a lookup requests."""
        if reason := self._configured.passed_over_for(kind, secret_id):
            raise Blocked(f"the target's chain does not ask this member: {reason}")
        plan = self.backend.plan(kind, secret_id)
        if not plan.names:
            raise Blocked(str(plan.reason))
        return str(plan.names[0])

    def spelt(self, secret_id: str) -> str:
        """Return *secret_id* as the store's names spell it."""
        return str(self.backend.normalised(secret_id))

    def check(self, kind: Kind, text: str) -> None:
        """Check that the store's limits and Airflow's parser accept the text."""
        if not text.strip():
            raise Blocked("it is blank, which not every store can hold")
        stored = self.backend.encode(kind, self._form(kind, text))
        self.backend.decode(kind, stored)
        if not is_text(stored):
            raise Blocked("it has characters that UTF-8 cannot encode")
        size = len(stored.encode())
        if self._largest and size > self._largest:
            raise Blocked(f"it has {size} bytes; the store holds {self._largest}")

    def _form(self, kind: Kind, text: str) -> str:
        if kind != "connections":
            return text
        fields = fields_of(text)
        return uri_of(fields) if self._as_uri else json_of(fields)

    def text(self, kind: Kind, secret_id: str) -> str | None:
        """Read through the same backend."""
        return operations.read(self.backend, kind, secret_id)

    def write(self, kind: Kind, secret_id: str, text: str, *, only_if_absent: bool) -> None:
        """Write by the store's own means."""
        form = self._form(kind, text)
        operations.write(self.backend, kind, secret_id, form, only_if_absent=only_if_absent, settings=self._settings)


def _identity_of(configured: Configured) -> str:
    """Return a text that identifies a store and the place in it: the class, its options and its SDK's variables.

    It contains no credentials, since these may be renewed while the store stays the same.
    """
    told = {name: shown_value(name, value) for name, value in configured.kwargs.items()}
    if is_ours(configured.backend):
        prefixes = tuple(loaded_store(configured.backend.config).env_prefixes)
        told |= {name: shown_value(name, value) for name, value in os.environ.items() if name.startswith(prefixes)}
    return json.dumps([configured.class_path, sorted(told.items())])


class ToMetastore(Target):
    """Airflow's database."""

    parallel = False
    needs_rights = False

    def __init__(self) -> None:
        self._metastore = Metastore()
        self.title = self._metastore.title
        self.identity = self._metastore.identity()

    def name(self, kind: Kind, secret_id: str) -> str:
        """Return the id, and which of the two tables it is for."""
        from airflow.models.connection import sanitize_conn_id

        allowed = secret_id.isprintable() if kind == "variables" else sanitize_conn_id(secret_id) == secret_id
        if len(secret_id) > LONGEST_ID or not allowed:
            raise Blocked("the metastore does not allow this id")
        return f"{kind}:{secret_id}"

    def check(self, kind: Kind, text: str) -> None:
        """Check that Airflow's model accepts the connection."""
        if kind != "connections":
            return
        fields = fields_of(text)
        if "conn_type" not in fields:
            raise Blocked("it has no connection type, which the metastore needs")
        if isinstance(fields.get("extra"), str) and not _takes_extra(fields["extra"]):
            raise Blocked("its extra is not a JSON object, which the metastore needs")

    def text(self, kind: Kind, secret_id: str) -> str | None:
        """Read the row."""
        return self._metastore.text(kind, secret_id)

    def write(self, kind: Kind, secret_id: str, text: str, *, only_if_absent: bool) -> None:
        """Write the row in its own transaction."""
        self._metastore.write(kind, secret_id, text, only_if_absent=only_if_absent)


def _takes_extra(extra: str) -> bool:
    """Tell whether this Airflow's model accepts an extra that is not a JSON object; Airflow 2 does."""
    from airflow.models.connection import Connection

    with contextlib.suppress(ValueError):
        Connection(extra=extra)
        return True
    return False
