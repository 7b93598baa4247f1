"""What Azure Key Vault's backend is told and answers: its options, what each credential needs, and the codes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from airflow_providers_secrets.options import Option, flag, flag_or_path, mapping, one_of, strict_text, text
from airflow_providers_secrets.outcomes import Outcome

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
"""The names of azure-identity's credentials, and the options that each needs; of those in one group, one."""

FROM_ENVIRONMENT: Final[Mapping[tuple[str, str], str]] = {
    ("workload_identity", "workload_identity_tenant_id"): "AZURE_TENANT_ID",
    ("workload_identity", "client_id"): "AZURE_CLIENT_ID",
    ("workload_identity", "workload_identity_token_file"): "AZURE_FEDERATED_TOKEN_FILE",
}
"""The variable that stands in for an option, by credential and option."""

PROOFS: Final[Mapping[str, str]] = {
    "client_secret": "client_secret",
    "client_certificate_path": "client_certificate",
}
"""The options that only one credential takes, and which."""

_HOST: Final = r"(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])"
# As text: compiling it would be a tenth of what importing a backend costs, and most processes that do look nothing up.
_URL: Final = rf"(?i:https://{_HOST}(?::[0-9]+)?(?:/[0-9A-Za-z._~-]+)*/*)"


def vault_url(value: Any) -> str:
    """Accept the address of a vault; whoever reads the traffic to another than ``https`` would have the token."""
    url = strict_text(value).strip()
    if not re.fullmatch(_URL, url):
        raise ValueError("must be https://, a host and perhaps a port")
    _check_port(url)
    return url.rstrip("/")


def authority(value: Any) -> str:
    """Accept the address of a Microsoft Entra authority, with or without ``https://``."""
    given = strict_text(value).strip()
    url = given if "://" in given else f"https://{given}"
    if not re.fullmatch(_URL, url):
        raise ValueError("must be a host, or https:// and a host")
    _check_port(url)
    return url.rstrip("/")


def _check_port(url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError("has a port that is none") from None


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


AZURE_OPTIONS: Final = (
    Option("vault_url", vault_url, doc="Address of the vault: https://NAME.vault.azure.net."),
    Option(
        "credential", one_of(*CREDENTIALS), doc="Which credential of azure-identity; else what the options below say."
    ),
    Option("tenant_id", tenant, doc="Tenant of the application; with client_id and client_secret."),
    Option("client_id", text, doc="The application; for workload_identity else AZURE_CLIENT_ID."),
    Option("client_secret", text, doc="The application's secret."),
    Option(
        "client_certificate_path", strict_text, doc="File of the application's certificate and key, PEM or PKCS 12."
    ),
    Option("client_certificate_password", text, doc="Password of that file."),
    Option("managed_identity_client_id", text, doc="Client id of a user-assigned managed identity."),
    Option("workload_identity_tenant_id", tenant, doc="Tenant of the workload identity; else AZURE_TENANT_ID."),
    Option("workload_identity_token_file", strict_text, doc="File of its token; else AZURE_FEDERATED_TOKEN_FILE."),
    Option("authority", authority, doc="Where to log in; else AZURE_AUTHORITY_HOST, else login.microsoftonline.com."),
    Option("api_version", api_version, "7.4", "Version of Key Vault's REST API."),
    Option(
        "verify_challenge_resource",
        flag,
        default=True,
        doc="Give a token only to the host that it is for; false for a vault behind a name of its own.",
    ),
    Option("connection_verify", flag_or_path, True, "A CA bundle for vault and login; false: trust any vault."),  # noqa: FBT003
    Option("proxies", mapping, {}, 'HTTP proxies: {"https": "http://proxy:3128"}; else the environment\'s.'),
    Option("connection_timeout", text, doc="Ignored.", deprecated="'connect_timeout'"),
    Option("retry_total", text, doc="Ignored.", deprecated="'max_attempts'"),
    Option("logging_enable", flag, doc="Ignored.", deprecated="nothing: it would write values out"),
)

ABSENT: Final = "SecretNotFound"
DISABLED: Final = "SecretDisabled"
EXPIRED: Final = "token no longer accepted"
MALFORMED: Final = "malformed answer"
REFUSED: Final = "login refused"
UNREADABLE: Final = "unusable credential"
CHALLENGE: Final = "no usable challenge"

OUTCOMES: Final[Mapping[str, Outcome]] = {
    # https://learn.microsoft.com/azure/key-vault/general/rest-error-codes, and the answers of the service. The
    # rest is UNAVAILABLE: 408, 5xx, and a 404 without the service's own code.
    ABSENT: Outcome.NOT_FOUND,
    DISABLED: Outcome.REVOKED,
    "ObjectIsBeingDeleted": Outcome.REVOKED,
    "ObjectIsDeletedButRecoverable": Outcome.REVOKED,
    MALFORMED: Outcome.INVALID,
    "HTTP 403": Outcome.DENIED,
    "HTTP 429": Outcome.THROTTLED,
    **dict.fromkeys(
        (
            REFUSED,
            UNREADABLE,
            CHALLENGE,
            *(f"HTTP {status}" for status in (301, 302, 303, 307, 308, 400, 401, 405)),
            # requests.exceptions
            "InvalidProxyURL",
            "InvalidSchema",
            "InvalidURL",
        ),
        Outcome.MISCONFIGURED,
    ),
}

ADVICE: Final[Mapping[Outcome, str]] = {
    Outcome.DENIED: (
        "Give the backend's identity the role 'Key Vault Secrets User' on the vault, or 'get' in its access policy, "
        "and let this host through the vault's firewall."
    ),
    Outcome.REVOKED: "Enable it, or recover or purge it where it is deleted.",
    Outcome.MISCONFIGURED: "Mend the backend's vault_url, api_version, connection_verify or credential.",
}


def credential_name(options: Mapping[str, Any]) -> str:
    """Give the name of the credential that the options stand for, by the official rule where they do not say it."""
    if options["credential"]:
        return str(options["credential"])
    return next((name for proof, name in PROOFS.items() if options[proof]), "default")


def option_fault(options: Mapping[str, Any]) -> str | None:
    """Name the first option that is missing or contradicts another one, or ``None``."""
    if not options["vault_url"]:
        return "option 'vault_url' is needed: https://NAME.vault.azure.net"
    if options["client_secret"] and options["client_certificate_path"]:
        return "options 'client_secret' and 'client_certificate_path' contradict each other: give one"
    chosen = credential_name(options)
    for proof, name in PROOFS.items():
        if options[proof] and chosen != name:
            return f"options {proof!r} and 'credential' contradict each other: {chosen!r} takes none"
    for group in CREDENTIALS[chosen]:
        if not any(options[name] or os.environ.get(FROM_ENVIRONMENT.get((chosen, name), "")) for name in group):
            return f"option {' or '.join(map(repr, group))} is needed for the credential {chosen!r}"
    if options["client_certificate_password"] and chosen != "client_certificate":
        return "option 'client_certificate_path' is needed with 'client_certificate_password'"
    return None
