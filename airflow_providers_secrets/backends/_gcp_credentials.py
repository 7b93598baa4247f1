"""An identity at Google, by google-auth, and the project that comes with it. Imported at the first lookup."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import google.auth
from google.auth import exceptions
from google.auth.credentials import TokenState, with_scopes_if_required

from airflow_providers_secrets.access import load_sdk
from airflow_providers_secrets.backends._gcp import (
    LOGIN_REFUSED,
    LOGIN_UNAVAILABLE,
    NO_PROJECT,
    UNREADABLE,
    credential_configuration,
    is_open,
    project_without_login,
    service_account_key,
)
from airflow_providers_secrets.store import StoreFault

Options = Mapping[str, Any]

MAX_FILE_LENGTH: Final = 1024 * 1024


class Login:
    """Credentials, and the project that they or the options name.

    Safe to share between threads: one of them renews the token, the others wait for it.

    :param options: the backend's options.
    :raises StoreFault: naming the option, where a credential cannot be used, or where there is none.
    """

    def __init__(self, options: Options) -> None:
        self._lock = threading.Lock()
        self._http = _Http((options["connect_timeout"], options["read_timeout"]))
        self._credentials: Any = None
        project = project_without_login(options)
        if not is_open(options):
            self._credentials, found = self._found(options)
            project = options["project_id"] or found or project
        if not project:
            raise StoreFault("option 'project_id' is needed: the credentials name no project", NO_PROJECT)
        self.project: str = project

    @property
    def universe(self) -> str:
        """The domain of Google's APIs: googleapis.com, or that of a cloud apart."""
        return str(getattr(self._credentials, "universe_domain", None) or "googleapis.com")

    def headers(self) -> dict[str, str]:
        """Give the headers of one request, renewing the token where its time has come.

        :raises StoreFault: if there is no token to be had.
        """
        headers: dict[str, str] = {}
        if self._credentials is None:
            return headers
        with self._lock:
            state = self._credentials.token_state
            if state is not TokenState.FRESH:
                self._renew(needed=state is TokenState.INVALID)
            # Not before_request(): it would start a thread that asks where the account may be used from
            # (regional access boundary), which Google has the first requests do without, too.
            self._credentials.apply(headers)
        return headers

    def _renew(self, *, needed: bool) -> None:
        try:
            self._credentials.refresh(self._http)
        except exceptions.GoogleAuthError as error:
            fault = self._http.fault(error)
        else:
            return
        if needed or LOGIN_UNAVAILABLE not in fault.codes:
            raise fault

    def _found(self, options: Options) -> tuple[Any, str | None]:
        try:
            load_sdk(("google.auth.credentials", "google.oauth2.service_account"), "google")
            credentials, project = self._source(options)
            if options["impersonation_chain"]:
                credentials, project = _impersonated(credentials, options)
            elif hasattr(credentials, "with_always_use_jwt_access"):
                # A service account's key signs for itself, as in Google's own clients: nothing to ask for.
                credentials = credentials.with_always_use_jwt_access(True)  # noqa: FBT003  # Google's signature
            if options["quota_project_id"] and hasattr(credentials, "with_quota_project"):
                credentials = credentials.with_quota_project(options["quota_project_id"])
        except exceptions.DefaultCredentialsError:
            fault = StoreFault("no Google credentials in the options or the environment", UNREADABLE)
        except exceptions.GoogleAuthError as error:
            fault = self._http.fault(error)
        else:
            return credentials, project
        raise fault

    def _source(self, options: Options) -> tuple[Any, str | None]:
        from google.oauth2 import service_account

        scopes = options["gcp_scopes"]
        if options["gcp_key_path"] or options["gcp_keyfile_dict"]:
            option = "gcp_key_path" if options["gcp_key_path"] else "gcp_keyfile_dict"
            try:
                key = options["gcp_keyfile_dict"] or service_account_key(_content(option, options[option]))
                credentials = service_account.Credentials.from_service_account_info(key, scopes=scopes)
            except (ValueError, TypeError, KeyError, AttributeError, exceptions.MalformedError):
                # What is wrong with a key is told with parts of it.
                credentials = None
            if credentials is None:
                raise StoreFault(f"option {option!r} is no service account key", UNREADABLE)
            return credentials, credentials.project_id
        configuration = options["gcp_credential_config_file"]
        if configuration:
            return self._configured(configuration, options)
        return self._scoped(google.auth.default, options)

    def _scoped(self, load: Callable[..., tuple[Any, str | None]], options: Options) -> tuple[Any, str | None]:
        """Load credentials, and their project where nothing else says it.

        A federated identity finds its project by a call that it may not be allowed, if it has scopes by then.
        """
        scopes = options["gcp_scopes"]
        credentials, project = load(scopes=None if project_without_login(options) else scopes, request=self._http)
        return with_scopes_if_required(credentials, scopes), project

    def _configured(self, configuration: Any, options: Options) -> tuple[Any, str | None]:
        option = "gcp_credential_config_file"
        try:
            if isinstance(configuration, str):
                configuration = credential_configuration(json.loads(_content(option, configuration)))
            credentials, project = self._scoped(
                functools.partial(google.auth.load_credentials_from_dict, configuration), options
            )
        except (ValueError, TypeError, KeyError, AttributeError, exceptions.DefaultCredentialsError):
            credentials = project = None
        if credentials is None:
            raise StoreFault(f"option {option!r} is no credential configuration", UNREADABLE)
        return credentials, project


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
    raise StoreFault(fault, UNREADABLE)


class _Http:
    """google-auth's way to HTTP, loaded where a login needs it; it remembers how the last request went.

    :param timeout: seconds to connect and to wait for the next part of an answer.
    """

    def __init__(self, timeout: tuple[float, float]) -> None:
        self._timeout = timeout
        self._request: Any = None
        self._status: int | None = None

    def __call__(self, *args: Any, **how: Any) -> Any:
        if self._request is None:
            load_sdk(("google.auth.transport.requests",), "google")
            from google.auth.transport.requests import Request

            self._request = Request()
        self._status = None
        response = self._request(*args, **{"timeout": self._timeout, **how})
        self._status = response.status
        return response

    def fault(self, error: Exception) -> StoreFault:
        """Say what *error* means, by the last answer: google-auth's errors do not tell an outage from a refusal."""
        if self._status is None:
            return StoreFault(f"{LOGIN_UNAVAILABLE} ({type(error).__name__})", LOGIN_UNAVAILABLE)
        if self._status == HTTPStatus.TOO_MANY_REQUESTS or self._status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return StoreFault(f"{LOGIN_UNAVAILABLE} (HTTP {self._status})", LOGIN_UNAVAILABLE)
        return StoreFault(f"{LOGIN_REFUSED} (HTTP {self._status})", LOGIN_REFUSED)
