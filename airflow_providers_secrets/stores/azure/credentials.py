"""azure-identity's credentials, used by one thread at a time. Imported at the first lookup."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import azure.identity
from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import RequestsTransport

from airflow_providers_secrets.stores import base
from airflow_providers_secrets.stores.azure.identity import credential_name
from airflow_providers_secrets.stores.azure.key_vault import CHALLENGE, EXPIRED
from airflow_providers_secrets.stores.azure.session import make_session
from airflow_providers_secrets.stores.base import (
    BAD_CREDENTIAL,
    LOGIN_REFUSED,
    LOGIN_UNAVAILABLE,
    REFUSAL_MEMO,
    LoginGuard,
    StoreError,
    Turn,
    codes_of_certificate,
    codes_of_network,
    seconds_to_wait,
)
from airflow_providers_secrets.stores.https import Verify

Options = Mapping[str, Any]

RENEWAL_MARGIN: Final = 300.0
"""Seconds before a token's expiry from which azure-identity returns a new one."""

RENEWAL_PAUSE: Final = 30.0
"""Seconds until the credential is asked again if it returned no newer token when one was due."""

PASSING: Final = frozenset({404, 408, 410, 429})
"""The statuses of a machine's token endpoint that is busy or starting (learn.microsoft.com, managed identities)."""

METADATA_HOST: Final = "169.254.169.254"
"""Where a virtual machine of Azure gets its tokens."""

PUBLIC_AUTHORITIES: Final = frozenset(
    {
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.chinacloudapi.cn",
        "login.partner.microsoftonline.cn",
    }
)
"""The authorities that the public cloud's instance discovery knows."""


class _Held:
    """A token in use: what it is for, and when renewal is due and when it expires, by :data:`.base.clock`."""

    def __init__(self, key: tuple[Any, ...], claims: str | None, info: Any, before: _Held | None) -> None:
        ahead = base.clock() - time.time()  # the token's own times are wall-clock times
        self.key = key
        self.claims = claims
        self.info = info
        self.since = base.clock()
        self.expires = info.expires_on + ahead
        self.renewal = min(info.expires_on - RENEWAL_MARGIN, info.refresh_on or float("inf")) + ahead
        if before and before.info.token == info.token:
            self.renewal = max(self.renewal, base.clock() + RENEWAL_PAUSE)


class Login:
    """The credential that the SDK gets: it holds the token and asks azure-identity for a new one when it is due.

    Any number of threads may use one. While one of them logs in, the others wait, each until its own deadline. The
    token's age is measured by the monotonic clock: a jump of the wall clock ends no token. A refused login is not tried
    again for a while (:class:`.LoginGuard`).

    :param options: the store's options.
    :raises StoreError: naming the option, if the credential cannot be constructed.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        # connection_verify=false is about the vault: the authority receives credentials and is always verified.
        verify = options["connection_verify"] if isinstance(options["connection_verify"], str) else True
        self._transport = LoginTransport(options, verify, chain=self.name == "default")
        self._credential = _credential(options, self._transport)
        self._turn = Turn()
        self._held: _Held | None = None
        self._guard = LoginGuard()
        self._first_token_at = 0.0
        self._accepted = False

    @property
    def name(self) -> str:
        """The credential's name, as in the option ``credential``."""
        return credential_name(self._options)

    @property
    def token(self) -> str | None:
        """The token in use."""
        return self._held.info.token if self._held else None

    def get_token_info(self, *scopes: str, options: Mapping[str, Any] | None = None) -> Any:
        """Return a token for *scopes*; azure-core calls this.

        :param options: the tenant, and the claims that a token must contain (Continuous Access Evaluation).
        :raises StoreError: if no token can be obtained.
        """
        asked = {name: value for name, value in (options or {}).items() if value is not None}
        claims = asked.get("claims")
        if not all(urlsplit(scope).netloc for scope in scopes):
            raise StoreError(CHALLENGE)
        key = (scopes, asked.get("tenant_id"))
        with self._turn.taken():
            held = self._held if self._held and self._held.key == key else None
            if held and base.clock() < held.renewal and not self._lacks(held, claims):
                return held.info
            try:
                info = self._logged_in(scopes, asked)
            except StoreError:
                if claims or held is None or base.clock() >= held.expires:
                    raise
                held.renewal = base.clock() + RENEWAL_PAUSE
                return held.info
            if self._held is None:
                self._first_token_at = base.clock()
            self._held = _Held(key, claims, info, held)
            return info

    def accept(self) -> None:
        """Record that the vault accepted the token."""
        self._accepted = self._accepted or self._held is not None

    def refused(self) -> StoreError:
        """Return the error that a 401 from the vault means."""
        if self._held is None:
            return StoreError(CHALLENGE)
        if self._accepted or base.clock() >= self._first_token_at + REFUSAL_MEMO:
            # A new client asks again where to log in, and has none of the old tokens that the credential caches.
            return StoreError(EXPIRED, "HTTP 401")
        return StoreError("HTTP 401 to a new token", "HTTP 401")

    @staticmethod
    def _lacks(held: _Held, claims: str | None) -> bool:
        """Tell whether *claims* need a new token; within :data:`REFUSAL_MEMO` the same claims need no second one."""
        return claims is not None and (held.claims != claims or base.clock() >= held.since + REFUSAL_MEMO)

    def _logged_in(self, scopes: tuple[str, ...], asked: dict[str, Any]) -> Any:
        """Return a token from the credential, unless a login was refused a moment ago (:class:`.LoginGuard`)."""
        with self._guard.login() as was_refused:
            if was_refused:  # the credential had read its certificate, and the file may hold another one by now
                self._credential = _credential(self._options, self._transport)
            self._transport.troubles.clear()
            try:
                return self._credential.get_token_info(*scopes, options=asked)
            except Exception as error:  # noqa: BLE001  # azure-identity lets its libraries' errors through
                failure = self._failure(error)
            raise failure

    def _failure(self, error: Exception) -> StoreError:
        if self._transport.troubles:
            # The old one would repeat the failure for a minute without asking (msal's throttling). Retries are the
            # lookup's task.
            self._credential = _credential(self._options, self._transport)
        return self._transport.failure(self.name, error)


class LoginTransport(RequestsTransport):  # type: ignore[misc]  # it is loaded by a module's __getattr__
    """azure-identity's transport. It records transient failures, which azure-identity does not tell from refusals.

    :param options: the store's options, for the time-outs.
    :param verify: the certificates with which an authority is verified.
    :param chain: whether the credential is azure-identity's default chain.
    :ivar troubles: the codes of each failure, and the seconds that the server asked to wait.
    """

    def __init__(self, options: Options, verify: Verify, *, chain: bool) -> None:
        super().__init__(
            session=make_session(verify),
            connection_timeout=options["connect_timeout"],
            read_timeout=options["read_timeout"],
            connection_verify=verify,
        )
        self.troubles: list[tuple[tuple[str, ...], float | None]] = []
        self._chain = chain

    def send(self, request: Any, **kwargs: Any) -> Any:
        """Send one request."""
        try:
            response = super().send(request, **kwargs)
        except (AzureError, StoreError, TimeoutError) as error:
            # In the default chain, no answer from there means that this is not a machine of Azure.
            if not (self._chain and urlsplit(request.url).hostname == METADATA_HOST):
                reason = str(error) if isinstance(error, StoreError) else f"no answer ({type(error).__name__})"
                known = tuple(codes_of_certificate(error)) or tuple(codes_of_network(error))
                self.troubles.append((known or (reason,), None))
            raise
        status = response.status_code
        if status in PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.troubles.append(((f"HTTP {status}",), seconds_to_wait(response.headers.get("Retry-After", ""))))
        elif status == HTTPStatus.OK and not _is_object(response.body()):
            self.troubles.append((("a token answer that is no JSON object",), None))
        return response

    def failure(self, name: str, error: Exception) -> StoreError:
        """Return why there is no token, with at most Entra's code: its message may contain more than it should.

        :param name: the name of the login in messages.
        :param error: what azure-identity raised.
        """
        if isinstance(hangs := error.__cause__, subprocess.TimeoutExpired):  # az, azd or PowerShell
            self.troubles.append(((f"no answer ({type(hangs).__name__})",), None))
        for codes, retry_after in self.troubles:
            return StoreError(f"{name} login: {codes[0]}", *codes, LOGIN_UNAVAILABLE, retry_after=retry_after)
        found = re.search(r"\bAADSTS\d+\b", str(error))
        return StoreError(f"{name} login refused ({found[0] if found else type(error).__name__})", LOGIN_REFUSED)


def _is_object(body: bytes) -> bool:
    with contextlib.suppress(ValueError, RecursionError):
        return isinstance(json.loads(body), dict)
    return False


def readable(option: str, path: str) -> str:
    """Return *path* if it names a readable file.

    :raises StoreError: naming the option, if it does not.
    """
    if not os.access(path, os.R_OK):
        raise StoreError(f"option {option!r} names a file that cannot be read", BAD_CREDENTIAL)
    return path


def _credential(options: Options, transport: LoginTransport) -> Any:
    """Return a new credential of azure-identity; it sends no request before its first token is needed.

    :raises StoreError: naming the option that it cannot use.
    """
    name = credential_name(options)
    for path_option in ("client_certificate_path", "workload_identity_token_file"):
        if options[path_option]:
            readable(path_option, options[path_option])
    try:
        return _CREDENTIALS[name](options, _http(options, transport))
    except (ValueError, TypeError, OSError) as error:
        # Their messages may quote parts of a key or password.
        reason = type(error).__name__
    option = "client_certificate_path" if name == "client_certificate" else "credential"
    raise StoreError(f"option {option!r}: no {name} credential can be made of it ({reason})", BAD_CREDENTIAL)


def _http(options: Options, transport: LoginTransport) -> dict[str, Any]:
    """Return the arguments of the credentials that use HTTP."""
    authority = options["authority"] or os.environ.get("AZURE_AUTHORITY_HOST")
    told: dict[str, Any] = {"transport": transport, "retry_total": 0, "permit_redirects": False}
    if options["proxies"]:
        told["proxies"] = options["proxies"]
    if authority:
        told["authority"] = authority
        if urlsplit(authority if "://" in authority else f"https://{authority}").netloc not in PUBLIC_AUTHORITIES:
            # Instance discovery would ask the public cloud about this authority, which does not know private ones.
            told["disable_instance_discovery"] = True
    return told


def _other_tenants(options: Options) -> dict[str, Any]:
    """Return the argument for the tenants, besides its own, from which a credential may get tokens."""
    tenants = options["additionally_allowed_tenants"]
    return {"additionally_allowed_tenants": list(tenants)} if tenants else {}


def _default(options: Options, http: dict[str, Any]) -> Any:
    chosen: dict[str, Any] = {
        name: options[name] for name in ("managed_identity_client_id", "workload_identity_tenant_id") if options[name]
    }
    tenants = [*options["additionally_allowed_tenants"], options["workload_identity_tenant_id"]]
    if any(tenants):
        chosen["additionally_allowed_tenants"] = [tenant for tenant in tenants if tenant]
    return azure.identity.DefaultAzureCredential(**chosen, process_timeout=_process_timeout(options), **http)


def _workload_identity(options: Options, http: dict[str, Any]) -> Any:
    chosen = {
        "tenant_id": options["workload_identity_tenant_id"] or options["tenant_id"],
        "client_id": options["client_id"],
        "token_file_path": options["workload_identity_token_file"],
    }
    given = {name: value for name, value in chosen.items() if value}
    return azure.identity.WorkloadIdentityCredential(**given, **_other_tenants(options), **http)


def _by_command(kind: Callable[..., Any]) -> Callable[[Options, dict[str, Any]], Any]:
    def make(options: Options, _: dict[str, Any]) -> Any:
        given = {"tenant_id": options["tenant_id"] or "", "process_timeout": _process_timeout(options)}
        return kind(**given, **_other_tenants(options))

    return make


def _process_timeout(options: Options) -> int:
    return max(1, math.ceil(float(options["read_timeout"])))


_CREDENTIALS: Final[Mapping[str, Callable[[Options, dict[str, Any]], Any]]] = {
    "default": _default,
    "cli": _by_command(azure.identity.AzureCliCredential),
    "client_certificate": lambda options, http: azure.identity.CertificateCredential(
        options["tenant_id"],
        options["client_id"],
        options["client_certificate_path"],
        password=options["client_certificate_password"],
        **_other_tenants(options),
        **http,
    ),
    "client_secret": lambda options, http: azure.identity.ClientSecretCredential(
        options["tenant_id"], options["client_id"], options["client_secret"], **_other_tenants(options), **http
    ),
    "developer_cli": _by_command(azure.identity.AzureDeveloperCliCredential),
    "environment": lambda options, http: azure.identity.EnvironmentCredential(**_other_tenants(options), **http),
    "managed_identity": lambda options, http: azure.identity.ManagedIdentityCredential(
        client_id=options["managed_identity_client_id"], **http
    ),
    "powershell": _by_command(azure.identity.AzurePowerShellCredential),
    "workload_identity": _workload_identity,
}
