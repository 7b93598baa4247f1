"""google-cloud-secret-manager's client, over our own channel or session. Imported with the SDK."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import grpc
import requests
from google.api_core.exceptions import GoogleAPICallError, from_http_response
from google.auth.credentials import AnonymousCredentials
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceGrpcTransport,
    SecretManagerServiceRestTransport,
)
from google.protobuf.json_format import ParseError

from airflow_providers_secrets.stores.base import (
    CONNECTION_REFUSED,
    CUT_OFF,
    GRACE,
    MALFORMED,
    NO_ROUTE,
    NOT_RESOLVED,
    USER_AGENT,
    StoreError,
    seconds_left,
    seconds_to_wait,
    too_long,
)
from airflow_providers_secrets.stores.google import grpc_forks
from airflow_providers_secrets.stores.google.http import MAX_ANSWER, BoundedAdapter
from airflow_providers_secrets.stores.google.secret_manager import UNFIT_SDK
from airflow_providers_secrets.stores.https import secured

Options = Mapping[str, Any]
Metadata = Sequence[tuple[str, str]]

CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{1,62}")
"""What counts as a code or reason of Google's (google.rpc.ErrorInfo.reason); anything else is ignored."""

_TYPE: Final = "type.googleapis.com/google.rpc."
_TLS = re.compile("CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER")
_NETWORK: Final[Mapping[str, str]] = {
    "Connection refused": CONNECTION_REFUSED,
    "No route to host|Network is unreachable": NO_ROUTE,
    "Connection reset|Socket closed": CUT_OFF,
    "DNS resolution failed|errors resolving": NOT_RESOLVED,
}
"""What gRPC's own messages contain where it reached no server."""


class Api:
    """The SDK's client. Each call has our deadline, our token and no retries.

    Safe to share between threads. It starts none of its own; gRPC has some while a channel is open.

    :param spoken: the transport, ``grpc`` or ``rest``.
    :param url: the server's address.
    :param metadata: returns the metadata of a request, such as the token.
    :raises StoreError: if the SDK lacks what makes it safe.
    """

    def __init__(self, spoken: str, url: str, metadata: Callable[[], Metadata], options: Options) -> None:
        self.address = url
        self._metadata = metadata
        self._timeout: float = options["read_timeout"]
        self._client = SecretManagerServiceClient(transport=_TRANSPORTS[spoken](url, options))

    def call(self, operation: str, request: Mapping[str, Any]) -> Any:
        """Call one operation of the client, by its name.

        :raises StoreError: for a malformed answer.
        :raises GoogleAPICallError: for an error that the server or gRPC reports.
        """
        metadata = self._metadata()
        timeout = min(self._timeout, seconds_left() + GRACE)
        try:
            return getattr(self._client, operation)(request=request, retry=None, timeout=timeout, metadata=metadata)
        except (ParseError, UnicodeDecodeError, RecursionError):  # their messages quote the answer
            pass
        except GoogleAPICallError as error:
            text = str(error.message)
            if "Received message larger than max" in text:
                raise too_long(MAX_ANSWER) from None
            if "Exception deserializing response" not in text:
                raise
        except Exception as error:
            # If an error's details cannot be parsed, only the original error remains (google.api_core.exceptions).
            if not isinstance(error.__context__, grpc.RpcError):
                raise
            raise StoreError(error.__context__.code().name) from None
        raise StoreError(MALFORMED)


def _grpc_transport(url: str, options: Options) -> SecretManagerServiceGrpcTransport:
    grpc_forks.opening()
    return SecretManagerServiceGrpcTransport(channel=_channel(url, options))


def _channel(url: str, options: Options) -> grpc.Channel:
    """Open a channel; https:// uses the certificates of GRPC_DEFAULT_SSL_ROOTS_FILE_PATH, or else gRPC's own."""
    connect = int(options["connect_timeout"] * 1000)
    arguments = [
        ("grpc.primary_user_agent", USER_AGENT),
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", MAX_ANSWER),
        # The connect time-out, although the name mentions only reconnecting; and back-off times that fit the lookup's.
        ("grpc.min_reconnect_backoff_ms", connect),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A new channel opens its own connection, and does not inherit the back-off of another one that failed.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    target = urlsplit(url)
    if target.scheme == "http":
        return grpc.insecure_channel(target.netloc, arguments)
    address = target.netloc if target.port else f"{target.netloc}:443"
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(), arguments)


def _rest_transport(url: str, options: Options) -> SecretManagerServiceRestTransport:
    target = urlsplit(url)
    transport = SecretManagerServiceRestTransport(
        host=target.netloc, url_scheme=target.scheme, credentials=AnonymousCredentials()
    )
    # The SDK accepts no session. Its own follows redirects, sends credentials of ~/.netrc, and reads without limit.
    session = getattr(transport, "_session", None)
    if not isinstance(session, requests.Session):
        version = importlib.metadata.version("google-cloud-secret-manager")
        raise StoreError(f"google-cloud-secret-manager {version} has no session that can be bounded", UNFIT_SDK)
    session.headers["User-Agent"] = USER_AGENT
    secured(session, _ApiAdapter(options["connect_timeout"], options["read_timeout"]))
    return transport


class _ApiAdapter(BoundedAdapter):
    def send(self, *args: Any, **how: Any) -> requests.Response:
        response = super().send(*args, **how)
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            # Otherwise the session would try to refresh the anonymous credentials, which raises another error.
            raise from_http_response(response)  # type: ignore[no-untyped-call]
        return response


_TRANSPORTS: Final[Mapping[str, Callable[[str, Options], Any]]] = {"grpc": _grpc_transport, "rest": _rest_transport}


# Reading the SDK's errors. Their text may come from the server: it is searched for known reasons, and never quoted.


def codes(error: GoogleAPICallError) -> Iterator[str]:
    """Yield Google's reason for *error*, then its status; over REST, a proxy's page has only an HTTP status."""
    if isinstance(error.response, requests.Response):
        told = _error_of(error.response)
        if told is None:
            yield f"HTTP {error.response.status_code}"
            return
        reason, status = _reason(told), told["status"]
    else:
        reason, status = error.reason, getattr(error.grpc_status_code, "name", "UNKNOWN")
        message = str(error.message)
        yield from _TLS.findall(message)[:1]
        if status == "UNAVAILABLE":  # gRPC's own, where no server answered
            yield from [code for pattern, code in _NETWORK.items() if re.search(pattern, message)][:1]
    if isinstance(reason, str) and CODE.fullmatch(reason):
        yield reason
    yield status


def _error_of(response: requests.Response) -> Mapping[str, Any] | None:
    """Return the error object with a status that Google's APIs send, or ``None`` if something else answered."""
    with contextlib.suppress(ValueError, RecursionError):
        answer = response.json()
        error = answer.get("error") if isinstance(answer, dict) else None
        if isinstance(error, dict) and CODE.fullmatch(str(error.get("status"))):
            return error
    return None


def _reason(told: Mapping[str, Any]) -> Any:
    """Return the reason of the error's ErrorInfo. Over REST, older google-api-core (2.30) does not expose it."""
    details = told.get("details")
    infos = (one for one in details if isinstance(one, dict)) if isinstance(details, list) else ()
    return next((one.get("reason") for one in infos if one.get("@type") == f"{_TYPE}ErrorInfo"), None)


def retry_after(error: GoogleAPICallError) -> float | None:
    """Return the seconds to wait, from Google's RetryInfo or the header Retry-After."""
    for detail in error.details or ():
        if delay := getattr(detail, "retry_delay", None):
            seconds = float(delay.seconds + delay.nanos / 1e9)
            return seconds if seconds > 0 else None
        if isinstance(detail, dict) and detail.get("@type") == f"{_TYPE}RetryInfo":
            told = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", str(detail.get("retryDelay")))
            if told:
                return float(told[1])
    if isinstance(error.response, requests.Response):
        return seconds_to_wait(error.response.headers.get("Retry-After", ""))
    return None
