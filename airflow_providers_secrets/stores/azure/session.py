"""HTTP sessions for vault and authority, with limits on time and length. Imported at the first lookup."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import requests

from airflow_providers_secrets.stores.base import GRACE, MALFORMED, StoreError, arriving, bounded, seconds_left
from airflow_providers_secrets.stores.https import ContextAdapter, Verify, context_for, path_for, secured

MAX_BODY: Final = 8 * 1024 * 1024
"""Maximum length of an answer, in bytes; Key Vault's own answers are below 1 MiB."""


def make_session(verify: Verify, *, certificate: bool = False) -> requests.Session:
    """Return a session that adds no credentials of its own, limits the length of answers, and ends at the deadline.

    :param verify: the certificates with which servers are verified.
    :param certificate: whether it will present a client certificate, which needs a TLS context of its own.
    """
    session = requests.Session()
    secured(session, _Adapter(None if certificate else context_for(verify), path_for(verify)))
    session.mount("http://", _Adapter(None, ""))  # for a machine's identity endpoint
    return session


class _Adapter(ContextAdapter):
    """Waits no longer than until the deadline, and reads no more than the longest valid answer."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send one request."""
        if isinstance(kwargs.get("timeout"), tuple):
            left = seconds_left() + GRACE
            kwargs["timeout"] = tuple(min(seconds, left) for seconds in kwargs["timeout"])
        response = super().send(request, *args, **kwargs)
        _check_charset(response)
        strict = response.status_code == HTTPStatus.OK
        raw: Any = response.raw
        # urllib3's own would wait until a part is full, however long the server takes for each byte of it.
        raw.stream = lambda *_, **__: _checked(arriving(raw), strict=strict)
        return response


def _checked(chunks: Iterator[bytes], *, strict: bool) -> Iterator[bytes]:
    """Yield *chunks* until the deadline, and :data:`MAX_BODY` bytes at most.

    :param strict: whether they must be UTF-8: the SDK would put replacement characters into the value.
    :raises StoreError: if they are too long, or not text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    for chunk in bounded(chunks, MAX_BODY):
        if strict:
            _decode(decoder, chunk)
        yield chunk
    if strict:
        _decode(decoder, b"", final=True)


def _decode(decoder: codecs.IncrementalDecoder, chunk: bytes, *, final: bool = False) -> None:
    with contextlib.suppress(UnicodeDecodeError):
        decoder.decode(chunk, final)
        return
    raise StoreError("the answer is not UTF-8", MALFORMED)


def _check_charset(response: requests.Response) -> None:
    """Refuse any charset but UTF-8, JSON's only one (RFC 8259, section 8.1): the SDK would decode by that charset."""
    charset = response.headers.get("Content-Type", "").lower().partition("charset=")[2].strip(' "')
    if response.status_code == HTTPStatus.OK and charset.partition(";")[0] not in ("", "utf-8", "utf8", "us-ascii"):
        response.close()
        raise StoreError("the answer is not UTF-8", MALFORMED)
