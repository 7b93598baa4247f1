"""Azure Key Vault: what its answers mean, and what can be asked of it. Imports no SDK."""

from __future__ import annotations

import base64
import contextlib
import json
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_providers_secrets.stores.base import (
    EXISTS,
    FOREIGN,
    MALFORMED,
    ON_THE_WAY,
    REDIRECTS,
    Answer,
    Identity,
    ListedSecret,
    Outcome,
    Store,
    StoreError,
    Written,
    codes_of_page,
    seconds_left,
    seconds_to_wait,
)

if TYPE_CHECKING:
    from azure.keyvault.secrets import KeyVaultSecret, SecretClient

    from airflow_providers_secrets.stores.azure.client import VaultClient

SECRET_NOT_FOUND: Final = "SecretNotFound"  # noqa: S105  # a code
SECRET_DISABLED: Final = "SecretDisabled"  # noqa: S105
NOT_THE_VAULTS: Final = "HTTP 404, which is not Key Vault's own answer"
EXPIRED: Final = "token no longer accepted"
REFUSED: Final = "login refused"
UNREADABLE: Final = "unusable credential"
CHALLENGE: Final = "no usable challenge"
FOREIGN_TOKEN: Final = "the vault asks for a token for another host"  # noqa: S105
NO_VAULT: Final = "option 'vault_url' is not set"
BAD_WRITE: Final = "BadParameter of a write"
GONE: Final = "a private name of the SDK is gone"

PAGE: Final = 25
"""Names on one page of a listing: the most that Key Vault returns."""

MAX_PAGES: Final = 20_000
"""Pages after which a listing counts as endless; half a million secrets."""


class KeyVault(Store):
    """One vault, asked by one identity of Microsoft Entra.

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
        # https://learn.microsoft.com/azure/key-vault/general/rest-error-codes, and the answers of the service. The
        # rest is UNAVAILABLE: 408, 5xx, and a 404 without the service's own code.
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
                REFUSED,
                UNREADABLE,
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
        "ForbiddenByPolicy": "Give the backend's identity 'get' on secrets in the vault's access policies.",
        "VaultNotFound": "Fix the backend's vault_url: there is no vault of that name.",
        "BadParameter": "Fix the backend's api_version or vault_url: the vault does not take the request.",
        BAD_WRITE: "Write at most 25 KB, and a content type of at most 255 characters.",
        NO_VAULT: "Set it to https://NAME.vault.azure.net.",
        **dict.fromkeys((MALFORMED, FOREIGN, NOT_THE_VAULTS), "Fix the backend's vault_url, or the proxy in between."),
        FOREIGN_TOKEN: "Fix the backend's vault_url; where nobody else can answer there, set "
        "verify_challenge_resource to false.",
        CHALLENGE: "Fix the backend's vault_url: no vault answers there.",
        REFUSED: "Fix the credential that the backend's options name.",
        UNREADABLE: "Fix that option.",
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
    on_the_way = ON_THE_WAY | {UNREADABLE, CHALLENGE, FOREIGN_TOKEN, NO_VAULT, GONE, "InvalidProxyURL"}
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

    def imports(self) -> Mapping[str, str]:
        """Return the modules to import, and keep that from running a command."""
        if sys.platform == "linux":
            # azure-identity puts the platform into its User-Agent as it is imported, and Python runs `uname -p` to know
            # all of it: not just before a fork. "" says that the processor is not known (platform.processor).
            vars(platform.uname()).setdefault("processor", "")
        return self.sdk

    def connect(self) -> VaultClient:
        """Make the client; it logs in at its first call.

        :raises StoreError: naming the option, for what cannot be used; or the SDK, where it lacks what is needed.
        """
        from airflow_providers_secrets.stores.azure.client import VaultClient

        if not self.options["vault_url"]:
            raise StoreError(NO_VAULT)
        return VaultClient(self.options)

    def preload(self) -> None:
        """Read the certificates that vault and authority are verified by."""
        from airflow_providers_secrets.stores.azure import client

        client.load_certificates(self.options)

    def fetch(self, client: VaultClient, name: str) -> Answer:
        """Read the current version of one secret."""
        secret = client.call(lambda sdk: sdk.get_secret(name))
        if not isinstance(secret.value, str):
            raise StoreError("the answer holds no value", MALFORMED)
        return Answer(secret.value, _name_of(secret))

    def listing(self, client: VaultClient, prefix: str) -> Iterator[ListedSecret]:
        """Yield the names that start with *prefix*, of disabled secrets too, page by page. Needs ``list`` on secrets.

        Pages hold neither values nor versions.

        :raises StoreError: for a page that is none, or that goes on at another host, where it has been, or for ever.
        """
        pages, page = client.call(_first_page)
        links: set[str] = set()
        while True:
            if not seconds_left():  # nobody waits any more, and an empty page would not tell the caller
                raise TimeoutError
            for secret in page:
                name = _name_of(secret)
                if name.startswith(prefix) and name != prefix:
                    yield ListedSecret(name, version=secret.version, changed=secret.updated_on)
            link = pages.continuation_token
            if not link:
                return
            client.check_host(str(link))
            if link in links or len(links) >= MAX_PAGES:
                raise StoreError("the listing does not end", MALFORMED)
            links.add(link)
            page = client.call(lambda _: list(next(pages)))

    def write(
        self,
        client: VaultClient,
        name: str,
        text: str,
        *,
        only_if_absent: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> Written:
        """Write a new version with the content type, tags, dates of use and state of the one before.

        Needs ``get`` and ``set`` on secrets. Key Vault has no conditional write: with *only_if_absent*, who creates the
        name between the two requests is overwritten (by a new version; the other one stays readable).

        :raises StoreError: with :data:`EXISTS` where it is *only_if_absent* and the name exists.
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
        kept |= {setting: value for setting, value in (settings or {}).items() if setting in self.write_settings}
        given = {setting: value for setting, value in kept.items() if value is not None}
        written = client.call(lambda sdk: sdk.set_secret(name, text, **given))
        return Written(created=former is None, version=written.properties.version)

    def delete(self, client: VaultClient, name: str) -> None:
        """Delete all versions of *name*; the vault keeps them for its retention period. Needs ``delete`` on secrets."""
        # Not waited for: that would need `get`, and takes the vault some seconds.
        client.call(lambda sdk: sdk.begin_delete_secret(name))

    def identify(self, client: VaultClient) -> Identity:
        """Read who is asking off the token; its signature is not verified, since nothing is decided by it."""
        if not client.token:
            # By any call: the vault says what a token must be for, and need not permit the rest.
            try:
                client.call(_first_page)
            except Exception:
                if not client.token:
                    raise
        claims = _claims(client.token or "")
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
        """Yield Key Vault's codes of an answer, the inner ones first, then its HTTP status; or classes of errors."""
        status = getattr(error, "status_code", None)
        if not isinstance(status, int):
            yield from super().codes(error)
            cause = getattr(error, "inner_exception", None)
            if isinstance(cause, Exception):
                yield from super().codes(cause)
            return
        if status == HTTPStatus.OK:  # it holds what the SDK cannot read
            yield MALFORMED
            return
        codes, message = _said(error)
        if status == HTTPStatus.NOT_FOUND:
            # Only Key Vault's own words prove an absence.
            yield SECRET_NOT_FOUND if SECRET_NOT_FOUND in codes else NOT_THE_VAULTS
            return
        if status == HTTPStatus.FORBIDDEN and re.search("disabled secret|not enabled", message):
            yield SECRET_DISABLED
        if "BadParameter" in codes and error.response.request.method == "PUT":  # type: ignore[attr-defined]
            yield BAD_WRITE
        # A code of letters can be no value.
        yield from (code for code in codes if re.fullmatch("[A-Za-z]{3,60}", code))
        yield from (f"HTTP {status}",) if codes else codes_of_page(status)

    def retry_after(self, error: Exception) -> float | None:
        """Return the answer's Retry-After, where it has one."""
        headers = getattr(getattr(error, "response", None), "headers", None)
        return super().retry_after(error) if headers is None else seconds_to_wait(headers.get("Retry-After", ""))


def _first_page(sdk: SecretClient) -> tuple[Any, list[Any]]:
    pages: Any = sdk.list_properties_of_secrets(max_page_size=PAGE, raw_response_hook=_check_page).by_page()
    return pages, list(next(pages))


def _check_page(response: Any) -> None:
    """Refuse an answer that the SDK would take for an empty page."""
    answer = response.http_response
    if answer.status_code != HTTPStatus.OK:
        return
    page = answer.json()
    items = page.get("value") if isinstance(page, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise StoreError("the answer holds no page", MALFORMED)


def _name_of(secret: Any) -> str:
    """Return the name in a secret's id, as lookups spell it."""
    if not isinstance(secret.name, str):
        raise StoreError("the answer holds no id", MALFORMED)
    return secret.name.lower()


def _said(error: Exception) -> tuple[list[str], str]:
    """Return the codes in Key Vault's answer, the innermost first, and its words."""
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


def _claims(token: str) -> Mapping[str, Any]:
    """Return what a JSON Web Token says (RFC 7519), or nothing where it is none."""
    with contextlib.suppress(ValueError, IndexError):
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return claims if isinstance(claims, dict) else {}
    return {}
