"""What botocore's transport leaves open: how much is read, for how long, and whether it was all of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import botocore
from botocore.awsrequest import AWSResponse
from botocore.exceptions import IncompleteReadError

from airflow_providers_secrets.errors import ConfigurationError
from airflow_providers_secrets.stores.base import MALFORMED, StoreError, seconds_left

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""The longest answer read, in bytes. The longest that AWS gives is a batch of 20 secrets of 64 kB each."""

MAX_METADATA_BYTES: Final = 64 * 1024
"""The longest answer read of a host's or container's own service, in bytes, which gives credentials alone."""

_PART_BYTES: Final = 64 * 1024
_FIRST_ERROR: Final = 300


def bound_answers(client: Any) -> None:
    """Let *client* read answers of :data:`MAX_ANSWER_BYTES` at most, until nobody waits any more, and whole ones alone.

    :raises ConfigurationError: where this botocore has no such transport.
    """
    endpoint: Any = getattr(client, "_endpoint", None)  # there is no public way to it
    if not hasattr(endpoint, "http_session"):
        raise ConfigurationError(
            f"botocore {botocore.__version__} has no 'http_session' to bound; install an older boto3, and report this."
        )
    endpoint.http_session = _BoundedSession(endpoint.http_session)


def bound_metadata(resolver: Any) -> None:
    """Let the credential providers of *resolver* read short answers alone of a host's or container's own service."""
    for provider in resolver.providers:
        fetcher: Any = getattr(provider, "_role_fetcher", None) or getattr(provider, "_fetcher", None)
        if hasattr(fetcher, "_session"):  # there is no public way to it
            fetcher._session = _BoundedSession(fetcher._session, MAX_METADATA_BYTES)  # noqa: SLF001


class _BoundedSession:
    """A botocore HTTP session whose answers are bounded."""

    def __init__(self, session: Any, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._session = session
        self._max_bytes = max_bytes

    def send(self, request: Any) -> AWSResponse:
        """Send *request*, and read the whole answer.

        :raises StoreError: for an answer that is too long, or not text.
        :raises IncompleteReadError: for one that ends too early.
        :raises TimeoutError: where nobody waits for it any more.
        """
        request.stream_output = True  # leaves the body to us
        answer = self._session.send(request)
        body = _read(answer.raw, answer.headers.get("Content-Length", ""), self._max_bytes)
        return AWSResponse(answer.url, answer.status_code, answer.headers, _Body(_text(body, answer.status_code)))

    def close(self) -> None:
        self._session.close()


class _Body:
    """A body that was read."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body


def _read(raw: Any, announced: str, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    length = 0
    with contextlib.ExitStack() as unread:
        unread.callback(raw.close)  # or what is left of it would be taken for the next answer
        for part in iter(lambda: _next_part(raw), b""):
            parts.append(part)
            length += len(part)
            if length > max_bytes:
                raise StoreError(f"the answer is longer than {max_bytes} bytes", MALFORMED)
            if not seconds_left():
                raise TimeoutError
        if announced.isdigit() and length < int(announced):
            raise IncompleteReadError(actual_bytes=length, expected_bytes=int(announced))
        unread.pop_all()
    return b"".join(parts)


def _next_part(raw: Any) -> bytes:
    """Return what is there, and wait only where nothing is; urllib3 before 2.2 waits until a part is full."""
    part: bytes = raw.read1(_PART_BYTES) if hasattr(raw, "read1") else raw.read(_PART_BYTES)
    return part


def _text(body: bytes, status: int) -> bytes:
    """Return *body*, which botocore takes for UTF-8; of an error's page, what is legible."""
    try:
        body.decode()
    except UnicodeDecodeError:
        readable = body.decode(errors="replace").encode()
    else:
        return body
    if status < _FIRST_ERROR:
        raise StoreError("the answer is not UTF-8", MALFORMED)
    return readable
