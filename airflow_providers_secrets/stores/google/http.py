"""HTTP sessions that wait no longer than the lookup, read no more than an answer holds, and carry a token nowhere else.

For the API over REST and for google-auth's logins alike. Imported with the SDK.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter

from airflow_providers_secrets.stores.base import CHUNK, StoreError, bounded, seconds_left
from airflow_providers_secrets.stores.google.secret_manager import BUNDLE
from airflow_providers_secrets.stores.https import ContextAdapter, as_it_is, context_of, default_certificates

MAX_ANSWER: Final = 16 * 1024 * 1024
"""Bytes read of one answer at most. A value has 64 KiB; a page of 1,000 names with all their annotations 16 MiB."""

GRACE: Final = 0.5
"""Seconds that a wait goes on after the lookup's deadline, so that the deadline is what ends a lookup, and names it."""


def secured(session: requests.Session, adapter: HTTPAdapter) -> None:
    """Keep *session* from redirects and from ``~/.netrc``, whose password would replace the token."""
    session.auth = as_it_is
    session.mount("https://", adapter)
    session.mount("http://", adapter)


def trusted_authorities() -> ssl.SSLContext:
    """Return the TLS context of the certificates that requests would trust; see :func:`.context_of`.

    :raises StoreError: naming the variable, where the file that it names cannot be read.
    """
    path, source = default_certificates()
    try:
        return context_of(path)
    except (OSError, ValueError) as error:
        fault = f"{source}: the CA bundle cannot be read ({type(error).__name__})"
    raise StoreError(fault, BUNDLE)


class BoundedAdapter(ContextAdapter):
    """Bounds each wait, each answer and the whole call, and takes a redirect for the failure that it is.

    :param connect_timeout: seconds to open a connection.
    :param read_timeout: seconds to wait for the next part of an answer.
    """

    def __init__(self, connect_timeout: float, read_timeout: float) -> None:
        self._timeouts = (connect_timeout, read_timeout)
        super().__init__(trusted_authorities())

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
        :raises TimeoutError: where nobody waits any more.
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
    """urllib3's answer, read up to :data:`MAX_ANSWER` and until the call's deadline."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, amount: int, decode_content: bool | None = None) -> Iterator[bytes]:  # noqa: FBT001
        """Yield the body part by part, as it arrives."""
        try:
            yield from bounded(self._parts(amount, decode_content), MAX_ANSWER)
        except (StoreError, TimeoutError):
            self._raw.close()
            raise

    def _parts(self, amount: int, decode_content: bool | None) -> Iterator[bytes]:  # noqa: FBT001
        if not hasattr(self._raw, "read1"):  # urllib3 before 2.1 waits for whole parts
            yield from self._raw.stream(amount, decode_content=decode_content)
            return
        while part := self._raw.read1(CHUNK, decode_content=decode_content):
            yield part


def login_session(adapter: HTTPAdapter) -> requests.Session:
    """Make a session for google-auth."""
    session = requests.Session()
    secured(session, adapter)
    return session
