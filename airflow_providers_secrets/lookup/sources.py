"""The sources that Airflow asks after the secrets backend: the environment and the metastore."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from airflow_providers_secrets.errors import SecretsError, Unusable, quoted
from airflow_providers_secrets.lookup.connection_text import fields_of, json_of, object_or_text
from airflow_providers_secrets.lookup.plan import Kind, multi_team

PREFIXES: Final[dict[str, str]] = {"connections": "AIRFLOW_CONN_", "variables": "AIRFLOW_VAR_"}
"""Prefixes of the environment variables that hold connections and variables."""


OF_TEAM: Final = re.compile(r"_(.+)(?<!_)___(.+)")
"""How the names of Airflow's environment variables spell a team in front of an id, in multi-team mode."""

AFTER_TEAM: Final = "___"
"""The separator between the two. In multi-team mode, no id in Airflow's environment contains it."""


UNDECRYPTED: Final = "Airflow's [core] fernet_key cannot decrypt it"
NO_OBJECT: Final = "its extra is not a JSON object, which Airflow does not accept"

REFUSALS: Final = ("DataError", "IntegrityError")
"""What SQLAlchemy raises if the database works but rejects a row."""


_CREDENTIAL: Final = re.compile("pass|pwd|secret|token|key", re.IGNORECASE)
"""Found in the name of a database URL's parameter that may be a credential."""


class SourceFailed(SecretsError):
    """A source could not be read or written; the message says why, in one line."""


class Source(ABC):
    """One source of connections and variables besides the secrets backend."""

    title: ClassVar[str]
    small_letters: ClassVar[bool] = False
    """Whether it ignores case, and lists its ids and teams in lower case."""

    @abstractmethod
    def ids(self, kind: Kind) -> Iterator[tuple[str | None, str]]:
        """Yield the ids that it holds, each preceded by the team that owns it; everybody's by ``None``.

        :raises SourceFailed: if it cannot be read.
        """

    @abstractmethod
    def text(self, kind: Kind, secret_id: str, team: str | None = None) -> str | None:
        """Return a secret's value as Airflow would parse it, or ``None``.

        :raises Unusable: if it holds a value that nobody can use.
        :raises SourceFailed: if it cannot be read.
        """

    def description(self, kind: Kind, secret_id: str) -> str | None:  # noqa: ARG002  # the environment has none
        """Return a variable's description, which is not part of its text, or ``None``. A connection's is a field."""
        return None

    def identity(self) -> str:
        """Return what distinguishes it from others of its class, without a credential."""
        return ""


class Environment(Source):
    """The variables ``AIRFLOW_CONN_…`` and ``AIRFLOW_VAR_…``. Their ids are listed in lower case."""

    title = "environment"
    small_letters = True

    def ids(self, kind: Kind) -> Iterator[tuple[str | None, str]]:
        """Yield the ids that the environment holds; an empty connection does not count."""
        if prefix := PREFIXES.get(kind):
            with_teams = multi_team()
            held = [name for name, text in os.environ.items() if text or kind == "variables"]
            for spelled in sorted(name[len(prefix) :].lower() for name in held if name.startswith(prefix)):
                of_team = OF_TEAM.fullmatch(spelled) if with_teams else None
                team, secret_id = (of_team[1], of_team[2]) if of_team else (None, spelled)
                if not (with_teams and AFTER_TEAM in secret_id):
                    yield team, secret_id

    def text(self, kind: Kind, secret_id: str, team: str | None = None) -> str | None:
        """Return an environment variable's text; a team's own takes precedence.

        :raises Unusable: if Airflow cannot make a connection from it, and asks the next source.
        """
        prefix = PREFIXES.get(kind)
        if prefix is None or (AFTER_TEAM in secret_id and multi_team()):
            return None
        of_team = os.environ.get(f"{prefix}_{team.upper()}___{secret_id.upper()}") if team else None
        text = of_team or os.environ.get(prefix + secret_id.upper())
        if kind == "variables":
            return text
        if text:
            _see_that_airflow_takes(secret_id, text)
        return text or None  # Airflow treats an empty connection as absent


def _see_that_airflow_takes(conn_id: str, text: str) -> None:
    """Check that Airflow makes a connection from *text*, even one that has lost a part of it.

    :raises Unusable: if it does not, saying what is wrong with *text*.
    """
    try:
        fields_of(text)
        return
    except Unusable as error:
        unusable = error
    # Airflow accepts some unusable texts all the same, and asks no further source; only its own parser knows which.
    with contextlib.suppress(Exception):
        from airflow.secrets.environment_variables import EnvironmentVariablesBackend

        EnvironmentVariablesBackend().deserialize_connection(conn_id=conn_id, value=text)
        return
    raise unusable


class Metastore(Source):
    """Airflow's database, as this host's configuration reaches it."""

    title = "metastore"

    def ids(self, kind: Kind) -> Iterator[tuple[str | None, str]]:
        """Yield the ids of all rows."""
        with self._session() as (session, models):
            model, key = models[kind]
            columns = [key, model.team_name] if hasattr(model, "team_name") else [key]
            rows = session.query(*columns).order_by(key) if model else []
            found = [(row[1] if len(row) > 1 else None, row[0]) for row in rows]
        yield from found

    def text(self, kind: Kind, secret_id: str, team: str | None = None) -> str | None:
        """Return a row's value: a connection as JSON, a variable as its text."""
        if kind == "config":
            return None
        with self._session() as (session, models):
            model, key = models[kind]
            query = session.query(model).filter(key == secret_id)
            if hasattr(model, "team_name"):
                everybodys = model.team_name.is_(None)
                query = query.filter(everybodys if team is None else everybodys | (model.team_name == team))
            row = query.first()
            if row is None:
                return None
            return _text_of_connection(row) if kind == "connections" else _decrypted(row, "val") or ""

    def description(self, kind: Kind, secret_id: str) -> str | None:
        """Return the description that a variable's row has."""
        if kind != "variables":
            return None
        with self._session() as (session, models):
            model, key = models[kind]
            row = session.query(model).filter(key == secret_id).first()
            return getattr(row, "description", None) or None

    def identity(self) -> str:
        """Return a digest of the database's location and user; it omits the password, which may be rotated.

        :raises SourceFailed: if this host's configuration names no database.
        """
        with self._session() as (session, _):
            url = session.get_bind().url
            query = sorted((name, value) for name, value in url.query.items() if not _CREDENTIAL.search(name))
            told = (url.get_backend_name(), url.username, url.host, url.port, url.database, query)
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def write(self, kind: Kind, secret_id: str, text: str, *, only_if_absent: bool) -> bool:
        """Write one row in a transaction of its own, encrypted by Airflow's key; return whether it is new.

        :raises SourceFailed: if the database refuses, or if *only_if_absent* is set and the row exists.
        """
        with self._session() as (session, models):
            model, key = models[kind]
            row = session.query(model).filter(key == secret_id).first()
            created = row is None
            if not created and only_if_absent:
                raise SourceFailed(f"The metastore has {quoted(secret_id)} already.")
            if kind == "connections":
                fields = fields_of(text)
                extra = fields.pop("extra", None)
                row = row or model(conn_id=secret_id)
                for name in ("conn_type", "description", "host", "login", "schema", "port"):
                    setattr(row, name, fields.get(name))
                if password := fields.get("password"):
                    row.set_password(password)
                else:
                    # Airflow's set_password would keep the old password, which would then go with the new host.
                    row._password = None  # noqa: SLF001  # there is no other way
                    row.is_encrypted = False
                row.set_extra(extra if extra is None or isinstance(extra, str) else json.dumps(extra))
            else:
                row = row or model(key=secret_id)
                row.set_val(text)
            session.add(row)
            session.commit()
        return created

    @contextlib.contextmanager
    def _session(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        failure: str | None = None
        try:
            from airflow.models.connection import Connection
            from airflow.models.variable import Variable
            from airflow.utils.session import create_session

            with create_session() as session:
                yield (
                    session,
                    {
                        "connections": (Connection, Connection.conn_id),
                        "variables": (Variable, Variable.key),
                        "config": (None, None),
                    },
                )
        except (SecretsError, Unusable):
            raise
        except Exception as error:  # noqa: BLE001  # whatever the database's driver raises; it may hold a row's values
            failure = type(error).__name__
        if failure == "InvalidToken":
            # Airflow decrypts a password as it loads the row.
            raise Unusable(UNDECRYPTED)
        if failure in REFUSALS:
            raise SourceFailed(f"The metastore refuses it: {failure}.")
        if failure is not None:
            raise SourceFailed(
                f"The metastore cannot be used: {failure}. Check [database] sql_alchemy_conn, and that this host may "
                "reach the database."
            )


def _text_of_connection(row: Any) -> str:
    fields = {name: getattr(row, name) for name in ("conn_type", "description", "host", "login", "schema", "port")}
    return json_of(
        {**fields, "password": _decrypted(row, "password"), "extra": object_or_text(_decrypted(row, "extra"))}
    )


def _decrypted(row: Any, name: str) -> Any:
    """Return a field that Airflow encrypts.

    :raises Unusable: if the Fernet key no longer fits, or if Airflow does not return what it has decrypted.
    """
    value: Any = None
    reason: str | None = None
    try:
        value = row.get_val() if name == "val" else getattr(row, name)
        if value is None and getattr(row, f"_{name}"):
            reason = UNDECRYPTED
    except ValueError:
        reason = NO_OBJECT if name == "extra" else UNDECRYPTED
    except Exception:  # noqa: BLE001  # InvalidToken, or Airflow's own
        reason = UNDECRYPTED
    if reason:
        raise Unusable(reason)
    return value
