"""What the connection options say about the identity, checked without an SDK: keys, configurations, the project."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

CREDENTIAL_OPTIONS: Final = ("gcp_key_path", "gcp_keyfile_dict", "gcp_credential_config_file")
"""The options that may hold an identity, at most one of them. Without any, it is the environment's."""

KEY_FIELDS: Final = ("client_email", "private_key", "token_uri")
"""The fields that a service account key must have."""


def json_object(value: Any) -> dict[str, Any]:
    """Accept a JSON object, also as text; in text, a private key's line breaks may be unescaped.

    :raises ValueError: saying what is wrong, without any part of *value*.
    """
    fault = "must be a JSON object"
    if isinstance(value, str):
        try:
            value = json.loads(value, strict=False)
        except (ValueError, RecursionError):
            fault = "is not valid JSON"
            value = None
    if not isinstance(value, dict):
        raise ValueError(fault)  # outside the handler: a decoding error holds the whole text
    return dict(value)


def service_account_key(value: Any) -> dict[str, Any]:
    """Accept the key of a service account, as a JSON object or its text.

    :raises ValueError: saying what is wrong, without any part of *value*.
    """
    key = json_object(value)
    if key.get("type") != "service_account":
        raise ValueError("must be a service account key, whose 'type' is 'service_account'")
    if missing := [field for field in KEY_FIELDS if not (key.get(field) and isinstance(key[field], str))]:
        raise ValueError(f"must be a service account key, and lacks {missing[0]!r}")
    # Keys from environment variables often have their line breaks escaped twice.
    key["private_key"] = key["private_key"].replace("\\n", "\n")
    return key


def credential_configuration(value: Any) -> dict[str, Any]:
    """Accept a credential configuration, as a JSON object or its text.

    :raises ValueError: saying what is wrong, without any part of *value*.
    """
    configuration = json_object(value)
    if not isinstance(configuration.get("type"), str):
        raise ValueError("must be a credential configuration, and lacks 'type'")
    return configuration


def is_open(options: Mapping[str, Any]) -> bool:
    """Tell whether the server is an emulator that needs no login."""
    identity = (*CREDENTIAL_OPTIONS, "impersonation_chain")
    return (options["endpoint"] or "").startswith("http://") and not any(options[name] for name in identity)


def project_without_login(options: Mapping[str, Any]) -> str | None:
    """Return the project that the options or the environment name, or ``None``."""
    named: str | None = options["project_id"] or os.environ.get("GOOGLE_CLOUD_PROJECT")
    return named
