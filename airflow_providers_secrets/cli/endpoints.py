"""The sources and targets of ``copy``: the metastore, the environment, a file, or a backend's store."""

from __future__ import annotations

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeGuard, cast

from airflow_providers_secrets.cli.configuration import Configured, is_ours, ours
from airflow_providers_secrets.cli.masking import shown_value
from airflow_providers_secrets.cli.reading import read_file
from airflow_providers_secrets.errors import (
    ConfigurationError,
    LookupFailed,
    SecretsError,
    Unusable,
    json_place,
    quoted,
)
from airflow_providers_secrets.lookup.access import loaded_store, store_of
from airflow_providers_secrets.lookup.connection_text import fields_of, is_text, json_of
from airflow_providers_secrets.lookup.plan import TEAM_SEP, Kind

if TYPE_CHECKING:
    from airflow_providers_secrets.lookup.sources import Source

PATIENCE: Final = {"timeout": 60, "max_attempts": 10}
"""Options of a backend during a copy, which waits for a store that throttles."""

LONGEST_ID: Final = 250
"""Maximum length of an id in the metastore's columns, in characters."""


class Blocked(Exception):
    """The reason why an id cannot be copied, as a clause without any value."""


class Origin(ABC):
    """The source of a copy.

    :ivar guesses: it cannot list and no ids were named, so some ids may exist only in the environment or metastore.
    :ivar identity: identifies it, without a credential.
    """

    title: str
    identity: str = ""
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


class FromFile(Origin):
    """A file as ``airflow connections export`` or ``variables export`` writes it: JSON, YAML, or ``ID=VALUE`` lines.

    An object with only the keys ``connections`` and ``variables`` holds both kinds; any other, the one kind requested.
    """

    def __init__(self, path: str, kinds: Iterable[Kind]) -> None:
        self.title = f"file {path}"
        self.identity = str(Path(path).absolute())
        kinds = tuple(kinds)
        parsed = _parsed_file(path)
        if set(parsed) <= {"connections", "variables"} and all(isinstance(v, dict) for v in parsed.values()) and parsed:
            self._entries: dict[str, Mapping[str, Any]] = parsed
        elif len(kinds) == 1:
            self._entries = {kinds[0]: parsed}
        else:
            raise ConfigurationError(f"{path} holds one kind of secrets; say which with --kind conn or --kind var.")

    def ids(self, kind: Kind) -> Iterable[str]:
        """Return the ids in the file's order."""
        return list(self._entries.get(kind, ()))

    def text(self, kind: Kind, secret_id: str) -> str | None:
        """Return a value of the file."""
        value = self._entries.get(kind, {}).get(secret_id)
        if kind == "connections" and isinstance(value, Mapping):
            known = {
                name: one
                for name, one in value.items()
                if name not in ("conn_id", "id", "is_encrypted", "is_extra_encrypted")
            }
            return _json({("login" if name == "user" else name): one for name, one in known.items()})
        if kind == "variables" and _is_described(value):
            value = value["value"]
        if value is None and secret_id in self._entries.get(kind, {}):
            raise Unusable("the file has null for it")
        if value is None or isinstance(value, str):
            return value
        return _json(value)

    def loses(self, kind: Kind, secret_id: str) -> str | None:
        """Return that a variable's description is lost: Airflow gets none from a secrets backend."""
        value = self._entries.get(kind, {}).get(secret_id)
        if kind == "variables" and _is_described(value) and value.get("description"):
            return DESCRIPTION_LOST
        return None


def _is_described(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Tell whether *value* has the form in which the export writes a variable with a description."""
    return isinstance(value, Mapping) and set(value) <= {"value", "description"} and "value" in value


def _json(value: Any) -> str:
    """Return a value of a file as JSON text.

    :raises Unusable: if YAML parsed it as a type that JSON does not have.
    """
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        raise Unusable(
            "YAML reads a date or another type in it that JSON has not: put that in quotation marks"
        ) from None


def _parsed_file(path: str) -> dict[str, Any]:
    text = read_file(path, "--from file:PATH")
    fault = "is not valid JSON or YAML"
    parsed: Any = None
    if path.endswith((".env", ".txt")):
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if any("=" not in line for line in lines):
            raise ConfigurationError(f"{path}: write each line as ID=VALUE.")
        entries = [(name.strip(), value.strip()) for name, _, value in (line.partition("=") for line in lines)]
        return _each_once(path, _Pairs(entries))
    try:
        if path.endswith((".yaml", ".yml")):
            import yaml

            parsed = yaml.load(text, _yaml_loader())  # noqa: S506  # a safe loader
        else:
            parsed = json.loads(text, object_pairs_hook=_Pairs)
    except Exception as error:  # noqa: BLE001  # its message quotes the file, which holds secrets
        if isinstance(error, json.JSONDecodeError):
            fault = f"is not valid JSON{json_place(error)}"
    if not isinstance(parsed, dict):
        raise ConfigurationError(f"{path} {fault if parsed is None else 'holds no object of ids and values'}.")
    for part in (parsed, parsed.get("connections"), parsed.get("variables")):
        if isinstance(part, _Pairs):
            _each_once(path, part)
    return {str(name): value for name, value in parsed.items()}


class _Pairs(dict[str, Any]):
    """An object of a file, which records the first of its names that occurs twice."""

    def __init__(self, pairs: list[tuple[Any, Any]], written: list[str] | None = None) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs] if written is None else written
        self.twice = next((name for name, number in Counter(names).items() if number > 1), None)


def _each_once(path: str, entries: _Pairs) -> _Pairs:
    """Return *entries* if no id occurs twice.

    :raises ConfigurationError: if an id occurs twice: one of its values would be lost silently.
    """
    if entries.twice is not None:
        raise ConfigurationError(f"{path} holds {quoted(entries.twice)} twice; leave one of them.")
    return entries


def _yaml_loader() -> Any:
    """Return a safe YAML loader whose objects are :class:`_Pairs`."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    of_ids: list[Any] = []  # the objects whose names are ids: the whole file and its parts

    def pairs(loader: Any, node: Any) -> _Pairs:
        written = [str(name.value) for name, _ in node.value]
        loader.flatten_mapping(node)  # a name that "<<" merges in may legitimately occur again
        if not of_ids:
            of_ids[:] = node, *(part for name, part in node.value if name.value in ("connections", "variables"))
        if any(node is one for one in of_ids):
            for name, _ in node.value:
                if isinstance(name, yaml.ScalarNode):
                    # An id is the text as it is written: 007 is not 7, and "on" is not True. Inside a value, a name is
                    # what Airflow reads it as.
                    name.tag = "tag:yaml.org,2002:str"
        return _Pairs(loader.construct_pairs(node, deep=True), written)

    Loader.add_constructor("tag:yaml.org,2002:map", pairs)
    return Loader


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
        from airflow_providers_secrets.lookup import inventory

        if self._backend.rule(kind).prefixes is None:
            return ()
        return (
            one.secret_id
            for one in inventory.listed_ids(self._backend, kind)
            if one.refused is None and self._configured.passed_over_for(kind, one.secret_id) is None
        )

    def text(self, kind: Kind, secret_id: str) -> str | None:
        """Look one id up."""
        failure: str
        if reason := self._configured.passed_over_for(kind, secret_id):
            raise Blocked(f"the source's chain does not ask this member: {reason}")
        try:
            if kind == "connections":
                return cast("str | None", self._backend.get_conn_value(secret_id))
            value = self._backend.get_variable(secret_id)
            return value if value is None or isinstance(value, str) else _json(value)  # of Airflow's reader of files
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
    identity: str = ""
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
        from airflow_providers_secrets.lookup.connection_text import uri_of

        if kind != "connections":
            return text
        fields = fields_of(text)
        return uri_of(fields) if self._as_uri else json_of(fields)

    def text(self, kind: Kind, secret_id: str) -> str | None:
        """Read through the same backend."""
        from airflow_providers_secrets.lookup import operations

        return operations.read(self.backend, kind, secret_id)

    def write(self, kind: Kind, secret_id: str, text: str, *, only_if_absent: bool) -> None:
        """Write by the store's own means."""
        from airflow_providers_secrets.lookup import operations

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
        from airflow_providers_secrets.lookup.sources import Metastore

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


def same(kind: Kind, one: str, other: str) -> bool:
    """Tell whether two texts are the same secret: for connections, whether Airflow reads the same fields.

    :raises Unusable: if one of them cannot be read.
    """
    if kind == "connections":
        return _equal(fields_of(one), fields_of(other))
    return one == other


def _equal(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal. Python alone would compare ``True`` and 1 as equal.

    1 and 1.0 are equal: Vault may return one for the other.
    """
    if one != other:
        return False
    pairs = [(one, other)]  # no recursion: an extra may be nested as deep as it can be parsed
    while pairs:
        one, other = pairs.pop()
        if isinstance(one, bool) != isinstance(other, bool):
            return False
        if isinstance(one, Mapping):
            pairs += ((value, other[name]) for name, value in one.items())
        elif isinstance(one, list):
            pairs += zip(one, other, strict=True)
    return True


def reason_of(error: Exception) -> str:
    """Return why something failed, without values, for a table cell."""
    if isinstance(error, LookupFailed):
        return f"{error.code}. {error.advice}"
    if isinstance(error, (SecretsError, Blocked, Unusable)):
        return str(error)
    return type(error).__name__


def names_from(path: str, kinds: Iterable[Kind]) -> dict[Kind, list[str]]:
    """Read a file of ids, one per line: ``conn:ID`` or ``var:KEY``; without a kind, an id counts for every kind.

    :raises ConfigurationError: if it cannot be read.
    """
    from airflow_providers_secrets.cli.arguments import KINDS_BY_WORD

    names: dict[Kind, list[str]] = {kind: [] for kind in kinds}
    for number, line in enumerate(read_file(path, "--names FILE").splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        word, found, rest = entry.partition(":")
        kind = KINDS_BY_WORD.get(word) if found else None
        if kind == "config":
            raise ConfigurationError(f"{path}, line {number}: configuration values are not copied; leave the line out.")
        for one in names if kind is None else (kind,):
            if one in names:
                names[one].append(rest if kind else entry)
    return names
