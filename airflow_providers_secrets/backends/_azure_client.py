"""A token from azure-identity and what is read with it, over requests, which is what Azure's SDK speaks with, too.

azure-keyvault-secrets itself is not loaded: it would add its generated models and serializer to a cold start,
for one GET; its challenge cache is one for the process and knows no fork; and its errors carry the answer.
Imported at the first lookup.
"""

from __future__ import annotations

import base64
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import azure.identity
import requests
from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import RequestsTransport
from requests import utils
from requests.adapters import HTTPAdapter

from airflow_providers_secrets import __version__
from airflow_providers_secrets.backends._azure import (
    ABSENT,
    CHALLENGE,
    DISABLED,
    EXPIRED,
    MALFORMED,
    REFUSED,
    UNREADABLE,
    credential_name,
)
from airflow_providers_secrets.store import StoreFault, seconds_to_wait

Options = Mapping[str, Any]

REFUSAL_MEMO: Final = 30.0
"""Seconds in which no further log-in is tried after a refused one, and after a new token that the vault refused."""

RENEWAL_MARGIN: Final = 300.0
"""Seconds before a token's end at which azure-identity gives a new one."""

RENEWAL_PAUSE: Final = 30.0
"""Seconds until the credential is asked again, where it could not give a newer token when one was due."""

PASSING: Final = frozenset({404, 408, 410, 429})
"""What a machine's token endpoint answers while it is busy or starting (learn.microsoft.com, managed identities)."""

METADATA_HOST: Final = "169.254.169.254"
"""Where a virtual machine of Azure's finds its tokens."""

PUBLIC_AUTHORITIES: Final = frozenset(
    {
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.chinacloudapi.cn",
        "login.partner.microsoftonline.cn",
    }
)
"""The authorities that the public cloud knows of."""

PAGE: Final = 25
"""Names on one page of a listing: the most that Key Vault gives."""

clock = time.monotonic


class Bearer(requests.auth.AuthBase):
    """Sends a token, or nothing; either way no password of a ``.netrc`` file.

    :param token: the token, or ``None``.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign the request *r*."""
        if self._token is not None:
            r.headers["Authorization"] = f"Bearer {self._token}"
        return r


class Token(NamedTuple):
    """What a log-in gave.

    :param text: the token.
    :param expires: when it ends, by :data:`clock`.
    :param renewal: when to ask the credential for another one.
    """

    text: str
    expires: float
    renewal: float

    def __repr__(self) -> str:
        return "Token()"


class Challenge(NamedTuple):
    """What the vault says a token must be.

    :param scope: what it is for.
    :param tenant: who must have given it, where that is said.
    """

    scope: str
    tenant: str | None


class AzureClient:
    """One identity's way to a vault: it asks how to log in at the first read, and logs in.

    Safe to share between threads; while one logs in, the others wait. It starts none.

    :param options: the backend's options.
    :raises StoreFault: naming the option, for a file that cannot be read.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._url: str = options["vault_url"]
        self._api_version: str = options["api_version"]
        self._verify_resource: bool = options["verify_challenge_resource"]
        verify = options["connection_verify"]
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"airflow-providers-secrets/{__version__}"
        # One connection for each thread of a busy API server or triggerer.
        self._session.mount("https://", HTTPAdapter(pool_maxsize=64))
        self._session.proxies = options["proxies"]
        # Given with each request: REQUESTS_CA_BUNDLE would beat what the session has.
        self._how: dict[str, Any] = {
            "verify": verify if isinstance(verify, bool) else _readable("connection_verify", verify),
            "timeout": (options["connect_timeout"], options["read_timeout"]),
            "allow_redirects": False,
        }
        self._transport = _Transport(options)
        self._credential = _credential(options, self._transport)
        self._credential_name = credential_name(options)
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._token: Token | None = None
        self._accepted = False
        self._no_login_before = 0.0
        self._refusal: tuple[str, ...] = ()

    def get(self, path: str) -> dict[str, Any]:
        """Give the JSON object of an answer of 200.

        :raises StoreFault: for any other answer.
        """
        return self._get(f"{self._url}{path}?api-version={self._api_version}")

    def pages(self, path: str) -> Iterator[list[dict[str, Any]]]:
        """Give the items of a listing, page by page.

        :raises StoreFault: for an answer that is no page, or that goes on at another host.
        """
        url: str | None = f"{self._url}{path}?api-version={self._api_version}&maxresults={PAGE}"
        while url:
            page = self._get(url)
            items, url = page.get("value"), page.get("nextLink")
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise StoreFault("the answer holds no page", MALFORMED)
            yield items
            if url and _origin(url) != _origin(self._url):
                raise StoreFault("the listing goes on at another host", MALFORMED)

    def _get(self, url: str) -> dict[str, Any]:
        token = self._valid_token(url)
        if not isinstance(token, Token):
            return _content(token)
        response = self._ask(url, token)
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            response = self._ask_with_claims(url, token, _parameters(response))
        self._accepted = True
        return _content(response)

    def _ask(self, url: str, token: Token | None) -> requests.Response:
        return self._session.get(url, auth=Bearer(token.text if token else None), **self._how)

    # Tokens.

    def _valid_token(self, url: str) -> Token | requests.Response:
        """Give a token; or the answer to *url*, where the vault needs none for it."""
        with self._lock:
            if self._challenge is None:
                # As Azure's SDK does: in answer to a request without a token, a vault says who gives it some.
                response = self._ask(url, None)
                if response.status_code != HTTPStatus.UNAUTHORIZED:
                    return response
                self._challenge = _challenge(_parameters(response), url if self._verify_resource else None)
            token = self._token
            if token is None or clock() >= token.renewal:
                try:
                    token = self._logged_in(self._challenge)
                except StoreFault:
                    if token is None or clock() >= token.expires:
                        raise
                    token = token._replace(renewal=clock() + RENEWAL_PAUSE)
                self._token = token
            return token

    def _ask_with_claims(self, url: str, refused: Token, parameters: Mapping[str, str]) -> requests.Response:
        """Ask with a token that holds the claims that a refusal asks for (Continuous Access Evaluation).

        :raises StoreFault: where it asks for none, or where the new token is refused too.
        """
        if "claims" in parameters:
            with self._lock:
                assert self._challenge is not None  # or there were no token
                if self._token is None or self._token.text == refused.text:
                    self._token = self._logged_in(self._challenge, _decoded(parameters["claims"]))
                token = self._token
            response = self._ask(url, token)
            if response.status_code != HTTPStatus.UNAUTHORIZED:
                return response
        if self._accepted or clock() >= self._no_login_before:
            # A new client asks anew who gives tokens, and holds none of the old ones that the credential keeps.
            raise StoreFault(EXPIRED, "HTTP 401")
        raise StoreFault("HTTP 401 to a new token", "HTTP 401")

    def _logged_in(self, challenge: Challenge, claims: str | None = None) -> Token:
        """Give a token by the credential, unless the last try was refused a moment ago."""
        if self._refusal and clock() < self._no_login_before:
            raise StoreFault(*self._refusal)
        self._refusal = ()
        options: dict[str, Any] = {"enable_cae": True}
        if challenge.tenant:
            options["tenant_id"] = challenge.tenant
        if claims:
            options["claims"] = claims
        self._transport.troubles.clear()
        try:
            given = self._credential.get_token_info(challenge.scope, options=options)
        except Exception as error:  # noqa: BLE001  # azure-identity lets its libraries' errors through
            fault = self._login_fault(error)
        else:
            if self._token is None:
                self._no_login_before = clock() + REFUSAL_MEMO
            return _token(given, self._token)
        if REFUSED in fault.codes:
            self._refusal, self._no_login_before = fault.codes, clock() + REFUSAL_MEMO
        raise fault

    def _login_fault(self, error: Exception) -> StoreFault:
        """Say why the credential gave no token, by Entra's code at most: its words may hold more than they should."""
        for trouble, retry_after in self._transport.troubles:
            # The old one would repeat that for a minute without asking (msal's throttling); attempts are the core's.
            self._credential = _credential(self._options, self._transport)
            return StoreFault(f"{self._credential_name} login: {trouble}", trouble, retry_after=retry_after)
        found = re.search(r"\bAADSTS\d+\b", str(error))
        return StoreFault(
            f"{self._credential_name} login refused ({found[0] if found else type(error).__name__})", REFUSED
        )


def _token(given: Any, held: Token | None) -> Token:
    """Take over what a credential gave; its times are by the wall clock."""
    ahead = clock() - time.time()
    renewal = min(given.expires_on - RENEWAL_MARGIN, given.refresh_on or float("inf")) + ahead
    if held and held.text == given.token:
        renewal = max(renewal, clock() + RENEWAL_PAUSE)
    return Token(given.token, given.expires_on + ahead, renewal)


def _challenge(parameters: Mapping[str, str], url: str | None) -> Challenge:
    """Read where tokens come from and what for.

    :param url: what was asked, where the token must be for its host alone: another one could use it otherwise.
    """
    resource = parameters.get("scope") or parameters.get("resource") or ""
    scope = resource if resource.endswith("/.default") else f"{resource}/.default"
    host = urlsplit(resource).netloc
    if not host:
        raise StoreFault("HTTP 401 that does not say what a token must be for", CHALLENGE)
    if url is not None and not f".{_origin(url)[1]}".endswith(f".{_origin(resource)[1]}"):
        raise StoreFault("the vault asks for a token for another host; see verify_challenge_resource", CHALLENGE)
    issuer = urlsplit(parameters.get("authorization_uri") or parameters.get("authorization") or "")
    tenant = issuer.path.strip("/").partition("/")[0]
    # Active Directory Federation Services have no tenants.
    return Challenge(scope, tenant if tenant.lower() != "adfs" and tenant else None)


def _parameters(response: requests.Response) -> dict[str, str]:
    """Give what a 401's WWW-Authenticate says (RFC 6750, section 3)."""
    kind, _, rest = response.headers.get("WWW-Authenticate", "").strip().partition(" ")
    if kind.lower() not in ("bearer", "pop"):
        return {}
    pairs: dict[str, Any] = utils.parse_dict_header(rest)  # type: ignore[no-untyped-call]
    return {name: value for name, value in pairs.items() if isinstance(value, str)}


def _decoded(claims: str) -> str | None:
    try:
        return base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)).decode()
    except ValueError:
        return None


# Answers.


def _content(response: requests.Response) -> dict[str, Any]:
    """Give the JSON object of an answer of 200.

    :raises StoreFault: for any other answer.
    """
    answer: Any
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.status_code == HTTPStatus.OK:
        if isinstance(answer, dict):
            return answer
        fault = StoreFault(MALFORMED)
    else:
        fault = _fault(response.status_code, response.headers.get("Retry-After", ""), answer)
    raise fault


def _fault(status: int, retry_after: str, answer: Any) -> StoreFault:
    """Say what an answer means that is no secret. A 404 proves an absence only in Key Vault's own words."""
    error = answer.get("error") if isinstance(answer, dict) else None
    codes: list[str] = []
    message = ""
    while isinstance(error, dict):
        message += str(error.get("message"))
        codes.insert(0, str(error.get("code")))
        error = error.get("innererror")
    if status == HTTPStatus.NOT_FOUND:
        return StoreFault(ABSENT) if ABSENT in codes else StoreFault("HTTP 404, which is not Key Vault's own answer")
    if status == HTTPStatus.FORBIDDEN and re.search("disabled secret|not enabled", message):
        codes.insert(0, DISABLED)
    # Words alone: a code of letters can be no value.
    told = [code for code in codes if re.fullmatch("[A-Za-z]{3,60}", code)]
    return StoreFault(*told, f"HTTP {status}", retry_after=seconds_to_wait(retry_after))


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    # Key Vault's own links name the port that others leave out.
    return parts.scheme.lower(), parts.netloc.lower().removesuffix(":443")


# Credentials.


class _Transport(RequestsTransport):  # type: ignore[misc]  # it is loaded by a module's __getattr__
    """How azure-identity asks for tokens: it remembers what went wrong for now, which that does not tell from refusals.

    :param options: the backend's options.
    :ivar troubles: what went wrong, and the seconds that the server asked to wait.
    """

    def __init__(self, options: Options) -> None:
        verify = options["connection_verify"]
        super().__init__(
            connection_timeout=options["connect_timeout"],
            read_timeout=options["read_timeout"],
            # Whoever trusts any vault does not yet give secrets to any authority.
            connection_verify=verify if isinstance(verify, str) else True,
        )
        self.troubles: list[tuple[str, float | None]] = []
        self._chain = credential_name(options) == "default"

    def send(self, request: Any, **kwargs: Any) -> Any:
        """Send one request."""
        try:
            response = super().send(request, **kwargs)
        except AzureError as error:
            # In the default chain, silence there says that this is no machine of Azure's.
            if not (self._chain and urlsplit(request.url).hostname == METADATA_HOST):
                self.troubles.append((f"no answer ({type(error).__name__})", None))
            raise
        status = response.status_code
        if status in PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.troubles.append((f"HTTP {status}", seconds_to_wait(response.headers.get("Retry-After", ""))))
        return response


def _credential(options: Options, transport: _Transport) -> Any:
    """Make the credential of azure-identity; it asks nothing before its first token.

    :raises StoreFault: naming the option, for what it cannot use.
    """
    name = credential_name(options)
    for path_option in ("client_certificate_path", "workload_identity_token_file"):
        if options[path_option]:
            _readable(path_option, options[path_option])
    try:
        return _CREDENTIALS[name](options, _http(options, transport))
    except (ValueError, TypeError, OSError) as error:
        # They tell what is wrong with a key or a password with parts of it.
        reason = type(error).__name__
    option = "client_certificate_path" if name == "client_certificate" else "credential"
    raise StoreFault(f"option {option!r}: no {name} credential can be made of it ({reason})", UNREADABLE)


def _http(options: Options, transport: _Transport) -> dict[str, Any]:
    """Give what the credentials that speak HTTP are told."""
    authority = options["authority"] or os.environ.get("AZURE_AUTHORITY_HOST")
    told: dict[str, Any] = {"transport": transport, "retry_total": 0}  # attempts are the core's
    if options["proxies"]:
        told["proxies"] = options["proxies"]
    if authority:
        told["authority"] = authority
        if urlsplit(authority if "://" in authority else f"https://{authority}").netloc not in PUBLIC_AUTHORITIES:
            # The public cloud would be asked whether this one is real, and knows nothing of private ones.
            told["disable_instance_discovery"] = True
    return told


def _default(options: Options, http: dict[str, Any]) -> Any:
    chosen: dict[str, Any] = {
        name: options[name] for name in ("managed_identity_client_id", "workload_identity_tenant_id") if options[name]
    }
    if options["workload_identity_tenant_id"]:
        chosen["additionally_allowed_tenants"] = [options["workload_identity_tenant_id"]]
    return azure.identity.DefaultAzureCredential(**chosen, process_timeout=_process_timeout(options), **http)


def _workload_identity(options: Options, http: dict[str, Any]) -> Any:
    chosen = {
        "tenant_id": options["workload_identity_tenant_id"] or options["tenant_id"],
        "client_id": options["client_id"],
        "token_file_path": options["workload_identity_token_file"],
    }
    given = {name: value for name, value in chosen.items() if value}
    return azure.identity.WorkloadIdentityCredential(**given, **http)


def _by_command(kind: Callable[..., Any]) -> Callable[[Options, dict[str, Any]], Any]:
    def make(options: Options, _: dict[str, Any]) -> Any:
        return kind(tenant_id=options["tenant_id"] or "", process_timeout=_process_timeout(options))

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
        **http,
    ),
    "client_secret": lambda options, http: azure.identity.ClientSecretCredential(
        options["tenant_id"], options["client_id"], options["client_secret"], **http
    ),
    "developer_cli": _by_command(azure.identity.AzureDeveloperCliCredential),
    "environment": lambda _, http: azure.identity.EnvironmentCredential(**http),
    "managed_identity": lambda options, http: azure.identity.ManagedIdentityCredential(
        client_id=options["managed_identity_client_id"], **http
    ),
    "powershell": _by_command(azure.identity.AzurePowerShellCredential),
    "workload_identity": _workload_identity,
}


def _readable(option: str, path: str) -> str:
    if not os.access(path, os.R_OK):
        raise StoreFault(f"option {option!r} names a file that cannot be read", UNREADABLE)
    return path
