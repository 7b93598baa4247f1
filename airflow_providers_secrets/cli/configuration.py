"""The backend that the command uses: the one that Airflow's configuration names, a chain's member, or one to try."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_providers_secrets.cli.airflow_conf import (
    SERVER,
    WORKERS,
    has_workers_backend,
    ignored_of_workers,
    load_airflow,
    load_airflow_without_backend,
)
from airflow_providers_secrets.cli.backend_names import class_path_of, not_loaded, short_names
from airflow_providers_secrets.cli.output import collected_warnings, say
from airflow_providers_secrets.cli.reading import read_file, standard_input
from airflow_providers_secrets.errors import ConfigurationError, json_place
from airflow_providers_secrets.lookup.plan import Kind, multi_team, team_and_id

if TYPE_CHECKING:
    import argparse

    from airflow_providers_secrets.backends._members import Member
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin


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
        with collected_warnings():
            return type(self.backend)(**{**self.kwargs, **none, **options})

    def passed_over_for(self, kind: Kind, secret_id: str) -> str | None:
        """Return why the chain that this member is taken from does not ask it for an id; ``None`` if it does.

        Patterns are matched against the id without its team, as in a lookup.
        """
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
            f"name one with --backend, and its options with --kwargs: {', '.join(short_names())}."
        )
    backend: SecretLookupMixin = configured.backend
    return backend


def members_of(configured: Configured) -> tuple[Member, ...]:
    """Return the members of a chain in order; none if the backend is not a chain."""
    members: tuple[Member, ...] = getattr(configured.backend, "members", ())
    return members


def kwargs_from(text: str, flag: str) -> dict[str, Any]:
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
        raise ConfigurationError(f'{flag} is {reason}; write it as {{"option": value, …}}, or name a file with @FILE.')
    return kwargs


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
        tried = class_path_of(args.backend)
        load_airflow_without_backend()
        return make(tried, given or {}, "--backend", dict.fromkeys(given or {}, kwargs_flag))
    load_airflow()
    section = WORKERS if args.worker and has_workers_backend() else SERVER
    path = section.class_path()
    if not path:
        raise ConfigurationError(
            "Airflow's configuration names no [secrets] backend; set AIRFLOW__SECRETS__BACKEND, "
            "or try one with --backend."
        )
    if given is not None:
        return make(path, given, section.origin(), dict.fromkeys(given, kwargs_flag))
    kwargs, origins = section.options()
    made = make(path, kwargs, section.origin(), origins)
    if args.worker and section is SERVER and (ignored := ignored_of_workers()):
        made = made._replace(warnings=(*made.warnings, ignored))
    return made


def make(path: str, kwargs: Mapping[str, Any], origin: str, origins: Mapping[str, str]) -> Configured:
    """Construct the backend at *path*, once Airflow is loaded.

    :raises ConfigurationError: with a one-line message, if that fails.
    """
    module, _, name = path.rpartition(".")
    failure: Exception
    try:
        backend_class = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # TypeError: the path begins with two dots
        raise ConfigurationError(not_loaded(path, error)) from None
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
