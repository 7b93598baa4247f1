"""Several backends behind one search order."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator
from typing import Any, ClassVar, Final, NoReturn

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets import options
from airflow_providers_secrets.backends._members import (
    ALL_IDS,
    EnvironmentVariables,
    Member,
    foreign_lookups,
    matches,
    own_lookups,
)
from airflow_providers_secrets.backends.mixin import SecretLookupMixin
from airflow_providers_secrets.errors import ConfigurationError, SecretsError, did_you_mean, json_place, quoted
from airflow_providers_secrets.lookup.calls import makes_objects
from airflow_providers_secrets.lookup.notices import are_left_to_children, warn
from airflow_providers_secrets.lookup.plan import KINDS, Kind, LookupPlan
from airflow_providers_secrets.options import Option

_OURS: Final = "airflow_providers_secrets.backends"
_ENVIRONMENT: Final = "airflow.secrets.environment_variables.EnvironmentVariablesBackend"
_LOCAL_FILES: Final = "airflow.secrets.local_filesystem.LocalFilesystemBackend"

SHORT_NAMES: Final = {
    "aws_ssm": f"{_OURS}.aws_ssm.SystemsManagerParameterStoreBackend",
    "aws_secrets_manager": f"{_OURS}.aws_secrets_manager.SecretsManagerBackend",
    "hashicorp_vault": f"{_OURS}.hashicorp_vault.VaultBackend",
    "gcp_secret_manager": f"{_OURS}.gcp_secret_manager.CloudSecretManagerBackend",
    "azure_key_vault": f"{_OURS}.azure_key_vault.AzureKeyVaultBackend",
    "kubernetes_secrets": f"{_OURS}.kubernetes_secrets.KubernetesSecretsBackend",
    "env": _ENVIRONMENT,
    "file": _LOCAL_FILES,
}
"""The class that each short name stands for."""

ASKED_ANYWAY: Final = ("MetastoreBackend", "ExecutionAPISecretsBackend")
"""Airflow's own classes that cannot be members, since not every process can use them."""

CHAIN: Final = "chain"
"""The command's short name of this backend, which is no member's."""

ENTRY_OPTIONS: Final = (
    Option("backend", options.strict_text, doc="A short name, or the path of any secrets backend's class."),
    Option("kwargs", options.mapping, {}, "The options of that backend."),
    *(
        Option(
            kind,
            lambda value: ALL_IDS if options.is_empty(value) else options.pattern(value),
            ALL_IDS,
            f"Ask it only for {kind} whose id matches from its start, ignoring case; null: for none.",
            nullable=True,
            empty_is_unset=False,
        )
        for kind in KINDS
    ),
    Option("optional", options.flag, default=False, doc="Where it fails, warn and ask the next member."),
)
"""The options of one entry of ``backends``."""


def _entries(value: Any) -> list[dict[str, Any]]:
    fault = 'must be a list of objects like {"backend": "aws_ssm", "kwargs": {}}'
    entries = value
    if isinstance(value, str):
        try:
            entries = json.loads(value)
        except (ValueError, RecursionError) as error:
            fault = f"is not valid JSON{json_place(error)}"
            entries = None
    if not isinstance(entries, list | tuple) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(fault)
    return list(entries)


class ChainBackend(BaseSecretsBackend):
    """Several backends, asked in order: the first value counts.

    If a member proves an id to be absent, or is not asked for it, the next member is asked. A member that fails ends
    the lookup with its own error, so that a failure never lets another member's value replace its own. If an
    ``optional`` member fails, the chain warns and asks the next one. Airflow's own denial (``on_denied`` and the like
    set to ``"fail"``) ends the whole search, whichever member raises it.

    Any secrets backend can be a member. Those of this package work as they do without a chain: one client, one
    login and one cache per process and set of options, deadlines, ``preload``, the shared cache. For members from other
    packages, ``None`` means absent, and their time is not limited.

    The chain itself holds no client, cache, lock or thread; any number of threads may use it, and it survives forks.
    Constructing a chain constructs its members and reads nothing; it only checks that the files of a ``file`` member
    can be read.

    :param backends: the members in order, each an object of ``ENTRY_OPTIONS``.
    :raises ConfigurationError: for an entry that cannot be used, naming it by its position.
    """

    own_options: ClassVar[tuple[Option, ...]] = (
        Option("backends", _entries, doc="The members, in the order in which they are asked."),
    )

    @classmethod
    def declared_options(cls) -> tuple[Option, ...]:
        """Return all options of this backend."""
        return cls.own_options

    def __init__(self, **backend_kwargs: Any) -> None:
        """Check the options and construct the members."""
        super().__init__()
        entries = options.parse("ChainBackend", self.declared_options(), backend_kwargs)["backends"]
        if entries is None:
            raise ConfigurationError(
                "ChainBackend: option 'backends' is missing: list the backends in the order in which they are asked, "
                'for example [{"backend": "env"}, {"backend": "aws_ssm", "kwargs": {}}].'
            )
        self._given = backend_kwargs
        self.members: tuple[Member, ...] = tuple(_members(entries))
        """The members, in order."""
        # Computed once, so that on a hit in memory a member costs one pattern match and two calls.
        self._routes = {
            kind: [
                (member, None if pattern is ALL_IDS else pattern, member.lookups[kind])
                for member in self.members
                if (pattern := member.patterns[kind]) is not None and kind in member.lookups
            ]
            for kind in KINDS
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # A member's lookup functions cannot be pickled, so the copy makes its members from the same options.
        others = {name: value for name, value in vars(self).items() if name not in ("_given", "members", "_routes")}
        return _made_again, (type(self), self._given), others

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if (conn_class := state.get("_connection_class")) is not None:
            self._set_connection_class(conn_class)

    def __repr__(self) -> str:
        members: tuple[Member, ...] = getattr(self, "members", ())  # not set if the constructor failed
        return f"<{type(self).__name__} {', '.join(member.title for member in members)}>"

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        """Return the first connection found, as URI or JSON text, or ``None`` if no member that was asked has one.

        :param conn_id: the connection's id.
        :param team_name: the team of the caller, in multi-team mode.
        :raises SecretsError: when a member that is not optional fails; Airflow then asks its next source.
        """
        return self._first("connections", conn_id, team_name)

    def get_variable(self, key: str, team_name: str | None = None) -> str | None:
        """Return the first variable found, or ``None`` if no member that was asked has one.

        :param key: the variable's key.
        :param team_name: the team of the caller, in multi-team mode.
        :raises SecretsError: when a member that is not optional fails; Airflow then asks its next source.
        """
        return self._first("variables", key, team_name)

    async def aget_connection(self, conn_id: str, team_name: str | None = None) -> Any:
        """Return the first connection found, as an object, as ``get_connection`` does (Airflow 3.2+).

        The event loop is never blocked: if the members' caches and the environment have the answer, it is returned at
        once; else the whole search runs in a thread. See :meth:`.SecretLookupMixin.aget_connection`.

        :param conn_id: the connection's id.
        :param team_name: the team of the caller, in multi-team mode.
        :raises SecretsError: as :meth:`get_conn_value` does.
        """
        from airflow_providers_secrets.lookup.awaiting import connection_of

        return await connection_of(self, ChainBackend, self._value_in_memory, conn_id, team_name)

    async def aget_variable(self, key: str, team_name: str | None = None) -> str | None:
        """Return the first variable found, as :meth:`get_variable` does (Airflow 3.4+).

        The event loop is never blocked, as with :meth:`aget_connection`.

        :param key: the variable's key.
        :param team_name: the team of the caller, in multi-team mode.
        :raises SecretsError: as :meth:`get_variable` does.
        """
        from airflow_providers_secrets.lookup.awaiting import variable_of

        return await variable_of(self, ChainBackend, self._value_in_memory, key, team_name)

    def _value_in_memory(self, kind: Kind, secret_id: str, team_name: str | None) -> tuple[str | None] | None:
        """Return the first value if every member up to it answers without waiting; else ``None``."""
        method = "get_conn_value" if kind == "connections" else "get_variable"
        if getattr(type(self), method) is not getattr(ChainBackend, method):
            return None  # a subclass looks up in its own way
        if kind == "connections" and makes_objects(self):
            return None
        for member, pattern, _ in self._routes[kind]:
            if pattern is not None and not matches(pattern, secret_id):
                continue
            in_memory = getattr(member.backend, "value_in_memory", None)
            known: tuple[str | None] | None = in_memory(kind, secret_id, team_name) if in_memory is not None else None
            if known is None or known[0] is not None:
                return known
        return (None,)

    def get_config(self, key: str) -> str | None:
        """Return the first configuration value found, or ``None`` if no member that was asked has one.

        :param key: the value of the ``<option>_secret`` setting.
        :raises SecretsError: when a member that is not optional fails; Airflow then stops with the message.
        """
        value = self._first("config", key, None)
        if value is None:
            warn(
                ("absent", "config", key),
                "No member of the chain has a configuration value %s: Airflow falls back to the option's default.",
                quoted(key),
            )
        return value

    def plan(self, kind: Kind, secret_id: str, team_name: str | None = None) -> list[tuple[Member, LookupPlan]]:
        """Return, for each member in order, the names it would be asked for, or why it is skipped. Sends no request."""
        return [(member, member.plan(kind, secret_id, team_name)) for member in self.members]

    def _first(self, kind: Kind, secret_id: str, team_name: str | None) -> str | None:
        """Return the first value. A failing member ends the search, unless it is optional."""
        for member, pattern, look_up in self._routes[kind]:
            if pattern is not None and not matches(pattern, secret_id):
                continue
            try:
                value: str | None = look_up(secret_id, team_name)
            except Exception as error:  # noqa: BLE001  # a member of another package may raise anything
                failure = member.failure(kind, secret_id, error)
            else:
                if value is None:
                    continue
                return value
            # Airflow's own denial is not a SecretsError: it is final, even from an optional member.
            passed_over = member.optional and isinstance(failure, SecretsError)
            if member is not self.members[-1] or not member.is_ours:
                warn(
                    ("chain", member.title, kind, type(failure)),
                    "Chain %s failed, and %s: %s",
                    member.title,
                    "is passed over" if passed_over else "no other member is asked",
                    failure,
                )
            if not passed_over:
                # Without the member's frames, whose local variables may hold values.
                raise failure.with_traceback(None) from None
        return None

    def _set_connection_class(self, conn_class: type) -> None:
        """Tell the members as well which class Airflow wants for connections (Airflow 3.2+)."""
        super()._set_connection_class(conn_class)
        for member in self.members:
            tell = getattr(member.backend, "_set_connection_class", None)
            if tell is not None:
                tell(conn_class)


def _made_again(chain_class: type[ChainBackend], backend_kwargs: dict[str, Any]) -> ChainBackend:
    """Return a chain that was pickled; its options are those that the pickled one was given."""
    chain = chain_class.__new__(chain_class)
    ChainBackend.__init__(chain, **backend_kwargs)  # a subclass may take other arguments
    return chain


class _LeftToChildren(Exception):
    """A fork is about to begin, and constructing a member could run code of others, or wait for a file."""


def _members(entries: list[dict[str, Any]]) -> Iterator[Member]:
    """Construct the members. Before a fork, construct this package's own, so that children inherit what they load.

    :raises _LeftToChildren: before a fork, if there is another one.
    """
    left = None
    for position, entry in enumerate(entries, 1):
        try:
            yield _member(position, entry)
        except _LeftToChildren as error:
            left = error
    if left:
        raise left


def _member(position: int, entry: dict[str, Any]) -> Member:
    """Construct the member that *entry* describes.

    :raises ConfigurationError: naming it by position and class.
    """
    where = f"ChainBackend member {position}"
    name = entry.get("backend")
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{where}: option 'backend' is missing: {_known_backends()}.")
    title = f"member {position} ({name})"
    where = f"ChainBackend {title}"
    path = SHORT_NAMES.get(name, name)
    if are_left_to_children() and not path.startswith((f"{_OURS}.", _ENVIRONMENT)):
        raise _LeftToChildren
    backend_class = None if path in (_ENVIRONMENT, _LOCAL_FILES) else _class(where, path)
    _refuse_misplaced(where, entry, backend_class)
    values = options.parse(where, ENTRY_OPTIONS, entry)
    backend: Any
    if backend_class is not None:
        backend = _constructed(where, backend_class, values["kwargs"])
        own = isinstance(backend, SecretLookupMixin)
        lookups = own_lookups(backend) if own else foreign_lookups(backend, title)
        if not lookups:
            raise ConfigurationError(f"{where}: it has no method by which Airflow looks anything up.")
    elif path == _ENVIRONMENT:
        if values["kwargs"]:
            raise ConfigurationError(f"{where}: it has no options. Remove 'kwargs'.")
        backend = EnvironmentVariables()
        lookups = backend.lookups()
    else:
        backend = _local_files(where, values["kwargs"], optional=values["optional"])
        lookups = backend.lookups()
    patterns = {kind: values[kind] for kind in KINDS}
    return Member(position, name, backend, lookups, patterns, optional=values["optional"])


def _class(where: str, path: str) -> type:
    """Return the class at *path*, which must be one that can be a member."""
    module, _, name = path.rpartition(".")
    if path == "metastore" or name in ASKED_ANYWAY:
        _refuse_database(where)
    if not module:
        _refuse_short_name(where, path)
    found = _imported(where, module, name)
    if not isinstance(found, type):
        raise ConfigurationError(f"{where}: it is not a class. Name the class of a secrets backend.")
    if issubclass(found, ChainBackend):
        _refuse_short_name(where, CHAIN)
    if any(kind.__name__ in ASKED_ANYWAY for kind in found.__mro__):
        _refuse_database(where)
    return found


def _imported(where: str, module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        reason = f"no module named {error.name!r}" if error.name else type(error).__name__
    except AttributeError:
        reason = f"{module} has no {name!r}"
    except Exception as error:  # noqa: BLE001  # the module of another package may raise anything
        reason = type(error).__name__
    raise ConfigurationError(f"{where}: it cannot be imported ({reason}). Install its package or fix the path.")


def _refuse_database(where: str) -> NoReturn:
    raise ConfigurationError(
        f"{where}: Airflow's database cannot be a member, since workers have no access to it. Remove it: Airflow "
        "asks its database, or its API in workers, after the configured backend."
    )


def _refuse_short_name(where: str, short_name: str) -> NoReturn:
    """Say why a short name is no member's."""
    if short_name == CHAIN:
        raise ConfigurationError(f"{where}: a chain cannot be a member. List its members here instead.")
    cure = did_you_mean(short_name, SHORT_NAMES, f"{_known_backends()}.")
    raise ConfigurationError(f"{where}: unknown backend; {cure}")


def _known_backends() -> str:
    return f"name a class by its path, or one of {', '.join(SHORT_NAMES)}"


def _refuse_misplaced(where: str, entry: dict[str, Any], backend_class: type | None) -> None:
    """Refuse an option of the backend that was written beside ``kwargs``, and say where it belongs."""
    if backend_class is None or not issubclass(backend_class, SecretLookupMixin):
        return
    declared = {option.name for option in backend_class.declared_options()}
    known = {option.name for option in ENTRY_OPTIONS}
    misplaced = next((name for name in entry if name in declared and name not in known), None)
    if misplaced is not None:
        raise ConfigurationError(f"{where}: option {misplaced!r} is the backend's own. Move it into 'kwargs'.")


def _constructed(where: str, backend_class: type, kwargs: dict[str, Any]) -> Any:
    reason = ""
    try:
        if not issubclass(backend_class, SecretLookupMixin):
            try:
                inspect.signature(backend_class).bind(**kwargs)
            except TypeError as error:  # says which argument is unexpected or missing
                reason = str(error)
            except ValueError:  # not written in Python
                pass
        if not reason:
            return backend_class(**kwargs)
    except ConfigurationError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001  # its message may contain an option's value
        reason = f"{backend_class.__name__} raised {type(error).__name__} when constructed. Fix its 'kwargs'."
    raise ConfigurationError(f"{where}: {reason}")


def _local_files(where: str, kwargs: dict[str, Any], *, optional: bool) -> Any:
    from airflow_providers_secrets.backends._local_files import LocalFiles

    reason = ""
    try:
        files = LocalFiles(kwargs)
    except ConfigurationError as error:
        reason = str(error)
    if reason:
        raise ConfigurationError(f"{where}: {reason}")
    if unreadable := files.unreadable():
        if not optional:
            raise ConfigurationError(f"{where}: {unreadable}. Make it readable, or set 'optional' to true.")
        warn(("unreadable", where), "%s: %s.", where, unreadable)
    return files
