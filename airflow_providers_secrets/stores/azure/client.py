"""The SDK's client of one vault, with one login, and what a forked child must reset. Imported at the first lookup."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import azure.keyvault.secrets
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.keyvault.secrets import SecretClient

from airflow_providers_secrets.stores.azure import session
from airflow_providers_secrets.stores.azure.credentials import Login, readable
from airflow_providers_secrets.stores.azure.key_vault import CHALLENGE, FOREIGN_TOKEN, GONE
from airflow_providers_secrets.stores.base import MALFORMED, USER_AGENT, StoreError, Turn
from airflow_providers_secrets.stores.https import context_for

try:
    from azure.keyvault.secrets._shared import http_challenge_cache as _challenges
except ImportError:  # reported by :func:`_check_sdk`, once somebody needs it
    _challenges = None  # type: ignore[assignment]

Options = Mapping[str, Any]
Result = TypeVar("Result")

UNREADABLE_ANSWERS: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What the SDK raises for an answer that does not match the API's specification."""


class KeyVaultClient:
    """A client of one vault for one identity. Any number of threads may use one; it starts none.

    The first call runs alone, so that the vault is asked only once how to log in. Redirects are not followed,
    ``~/.netrc`` is not read, nothing is retried.

    :param options: the store's options.
    :raises StoreError: naming the option that cannot be used; or the SDK, if it lacks a name that is needed.
    """

    def __init__(self, options: Options) -> None:
        _check_sdk()
        verify, certificate = options["connection_verify"], options["connection_cert"]
        if isinstance(verify, str):
            readable("connection_verify", verify)
        for path in (certificate,) if isinstance(certificate, str) else certificate or ():
            readable("connection_cert", path)
        self.address: str = options["vault_url"]
        self._login = Login(options)
        self._first = Turn()
        self._answered = False
        proxies = {"proxies": options["proxies"]} if options["proxies"] else {}
        self._sdk = SecretClient(
            self.address,
            self._login,  # type: ignore[arg-type]  # azure-core prefers get_token_info and needs no other
            api_version=options["api_version"],
            verify_challenge_resource=options["verify_challenge_resource"],
            transport=RequestsTransport(
                session=session.make_session(verify, certificate=bool(certificate)),
                connection_timeout=options["connect_timeout"],
                read_timeout=options["read_timeout"],
                connection_verify=verify,
                connection_cert=certificate,
            ),
            user_agent=f"{options['user_agent']} {USER_AGENT}" if options["user_agent"] else USER_AGENT,
            retry_total=0,
            permit_redirects=False,
            **proxies,
        )
        # The challenge that an older client of this process received may be the reason why a new one is made.
        with contextlib.suppress(KeyError):  # raised by older SDKs if there is none
            _challenges.remove_challenge_for_url(self.address)

    @property
    def credential_name(self) -> str:
        """The credential's name, as in the option ``credential``."""
        return self._login.name

    @property
    def token(self) -> str | None:
        """The token in use."""
        return self._login.token

    def call(self, ask: Callable[[SecretClient], Result]) -> Result:
        """Call *ask* with the SDK's client, and return its result.

        :raises StoreError: for an answer that cannot be read, or a failure caused by the login.
        :raises AzureError: for everything else.
        """
        if self._answered:
            return self._called(ask)
        with self._first.taken():
            try:
                return self._called(ask)
            finally:
                self._answered = True

    def _called(self, ask: Callable[[SecretClient], Result]) -> Result:
        try:
            result = ask(self._sdk)
        except HttpResponseError as error:
            if error.status_code != HTTPStatus.UNAUTHORIZED:
                if error.status_code is not None:
                    self._login.accept()
                raise
            failure = self._login.refused()
        except (AzureError, StoreError):
            raise
        except UNREADABLE_ANSWERS as error:
            failure = _unreadable(error, challenged=self._login.token is None)
        else:
            self._login.accept()
            return result
        raise failure

    def check_host(self, url: str) -> None:
        """Refuse a link to another host: the SDK would send requests to it, and log in where that host says.

        :raises StoreError: if the link leads to another host.
        """
        if _origin(url) != _origin(self.address):
            raise StoreError("the listing goes on at another host", MALFORMED)


def load_certificates(options: Options) -> None:
    """Read the CA certificates for vault and authority, once per process."""
    verify = options["connection_verify"]
    context_for(verify or True)  # the authority is verified even if the vault is not


def _unreadable(error: Exception, *, challenged: bool) -> StoreError:
    """Return why the SDK could not read an answer; the SDK's own message may quote it.

    :param challenged: whether there is no token yet, so that the answer said how to log in.
    """
    said = str(error) if isinstance(error, ValueError) else ""
    if "verify_challenge_resource" in said:
        return StoreError(FOREIGN_TOKEN)
    # azure-keyvault-secrets 4.9 raises IndexError for an empty challenge.
    if "challenge" in said or (challenged and isinstance(error, IndexError)):
        return StoreError(CHALLENGE)
    return StoreError(MALFORMED)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    # Key Vault's own links include the default port.
    return parts.scheme.lower(), parts.netloc.lower().removesuffix(":443")


# The SDK caches the challenges of all vaults in one dictionary per process, behind a lock that may be held at a fork.


def _check_sdk() -> None:
    if isinstance(getattr(_challenges, "_cache", None), dict) and hasattr(_challenges, "_lock"):
        return
    version = azure.keyvault.secrets.__version__
    raise StoreError(f"azure-keyvault-secrets {version} has no challenge cache that a fork can renew", GONE)


def _renew_challenges() -> None:
    if _challenges is not None:
        _challenges._lock, _challenges._cache = threading.Lock(), {}  # noqa: SLF001  # checked by _check_sdk


os.register_at_fork(after_in_child=_renew_challenges)
