"""The backend that the command uses: the one that Airflow's configuration names, or one to try.

Airflow itself reads the configuration, so that airflow.cfg, the environment, ``…_CMD`` and single
``…BACKEND_KWARG__NAME`` variables have the same effect as in Airflow.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow_providers_secrets.cli.output import Progress, collected_warnings, quiet_structlog, say, standard_input
from airflow_providers_secrets.errors import ConfigurationError, did_you_mean, json_place, quoted
from airflow_providers_secrets.lookup.plan import multi_team
from airflow_providers_secrets.provider_info import get_provider_info

if TYPE_CHECKING:
    import argparse

    from airflow_providers_secrets.backends._members import Member
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin
    from airflow_providers_secrets.lookup.plan import Kind

SINGLE_SINCE: Final = (3, 2)
"""The first Airflow that reads ``AIRFLOW__SECRETS__BACKEND_KWARG__NAME``."""
WORKERS_SINCE: Final = (3, 0)
"""The first Airflow with ``[workers] secrets_backend``."""

HIDDEN: Final = re.compile(
    r"secret|token|passw|credential|keyfile|jwt|assertion|certificate_data|shared_cache_key|aws_access_key_id",
    re.IGNORECASE,
)
"""Names of options whose values are not shown."""
SHOWN: Final = re.compile(
    r".*_(prefix|path|pattern|file|method|audience|enabled|ttl)|secret_id_path|auth_type|use_.*", re.IGNORECASE
)
"""Names of options whose values are shown although :data:`HIDDEN` matches."""

SHOWN_PARAMETERS: Final = frozenset(
    {
        "client_id",
        "client_name",
        "cluster_name",
        "db",
        "password_env",
        "password_file",
        "protocol",
        "region",
        "serverless",
        "service",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
        "ssl_min_version",
        "user",
        "username",
    }
)
"""URL parameters whose values are shown."""


class Section(NamedTuple):
    """A place in Airflow's configuration that names a backend."""

    section: str
    key: str
    kwargs_key: str

    @property
    def single_prefix(self) -> str:
        """The prefix of the environment variables that set one option each."""
        return f"AIRFLOW__{self.section}__{self.kwargs_key.removesuffix('s')}__".upper()


SERVER: Final = Section("secrets", "backend", "backend_kwargs")
WORKERS: Final = Section("workers", "secrets_backend", "secrets_backend_kwargs")


class Configured(NamedTuple):
    """A backend, and where its configuration comes from.

    :param origin: where the class is named.
    :param kwargs: the arguments of its constructor.
    :param origins: where each argument comes from.
    :param warnings: the warnings when it was constructed.
    :param member: the member of a chain that it was taken from; the chain asks it only for some ids.
    """

    backend: Any
    class_path: str
    origin: str
    kwargs: Mapping[str, Any]
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    member: Member | None = None

    def fresh(self, **options: Any) -> Any:
        """Return the same backend without caches and preloading, and with *options* in addition.

        A failure raises this package's own error, whatever ``on_denied`` and the like would make of it in Airflow.
        """
        if not is_ours(self.backend):
            return self.backend
        from airflow_providers_secrets.backends.mixin import FAILURE_POLICIES

        none = {"cache_ttl": 0, "shared_cache": None, "preload": None, **dict.fromkeys(FAILURE_POLICIES, "next")}
        known = {option.name for option in type(self.backend).declared_options()}
        changes = {name: value for name, value in {**none, **options}.items() if name in known}
        with collected_warnings():
            return type(self.backend)(**{**self.kwargs, **changes})

    def passed_over_for(self, kind: Kind, secret_id: str) -> str | None:
        """Return why the chain that this member is taken from does not ask it for an id; ``None`` if it does.

        Patterns are matched against the id without its team, as in a lookup.
        """
        from airflow_providers_secrets.lookup.plan import team_and_id

        _, own = team_and_id(secret_id)
        return self.member.passed_over_for(kind, own) if self.member else None

    def off_for(self, kind: Kind) -> str | None:
        """Return why the chain that this member is taken from asks it for no id of *kind*; ``None`` if it asks."""
        return self.member.off_for(kind) if self.member else None


def is_ours(backend: object) -> bool:
    """Tell whether *backend* is one of this package's backends for a single store."""
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin

    return isinstance(backend, SecretLookupMixin)


def ours(configured: Configured, flag: str = "--member") -> SecretLookupMixin:
    """Return the backend of *configured*.

    :param flag: the argument that names a member of a chain.
    :raises ConfigurationError: if it is not one of this package's backends for a single store.
    """
    if members := members_of(configured):
        known = ", ".join(f"{member.position} {member.name}" for member in members)
        raise ConfigurationError(f"{configured.class_path} has several stores; name one with {flag} N: {known}.")
    if configured.member and not configured.member.is_ours:
        raise ConfigurationError(
            f"{configured.member.title} is not one of this package's stores; name another member with {flag} N."
        )
    if not is_ours(configured.backend):
        raise ConfigurationError(
            f"{configured.class_path} is not a backend of this package that speaks to one store; "
            f"name one with --backend: {', '.join(short_names())}."
        )
    backend: SecretLookupMixin = configured.backend
    return backend


def members_of(configured: Configured) -> tuple[Member, ...]:
    """Return the members of a chain in order; none if the backend is not a chain."""
    members: tuple[Member, ...] = getattr(configured.backend, "members", ())
    return members


def short_names() -> dict[str, str]:
    """Return the class paths of this package's backends, by module name."""
    return {path.split(".")[-2]: path for path in get_provider_info()["secrets-backends"]}


def class_path_of(name: str, others: Sequence[str] = ()) -> str:
    """Return the class path that *name* stands for.

    :param others: what else could have been meant.
    :raises ConfigurationError: for an unknown short name, naming the likely one.
    """
    known = short_names()
    if "." in name:
        return name
    if name not in known:
        meant = [*others, *known]
        cure = did_you_mean(name, meant, f"known: {', '.join(meant)}, and any class path.")
        raise ConfigurationError(f"unknown backend {quoted(name)}; {cure}")
    return known[name]


def kwargs_from(text: str, flag: str = "--kwargs") -> dict[str, Any]:
    """Read a backend's options: a JSON object, ``@FILE`` or ``-``.

    :param flag: the argument whose value *text* is.
    :raises ConfigurationError: if it is not a JSON object; no part of it is shown.
    """
    if text == "-":
        text = standard_input()
    elif text.startswith("@"):
        text = read_file(text[1:], f"{flag} @FILE")
    reason = "not a JSON object"
    try:
        kwargs = json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deeply
        kwargs = None
        if isinstance(error, json.JSONDecodeError):
            reason = f"not valid JSON{json_place(error)}"
    if not isinstance(kwargs, dict):
        raise ConfigurationError(f'{flag} is {reason}; write it as {{"option": value, …}}.')
    return kwargs


def may_be_credentials(text: str) -> bool:
    """Tell whether a JSON object of options has a value that must not be shown; true for anything else, too."""
    with contextlib.suppress(ValueError, RecursionError):
        kwargs = json.loads(text)
        if isinstance(kwargs, dict):
            return any(_is_masked(name, value) for name, value in kwargs.items())
    return True


def _is_masked(name: str, value: Any) -> bool:
    if isinstance(value, list):
        return any(_is_masked(name, one) for one in value)
    # An object is a chain's member or settings of an SDK, which this module does not know.
    return isinstance(value, Mapping) or (isinstance(value, str) and shown_value(name, value) != value)


def read_file(path: str, typed: str) -> str:
    """Return the text of a file.

    :param typed: how the argument that names it is written.
    :raises ConfigurationError: if it cannot be read.
    """
    if not path:  # Python would take it for the working directory
        raise ConfigurationError(f"the path of a file is missing; write {typed}.")
    reason: str | None
    try:
        return Path(path).read_text(encoding="utf-8-sig")  # Windows editors begin it with a byte order mark
    except OSError as error:
        reason = error.strerror
    except ValueError:
        reason = "it is not UTF-8 text"
    raise ConfigurationError(f"{path} cannot be read: {reason}.")


def configured(args: argparse.Namespace, kwargs_flag: str = "--kwargs") -> Configured:
    """Return the backend that the arguments of :func:`.arguments.add_backend` select.

    :param kwargs_flag: the argument that gives its options.
    :raises ConfigurationError: if there is none, or if Airflow or the backend refuses the configuration.
    """
    found = _whole(args, kwargs_flag)
    if getattr(args, "team", None) and not multi_team():
        say("[core] multi_team is off: Airflow asks for no team.")
    return member_of(found, args.member) if args.member is not None else found


def member_of(chain: Configured, position: int, flag: str = "--member") -> Configured:
    """Return one member of a chain, as if it were configured on its own.

    :param flag: the argument that names it.
    :raises ConfigurationError: if there is none at *position*.
    """
    members = members_of(chain)
    if not members:
        raise ConfigurationError(f"{flag} is for chains, and {chain.class_path} is not one.")
    if position not in range(1, len(members) + 1):
        raise ConfigurationError(f"{flag} takes 1 to {len(members)}.")
    entries = chain.kwargs["backends"]
    kwargs = (json.loads(entries) if isinstance(entries, str) else entries)[position - 1].get("kwargs") or {}
    kwargs = json.loads(kwargs) if isinstance(kwargs, str) else kwargs
    member = members[position - 1]
    kind = type(member.backend)
    # The members env and file are not backends on their own.
    path = f"{kind.__module__}.{kind.__qualname__}" if hasattr(kind, "get_conn_value") else member.name
    source = f"{chain.origins.get('backends', chain.origin)}, {member.title}"
    return Configured(member.backend, path, source, kwargs, dict.fromkeys(kwargs, source), member=member)


def _whole(args: argparse.Namespace, kwargs_flag: str) -> Configured:
    if args.backend == "":  # an unset shell variable must not select another store
        raise ConfigurationError("--backend is empty; name one, or leave it out for the configured one.")
    given = kwargs_from(args.kwargs, kwargs_flag) if args.kwargs is not None else None
    if args.backend:
        if args.worker:
            raise ConfigurationError("--worker reads [workers], and --backend reads nothing; leave one of them out.")
        return tried(args.backend, given or {})
    load_airflow()
    from airflow.configuration import conf

    section = WORKERS if args.worker and has_workers_backend() else SERVER
    path = conf.get(*section[:2], fallback=None)
    if not path:
        raise ConfigurationError(
            "Airflow's configuration names no [secrets] backend; set AIRFLOW__SECRETS__BACKEND, "
            "or try one with --backend."
        )
    if given is not None:
        return make(path, given, _origin(section.section, section.key), dict.fromkeys(given, kwargs_flag))
    kwargs, origins = _configured_kwargs(section, single=_airflow_version() >= SINGLE_SINCE)
    made = make(path, kwargs, _origin(section.section, section.key), origins)
    if args.worker and section is SERVER and (ignored := _ignored_of_workers()):
        made = made._replace(warnings=(*made.warnings, ignored))
    return made


def has_workers_backend() -> bool:
    """Tell whether Airflow's configuration, which must be loaded, names a separate backend for workers."""
    from airflow.configuration import conf

    return _airflow_version() >= WORKERS_SINCE and bool(conf.get(*WORKERS[:2], fallback=None))


def _ignored_of_workers() -> str | None:
    """Return a warning if there are options for the workers' backend but no such backend: Airflow ignores them."""
    from airflow.configuration import conf

    version, (section, key, kwargs_key) = _airflow_version(), WORKERS
    text = conf.get(section, kwargs_key, fallback=None) if version >= WORKERS_SINCE else None
    single = version >= SINGLE_SINCE and any(variable.startswith(WORKERS.single_prefix) for variable in os.environ)
    if not single and (text or "").strip() in ("", "{}"):
        return None
    return f"[{section}] {kwargs_key} is ignored unless [{section}] {key} is set: tasks use [secrets]."


def tried(name: str, kwargs: Mapping[str, Any], others: Sequence[str] = ()) -> Configured:
    """Return the backend *name* with *kwargs*; Airflow itself then runs without a backend in this process.

    :param others: what else an unknown name could have meant.
    :raises ConfigurationError: if there is no such backend, or it refuses the options.
    """
    path = class_path_of(name, others)
    if "airflow" not in sys.modules:
        # The configured backend is removed: it may be what keeps Airflow from starting.
        for variable in [variable for variable in os.environ if variable.startswith(SERVER.single_prefix)]:
            del os.environ[variable]
        os.environ["AIRFLOW__SECRETS__BACKEND"] = os.environ["AIRFLOW__WORKERS__SECRETS_BACKEND"] = ""
        os.environ["AIRFLOW__SECRETS__BACKEND_KWARGS"] = ""
        load_airflow()
    return make(path, kwargs, "--backend", dict.fromkeys(kwargs, "--kwargs"))


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
        raise ConfigurationError(_not_loaded(path)) from None
    # A parser's message quotes airflow.cfg, SQLAlchemy's the database URL, and that of a failed command its output.
    told = isinstance(failure, ImportError) or type(failure).__name__ == "AirflowConfigException"
    words = f": {str(failure).partition(' Output:')[0].rstrip('.')}" if told else ""
    raise ConfigurationError(
        f"Airflow does not start with its configuration: {type(failure).__name__}{words}. See 'airflow version'."
    ) from None


def make(path: str, kwargs: Mapping[str, Any], origin: str, origins: Mapping[str, str]) -> Configured:
    """Construct the backend at *path*.

    :raises ConfigurationError: with a one-line message, if that fails.
    """
    load_airflow()
    module, _, name = path.rpartition(".")
    failure: Exception
    try:
        backend_class = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # TypeError: the path begins with two dots
        raise ConfigurationError(_not_loaded(path, error)) from None
    if not isinstance(backend_class, type) or not hasattr(backend_class, "get_conn_value"):
        raise ConfigurationError(f"{path} is not a secrets backend's class.")
    try:
        with collected_warnings() as said:
            backend = backend_class(**kwargs)
        return Configured(backend, path, origin, kwargs, origins, tuple(said))
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001  # another package's class
        failure = error
    raise ConfigurationError(f"{path} does not accept these options: {type(failure).__name__}.")


def _not_loaded(path: str, error: Exception | None = None) -> str:
    known = list(short_names().values())
    likely = difflib.get_close_matches(path, known, n=1, cutoff=0.8)
    if likely and likely[0] != path:
        return f"the backend {quoted(path)} cannot be imported; did you mean {likely[0]}?"
    missing = f": there is no module {error.name}" if isinstance(error, ImportError) and error.name else ""
    cure = "Check the class path and that its package is installed."
    return f"the backend {quoted(path)} cannot be imported{missing}. {cure}"


def _airflow_version() -> tuple[int, ...]:
    import airflow

    return tuple(int(part) for part in re.findall(r"\d+", airflow.__version__)[:2])


def _configured_kwargs(section: Section, *, single: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options as Airflow would pass them, and where each comes from.

    :raises ConfigurationError: if they are not a JSON object: Airflow would then pass none.
    """
    from airflow.configuration import conf

    text = conf.get(section.section, section.kwargs_key, fallback=None)
    origin = _origin(section.section, section.kwargs_key)
    kwargs: Any = {}
    if text and not text.isspace():
        try:
            kwargs = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(
                f"[{section.section}] {section.kwargs_key} is not valid JSON{json_place(error)}, so Airflow passes "
                f"none of it. Write one JSON object with double quotes in {origin}."
            ) from None
        if not isinstance(kwargs, dict):
            raise ConfigurationError(
                f"[{section.section}] {section.kwargs_key} is JSON but not an object, so Airflow passes none of it. "
                f"Write one JSON object in {origin}."
            )
    origins = dict.fromkeys(kwargs, origin)
    if single:
        for variable, value in os.environ.items():
            name = variable.removeprefix(section.single_prefix).lower()
            if variable.startswith(section.single_prefix) and name:
                kwargs[name] = value
                origins[name] = variable
    return kwargs, origins


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


def identity_of(configured: Configured) -> str:
    """Return a text that identifies a store and the place in it: the class, its options and its SDK's variables.

    It contains no credentials, since these may be renewed while the store stays the same.
    """
    told = {name: shown_value(name, value) for name, value in configured.kwargs.items()}
    if is_ours(configured.backend):
        from airflow_providers_secrets.lookup.access import loaded_store

        prefixes = tuple(loaded_store(configured.backend.config).env_prefixes)
        told |= {name: shown_value(name, value) for name, value in os.environ.items() if name.startswith(prefixes)}
    return json.dumps([configured.class_path, sorted(told.items())])


def shown_value(name: str, value: Any) -> str:
    """Return an option's value for display, masking what may be a credential."""
    if value is None:
        return "null"
    if HIDDEN.search(name) and not SHOWN.fullmatch(name) and not isinstance(value, bool):
        return "***"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: …" for key in value) + "}"
    if isinstance(value, re.Pattern):
        return str(value.pattern)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(_masked(str(one)) for one in value)
    return _masked(f"{value:g}" if isinstance(value, float) else str(value))


def _masked(text: str) -> str:
    """Return *text* with the credentials in URLs masked."""
    text = re.sub(r"(?<=://)[^\s?#]*@", "***@", text)
    if "://" not in text:
        return text
    # For an unknown parameter, which may be a misspelt password, show only the name.
    return re.sub(
        r"(?<=[?&])([^=&\s]+)=[^&\s]*",
        lambda found: found[0] if found[1] in SHOWN_PARAMETERS else f"{found[1]}=***",
        text,
    )
