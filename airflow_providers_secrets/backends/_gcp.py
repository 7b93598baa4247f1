"""What Google Secret Manager's backend is told and answers: its options, and the codes of Google's APIs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from airflow_providers_secrets.options import Option, one_of, strict_text, text
from airflow_providers_secrets.outcomes import Outcome

CLOUD_PLATFORM: Final = "https://www.googleapis.com/auth/cloud-platform"
"""The scope that Secret Manager needs."""

CREDENTIAL_OPTIONS: Final = ("gcp_key_path", "gcp_keyfile_dict", "gcp_credential_config_file")
"""Where an identity may come from; of these at most one. Without, it is the environment's."""

KEY_FIELDS: Final = ("client_email", "private_key", "token_uri")
"""What a service account key cannot do without."""


def _listed(value: Any) -> list[str]:
    """Give the strings of a list, of one as JSON text, or between commas."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("is not valid JSON") from None
    values = value.split(",") if isinstance(value, str) else value
    if not (isinstance(values, (list, tuple)) and all(isinstance(one, str) for one in values)):
        raise ValueError("must be a string, a list of strings, or null")
    return [stripped for one in values if (stripped := one.strip())]


def scopes(value: Any) -> tuple[str, ...]:
    """Accept OAuth 2.0 scopes, as a list or separated by commas. None at all means the default."""
    return tuple(scope for given in _listed(value) for scope in re.split(r"[,\s]+", given)) or (CLOUD_PLATFORM,)


def accounts(value: Any) -> tuple[str, ...]:
    """Accept the e-mail address of a service account, or a chain of them."""
    chain = tuple(_listed(value))
    if not all(re.fullmatch(r"[^@\s/]+@[^@\s/]+\.[^@\s/]+", account) for account in chain):
        raise ValueError("must be a service account's e-mail address, or a list of them")
    return chain


def _object(value: Any) -> dict[str, Any]:
    """Accept a JSON object, also as text; in text, a private key's line breaks may stand unescaped."""
    fault = "must be a JSON object"
    if isinstance(value, str):
        try:
            value = json.loads(value, strict=False)
        except ValueError:
            fault = "is not valid JSON"
            value = None
    if not isinstance(value, dict):
        raise ValueError(fault)  # outside the handler: a decoding error carries the whole text
    return dict(value)


def service_account_key(value: Any) -> dict[str, Any]:
    """Accept the key of a service account, as a JSON object or its text."""
    key = _object(value)
    if key.get("type") != "service_account":
        raise ValueError("must be a service account key, whose 'type' is 'service_account'")
    if missing := [field for field in KEY_FIELDS if not (key.get(field) and isinstance(key[field], str))]:
        raise ValueError(f"must be a service account key, and lacks {missing[0]!r}")
    # Keys that came through environment variables have their line breaks escaped twice.
    key["private_key"] = key["private_key"].replace("\\n", "\n")
    return key


def credential_configuration(value: Any) -> dict[str, Any] | str:
    """Accept a credential configuration, as a JSON object, its text, or the path of its file."""
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return strict_text(value)
    configuration = _object(value)
    if not isinstance(configuration.get("type"), str):
        raise ValueError("must be a credential configuration, and lacks 'type'")
    return configuration


def json_path(value: Any) -> str:
    """Accept the path of a JSON file."""
    if not strict_text(value).endswith(".json"):
        raise ValueError("must be the path of a service account key that ends in .json")
    return str(value)


def endpoint(value: Any) -> str:
    """Accept a server's address: a scheme, a host and perhaps a port."""
    if not re.fullmatch(r"https?://[^/?#@\s]+/?", strict_text(value)):
        raise ValueError("must be https:// or http://, a host, and perhaps a port")
    return str(value).rstrip("/")


def _matching(pattern: str, meaning: str) -> Callable[[Any], str]:
    """Accept text of which all matches *pattern*."""

    def coerce(value: Any) -> str:
        given = text(value)
        if not re.fullmatch(pattern, given):
            raise ValueError(f"must be {meaning}")
        return given

    return coerce


# https://cloud.google.com/resource-manager/docs/creating-managing-projects; emulators take shorter ones, too.
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
        credential_configuration,
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
    Option("transport", one_of("grpc", "rest"), "grpc", "How to speak to Google: grpc or rest."),
    Option(
        "endpoint",
        endpoint,
        doc="Another address of the API: https://host; http://host:port is an emulator, asked without a login.",
    ),
)

ABSENT: Final = "NOT_FOUND"
MALFORMED: Final = "malformed answer"
UNREADABLE: Final = "unusable credentials"
LOGIN_REFUSED: Final = "login refused"
LOGIN_UNAVAILABLE: Final = "login unavailable"
NO_PROJECT: Final = "no project"

OUTCOMES: Final[Mapping[str, Outcome]] = {
    # https://cloud.google.com/apis/design/errors#error_codes; the rest is UNAVAILABLE. What a proxy answers
    # without a status of Google's is none of these: gRPC calls a 404 UNIMPLEMENTED, REST has no status in it.
    ABSENT: Outcome.NOT_FOUND,
    "SERVICE_DISABLED": Outcome.MISCONFIGURED,
    "PERMISSION_DENIED": Outcome.DENIED,
    "FAILED_PRECONDITION": Outcome.REVOKED,
    "RESOURCE_EXHAUSTED": Outcome.THROTTLED,
    "INVALID_ARGUMENT": Outcome.MISCONFIGURED,
    "UNAUTHENTICATED": Outcome.MISCONFIGURED,
    MALFORMED: Outcome.INVALID,
    "checksum": Outcome.INVALID,
    UNREADABLE: Outcome.MISCONFIGURED,
    LOGIN_REFUSED: Outcome.MISCONFIGURED,
    LOGIN_UNAVAILABLE: Outcome.UNAVAILABLE,
    NO_PROJECT: Outcome.MISCONFIGURED,
    **dict.fromkeys((f"HTTP {status}" for status in (301, 302, 303, 307, 308)), Outcome.MISCONFIGURED),
}

ADVICE: Final[Mapping[Outcome, str]] = {
    Outcome.DENIED: "Grant the backend's identity roles/secretmanager.secretAccessor on it, in the project it is in.",
    Outcome.REVOKED: "Enable its version or add a new one; delete the secret if it shall be absent.",
    Outcome.MISCONFIGURED: (
        "Mend the backend's project_id, location, endpoint or credentials, or enable the Secret Manager API."
    ),
}


def option_fault(options: Mapping[str, Any]) -> str | None:
    """Name the first option that is missing or contradicts another one, or ``None``."""
    given = [name for name in CREDENTIAL_OPTIONS if options[name]]
    if len(given) > 1:
        return f"options {given[0]!r} and {given[1]!r} contradict each other: give one"
    if is_open(options) and not project_without_login(options):
        return "option 'project_id' is needed with an 'endpoint' that is asked without a login"
    return None


def is_open(options: Mapping[str, Any]) -> bool:
    """Tell whether the server is an emulator that is asked without a login."""
    identity = (*CREDENTIAL_OPTIONS, "impersonation_chain")
    return (options["endpoint"] or "").startswith("http://") and not any(options[name] for name in identity)


def project_without_login(options: Mapping[str, Any]) -> str | None:
    """Give the project that the options or the environment say."""
    named: str | None = options["project_id"] or os.environ.get("GOOGLE_CLOUD_PROJECT")
    return named


_is_child_of_grpc = False


def transport(options: Mapping[str, Any]) -> str:
    """Say how to speak to Google: as the options say, but by REST in a child of a process that had gRPC loaded.

    gRPC's locks are there as they were at the fork, its threads are not, and a child that asks it for a channel may
    wait for one of them for ever, with Python's own lock in hand, so that no deadline ends it. So such a child leaves
    gRPC alone. The answers are the same.
    """
    return "rest" if _is_child_of_grpc else str(options["transport"])


def _after_in_child() -> None:
    global _is_child_of_grpc  # noqa: PLW0603
    _is_child_of_grpc = _is_child_of_grpc or "grpc" in sys.modules


os.register_at_fork(after_in_child=_after_in_child)
