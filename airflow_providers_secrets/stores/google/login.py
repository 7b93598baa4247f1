"""Google credentials, by google-auth, and the project that comes with them. Imported with the SDK."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import google.auth
from google.auth import exceptions
from google.auth.credentials import TokenState, with_scopes_if_required
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from airflow_providers_secrets.stores import base
from airflow_providers_secrets.stores.base import (
    BAD_CREDENTIAL,
    LOGIN_REFUSED,
    LOGIN_UNAVAILABLE,
    Identity,
    LoginGuard,
    StoreError,
    Turn,
)
from airflow_providers_secrets.stores.google.http import login_session
from airflow_providers_secrets.stores.google.identity import (
    credential_configuration,
    is_open,
    project_without_login,
    service_account_key,
)
from airflow_providers_secrets.stores.google.secret_manager import (
    COMMAND_FAILED,
    NO_CREDENTIALS,
    NO_PROJECT,
)

Options = Mapping[str, Any]

RENEWAL_PAUSE: Final = 30.0
"""Seconds until the next attempt to renew a token that is still valid, after a failed one."""

MAX_FILE_LENGTH: Final = 1024 * 1024


class ParsedKeys:
    """The last service account key that was parsed: its RSA checks take 39 ms of CPU. No token is kept here.

    A store keeps one, so that a forked child inherits the key that its parent parsed. A key that has changed in its
    file is parsed again. Safe to share between threads.
    """

    def __init__(self) -> None:
        self._last: tuple[dict[str, Any], Any] | None = None

    def credentials(self, key: dict[str, Any], scopes: tuple[str, ...]) -> Any:
        """Return new credentials for *key*.

        :raises Exception: google-auth's or cryptography's, which may quote the key, if it is not a valid key.
        """
        last = self._last
        if last is None or last[0] != key:
            last = self._last = (key, service_account.Credentials.from_service_account_info(key))
        return last[1].with_scopes(scopes)

    def preload(self, options: Options) -> None:
        """Parse the key that the options hold or name."""
        if options["gcp_keyfile_dict"] or options["gcp_key_path"]:
            self.credentials(_key(options), options["gcp_scopes"])


def _key(options: Options) -> dict[str, Any]:
    path = options["gcp_key_path"]
    key: dict[str, Any] = options["gcp_keyfile_dict"] or service_account_key(_content("gcp_key_path", path))
    return key


class Login:
    """Credentials, and the project that they or the options name.

    Safe to share between threads: one of them renews the token, the others wait for it, each until its own deadline.
    A refused login is not tried again for a while (:class:`.LoginGuard`).

    :param options: the connection options.
    :param keys: the key that is parsed already.
    :raises StoreError: naming the option, if a credential cannot be used, or if there is none.
    """

    def __init__(self, options: Options, keys: ParsedKeys) -> None:
        self._turn = Turn()
        self._http = Http(options["connect_timeout"], options["read_timeout"])
        self._options = options
        self._keys = keys
        self._credentials: Any = None
        self._guard = LoginGuard()
        self._no_renewal_before = 0.0
        project, source = project_without_login(options), "the environment (GOOGLE_CLOUD_PROJECT)"
        if not is_open(options):
            self._credentials, found = self._found()
            if found:
                project, source = found, "the credentials"
        if options["project_id"]:
            project, source = options["project_id"], "option project_id"
        if not project:
            raise StoreError("option 'project_id' is needed: the credentials name no project", NO_PROJECT)
        self.project: str = project
        self.project_source: str = source
        """Where the project came from, for people."""

    @property
    def universe(self) -> str:
        """The domain of Google's APIs: googleapis.com, or that of a separate Google cloud."""
        return str(getattr(self._credentials, "universe_domain", None) or "googleapis.com")

    def metadata(self) -> list[tuple[str, str]]:
        """Return the metadata of one request, renewing the token if that is due.

        :raises StoreError: if no token can be obtained.
        :raises TimeoutError: if another thread's renewal outlasts the caller's deadline.
        """
        headers: dict[str, str] = {}
        if self._credentials is None:
            return []
        with self._turn.taken():
            state = self._credentials.token_state
            if state is TokenState.INVALID:
                self._renew()
            elif state is TokenState.STALE and base.clock() >= self._no_renewal_before:
                self._renew_early()
            # Not before_request(): it would start a thread that asks where the account may be used from
            # (regional access boundary). Google's own first requests go without that, too.
            self._credentials.apply(headers)
        return [(name.lower(), value) for name, value in headers.items()]

    def identity(self) -> Identity:
        """Return who asks, as far as the credentials tell. Logs in, since some tell it only then.

        :raises StoreError: if the login is refused.
        """
        self.metadata()
        details = {"project": self.project, "project from": self.project_source}
        if self._credentials is None:
            return Identity("nobody: an emulator is asked without a login", details)
        details["credentials"] = _kind(type(self._credentials).__module__)
        for attribute in ("service_account_email", "account"):
            who = getattr(self._credentials, attribute, None)
            if who and who != "default":
                return Identity(str(who), details)
        audience = getattr(self._credentials, "_audience", None) or getattr(self._credentials, "audience", None)
        return Identity(f"a federated identity of {audience}" if audience else "a user without a name", details)

    def _renew_early(self) -> None:
        """Renew a token that is valid for some more minutes; if that fails, keep using it."""
        # Postpone the next renewal first, whatever the result: other requests must not repeat this one.
        self._no_renewal_before = base.clock() + RENEWAL_PAUSE
        with contextlib.suppress(StoreError, TimeoutError):
            self._renew()
            self._no_renewal_before = 0.0

    def _renew(self) -> None:
        # Its own object: a thread that hung may get its answer while this one logs in.
        asking = Asking(self._http)
        with self._guard.login() as was_refused:
            credentials = self._credentials
            if was_refused:
                credentials, _ = self._found()  # their file may hold others by now
            try:
                credentials.refresh(asking)
            except TimeoutError:
                raise
            except Exception as error:  # noqa: BLE001  # google-auth lets errors of reading an answer, a file or a command through
                is_command = _kind(type(credentials).__module__) == "pluggable"
                fault = asking.fault(error, COMMAND_FAILED if is_command else BAD_CREDENTIAL)
            else:
                self._credentials = credentials  # not before: the former ones may have a token that is still valid
                return
            raise fault

    def _found(self) -> tuple[Any, str | None]:
        options, asking = self._options, Asking(self._http)
        try:
            credentials, project = self._source(asking)
            if options["impersonation_chain"]:
                credentials, project = _impersonated(credentials, options)
            elif hasattr(credentials, "with_always_use_jwt_access"):
                # A service account's key signs its own tokens, as in Google's own clients: no request is needed.
                credentials = credentials.with_always_use_jwt_access(True)  # noqa: FBT003  # Google's signature
            if options["quota_project_id"] and hasattr(credentials, "with_quota_project"):
                credentials = credentials.with_quota_project(options["quota_project_id"])
        except exceptions.DefaultCredentialsError:
            fault = StoreError(NO_CREDENTIALS)
        except exceptions.GoogleAuthError as error:
            fault = asking.fault(error)
        else:
            return credentials, project
        raise fault

    def _source(self, asking: Asking) -> tuple[Any, str | None]:
        options = self._options
        if options["gcp_key_path"] or options["gcp_keyfile_dict"]:
            option = "gcp_key_path" if options["gcp_key_path"] else "gcp_keyfile_dict"
            # The message of such an error may quote parts of the key.
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, exceptions.MalformedError):
                credentials = self._keys.credentials(_key(options), options["gcp_scopes"])
                return credentials, credentials.project_id
            raise StoreError(f"option {option!r} is no service account key", BAD_CREDENTIAL)
        if options["gcp_credential_config_file"]:
            return self._configured(options["gcp_credential_config_file"], asking)
        return self._scoped(google.auth.default, asking)

    def _scoped(self, load: Callable[..., tuple[Any, str | None]], asking: Asking) -> tuple[Any, str | None]:
        """Load credentials, and their project if nothing else names it.

        A federated identity that has scopes finds its project by a call that it may have no permission for.
        """
        scopes = self._options["gcp_scopes"]
        known = project_without_login(self._options)
        credentials, project = load(scopes=None if known else scopes, request=asking)
        return with_scopes_if_required(credentials, scopes), project

    def _configured(self, configuration: Any, asking: Asking) -> tuple[Any, str | None]:
        option = "gcp_credential_config_file"
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, exceptions.DefaultCredentialsError):
            if isinstance(configuration, str):
                configuration = credential_configuration(_content(option, configuration))
            return self._scoped(functools.partial(google.auth.load_credentials_from_dict, configuration), asking)
        raise StoreError(f"option {option!r} is no credential configuration", BAD_CREDENTIAL)


def _impersonated(source: Any, options: Options) -> tuple[Any, str]:
    from google.auth import impersonated_credentials

    *delegates, target = options["impersonation_chain"]
    credentials = impersonated_credentials.Credentials(
        source_credentials=source,
        target_principal=target,
        target_scopes=list(options["gcp_scopes"]),
        # https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken
        delegates=[f"projects/-/serviceAccounts/{account}" for account in delegates],
    )
    # NAME@PROJECT.iam.gserviceaccount.com
    return credentials, target.partition("@")[2].partition(".")[0]


def _content(option: str, path: str) -> str:
    try:
        with Path(path).open(encoding="utf-8") as file:
            return file.read(MAX_FILE_LENGTH)
    except (OSError, ValueError) as error:
        fault = f"option {option!r}: its file cannot be read ({type(error).__name__})"
    raise StoreError(fault, BAD_CREDENTIAL)


class Http:
    """google-auth's HTTP transport, created when a login needs it.

    :param connect_timeout: seconds to open a connection.
    :param read_timeout: seconds to wait for the next part of an answer.
    """

    def __init__(self, connect_timeout: float, read_timeout: float) -> None:
        self._timeouts = (connect_timeout, read_timeout)
        self._request: Request | None = None

    def request(self) -> Request:
        """Return the callable that sends requests.

        :raises StoreError: if the CA certificates cannot be read.
        """
        if self._request is None:
            self._request = Request(login_session(*self._timeouts))
        return self._request


class Asking:
    """The requests of one login, and the result of the last one."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._began = False
        self._status: int | None = None

    def __call__(self, *args: Any, **how: Any) -> Any:
        """Send one request; google-auth calls this."""
        request = self._http.request()
        self._began, self._status = True, None
        try:
            response = request(*args, **how)
        except StoreError as error:  # a redirect or too long an answer, which would look like one from the API
            reason = error.codes[0]
        else:
            self._status = response.status
            return response
        raise StoreError(f"{LOGIN_UNAVAILABLE} ({reason})", LOGIN_UNAVAILABLE)

    def fault(self, error: Exception, unasked: str = BAD_CREDENTIAL) -> StoreError:
        """Return what *error* means, by the last answer: google-auth's errors do not tell an outage from a refusal.

        :param unasked: the code of a failure before the first request.
        """
        if isinstance(error, StoreError):
            return StoreError(*error.codes)
        if untrusted := tuple(base.codes_of_certificate(error)):
            return StoreError(*untrusted)
        if unanswered := tuple(base.codes_of_network(error)):
            return StoreError(f"{LOGIN_UNAVAILABLE}: {unanswered[0]}", *unanswered[1:], LOGIN_UNAVAILABLE)
        status, reason = self._status or 0, type(error).__name__
        if not self._began:
            code = unasked
        elif status < HTTPStatus.BAD_REQUEST:  # no answer, or one that is not from a token issuer
            code = LOGIN_UNAVAILABLE
        else:
            passing = status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
            code, reason = LOGIN_UNAVAILABLE if passing else LOGIN_REFUSED, f"HTTP {status}"
        return StoreError(f"{code} ({reason})", code)


def _kind(module: str) -> str:
    """Return the kind of credentials, by their class's module: several classes are called ``Credentials``."""
    own, _, last = module.rpartition(".")
    return (own.rpartition(".")[2] if last == "credentials" else last).replace("_", " ")
