"""The options of Azure Key Vault's backend, and what each credential needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from airflow_providers_secrets.options import (
    Option,
    flag,
    flag_or_path,
    lacking,
    listed,
    one_of,
    path_or_pair,
    proxies,
    strict_text,
    text,
    with_usable_port,
)
from airflow_providers_secrets.stores.azure.identity import PROOFS, credential_name

CREDENTIALS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "default": (),
    "cli": (),
    "client_certificate": (("tenant_id",), ("client_id",), ("client_certificate_path",)),
    "client_secret": (("tenant_id",), ("client_id",), ("client_secret",)),
    "developer_cli": (),
    "environment": (),
    "managed_identity": (),
    "powershell": (),
    "workload_identity": (
        ("workload_identity_tenant_id", "tenant_id"),
        ("client_id",),
        ("workload_identity_token_file",),
    ),
}
"""The names of azure-identity's credentials, and the options that each needs: one from each group."""

FROM_ENVIRONMENT: Final[Mapping[tuple[str, str], str]] = {
    ("workload_identity", "workload_identity_tenant_id"): "AZURE_TENANT_ID",
    ("workload_identity", "client_id"): "AZURE_CLIENT_ID",
    ("workload_identity", "workload_identity_token_file"): "AZURE_FEDERATED_TOKEN_FILE",
}
"""The environment variable that can replace an option, by credential and option."""

COLLECTIONS: Final = ("certificates", "deletedsecrets", "keys", "secrets")
"""The first path segments of a vault's REST API; the SDK adds them itself."""

_HOST: Final = r"(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])"
# Not compiled: that would take a tenth of the time that importing a backend takes, and most processes that import one
# look nothing up.
_URL: Final = rf"(?i:https://{_HOST}(?::[0-9]+)?(?:/[0-9A-Za-z._~-]+)*/*)"


def vault_url(value: Any) -> str:
    """Accept the address of a vault. Only ``https``: otherwise anyone who can read the traffic would get the token."""
    url = strict_text(value).strip()
    if not re.fullmatch(_URL, url):
        raise ValueError("must be https://, a host and perhaps a port")
    path = urlsplit(with_usable_port(url)).path.strip("/").lower()
    if path.partition("/")[0] in COLLECTIONS:
        raise ValueError(f"ends in the path '/{path}', which is not part of a vault's address: leave it out")
    return url.rstrip("/")


def authority(value: Any) -> str:
    """Accept the address of a Microsoft Entra authority, with or without ``https://``."""
    given = strict_text(value).strip()
    url = given if "://" in given else f"https://{given}"
    if not re.fullmatch(_URL, url):
        raise ValueError("must be a host, or https:// and a host")
    return with_usable_port(url).rstrip("/")


def tenant(value: Any) -> str:
    """Accept the id or the domain of a tenant."""
    if not re.fullmatch("[0-9A-Za-z.-]+", strict_text(value)):
        raise ValueError("must be the id or the domain of a tenant")
    return str(value)


def api_version(value: Any) -> str:
    """Accept a version of Key Vault's REST API."""
    if not re.fullmatch(r"(?:\d\.\d|\d{4}-\d{2}-\d{2})(?:-preview(?:\.\d)?)?", text(value)):
        raise ValueError("must be a version of Key Vault's REST API, such as '7.4' or '2025-07-01'")
    return str(value)


def texts(value: Any) -> tuple[str, ...]:
    """Accept a list of strings, also as JSON or separated by commas."""
    return tuple(listed(value, ","))


def no_logging(value: Any) -> bool:
    """Refuse a setting that makes the SDK log secret values."""
    if flag(value):
        raise ValueError("would write secret values to the log: delete it")
    return False


PASSED_ON: Final = (
    Option("api_version", api_version, "7.4", "Version of Key Vault's REST API."),
    Option(
        "verify_challenge_resource",
        flag,
        default=True,
        doc="Give a token only to the host that it is for; false for a vault behind a name of its own.",
    ),
    Option("connection_verify", flag_or_path, True, "A CA bundle for vault and login; false: trust any vault."),  # noqa: FBT003
    Option("connection_cert", path_or_pair, doc="Certificate and key that a gateway of the vault asks for."),
    Option("proxies", proxies, {}, 'HTTP proxies: {"https": "http://proxy:3128"}; else the environment\'s.'),
    Option("user_agent", text, doc="Stands before this package's own in the header User-Agent."),
    Option(
        "additionally_allowed_tenants", texts, (), 'Tenants besides its own that the credential may ask; ["*"]: any.'
    ),
)
"""The parameters of ``SecretClient``, azure-core and azure-identity that are passed on."""

OURS: Final = tuple(
    Option(name, lambda value: value, doc="Ignored.", ignored=f"use {instead}", identifies_client=False)
    for name, instead in {
        "connection_timeout": "'connect_timeout'",
        **dict.fromkeys(
            ("retry_total", "retry_connect", "retry_read", "retry_status", "retry_mode", "retry_on_status_codes"),
            "'max_attempts'",
        ),
        **dict.fromkeys(("retry_backoff_factor", "retry_backoff_max"), "'timeout'"),
        **dict.fromkeys(("permit_redirects", "redirect_max"), "the address that is redirected to in 'vault_url'"),
    }.items()
)
"""SDK parameters that this package sets itself: time-outs, attempts, redirects. Ignored, with a warning."""

REFUSED: Final = (
    Option("logging_enable", no_logging, doc="Refused where true: it would log values.", identifies_client=False),
)
"""SDK parameters that would leak secret values."""

AZURE_OPTIONS: Final = (
    Option("vault_url", vault_url, doc="Address of the vault: https://NAME.vault.azure.net."),
    Option(
        "credential",
        one_of(*CREDENTIALS),
        doc="Which credential of azure-identity; else what the options below say.",
    ),
    Option("tenant_id", tenant, doc="Tenant of the application; with client_id and client_secret."),
    Option("client_id", text, doc="The application; for workload_identity else AZURE_CLIENT_ID."),
    Option("client_secret", text, doc="The application's secret."),
    Option(
        "client_certificate_path",
        strict_text,
        doc="File of the application's certificate and key, PEM or PKCS 12.",
    ),
    Option("client_certificate_password", text, doc="Password of that file."),
    Option("managed_identity_client_id", text, doc="Client id of a user-assigned managed identity."),
    Option(
        "workload_identity_tenant_id",
        tenant,
        doc="Tenant of the workload identity; else AZURE_TENANT_ID.",
    ),
    Option(
        "workload_identity_token_file",
        strict_text,
        doc="File of its token; else AZURE_FEDERATED_TOKEN_FILE.",
    ),
    Option(
        "authority",
        authority,
        doc="Where to log in; else AZURE_AUTHORITY_HOST, else login.microsoftonline.com.",
    ),
    *PASSED_ON,
    *OURS,
    *REFUSED,
)


def option_conflict(options: Mapping[str, Any]) -> str | None:
    """Return a message about the first option that is missing or contradicts another one, or ``None``."""
    if options["client_secret"] and options["client_certificate_path"]:
        return "options 'client_secret' and 'client_certificate_path' contradict each other: give one"
    chosen = credential_name(options)
    for proof, name in PROOFS.items():
        if options[proof] and chosen != name:
            return f"options {proof!r} and 'credential' contradict each other: {chosen!r} takes none"
    if options["client_id"] and chosen == "managed_identity":  # it would log in as the system-assigned identity
        return (
            "options 'client_id' and 'credential' contradict each other: 'managed_identity' takes "
            "'managed_identity_client_id'"
        )
    if needed := lacking(options, CREDENTIALS[chosen], chosen, FROM_ENVIRONMENT):
        return f"option {needed} is needed for the credential {chosen!r}"
    if options["client_certificate_password"] and chosen != "client_certificate":
        return "option 'client_certificate_path' is needed with 'client_certificate_password'"
    return None
