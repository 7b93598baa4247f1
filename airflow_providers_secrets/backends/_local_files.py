"""Connections, variables and configuration values from files, in the format of Airflow's ``LocalFilesystemBackend``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from airflow_providers_secrets import options
from airflow_providers_secrets.backends._members import connection_text
from airflow_providers_secrets.errors import ConfigurationError, InvalidSecret, StoreUnavailable, quoted
from airflow_providers_secrets.files import read_once
from airflow_providers_secrets.lookup.calls import LookUp
from airflow_providers_secrets.lookup.forks import no_fork
from airflow_providers_secrets.lookup.plan import Kind
from airflow_providers_secrets.options import Option

FILE_OPTIONS: Final[Mapping[Kind, Option]] = {
    "connections": Option("connections_file_path", options.strict_text, doc="The file with connections."),
    "variables": Option("variables_file_path", options.strict_text, doc="The file with variables."),
    "config": Option("configs_file_path", options.strict_text, doc="The file with configuration values."),
}
"""The options of the member ``file``, named as Airflow's own."""

SUFFIXES: Final = (".env", ".json", ".yaml", ".yml")


class LocalFiles:
    """The member ``file``. Airflow's own code reads a file at the first lookup, and again once it has changed.

    :param given: the configured values of :data:`FILE_OPTIONS`.
    :raises ConfigurationError: for an option that is unknown or unusable.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        values = options.parse("file", FILE_OPTIONS.values(), given)
        self.paths: dict[Kind, str] = {
            kind: values[option.name] for kind, option in FILE_OPTIONS.items() if values[option.name]
        }
        """The path of the file of each kind that has one."""
        if not self.paths:
            names = ", ".join(option.name for option in FILE_OPTIONS.values())
            raise ConfigurationError(f"file: no file is named. Set one of {names}.")
        for kind, path in self.paths.items():
            if not path.lower().endswith(SUFFIXES):
                raise ConfigurationError(
                    f"file: option {FILE_OPTIONS[kind].name!r} holds {quoted(path)}, which does not end in one of "
                    f"{', '.join(SUFFIXES)}, by which Airflow tells the format."
                )
            if "\0" in path:
                raise ConfigurationError(
                    f"file: option {FILE_OPTIONS[kind].name!r} holds {quoted(path)}, which has a NUL character, as no "
                    "file's path has."
                )

    def unreadable(self) -> str | None:
        """Return which file cannot be read and why, or ``None``. Opens the files but reads none."""
        for kind, path in self.paths.items():
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # a pipe would block
            except OSError as error:
                return f"{FILE_OPTIONS[kind].name} {quoted(path)} cannot be read: {_reason(error)}"
        return None

    def lookups(self) -> dict[Kind, LookUp]:
        """Return the lookup function of each kind that has a file."""
        return {kind: self._look_up_in(kind, path) for kind, path in self.paths.items()}

    @staticmethod
    def _look_up_in(kind: Kind, path: str) -> LookUp:
        def look_up(secret_id: str, _: str | None) -> Any:
            return _entries(kind, path, secret_id).get(secret_id) if isinstance(secret_id, str) else None

        return look_up


def _entries(kind: Kind, path: str, secret_id: str) -> dict[str, Any]:
    """Return what the file at *path* holds now.

    :raises StoreUnavailable: if it cannot be read.
    :raises InvalidSecret: if Airflow cannot parse it.
    """
    store = f"File {quoted(path)}"
    try:
        return _READERS[kind](path)
    except OSError as error:
        failure: Exception = StoreUnavailable(
            store, secret_id, _reason(error), "Let this process read the file, or name another one."
        )
    except Exception as error:  # noqa: BLE001  # Airflow's message may quote a line of the file
        lines = [getattr(fault, "line_no", None) for fault in getattr(error, "parse_errors", ())]
        at = f" in line {lines[0]}" if lines else ""
        failure = InvalidSecret(
            store, secret_id, f"{type(error).__name__}{at}", "Fix the file; until then, none of it is used."
        )
    raise failure.with_traceback(None) from None


def _variables(path: str) -> dict[str, Any]:
    with no_fork():
        from airflow.secrets import local_filesystem
    return local_filesystem.load_variables(path)


def _connections(path: str) -> dict[str, Any]:
    with no_fork():
        import airflow.models.connection  # noqa: F401  # the reader would import it by itself
        from airflow.secrets import local_filesystem
    return {
        conn_id: connection_text(connection)
        for conn_id, connection in local_filesystem.load_connections_dict(path).items()
    }


_READERS: Final[Mapping[Kind, Callable[[str], dict[str, Any]]]] = {
    "connections": read_once(_connections),
    "variables": read_once(_variables),
    "config": read_once(_variables),
}
"""Airflow's reader for each kind. They keep what they read per process: Airflow constructs a chain often."""


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
