"""What Airflow's configuration says about the secrets backend, and where it says so.

Airflow itself reads it, so that airflow.cfg, the environment, ``…_CMD`` and single ``…BACKEND_KWARG__NAME`` variables
have the same effect as in Airflow. :func:`load_airflow` comes first.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import sys
from typing import Any, Final, NamedTuple

from airflow_providers_secrets.cli.backend_names import not_loaded
from airflow_providers_secrets.cli.output import Progress, quiet_structlog
from airflow_providers_secrets.errors import ConfigurationError, json_place

SINGLE_SINCE: Final = (3, 2)
"""The first Airflow that reads ``AIRFLOW__SECRETS__BACKEND_KWARG__NAME``."""
WORKERS_SINCE: Final = (3, 0)
"""The first Airflow with ``[workers] secrets_backend``."""


class Section(NamedTuple):
    """A place in Airflow's configuration that names a backend."""

    section: str
    key: str
    kwargs_key: str

    @property
    def single_prefix(self) -> str:
        """The prefix of the environment variables that set one option each."""
        return f"AIRFLOW__{self.section}__{self.kwargs_key.removesuffix('s')}__".upper()

    def class_path(self) -> str | None:
        """Return the path of the backend's class, if one is named here."""
        from airflow.configuration import conf

        path: str | None = conf.get(self.section, self.key, fallback=None)
        return path

    def origin(self) -> str:
        """Return where the class is named."""
        return _origin(self.section, self.key)

    def options(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the backend's options as Airflow would pass them, and where each comes from.

        :raises ConfigurationError: if they are not a JSON object: Airflow would then pass none.
        """
        from airflow.configuration import conf

        text = conf.get(self.section, self.kwargs_key, fallback=None)
        origin = _origin(self.section, self.kwargs_key)
        kwargs: Any = {}
        if text and not text.isspace():
            try:
                kwargs = json.loads(text)
            except ValueError as error:
                raise ConfigurationError(
                    f"[{self.section}] {self.kwargs_key} is not valid JSON{json_place(error)}, so Airflow passes "
                    f"none of it. Write one JSON object with double quotes in {origin}."
                ) from None
            if not isinstance(kwargs, dict):
                raise ConfigurationError(
                    f"[{self.section}] {self.kwargs_key} is JSON but not an object, so Airflow passes none of it. "
                    f"Write one JSON object in {origin}."
                )
        origins = dict.fromkeys(kwargs, origin)
        if _airflow_version() >= SINGLE_SINCE:
            for variable, value in os.environ.items():
                name = variable.removeprefix(self.single_prefix).lower()
                if variable.startswith(self.single_prefix) and name:
                    kwargs[name] = value
                    origins[name] = variable
        return kwargs, origins


SERVER: Final = Section("secrets", "backend", "backend_kwargs")
WORKERS: Final = Section("workers", "secrets_backend", "secrets_backend_kwargs")


def load_airflow() -> None:
    """Import Airflow's configuration, which constructs the configured backend.

    :raises ConfigurationError: with a one-line message, if Airflow does not start.
    """
    quiet_structlog()
    if "airflow.configuration" in sys.modules and hasattr(sys.modules["airflow.configuration"], "secrets_backend_list"):
        return
    failure: Exception
    try:
        # Airflow logs to standard output, which belongs to the command's own output.
        with Progress("starting Airflow"), contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module("airflow.configuration")
        return
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001  # a configuration may cause any error
        failure = error
    except SystemExit as error:
        failure = RuntimeError(str(error))
    path = os.environ.get("AIRFLOW__SECRETS__BACKEND", "")
    if path in str(failure) and path:
        raise ConfigurationError(not_loaded(path)) from None
    # A parser's message quotes airflow.cfg, SQLAlchemy's the database URL, and that of a failed command its output.
    told = isinstance(failure, ImportError) or type(failure).__name__ == "AirflowConfigException"
    words = f": {str(failure).partition(' Output:')[0].rstrip('.')}" if told else ""
    raise ConfigurationError(
        f"Airflow does not start with its configuration: {type(failure).__name__}{words}. See 'airflow version'."
    ) from None


def load_airflow_without_backend() -> None:
    """Import Airflow's configuration as if it named no backend: that may be what keeps Airflow from starting.

    An Airflow that is loaded already stays as it is.
    """
    if "airflow" not in sys.modules:
        for variable in [variable for variable in os.environ if variable.startswith(SERVER.single_prefix)]:
            del os.environ[variable]
        os.environ["AIRFLOW__SECRETS__BACKEND"] = os.environ["AIRFLOW__WORKERS__SECRETS_BACKEND"] = ""
        os.environ["AIRFLOW__SECRETS__BACKEND_KWARGS"] = ""
    load_airflow()


def has_workers_backend() -> bool:
    """Tell whether a separate backend is named for workers."""
    return _airflow_version() >= WORKERS_SINCE and bool(WORKERS.class_path())


def ignored_of_workers() -> str | None:
    """Return a warning if Airflow ignores what is set for the workers' backend."""
    from airflow.configuration import conf

    version, (section, key, kwargs_key) = _airflow_version(), WORKERS
    if version < WORKERS_SINCE:
        since = ".".join(map(str, WORKERS_SINCE))
        return f"Airflow before {since} ignores [{section}]: tasks use [secrets]." if WORKERS.class_path() else None
    text = conf.get(section, kwargs_key, fallback=None)
    single = version >= SINGLE_SINCE and any(variable.startswith(WORKERS.single_prefix) for variable in os.environ)
    if not single and (text or "").strip() in ("", "{}"):
        return None
    return f"[{section}] {kwargs_key} is ignored unless [{section}] {key} is set: tasks use [secrets]."


def _airflow_version() -> tuple[int, ...]:
    import airflow

    return tuple(int(part) for part in re.findall(r"\d+", airflow.__version__)[:2])


def _origin(section: str, key: str) -> str:
    """Return where Airflow finds an option."""
    import airflow.configuration as airflow_configuration

    variable = f"AIRFLOW__{section}__{key}".upper()
    for name in (variable, f"{variable}_CMD", f"{variable}_SECRET"):
        if name in os.environ:
            return name
    file = str(airflow_configuration.AIRFLOW_CONFIG)
    for name in (key, f"{key}_cmd", f"{key}_secret"):
        if airflow_configuration.conf.has_option(section, name):
            return f"{file}, [{section}] {name}"
    return "Airflow's default"
