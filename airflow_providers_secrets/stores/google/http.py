"""HTTP sessions with limits on time and answer length, which never send a token to another host.

For both the API over REST and google-auth's logins. Imported with the SDK.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import requests

from airflow_providers_secrets.stores.base import BAD_BUNDLE, GRACE, StoreError, arriving, bounded, seconds_left
from airflow_providers_secrets.stores.https import ContextAdapter, context_of, default_certificates, secured

MAX_ANSWER: Final = 16 * 1024 * 1024
"""Maximum length of an answer, in bytes. A value has up to 64 KiB, a page of 1,000 names with annotations 16 MiB."""


def trusted_authorities() -> ssl.SSLContext:
    """Return the TLS context with the certificates that requests would trust; see :func:`.context_of`.

    :raises StoreError: naming the variable, if the file that it names cannot be read.
    """
    path, source = default_certificates()
    try:
        return context_of(path)
    except (OSError, ValueError) as error:
        fault = f"{source}: the CA bundle cannot be read ({type(error).__name__})"
    raise StoreError(fault, BAD_BUNDLE)


class BoundedAdapter(ContextAdapter):
    """Limits each wait, each answer and the whole call, and treats a redirect as a failure.

    :param connect_timeout: seconds to open a connection.
    :param read_timeout: seconds to wait for the next part of an answer.
    """

    def __init__(self, connect_timeout: float, read_timeout: float) -> None:
        self._timeouts = (connect_timeout, read_timeout)
        super().__init__(trusted_authorities(), default_certificates()[0])

    def send(  # noqa: PLR0913, PLR0917  # requests' signature
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: ARG002, FBT001, FBT002
        timeout: Any = None,  # noqa: ARG002
        verify: bool | str = True,  # noqa: ARG002, FBT001, FBT002
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send one request.

        :raises StoreError: for a redirect, with its status.
        :raises TimeoutError: once the deadline has passed.
        """
        left = seconds_left()
        if not left:
            raise TimeoutError
        connect, read = self._timeouts
        waits = (min(connect, left + GRACE), min(read, left + GRACE))
        response = super().send(request, stream=True, timeout=waits, verify=True, cert=cert, proxies=proxies)
        if HTTPStatus.MULTIPLE_CHOICES <= response.status_code < HTTPStatus.BAD_REQUEST:
            response.close()
            raise StoreError(f"HTTP {response.status_code}")
        response.raw = _BoundedBody(response.raw)
        return response


class _BoundedBody:
    """urllib3's response, read up to :data:`MAX_ANSWER` bytes and until the call's deadline."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        """Yield the parts of the body as they arrive."""
        try:
            yield from bounded(arriving(self._raw), MAX_ANSWER)
        except (StoreError, TimeoutError):
            self._raw.close()
            raise


def login_session(connect_timeout: float, read_timeout: float) -> requests.Session:
    """Return a new session for google-auth; the parameters are those of :class:`BoundedAdapter`."""
    session = requests.Session()
    secured(session, BoundedAdapter(connect_timeout, read_timeout))
    return session
