"""Azure Key Vault: what its answers mean, and the operations on it. Imports no SDK."""

from __future__ import annotations

import contextlib
import json
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_providers_secrets.jwt import claims_of
from airflow_providers_secrets.stores.base import (
    BAD_CREDENTIAL,
    EXISTS,
    FOREIGN,
    LOGIN_REFUSED,
    MALFORMED,
    ON_THE_WAY,
    REDIRECTS,
    UNTRUSTED,
    Answer,
    Identity,
    ListedSecret,
    Outcome,
    PageTokens,
    Store,
    StoreError,
    Written,
    codes_of_page,
    seconds_to_wait,
)

if TYPE_CHECKING:
    from azure.keyvault.secrets import KeyVaultSecret, SecretClient

    from airflow_providers_secrets.stores.azure.client import KeyVaultClient

SECRET_NOT_FOUND: Final = "SecretNotFound"  # noqa: S105  # a code
SECRET_DISABLED: Final = "SecretDisabled"  # noqa: S105
NOT_THE_VAULTS: Final = "HTTP 404, which is not Key Vault's own answer"
EXPIRED: Final = "token no longer accepted"
CHALLENGE: Final = "HTTP 401 that does not say what a token must be for"
FOREIGN_TOKEN: Final = "the vault asks for a token for another host"  # noqa: S105
NO_VAULT: Final = "option 'vault_url' is not set"
BAD_WRITE: Final = "BadParameter of a write"
GONE: Final = "a private name of the SDK is gone"

PAGE: Final = 25
"""Names per page of a listing: the maximum that Key Vault returns."""

MAX_PAGES: Final = 20_000
"""Maximum number of pages, half a million secrets; a longer listing counts as endless."""


class KeyVault(Store):
    """One vault, read with one identity of Microsoft Entra.

    The client logs in at its first call. One thread logs in while the others wait, each until its own deadline. A
    refused login is not tried again for 30 s.
    """

    sdk: ClassVar = {
        "azure.identity": "azure",
        "azure.keyvault.secrets": "azure",
        "airflow_providers_secrets.stores.azure.client": "azure",
    }
    late_imports = (
        "_strptime",
        "azure.core.rest._requests_basic",
        "azure.identity._internal.msal_client",
        "azure.core.tracing.common",
        "encodings.utf_8_sig",
        "isodate",
        "msal",
        "msal_extensions",
        "netrc",
    )
    env_prefixes = ("AZURE_", "DEFAULT_IDENTITY_", "IDENTITY_", "IMDS_", "MSI_")
    outcomes: ClassVar = {
        # https://learn.microsoft.com/azure/key-vault/general/rest-error-codes, and observed answers of the service.
        # Everything else is UNAVAILABLE: 408, 5xx, and a 404 without the service's own code.
        SECRET_NOT_FOUND: Outcome.NOT_FOUND,
        SECRET_DISABLED: Outcome.REVOKED,
        "ObjectIsBeingDeleted": Outcome.REVOKED,
        "ObjectIsBeingRecovered": Outcome.REVOKED,
        "ObjectIsDeletedButRecoverable": Outcome.REVOKED,
        BAD_WRITE: Outcome.INVALID,
        "HTTP 403": Outcome.DENIED,
        "HTTP 429": Outcome.THROTTLED,
        **dict.fromkeys(
            (
                LOGIN_REFUSED,
                BAD_CREDENTIAL,
                CHALLENGE,
                FOREIGN_TOKEN,
                NO_VAULT,
                GONE,
                *REDIRECTS,
                *(f"HTTP {status}" for status in (400, 401, 405)),
                # requests.exceptions
                "InvalidProxyURL",
                "InvalidSchema",
                "InvalidURL",
            ),
            Outcome.MISCONFIGURED,
        ),
    }
    advice: ClassVar[Mapping[str | Outcome, str]] = {
        SECRET_DISABLED: "Enable it: az keyvault secret set-attributes --enabled true.",
        "ObjectIsBeingDeleted": "Wait until it is deleted, then recover or purge it.",
        "ObjectIsBeingRecovered": "Try again once it is recovered.",
        "ObjectIsDeletedButRecoverable": "Recover it (az keyvault secret recover) or purge it, then write again.",
        "ForbiddenByFirewall": "Let this host's address through the vault's firewall.",
        "ForbiddenByConnection": "Reach the vault by its private endpoint, or allow public access.",
        "ForbiddenByPolicy": "Allow the identity in the vault's access policies: 'get', 'list', 'set', 'delete'.",
        "VaultNotFound": "Fix the backend's vault_url: there is no vault of that name.",
        "BadParameter": "Fix the backend's api_version or vault_url: the vault does not accept the request.",
        BAD_WRITE: "Write at most 25 KB, and a content type of at most 255 characters.",
        NO_VAULT: "Set it to https://NAME.vault.azure.net.",
        **dict.fromkeys((MALFORMED, FOREIGN, NOT_THE_VAULTS), "Fix the backend's vault_url, or the proxy in between."),
        FOREIGN_TOKEN: "Fix the backend's vault_url; where nobody else can answer there, set "
        "verify_challenge_resource to false.",
        CHALLENGE: "Fix the backend's vault_url: no vault answers there.",
        LOGIN_REFUSED: "Fix the credential that the backend's options name; if they name none, set 'credential'.",
        BAD_CREDENTIAL: "Fix that option.",
        UNTRUSTED: "Name the CA bundle in 'connection_verify', or in REQUESTS_CA_BUNDLE.",
        GONE: "Install another version of it.",
        "HTTP 401": "Check that the backend's tenant is the vault's own.",
        **dict.fromkeys(
            REDIRECTS,
            "Name the address that it leads to in vault_url; redirects are not followed.",
        ),
        "InvalidProxyURL": "Fix the proxy in option 'proxies' or in the environment.",
        Outcome.DENIED: "Give the backend's identity the role 'Key Vault Secrets User' on the vault.",
        Outcome.MISCONFIGURED: "Fix the backend's vault_url or credential.",
    }
    on_the_way = ON_THE_WAY | {CHALLENGE, FOREIGN_TOKEN, NO_VAULT, GONE, "InvalidProxyURL"}
    expired_login = frozenset({EXPIRED})
    muted_loggers = (
        "azure",
        "azure.core.pipeline.policies.http_logging_policy",
        "msal",
        "msal.oauth2cli.oauth2",
        "urllib3",
    )
    write_settings: ClassVar = {
        "content_type": "What the value is, for people: 'text/plain'. Default: as before.",
    }
    largest_value = 25_000

    def imports(self) -> Mapping[str, str]:
        """Return the modules to import, and keep the import from running a command."""
        if sys.platform == "linux":
            # When imported, azure-identity puts the platform into its User-Agent, for which Python runs `uname -p`.
            # That must not happen just before a fork. "" means an unknown processor (platform.processor).
            vars(platform.uname()).setdefault("processor", "")
        return self.sdk

    def connect(self) -> KeyVaultClient:
        """Return a new client; it logs in at its first call.

        :raises StoreError: naming the option that cannot be used; or the SDK, if it lacks what is needed.
        """
        from airflow_providers_secrets.stores.azure.client import KeyVaultClient

        if not self.options["vault_url"]:
            raise StoreError(NO_VAULT)
        return KeyVaultClient(self.options)

    def preload(self) -> None:
        """Read the CA certificates for vault and authority."""
        from airflow_providers_secrets.stores.azure import client

        client.load_certificates(self.options)

    def address(self, client: KeyVaultClient) -> str:
        """Return the vault's address."""
        return client.address

    def fetch(self, client: KeyVaultClient, name: str) -> Answer:
        """Read the current version of one secret."""
        secret = client.call(lambda sdk: sdk.get_secret(name))
        if not isinstance(secret.value, str):
            raise StoreError("the answer holds no value", MALFORMED)
        return Answer(secret.value, _name_of(secret))

    def listing(self, client: KeyVaultClient, prefix: str) -> Iterator[ListedSecret]:
        """Yield the names that start with *prefix*, of disabled secrets too, page by page. Needs ``list`` on secrets.

        Pages contain neither values nor versions.

        :raises StoreError: for a malformed page, a link to another host or to a page already read, or too many pages.
        """
        pages, page = client.call(_first_page)
        links = PageTokens(MAX_PAGES)
        while True:
            for secret in page:
                name = _name_of(secret)
                if name.startswith(prefix) and name != prefix:
                    yield ListedSecret(name, version=secret.version, changed=secret.updated_on)
            link = pages.continuation_token
            if not link:
                return
            client.check_host(str(link))
            links.accept(str(link))
            page = client.call(lambda _: list(next(pages)))

    def write(
        self,
        client: KeyVaultClient,
        name: str,
        text: str,
        *,
        only_if_absent: bool = False,
        settings: Mapping[str, str] = {},
    ) -> Written:
        """Write a new version with the content type, tags and dates of use of the previous one.

        Needs ``get`` and ``set`` on secrets. A disabled secret cannot be read, so it is not written over. Key Vault has
        no conditional write: with *only_if_absent*, a secret that is created between the two requests is overwritten
        (by a new version; the other one stays readable).

        :raises StoreError: with :data:`EXISTS` if *only_if_absent* is set and the name exists.
        """
        former: KeyVaultSecret | None = None
        try:
            former = client.call(lambda sdk: sdk.get_secret(name))
        except Exception as error:
            if SECRET_NOT_FOUND not in self.codes(error):
                raise
        kept: dict[str, Any] = {}
        if former is not None:
            if only_if_absent:
                raise StoreError(EXISTS)
            old = former.properties
            kept = {
                "content_type": old.content_type,
                "tags": old.tags,
                "not_before": old.not_before,
                "expires_on": old.expires_on,
            }
        given = {setting: value for setting, value in {**kept, **settings}.items() if value is not None}
        written = client.call(lambda sdk: sdk.set_secret(name, text, **given))
        return Written(created=former is None, version=written.properties.version)

    def delete(self, client: KeyVaultClient, name: str) -> None:
        """Delete all versions of *name*; the vault keeps them for its retention period. Needs ``delete`` on secrets."""
        # Does not wait for completion: that would need `get`, and takes some seconds.
        client.call(lambda sdk: sdk.begin_delete_secret(name))

    def identify(self, client: KeyVaultClient) -> Identity:
        """Read the identity from the token; its signature is not verified, since no decision depends on it."""
        if not client.token:
            # Any call logs in, even a denied one: the vault only has to say what a token must be for.
            try:
                client.call(_first_page)
            except Exception:
                if not client.token:
                    raise
        claims = claims_of(client.token or "")
        known = {
            "vault": self.options["vault_url"],
            "tenant": claims.get("tid") or self.options["tenant_id"],
            "application": claims.get("appid") or claims.get("azp") or self.options["client_id"],
            "object": claims.get("oid"),
            "user": claims.get("upn") or claims.get("unique_name"),
            "credential": client.credential_name,
        }
        details = {name: str(value) for name, value in known.items() if value}
        who = next((details[name] for name in ("user", "application", "object") if name in details), "unknown")
        return Identity(who, details)

    def codes(self, error: Exception) -> Iterator[str]:
        """Yield Key Vault's codes in an answer, innermost first, then its HTTP status; or an error's class names."""
        status = getattr(error, "status_code", None)
        if not isinstance(status, int):
            yield from super().codes(error)
            cause = getattr(error, "inner_exception", None)
            if isinstance(cause, Exception):
                yield from super().codes(cause)
            return
        if status == HTTPStatus.OK:  # the SDK could not read the answer
            yield MALFORMED
            return
        codes, message = _said(error)
        if status == HTTPStatus.NOT_FOUND:
            # Only Key Vault's own code proves absence.
            yield SECRET_NOT_FOUND if SECRET_NOT_FOUND in codes else NOT_THE_VAULTS
            return
        if status == HTTPStatus.FORBIDDEN and re.search("disabled secret|not enabled", message):
            yield SECRET_DISABLED
        if "BadParameter" in codes and error.response.request.method == "PUT":  # type: ignore[attr-defined]
            yield BAD_WRITE
        # A code of letters alone cannot be a secret value.
        yield from (code for code in codes if re.fullmatch("[A-Za-z]{3,60}", code))
        yield from (f"HTTP {status}",) if codes else codes_of_page(status)

    def retry_after(self, error: Exception) -> float | None:
        """Return the seconds of the answer's Retry-After, or ``None``."""
        headers = getattr(getattr(error, "response", None), "headers", None)
        return super().retry_after(error) if headers is None else seconds_to_wait(headers.get("Retry-After", ""))


def _first_page(sdk: SecretClient) -> tuple[Any, list[Any]]:
    pages: Any = sdk.list_properties_of_secrets(max_page_size=PAGE, raw_response_hook=_check_page).by_page()
    return pages, list(next(pages))


def _check_page(response: Any) -> None:
    """Refuse a malformed answer that the SDK would treat as an empty page."""
    answer = response.http_response
    if answer.status_code != HTTPStatus.OK:
        return
    page = answer.json()
    items = page.get("value") if isinstance(page, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise StoreError("the answer holds no page", MALFORMED)


def _name_of(secret: Any) -> str:
    """Return the name in a secret's id, in lower case as in lookups."""
    if not isinstance(secret.name, str):
        raise StoreError("the answer holds no id", MALFORMED)
    return secret.name.lower()


def _said(error: Exception) -> tuple[list[str], str]:
    """Return the codes in Key Vault's answer, the innermost first, and its messages."""
    answer: Any = None
    with contextlib.suppress(Exception):  # whatever a proxy sends
        answer = json.loads(error.response.text())  # type: ignore[attr-defined]
    part = answer.get("error") if isinstance(answer, dict) else None
    codes: list[str] = []
    message = ""
    while isinstance(part, dict):
        message += str(part.get("message"))
        codes.insert(0, str(part.get("code")))
        part = part.get("innererror")
    return codes, message
