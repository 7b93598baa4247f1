"""A client of Vault for one identity: when to log in, renew and log in again. Imported at the first lookup."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import hvac
import requests

from airflow_providers_secrets.stores import base
from airflow_providers_secrets.stores.base import (
    ABSENT,
    FOREIGN,
    LOGIN_REFUSED,
    MALFORMED,
    REFUSAL_MEMO,
    LoginGuard,
    StoreError,
    Turn,
)
from airflow_providers_secrets.stores.vault import login
from airflow_providers_secrets.stores.vault.replies import (
    NO_MOUNT,
    Reply,
    asks_in_vain,
    contents,
    refuses_token,
)
from airflow_providers_secrets.stores.vault.wire import make_api, sending

Options = Mapping[str, Any]
Request = Callable[[hvac.Client], Reply]

VERSION_MEMO: Final = 300.0
"""Seconds for which the server's answer about the version of a mount's KV engine is used. If another engine is mounted
in its place meanwhile, version 1 read as version 2 finds nothing at any path."""

RENEWAL_DUE: Final = 2 / 3
"""The fraction of a token's lifetime after which it is renewed …"""

RENEWAL_SPREAD: Final = 0.1
"""… plus or minus this fraction of that, so that processes started together do not renew together."""

NEVER: Final = float("inf")

spread = random.uniform


class Token:  # not a NamedTuple: defining one takes longer than importing a module
    """The result of a login.

    :param text: the token; empty if an Agent adds it.
    :param life: its lifetime in seconds; 0 is unlimited or unknown.
    :param expires: when it expires, by :data:`.base.clock`.
    :param renewal: when to renew it, if that is possible.
    """

    __slots__ = ("expires", "life", "renewal", "text")

    def __init__(self, text: str, life: float = 0.0, expires: float = NEVER, renewal: float = NEVER) -> None:
        self.text = text
        self.life = life
        self.expires = expires
        self.renewal = renewal

    def __repr__(self) -> str:
        return f"Token(life={self.life})"

    def to_renew(self, when: float) -> Token:
        """Return a copy of the token with another renewal time: other threads may be reading this one."""
        return Token(self.text, self.life, self.expires, when)


class VaultClient:
    """A client of Vault for one identity. It logs in at the first request, and again when the token ends.

    Safe to share between threads. It starts none: the lookup that finds a token due renews it. While one thread logs
    in, the others wait, each until its own deadline; they stop waiting for a thread that hangs beyond its own.

    :param options: the store's options.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._versions: dict[str, tuple[str, float]] = {}
        self._api = make_api(options)
        self._turn = Turn()
        self._token: Token | None = None
        self._uses_left: int | None = None
        self._no_login_before = 0.0
        self._token_is_known = False
        """Whether Vault knew the token of the refusal after which no login is made."""
        self._guard = LoginGuard()

    @property
    def address(self) -> str:
        """Vault's address, without a path."""
        return str(self._api.url)

    def ask(self, request: Request) -> Reply:
        """Return the answer to *request*, with a new login if the token had become invalid unnoticed.

        Vault gives the same answer to an invalid token and to one without permission. So a refusal costs one login; if
        that does not change it, further refusals cost none for :data:`REFUSAL_MEMO`.

        :raises StoreError: if no login succeeds.
        """
        token = self._valid_token()
        reply = self._send(request, token.text)
        if not _refuses(reply):
            return reply
        newer = self._token_after_refusal(token, is_known=not refuses_token(reply))
        if newer is None:
            return reply
        reply = self._send(request, newer.text)
        # Whatever else went wrong, the new token was not refused.
        self._no_login_before = base.clock() + REFUSAL_MEMO if _refuses(reply) else 0.0
        self._token_is_known = _refuses(reply) and not refuses_token(reply)
        return reply

    def version(self, mount: str, ask: Callable[[], str]) -> str:
        """Return the version of the KV engine at *mount*; call *ask* for it if no recent answer is known."""
        version, until = self._versions.get(mount, ("", 0.0))
        if base.clock() >= until:
            version = ask()
            self._versions[mount] = version, base.clock() + VERSION_MEMO
        return version

    def forget_version(self, mount: str) -> None:
        """Forget the version at *mount*, so that the next caller asks for it."""
        self._versions.pop(mount, None)

    def _send(self, request: Request, token: str) -> Reply:
        with sending(token):
            return request(self._api)

    # The login.

    def _valid_token(self) -> Token:
        """Return a token that has not expired, logging in or renewing if due."""
        with self._turn.taken():
            token = self._token
            if token is None or base.clock() >= token.expires or self._uses_left == 0:
                token = self._logged_in()
            elif base.clock() >= token.renewal:
                token = self._renewed(token)
            return self._used(token)

    def _token_after_refusal(self, refused: Token, *, is_known: bool) -> Token | None:
        """Return another token than the *refused* one, or ``None`` if there is none.

        :param is_known: whether Vault knows the refused token, as far as its answer tells.
        """
        with self._turn.taken():
            token = self._token
            if token is None or token.text == refused.text:
                has_ended_since = self._token_is_known and not is_known
                if not self._guard.is_closed and base.clock() < self._no_login_before and not has_ended_since:
                    return None
                self._token_is_known = False
                token = self._logged_in()
                if token.text != refused.text:
                    # Until the new token has its first answer, refusals in other threads cause no further login.
                    self._no_login_before = base.clock() + REFUSAL_MEMO
            return self._used(token) if token.text != refused.text else None

    def _used(self, token: Token) -> Token:
        if self._uses_left:
            self._uses_left -= 1
        return token

    def _logged_in(self) -> Token:
        """Log in, unless a login was refused a moment ago (:class:`.LoginGuard`)."""
        with self._guard.login():
            self._token, self._uses_left = self._log_in()
            return self._token

    def _log_in(self) -> tuple[Token, int | None]:
        """Return a new token, and how often it may be used (``None``: any number)."""
        auth_type = self.options["auth_type"]
        if auth_type in ("agent", "token"):
            text = "" if auth_type == "agent" else login.static_token(self.options)
            return Token(text), None
        reply = self._send(lambda api: login.log_in(api, self.options), "")
        try:
            answer = contents(reply, self.options)
        except StoreError as fault:
            if asks_in_vain(reply):
                refusal = StoreError(f"{auth_type} login: whom Vault asks did not answer it")
            elif fault.codes[-1] in ("HTTP 400", "HTTP 401", "HTTP 403", NO_MOUNT, ABSENT):
                refusal = StoreError(f"{auth_type} login refused ({fault.codes[0]})", LOGIN_REFUSED)
            elif fault.codes[-1] in (MALFORMED, FOREIGN):
                # Keep MALFORMED out of the codes: INVALID would blame the secret.
                refusal = StoreError("malformed answer to the login")
            else:
                raise
        else:
            return _granted(answer)
        raise refusal

    def _renewed(self, token: Token) -> Token:
        """Renew *token*, or log in if it cannot be renewed; if neither works for now, keep using it."""
        # Postpone the next renewal first, whatever the result: other lookups must not repeat this one.
        self._token = newest = token.to_renew(_due(token.expires - base.clock()))
        try:
            reply = self._send(lambda api: api.auth.token.renew_self(), token.text)
            newest, _ = _granted(contents(reply, self.options))
        except StoreError as fault:
            if not {"HTTP 400", "HTTP 403"}.isdisjoint(fault.codes):
                with contextlib.suppress(Exception):  # whatever the login's SDK raises
                    return self._logged_in()
        except (requests.RequestException, TimeoutError):
            pass
        if newest.life < token.life:
            # It nears its maximum TTL: each further renewal would grant less.
            newest = newest.to_renew(NEVER)
        self._token = newest
        return newest


def _granted(answer: Mapping[str, Any]) -> tuple[Token, int | None]:
    auth = answer.get("auth")
    text = auth.get("client_token") if isinstance(auth, dict) else None
    if not isinstance(auth, dict) or not isinstance(text, str) or not text:
        raise StoreError("the answer to the login holds no token", LOGIN_REFUSED)
    life, uses = _number(auth.get("lease_duration")), int(_number(auth.get("num_uses"))) or None
    if not life:
        return Token(text), uses
    # A token with limited uses is not renewed: renewing would cost one of them.
    renewal = _due(life) if auth.get("renewable") and not uses else NEVER
    return Token(text, life, base.clock() + life, renewal), uses


def _refuses(reply: Reply) -> bool:
    return reply.status == 403  # noqa: PLR2004


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e9 else 0.0  # noqa: PLR2004  # 30 years


def _due(life: float) -> float:
    """Return the time at which to renew a token that has *life* seconds to live."""
    return base.clock() + life * RENEWAL_DUE * spread(1 - RENEWAL_SPREAD, 1 + RENEWAL_SPREAD)
