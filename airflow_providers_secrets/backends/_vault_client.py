"""A login to Vault and what is read with it, over requests, which is what hvac speaks to Vault with, too.

hvac itself is not loaded. Importing it costs more than all the rest of a cold start here, for what would be one
GET and one POST; and its errors lose the status of an answer (412, 472 and 473 are all "unexpected"), its headers
and the difference between an absent secret, an absent mount and a proxy's page, and they carry the answer's text.
Imported at the first lookup.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from airflow_providers_secrets import __version__
from airflow_providers_secrets.backends._vault import ABSENT, AUTH_MOUNTS, MALFORMED, REFUSED, UNREADABLE
from airflow_providers_secrets.backends._vault_login import login_request, static_token
from airflow_providers_secrets.store import StoreFault, seconds_to_wait

Options = Mapping[str, Any]

REFUSAL_MEMO: Final = 30.0
"""Seconds in which no further login is tried: after a refused one, and after a denial that one survived."""

RENEWAL_DUE: Final = 2 / 3
"""The part of a token's life after which it is renewed …"""

RENEWAL_SPREAD: Final = 0.1
"""… give or take this part of that, so that processes started together do not renew together."""

MEANINGS: Final[Mapping[int, str]] = {
    412: "HTTP 412, this node has not yet seen the latest write",
    472: "HTTP 472, a disaster recovery secondary",
    473: "HTTP 473, a performance standby",
    503: "HTTP 503, sealed or down for maintenance",
}
"""What to show of a status whose meaning is Vault's own."""

DEFAULT_ADDRESS: Final = "http://localhost:8200"
"""Where hvac looks for a server that nothing tells of."""

clock = time.monotonic
spread = random.uniform


class VaultSession(requests.Session):
    """A session with one Vault: bounded waits, no retries of its own, and no redirect that leaves its host.

    :param options: the backend's options; what hvac takes from the environment in their place is taken here.
    :raises StoreFault: naming the option, for a TLS file that cannot be read.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.max_redirects = 2
        self.headers["User-Agent"] = f"airflow-providers-secrets/{__version__}"
        if options["request_header"]:
            self.headers["X-Vault-Request"] = "true"
        if options["namespace"]:
            self.headers["X-Vault-Namespace"] = options["namespace"]
        self.proxies = options["proxies"]
        pooled = HTTPAdapter(pool_maxsize=64)  # one connection for each thread of a busy API server or triggerer
        self.mount("https://", pooled)
        self.mount("http://", pooled)
        self._address = (options["url"] or os.environ.get("VAULT_ADDR") or DEFAULT_ADDRESS).rstrip("/")
        # Given with each request: REQUESTS_CA_BUNDLE would beat what the session has.
        self._how = {
            "verify": _verify(options),
            "cert": _cert(options),
            "timeout": (options["connect_timeout"], options["read_timeout"]),
            "allow_redirects": options["allow_redirects"],
        }

    def ask(self, method: str, path: str, token: str | None, body: dict[str, Any] | None = None) -> requests.Response:
        """Send one request.

        :param path: percent-encoded, from the API's version on.
        """
        headers = {"X-Vault-Token": token} if token else None
        return self.request(method, f"{self._address}/v1/{path}", headers=headers, json=body, **self._how)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Give where *resp* redirects to, or ``None``: a standby gives the active node's address and the same path.

        Unlike an ``Authorization`` header, requests would send Vault's own along to any host.

        :raises StoreFault: where that is another host, another path or no longer encrypted.
        """
        location: str | None = super().get_redirect_target(resp)
        if location is None:
            return None
        asked, target = urlsplit(resp.url), urlsplit(urljoin(resp.url, location))
        encrypted = target.scheme in ("https", asked.scheme)
        if not encrypted or (target.hostname, target.path) != (asked.hostname, asked.path):
            raise StoreFault(f"HTTP {resp.status_code} to another host or path", "redirect to another host")
        return location


def _verify(options: Options) -> bool | str:
    given = options["verify"]
    if given is None:
        given = os.environ.get("VAULT_CACERT") or os.environ.get("VAULT_CAPATH") or True
    return given if isinstance(given, bool) else _readable("verify", given)


def _cert(options: Options) -> str | tuple[str, ...] | None:
    names = ("VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY")
    given = options["cert"] or tuple(os.environ[name] for name in names if os.environ.get(name))
    paths = tuple(_readable("cert", path) for path in given)
    return paths if len(paths) > 1 else next(iter(paths), None)


def _readable(option: str, path: str) -> str:
    if not os.access(path, os.R_OK):
        raise StoreFault(f"option {option!r} names a file that cannot be read", UNREADABLE)
    return path


class Token(NamedTuple):
    """What a login gave.

    :param text: the token, or ``None`` where an Agent adds it.
    :param life: seconds that it was given to live; 0 is for ever or unknown.
    :param expires: when it does, by :data:`clock`.
    :param renewal: when to renew it, where that is possible.
    """

    text: str | None
    life: float = 0.0
    expires: float = float("inf")
    renewal: float = float("inf")

    def __repr__(self) -> str:
        return f"Token(life={self.life})"


class VaultClient:
    """One identity's way to Vault: it logs in at the first read, and anew when the token ends.

    Safe to share between threads. It starts none: a token is renewed by the lookup that finds it due.

    :param options: the backend's options.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._session = VaultSession(options)
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._uses_left: int | None = None
        self._no_login_before = 0.0
        self._refusal: tuple[str, ...] = ()
        self._versions: dict[str, str] = {}

    def read(self, mount: str, path: str) -> dict[str, Any]:
        """Give the data of a secret.

        :param mount: the KV engine's mount.
        :param path: the secret's path under it.
        :raises StoreFault: if there is none, or no answer.
        """
        if self._version(mount) == "1":
            return self._get(f"{mount}/{path}")
        data = self._get(f"{mount}/data/{path}").get("data")
        if not isinstance(data, dict):
            raise StoreFault("the answer holds no secret", MALFORMED)
        return data

    def names_in(self, mount: str, path: str) -> list[str]:
        """Give what is in the folder *path*, which is empty or ends with a slash; folders in it end with one too.

        See `List secrets <https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#list-secrets>`_.

        :raises StoreFault: if there is no answer.
        """
        endpoint = f"{mount}/{path}" if self._version(mount) == "1" else f"{mount}/metadata/{path}"
        try:
            keys = self._get(endpoint, "list").get("keys")
        except StoreFault as fault:
            if ABSENT in fault.codes:
                return []
            raise
        if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
            raise StoreFault("the answer holds no list", MALFORMED)
        return keys

    def _version(self, mount: str) -> str:
        configured: str = self._options["kv_engine_version"]
        if configured != "auto":
            return configured
        if mount not in self._versions:
            # What Vault's own command asks before it reads; any identity with access below the mount may.
            about = self._get(f"sys/internal/ui/mounts/{mount}")
            if about.get("type") not in ("kv", "generic"):
                raise StoreFault("the mount is no KV engine", "no such mount")
            self._versions[mount] = str((about.get("options") or {}).get("version") or "1")
        return self._versions[mount]

    def _get(self, path: str, method: str = "get") -> dict[str, Any]:
        """Give the data at *path*, on a new login if the token had ended without notice.

        Vault says the same to an ended token and to one that may not read the path. So a refusal costs one
        login; if it stands, further ones cost none for :data:`REFUSAL_MEMO`.
        """
        token = self._valid_token()
        try:
            return self._data(path, token, method)
        except StoreFault as fault:
            if "HTTP 403" not in fault.codes:
                raise
            newer = self._token_after_refusal(token)
            if newer is None:
                raise
        try:
            data = self._data(path, newer, method)
        except StoreFault as fault:
            # What else went wrong, the new token was not refused.
            self._no_login_before = clock() + REFUSAL_MEMO if "HTTP 403" in fault.codes else 0.0
            raise
        self._no_login_before = 0.0
        return data

    def _data(self, path: str, token: Token, method: str) -> dict[str, Any]:
        data = self._request(method, quote(path), token).get("data")
        if not isinstance(data, dict):
            raise StoreFault("the answer holds no data", MALFORMED)
        return data

    # The login.

    def _valid_token(self) -> Token:
        """Give a token that has not expired, logging in or renewing where it is time."""
        with self._lock:
            token = self._token
            if token is None or clock() >= token.expires or self._uses_left == 0:
                token = self._logged_in()
            elif clock() >= token.renewal:
                token = self._renewed(token)
            return self._used(token)

    def _token_after_refusal(self, refused: Token) -> Token | None:
        """Give another token than the *refused* one, or ``None`` where there is none to be had."""
        with self._lock:
            token = self._token
            if token is None or token.text == refused.text:
                if clock() < self._no_login_before:
                    return None
                token = self._logged_in()
                if token.text != refused.text:
                    # Until the new token has its first answer, nobody else's refusal is worth another login.
                    self._no_login_before = clock() + REFUSAL_MEMO
            return self._used(token) if token.text != refused.text else None

    def _used(self, token: Token) -> Token:
        if self._uses_left:
            self._uses_left -= 1
        return token

    def _logged_in(self) -> Token:
        """Log in, unless the last try was refused a moment ago: repeating it locks accounts."""
        if self._refusal and clock() < self._no_login_before:
            raise StoreFault(*self._refusal)
        self._refusal = ()
        try:
            self._token, self._uses_left = self._log_in()
        except StoreFault as fault:
            if REFUSED in fault.codes:
                self._refusal, self._no_login_before = fault.codes, clock() + REFUSAL_MEMO
            raise
        return self._token

    def _log_in(self) -> tuple[Token, int | None]:
        """Give a new token, and how often it may be used."""
        auth_type = self._options["auth_type"]
        if auth_type == "agent":
            return Token(None), None
        if auth_type == "token":
            return Token(static_token(self._options)), None
        login = login_request(self._options)
        mount = self._options["auth_mount_point"] or AUTH_MOUNTS[auth_type]
        try:
            answer = self._request("post", f"auth/{quote(mount)}/{login.path}", Token(None), login.body)
        except StoreFault as fault:
            if fault.codes[-1] in ("HTTP 400", "HTTP 401", "HTTP 403", "no such mount", ABSENT):
                refusal = StoreFault(f"{auth_type} login refused ({fault.codes[0]})", REFUSED)
            elif fault.codes[-1] == MALFORMED:
                # Not the secret's fault, which is what INVALID would say.
                refusal = StoreFault("malformed answer to the login")
            else:
                raise
        else:
            return _granted(answer)
        raise refusal

    def _renewed(self, token: Token) -> Token:
        """Renew *token*, or log in where it cannot be; while the server is down the old one is as good."""
        try:
            renewed, _ = _granted(self._request("post", "auth/token/renew-self", token, {}))
        except StoreFault as fault:
            if not {"HTTP 400", "HTTP 403"}.isdisjoint(fault.codes):
                return self._logged_in()
            renewed = token._replace(renewal=_due(token.expires - clock()))
        except requests.RequestException:
            renewed = token._replace(renewal=_due(token.expires - clock()))
        if renewed.life < token.life:
            # It nears the most that it may live, and would be granted ever less.
            renewed = renewed._replace(renewal=float("inf"))
        self._token = renewed
        return renewed

    # The wire.

    def _request(self, method: str, path: str, token: Token, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Give the JSON object of an answer of 200.

        :param path: percent-encoded, from the API's version on.
        :raises StoreFault: for any other answer.
        """
        response = self._session.ask(method, path, token.text, body)
        answer: Any
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if response.status_code == HTTPStatus.OK and isinstance(answer, dict):
            return answer
        raise _fault(response.status_code, response.headers.get("Retry-After", ""), answer)


def _granted(answer: Mapping[str, Any]) -> tuple[Token, int | None]:
    auth = answer.get("auth")
    text = auth.get("client_token") if isinstance(auth, dict) else None
    if not isinstance(auth, dict) or not isinstance(text, str) or not text:
        raise StoreFault("the answer to the login holds no token", REFUSED)
    life, uses = float(auth.get("lease_duration") or 0), int(auth.get("num_uses") or 0) or None
    if not life:
        return Token(text), uses
    # Renewing would use up a token that is for few uses.
    renewal = _due(life) if auth.get("renewable") and not uses else float("inf")
    return Token(text, life, clock() + life, renewal), uses


def _due(life: float) -> float:
    """Give the time to renew what has *life* seconds to live."""
    return clock() + life * RENEWAL_DUE * spread(1 - RENEWAL_SPREAD, 1 + RENEWAL_SPREAD)


def _fault(status: int, retry_after: str, answer: Any) -> StoreFault:
    """Say what an answer means that is no secret. A 404 proves an absence only in Vault's own words."""
    if status == HTTPStatus.OK:
        return StoreFault(MALFORMED)
    if status == HTTPStatus.NOT_FOUND:
        return StoreFault(*_meaning_of_404(answer))
    meaning = [MEANINGS[status]] if status in MEANINGS else []
    return StoreFault(*meaning, f"HTTP {status}", retry_after=seconds_to_wait(retry_after))


def _meaning_of_404(answer: Any) -> tuple[str, ...]:
    if not isinstance(answer, dict):
        return ("HTTP 404, which is not Vault's own answer",)
    errors = answer.get("errors")
    if errors == []:
        return (ABSENT,)
    if errors:
        return ("HTTP 404, no such mount, namespace or path", "no such mount")
    data = answer.get("data")
    metadata = data.get("metadata") if isinstance(data, dict) else None
    if isinstance(metadata, dict):
        if metadata.get("destroyed"):
            return ("its latest version is destroyed", "destroyed")
        if metadata.get("deletion_time"):
            return ("its latest version is deleted", "deleted")
    if answer.get("warnings"):
        return ("HTTP 404, the mount is a KV 2 engine", "another kv_engine_version")
    return ("HTTP 404, which is not Vault's own answer",)
