"""The options of Google Secret Manager's backend."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from airflow_providers_secrets.options import Option, listed, one_of, strict_text, text, with_usable_port
from airflow_providers_secrets.stores.google.identity import (
    CREDENTIAL_OPTIONS,
    credential_configuration,
    is_open,
    project_without_login,
    service_account_key,
)

CLOUD_PLATFORM: Final = "https://www.googleapis.com/auth/cloud-platform"
"""The scope that Secret Manager needs."""


def scopes(value: Any) -> tuple[str, ...]:
    """Accept OAuth 2.0 scopes, as a list or separated by commas. An empty list means the default."""
    return tuple(scope for given in listed(value, ",") for scope in re.split(r"[,\s]+", given)) or (CLOUD_PLATFORM,)


def accounts(value: Any) -> tuple[str, ...]:
    """Accept the e-mail address of a service account, or a chain of them."""
    chain = tuple(listed(value, ","))
    if not all(re.fullmatch(r"[^@\s/]+@[^@\s/]+\.[^@\s/]+", account) for account in chain):
        raise ValueError("must be a service account's e-mail address, or a list of them")
    return chain


def configuration_or_path(value: Any) -> dict[str, Any] | str:
    """Accept a credential configuration, as a JSON object, its text, or the path of its file."""
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return strict_text(value)
    return credential_configuration(value)


def json_path(value: Any) -> str:
    """Accept the path of a JSON file."""
    if not strict_text(value).endswith(".json"):
        raise ValueError("must be the path of a service account key that ends in .json")
    return str(value)


def endpoint(value: Any) -> str:
    """Accept a server's address: a scheme, a host and perhaps a port."""
    if not re.fullmatch(r"https?://[^/?#@\s]+/?", strict_text(value)):
        raise ValueError("must be https:// or http://, a host, and perhaps a port")
    return with_usable_port(str(value)).rstrip("/")


def _matching(pattern: str, meaning: str) -> Callable[[Any], str]:
    """Return a coercion that accepts text if all of it matches *pattern*."""

    def coerce(value: Any) -> str:
        given = text(value)
        if not re.fullmatch(pattern, given):
            raise ValueError(f"must be {meaning}")
        return given

    return coerce


# https://cloud.google.com/resource-manager/docs/creating-managing-projects; emulators also accept shorter ones.
project = _matching(r"(?:[a-z0-9.-]+:)?[a-z0-9][a-z0-9-]{0,62}", "a project's id (lower case) or number")

GOOGLE_OPTIONS: Final = (
    Option("project_id", project, doc="Project of the secrets; else that of the credentials or environment."),
    Option(
        "location",
        _matching(r"[a-z]+(?:-[a-z]+[0-9]+)?", "a region such as 'europe-west4'"),
        doc="Region of regional secrets; null: global secrets.",
    ),
    Option(
        "version",
        _matching(r"[1-9][0-9]{0,18}|[A-Za-z][A-Za-z0-9_-]{0,62}", "'latest', a version's number or its alias"),
        "latest",
        "Which version of every secret is read: latest, a number, or an alias.",
    ),
    Option("gcp_key_path", json_path, doc="File of a service account key (.json), read at each login."),
    Option("gcp_keyfile_dict", service_account_key, doc="The service account key itself, as an object or JSON text."),
    Option(
        "gcp_credential_config_file",
        configuration_or_path,
        doc="Credential configuration (workload identity federation): path, object or JSON text.",
    ),
    Option("gcp_scopes", scopes, (CLOUD_PLATFORM,), "OAuth 2.0 scopes, separated by commas or as a list."),
    Option(
        "impersonation_chain",
        accounts,
        (),
        "Service account to impersonate, or a list: each allows the next, and the last one reads.",
    ),
    Option("quota_project_id", project, doc="Project that the calls are billed to, if not the secrets' own."),
    Option("transport", one_of("grpc", "rest"), "rest", "How to speak to Google: rest or grpc."),
    Option(
        "endpoint",
        endpoint,
        doc="Another address of the API: https://host; http://host:port is an emulator, asked without a login.",
    ),
)


def option_conflict(options: Mapping[str, Any]) -> str | None:
    """Return a message about the first option that is missing or contradicts another one, or ``None``."""
    given = [name for name in CREDENTIAL_OPTIONS if options[name]]
    if len(given) > 1:
        return f"options {given[0]!r} and {given[1]!r} contradict each other: give one"
    if is_open(options) and not project_without_login(options):
        return "option 'project_id' is needed with an 'endpoint' that is asked without a login"
    return None
