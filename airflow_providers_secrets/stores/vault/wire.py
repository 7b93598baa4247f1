"""hvac's transport: a session that contacts no other host, and an adapter that limits what it reads.

hvac's own adapter raises exceptions that hold neither status nor headers, reads bodies without limit and replaces
bytes that it cannot decode. Imported at the first lookup, with hvac.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import hvac
import hvac.adapters
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies

from airflow_providers_secrets.stores.base import (
    BAD_BUNDLE,
    BAD_CREDENTIAL,
    MAX_CONNECTIONS,
    USER_AGENT,
    StoreError,
    seconds_left,
    seconds_to_wait,
    whole_body,
)
from airflow_providers_secrets.stores.vault.replies import (
    REDIRECTED,
    Reply,
    address,
    wrong_path,
)

Options = Mapping[str, Any]

MAX_BODY: Final = 16 * 1024 * 1024
"""Maximum length of an answer, in bytes: a secret has 1 MiB at most by default, a listing more."""


class VaultSession(requests.Session):
    """A session with one Vault: no retries of its own, no ``~/.netrc``, and no redirect that leaves host and path.

    :param options: the store's options. What hvac and requests would otherwise take from the environment is read here,
        once, and again for a redirect. requests would read the whole environment for each request.
    :raises StoreError: naming the option or variable, for a TLS file that cannot be read.
    :raises RequestException: for an address that is no URL.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.max_redirects = 2
        # Not compressed: a small answer could grow without bound.
        self.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
        self.trust_env = False
        # The address as requests sends it, with the host's name in ASCII. An invalid URL fails here, with requests' own
        # errors: with a NO_PROXY, its port would be parsed before that, and raise a ValueError.
        asked = requests.PreparedRequest()
        asked.prepare_url(address(options), None)
        self._url = str(asked.url)
        encrypted = self._url.startswith("https:")
        self.verify = _verify(options, encrypted=encrypted)
        self.cert = _cert(options)
        pooled = _adapter(self.verify, encrypted=encrypted and not self.cert)
        self.mount("https://", pooled)
        self.mount("http://", pooled)
        self.get_adapter(self._url)
        self._given_proxies: Mapping[str, str] = options["proxies"]
        self.proxies = self._proxies_for(self._url)

    def _proxies_for(self, url: str) -> dict[str, str]:
        from_environment = get_environ_proxies(url, no_proxy=self._given_proxies.get("no_proxy"))
        return {**from_environment, **self._given_proxies}

    def rebuild_proxies(
        self,
        prepared_request: requests.PreparedRequest,
        proxies: Mapping[str, str] | None,  # noqa: ARG002  # of the address that redirects
    ) -> dict[str, str]:
        """Return the proxies for a redirect's target: ``NO_PROXY`` may name a single port of a host."""
        here = self._proxies_for(str(prepared_request.url))
        rebuilt: dict[str, str] = super().rebuild_proxies(prepared_request, here)  # type: ignore[no-untyped-call]
        return rebuilt

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Leave a redirected request unchanged: it stays on its host, and another port there needs the same login."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where *resp* redirects to, or ``None``: a standby names the active node's address and the same path.

        requests drops an ``Authorization`` header for another host, but would send ``X-Vault-Token`` to any.

        :raises StoreError: if that is another host, another path or no longer encrypted, or if a write would
            become a read.
        """
        location: str | None = super().get_redirect_target(resp)
        if location is None:
            return None
        resp.close()  # otherwise requests would read its body, however long
        asked, target = urlsplit(resp.url), urlsplit(urljoin(resp.url, location))
        encrypted = target.scheme in ("https", asked.scheme)
        same = (target.hostname, target.path, target.query) == (asked.hostname, asked.path, asked.query)
        kept = resp.status_code in (HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT)
        if not (encrypted and same and (kept or resp.request.method == "GET")):
            raise StoreError(f"HTTP {resp.status_code} to another host or path", *wrong_path(self._url), REDIRECTED)
        return location


def load_certificates(options: Options) -> None:
    """Read the CA certificates of a session with these options, for this process and its forked children."""
    if is_encrypted(options):
        with contextlib.suppress(StoreError):  # connecting raises it again
            _adapter(_verify(options, encrypted=True), encrypted=True)


def is_encrypted(options: Options) -> bool:
    """Tell whether the server is asked over TLS."""
    return address(options)[:6].lower() == "https:"


def _adapter(verify: bool | str, *, encrypted: bool) -> HTTPAdapter:  # noqa: FBT001  # requests' own type
    """Return an adapter that shares the CA certificates; requests would read them for each client."""
    if not encrypted:
        return HTTPAdapter(pool_maxsize=MAX_CONNECTIONS)
    from airflow_providers_secrets.stores.https import ContextAdapter, context_for, path_for

    return ContextAdapter(context_for(verify), path_for(verify))


_TRUSTED_BY_HVAC: Final = ("VAULT_CACERT", "VAULT_CAPATH")
_TRUSTED_BY_REQUESTS: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def _verify(options: Options, *, encrypted: bool) -> bool | str:
    given: bool | str | None = options["verify"]
    if given is False:
        return False
    if isinstance(given, str):
        return (
            _with_certificates("option 'verify'", given)
            if encrypted
            else _readable("option 'verify'", given, BAD_BUNDLE)
        )
    names = (*(() if given else _TRUSTED_BY_HVAC), *_TRUSTED_BY_REQUESTS)
    name = next(filter(os.environ.get, names), None)
    if name is None:
        return True
    # Without TLS, nothing reads the bundle, and the variable may be meant for other programs.
    return _with_certificates(name, os.environ[name]) if encrypted else os.environ[name]


def _with_certificates(source: str, path: str) -> str:
    from airflow_providers_secrets.stores.https import context_of

    with contextlib.suppress(OSError, ValueError):
        context_of(_readable(source, path, BAD_BUNDLE))
        return path
    raise StoreError(f"{source} names a file that holds no certificate", BAD_BUNDLE)


def _cert(options: Options) -> str | tuple[str, str] | None:
    if options["cert"]:
        paths = [_readable("option 'cert'", path) for path in options["cert"]]
    else:
        # A key without a certificate is useless, and would be used as the certificate.
        names = ("VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY") if os.environ.get("VAULT_CLIENT_CERT") else ()
        paths = [_readable(name, os.environ[name]) for name in names if os.environ.get(name)]
    return (paths[0], paths[1]) if len(paths) > 1 else next(iter(paths), None)


def _readable(source: str, path: str, code: str = BAD_CREDENTIAL) -> str:
    if not os.access(path, os.R_OK):
        raise StoreError(f"{source} names a file that cannot be read", code)
    return path


_token: contextvars.ContextVar[str] = contextvars.ContextVar("_token", default="")


@contextlib.contextmanager
def sending(token: str) -> Iterator[None]:
    """Send *token* with the requests made inside, in this thread; an empty string sends none."""
    before = _token.set(token)
    try:
        yield
    finally:
        _token.reset(before)


class VaultAdapter(hvac.adapters.RawAdapter):  # type: ignore[misc]  # hvac is untyped
    """Returns each answer as :class:`.Reply`, whatever its status, and limits how long and how much it reads.

    The token comes from :func:`sending`: hvac's own attribute is shared by all threads, and some of them may still be
    using an older token.
    """

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = False,  # noqa: ARG002, FBT001, FBT002  # hvac's signature
        **kwargs: Any,
    ) -> Reply:
        """Send one request; hvac adds namespace and its own headers.

        :raises StoreError: for an answer that is too long, or ends early.
        :raises TimeoutError: once the deadline has passed.
        """
        left = seconds_left()
        if not left:
            raise TimeoutError
        connect, read = self._kwargs["timeout"]
        waiting = {**kwargs, "timeout": (min(connect, left), min(read, left)), "stream": True}
        token = _token.get()
        sent = {**(headers or {}), **({"X-Vault-Token": token} if token else {})}
        response = super().request(method, url, headers=sent, raise_exception=False, **waiting)
        try:
            body = _body(response)
        finally:
            # Returns the connection to the pool if all was read, and otherwise ends it.
            response.close()
        return Reply(response.status_code, _parsed(body), seconds_to_wait(response.headers.get("Retry-After", "")))


def _body(response: requests.Response) -> bytes:
    """Read the body as it arrives, until the deadline.

    :raises StoreError: for an answer that is too long, or ends early.
    :raises TimeoutError: once the deadline has passed.
    """
    try:
        return whole_body(response.raw, response.headers.get("Content-Length"), MAX_BODY)
    except urllib3.exceptions.HTTPError as error:  # requests translates these only if it reads the body itself
        fault = StoreError(f"the answer ended early ({type(error).__name__})")
    raise fault


def _parsed(body: bytes) -> Any:
    """Return *body* parsed as JSON, or ``None`` if it is not JSON or not UTF-8."""
    try:
        return json.loads(body.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None


def _no_number(_: str) -> None:
    raise ValueError


def make_api(options: Options) -> hvac.Client:
    """Return a new client of hvac.

    :raises StoreError: naming the option or variable, for a TLS file that cannot be read.
    """
    session = VaultSession(options)
    return hvac.Client(
        url=address(options),
        token="",  # None would make hvac look for one in the environment and the home directory
        verify=session.verify,
        cert=session.cert,
        proxies=session.proxies,
        timeout=(options["connect_timeout"], options["read_timeout"]),
        namespace=options["namespace"],
        allow_redirects=options["allow_redirects"],
        request_header=options["request_header"],
        strict_http=options["strict_http"],
        session=session,
        adapter=VaultAdapter,
    )
