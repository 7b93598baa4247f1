"""How vault and authority are asked over HTTPS: what is bounded, and what is kept out. Imported at the first lookup."""

from __future__ import annotations

import codecs
import contextlib
import os
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from airflow_providers_secrets.stores.base import MALFORMED, MAX_CONNECTIONS, StoreError, bounded, seconds_left

Verify = bool | str
"""As in requests: a file or directory of certificates, ``True`` for the default one, or ``False``."""

MAX_BODY: Final = 8 * 1024 * 1024
"""The longest answer that is read, in bytes once decompressed; Key Vault's own are below 1 MiB."""

GRACE: Final = 0.25
"""Seconds that a wait goes on beyond the deadline, so that whoever keeps the deadline says so first."""

_contexts: dict[str, ssl.SSLContext] = {}
"""TLS contexts by the file of certificates that each trusts. To read one takes longer than a lookup, and both sessions
of a client need it. A forked child inherits them: a context holds neither sockets nor sessions."""


def make_session(verify: Verify, *, certificate: bool = False) -> requests.Session:
    """Return a session that sends nothing but what it is told to, reads no endless answer, and ends at the deadline.

    :param verify: the certificates that a server is verified by.
    :param certificate: whether it will present a certificate of its own, which needs a TLS context of its own.
    """
    session = requests.Session()
    session.auth = _as_it_is
    context = None if certificate or verify is False else _context(verify)
    session.mount("https://", _Adapter(context))
    session.mount("http://", _Adapter(None))  # of a machine's identity endpoint
    return session


def load_certificates(verify: Verify) -> None:
    """Read what :func:`make_session` would read."""
    if verify is not False:
        _context(verify)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave *request* alone. A session without ``auth`` puts a password of ``~/.netrc`` in the place of the token."""
    return request


def _context(verify: Verify) -> ssl.SSLContext | None:
    """Return the context that trusts what requests would trust, or ``None`` where requests is left to make it."""
    path = verify if isinstance(verify, str) else _default_certificates()
    if path not in _contexts:
        context = create_urllib3_context()
        try:
            if os.path.isdir(path):  # noqa: PTH112  # pathlib would be imported for it
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
        except OSError:  # requests says what is wrong with it
            return None
        _contexts[path] = context
    return _contexts[path]


def _default_certificates() -> str:
    """Return the file that requests verifies by (requests, "SSL Cert Verification")."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH


class _Adapter(HTTPAdapter):
    """Waits no longer than anybody waits for the answer, and reads no more than an answer can be.

    :param context: the TLS context, whose certificates requests would load anew for each host otherwise.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        super().__init__(pool_maxsize=MAX_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the connections' pools."""
        super().init_poolmanager(*args, **{**kwargs, **self._tls()})

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Return the pools of a proxy's connections."""
        return super().proxy_manager_for(proxy, **kwargs, **self._tls())

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """Return what a pool is found by; the certificates are the context's own."""
        host, tls = super().build_connection_pool_key_attributes(request, verify, cert)
        if self._context:
            return host, {name: value for name, value in tls.items() if name not in ("ca_certs", "ca_cert_dir")}
        return host, tls

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Say what a connection is verified by."""
        super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
        if self._context:
            conn.ca_certs = conn.ca_cert_dir = None

    def _tls(self) -> dict[str, Any]:
        return {"ssl_context": self._context} if self._context else {}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send one request."""
        if isinstance(kwargs.get("timeout"), tuple):
            left = seconds_left() + GRACE
            kwargs["timeout"] = tuple(min(seconds, left) for seconds in kwargs["timeout"])
        response = super().send(request, *args, **kwargs)
        _check_charset(response)
        stream = response.raw.stream
        strict = response.status_code == HTTPStatus.OK
        raw: Any = response.raw
        raw.stream = lambda *a, **k: _checked(stream(*a, **k), strict=strict)
        return response


def _checked(chunks: Iterator[bytes], *, strict: bool) -> Iterator[bytes]:
    """Yield *chunks* until the deadline, and :data:`MAX_BODY` bytes at most.

    :param strict: they must be UTF-8: the SDK would put replacement characters into the value.
    :raises StoreError: where they are too many, or not text.
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
    """Refuse another encoding than JSON's only one (RFC 8259, section 8.1), by which the SDK would decode."""
    charset = response.headers.get("Content-Type", "").lower().partition("charset=")[2].strip(' "')
    if response.status_code == HTTPStatus.OK and charset.partition(";")[0] not in ("", "utf-8", "utf8", "us-ascii"):
        response.close()
        raise StoreError("the answer is not UTF-8", MALFORMED)
