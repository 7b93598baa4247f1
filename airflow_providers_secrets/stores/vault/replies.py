"""The codes for Vault's answers, what each means for a lookup, and the one thing to do about it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from airflow_providers_secrets.stores.base import (
    ABSENT,
    BAD_BUNDLE,
    BAD_CREDENTIAL,
    FOREIGN,
    LOGIN_REFUSED,
    MALFORMED,
    NO_TLS,
    ON_THE_WAY,
    REDIRECTS,
    UNTRUSTED,
    Outcome,
    StoreError,
    codes_of_page,
)

Options = Mapping[str, Any]

LOGIN_UNTRUSTED: Final = "certificate of a login that is not trusted"
DELETED: Final = "deleted"
DESTROYED: Final = "destroyed"
NO_MOUNT: Final = "no such mount"
OTHER_VERSION: Final = "another kv_engine_version"
REDIRECTED: Final = "redirect to another host"
DEAD_TOKEN: Final = "unknown token"  # noqa: S105
URL_PATH: Final = "path in the url"
SIGNING_REFUSED: Final = "signing refused"
CONTENDED: Final = "others keep writing to it"

MEANINGS: Final[Mapping[int, str]] = {
    412: "HTTP 412, this node has not yet seen the latest write",
    472: "HTTP 472, a disaster recovery secondary",
    473: "HTTP 473, a performance standby",
    503: "HTTP 503, sealed or down for maintenance",
}
"""The text for a status whose meaning is specific to Vault."""

NO_CLOUD_LOGIN: Final = (
    # botocore.exceptions
    "NoCredentialsError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
    # google.auth.exceptions
    "DefaultCredentialsError",
    "MalformedError",
)
"""The codes of a cloud's credentials that cannot be used for a login."""

OUTCOMES: Final[Mapping[str, Outcome]] = {
    # https://developer.hashicorp.com/vault/api-docs#http-status-codes, and observed answers of OpenBao. Everything
    # else is UNAVAILABLE: 412 (not yet replicated), 472 and 473 (secondary or standby node), 5xx, 503 when sealed.
    ABSENT: Outcome.NOT_FOUND,
    DELETED: Outcome.REVOKED,
    DESTROYED: Outcome.REVOKED,
    MALFORMED: Outcome.INVALID,
    "HTTP 403": Outcome.DENIED,
    "HTTP 429": Outcome.THROTTLED,
    CONTENDED: Outcome.THROTTLED,  # certainly not written, and worth a retry
    **dict.fromkeys(
        (
            LOGIN_REFUSED,
            DEAD_TOKEN,
            BAD_CREDENTIAL,
            BAD_BUNDLE,
            LOGIN_UNTRUSTED,
            NO_MOUNT,
            OTHER_VERSION,
            REDIRECTED,
            URL_PATH,
            SIGNING_REFUSED,
            *REDIRECTS,
            *(f"HTTP {status}" for status in (400, 401, 405)),
            # requests.exceptions
            "InvalidHeader",
            "InvalidProxyURL",
            "InvalidSchema",
            "InvalidURL",
            "MissingSchema",
            "TooManyRedirects",
            "UnicodeEncodeError",  # a token that cannot be sent in a header
            # OpenSSL's reasons
            "TLSV13_ALERT_CERTIFICATE_REQUIRED",
            *NO_CLOUD_LOGIN,
        ),
        Outcome.MISCONFIGURED,
    ),
}

BEFORE_VAULT: Final = ON_THE_WAY | {REDIRECTED, LOGIN_UNTRUSTED, "InvalidProxyURL", *NO_CLOUD_LOGIN}
"""The codes of failures before Vault is asked, and of answers that are not Vault's own."""

ADVICE: Final[Mapping[str | Outcome, str]] = {
    DELETED: "Undelete its latest version, or delete its metadata if it is to be absent.",
    DESTROYED: "Write a new version, or delete its metadata if it is to be absent.",
    LOGIN_REFUSED: "Check the credentials, role, 'auth_mount_point' and 'namespace' of the login.",
    DEAD_TOKEN: "Replace the token: in the option 'token', in what 'token_path' names, or in VAULT_TOKEN.",
    BAD_CREDENTIAL: (
        "Let the option or variable name a file that Airflow's user can read and that holds the credential."
    ),
    BAD_BUNDLE: "Let the option or variable name a CA bundle in PEM that Airflow's user can read.",
    LOGIN_UNTRUSTED: "Name the CA bundle of the login's server in REQUESTS_CA_BUNDLE, or in AWS_CA_BUNDLE for STS.",
    SIGNING_REFUSED: "Grant the Google account roles/iam.serviceAccountTokenCreator on itself.",
    NO_MOUNT: "Check 'mount_point' and 'namespace'.",
    OTHER_VERSION: "Set 'kv_engine_version' to 2, or to \"auto\".",
    REDIRECTED: "Set 'url' to the address that Vault itself announces (api_addr), without a path.",
    URL_PATH: "Remove the path from 'url': scheme, host and port are enough.",
    **dict.fromkeys((MALFORMED, FOREIGN), "Check that 'url' is Vault's own address."),
    **dict.fromkeys(REDIRECTS, "Set 'url' to the address that Vault itself announces (api_addr)."),
    "HTTP 400": "Check the 'namespace', and look into Vault's log for what it refuses.",
    "HTTP 405": "Check 'mount_point': what is mounted there is no KV engine.",
    CONTENDED: "Write again once others have finished.",
    "HTTP 503, sealed or down for maintenance": "Unseal Vault.",
    "InvalidHeader": "Remove the characters from the token that no HTTP header can hold.",
    "UnicodeEncodeError": "Remove the characters from the token that no HTTP header can hold.",
    "TooManyRedirects": "Set 'url' to the address that Vault itself announces (api_addr).",
    UNTRUSTED: "Set 'verify' to the bundle of the CA that signed Vault's certificate.",
    NO_TLS: "Check the scheme and port of 'url': that port does not speak TLS.",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "Set 'cert' to the client certificate that Vault asks for.",
    "NoCredentialsError": "Give Airflow's host or pod AWS credentials, or set 'key_id' and 'secret_id'.",
    "ParamValidationError": "Correct 'assume_role_kwargs', or the token in the file of AWS_WEB_IDENTITY_TOKEN_FILE.",
    "ProfileNotFound": "Correct AWS_PROFILE.",
    "DefaultCredentialsError": "Set 'gcp_key_path', or give Airflow's host or pod Google credentials.",
    Outcome.DENIED: (
        "Allow 'read' on its path (KV 2: data/ after the mount) in the login's policy, if 'mount_point' and "
        "'kv_engine_version' are right."
    ),
    Outcome.REVOKED: "Write a new version of it.",
    Outcome.MISCONFIGURED: "Check the backend's options for 'url', TLS and login.",
    Outcome.INVALID: (
        "Rewrite it: a connection as 'conn_uri' or by its fields, a variable or configuration value as 'value'."
    ),
}

DEFAULT_ADDRESS: Final = "http://localhost:8200"
"""hvac's default address."""

WRONG_PATHS: Final = ("ui", "v1")
"""Paths that people copy into ``url`` from a browser or an example; hvac adds the API's path itself."""


NO_ANSWER: Final = ("network error", "connection refused", "i/o timeout", "no such host", "error connecting to host")
"""Parts of Vault's message for a login that failed because a server it asks (LDAP, RADIUS) could not be reached."""

UPGRADE: Final = "from non-versioned to versioned data"
"""Part of Vault's message, with the status 400, while it or its primary upgrades a KV engine."""


class DeletedVersion(StoreError):
    """The latest version of a secret is deleted or destroyed.

    :param version: its number, which a write must pass for check-and-set.
    """

    def __init__(self, *codes: str, version: int) -> None:
        super().__init__(*codes)
        self.version = version


class Reply:
    """One answer of Vault's.

    :param status: its HTTP status.
    :param content: its JSON; ``None`` if it is not JSON.
    :param retry_after: the seconds that it asks to wait.
    """

    __slots__ = ("content", "retry_after", "status")

    def __init__(self, status: int, content: Any, retry_after: float | None = None) -> None:
        self.status = status
        self.content = content
        self.retry_after = retry_after

    def __repr__(self) -> str:
        return f"Reply({self.status})"


def address(options: Options) -> str:
    """Return the server's address."""
    url: str = options["url"] or os.environ.get("VAULT_ADDR") or DEFAULT_ADDRESS
    return url.rstrip("/")


def contents(reply: Reply, options: Options) -> dict[str, Any]:
    """Return the JSON object of a successful answer.

    :raises StoreError: for any other answer.
    """
    if reply.status == HTTPStatus.NO_CONTENT and reply.content is None:
        return {}
    if reply.status == HTTPStatus.OK and isinstance(reply.content, dict):
        return reply.content
    raise failed(reply, options)


def read_contents(reply: Reply, options: Options) -> dict[str, Any]:
    """Return the object ``data`` in the answer to a read.

    :raises StoreError: for any other answer.
    """
    if reply.status != HTTPStatus.OK or not isinstance(reply.content, dict):
        raise failed(reply, options)
    data = reply.content.get("data")
    if not isinstance(data, dict):
        raise StoreError("the answer holds no data", MALFORMED)
    return data


def refuses_token(reply: Reply) -> bool:
    """Tell whether Vault refuses because it does not know the token, not because the token lacks permission.

    Vault names an "invalid token" since 1.17 (https://developer.hashicorp.com/vault/docs/concepts/tokens#error-responses).
    Before, and in OpenBao, a missing permission is reported with "1 error occurred", and an unknown token without it.
    """
    errors = errors_of(reply) if reply.status == HTTPStatus.FORBIDDEN else []
    return errors == ["permission denied"] or any("invalid token" in error for error in errors)


def asks_in_vain(reply: Reply) -> bool:
    """Tell whether a login failed because Vault got no answer from the server it asks. The status is 400 then, too."""
    said = " ".join(errors_of(reply)).lower()
    return reply.status == HTTPStatus.BAD_REQUEST and any(sign in said for sign in NO_ANSWER)


def errors_of(reply: Reply) -> list[str]:
    """Return the messages with which Vault refuses something."""
    errors = reply.content.get("errors") if isinstance(reply.content, dict) else None
    return [str(error) for error in errors] if isinstance(errors, list) else []


def failed(reply: Reply, options: Options) -> StoreError:
    """Return the error for an unsuccessful answer. A 404 proves absence only in Vault's own form."""
    error = _meaning_of_404(reply.content) if reply.status == HTTPStatus.NOT_FOUND else None
    if options["auth_type"] == "token" and refuses_token(reply):
        error = StoreError("the token is unknown, expired or revoked", DEAD_TOKEN)
    elif reply.status == HTTPStatus.BAD_REQUEST and any(UPGRADE in error for error in errors_of(reply)):
        error = StoreError("the mount is being upgraded to KV 2")
    if error is None:
        shown = [MEANINGS[reply.status]] if reply.status in MEANINGS else []
        error = StoreError(*shown, *_codes(reply), retry_after=reply.retry_after)
    healthy = reply.status < HTTPStatus.INTERNAL_SERVER_ERROR and reply.status != HTTPStatus.TOO_MANY_REQUESTS
    if healthy and error.codes != (ABSENT,) and (cause := wrong_path(address(options))):
        return StoreError(*cause)
    return error


def _codes(reply: Reply) -> tuple[str, ...]:
    if reply.status == HTTPStatus.OK:
        return (MALFORMED,)
    is_vaults = isinstance(reply.content, dict) and "errors" in reply.content
    return (f"HTTP {reply.status}",) if is_vaults else codes_of_page(reply.status)


def wrong_path(url: str) -> tuple[str, ...]:
    """Return codes that name the path of ``url`` if the API cannot be under it; else none."""
    # Parsed by hand: urlsplit raises for some addresses that requests accepts.
    authority_and_path = re.split("[?#]", url.partition("://")[2], maxsplit=1)[0]
    first = next(filter(None, authority_and_path.split("/")[1:]), "")
    return (f"option 'url' has the path '/{first}'", URL_PATH) if first in WRONG_PATHS else ()


def _meaning_of_404(content: Any) -> StoreError:
    foreign = StoreError("HTTP 404, which is not Vault's own answer")
    if not isinstance(content, dict):
        return foreign
    errors = content.get("errors")
    if errors == []:
        return StoreError(ABSENT)
    if errors:
        return StoreError("HTTP 404, no such mount, namespace or path", NO_MOUNT)
    data = content.get("data")
    metadata = data.get("metadata") if isinstance(data, dict) else None
    if isinstance(metadata, dict):
        version = metadata.get("version")
        version = version if isinstance(version, int) else 0
        if metadata.get("destroyed"):
            return DeletedVersion("its latest version is destroyed", DESTROYED, version=version)
        if metadata.get("deletion_time"):
            return DeletedVersion("its latest version is deleted", DELETED, version=version)
    if content.get("warnings"):
        return StoreError("HTTP 404, the mount is a KV 2 engine", OTHER_VERSION)
    return foreign
