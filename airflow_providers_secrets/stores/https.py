"""Parts of the requests sessions that an SDK uses: certificates are read once, and no login but the SDK's is sent."""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from airflow_providers_secrets.stores import certificates
from airflow_providers_secrets.stores.base import MAX_CONNECTIONS

Verify = bool | str
"""As in requests: a file or directory of certificates, ``True`` for the default one, or ``False``."""


def as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Return *request* unchanged. A session without ``auth`` replaces the token with a password from ``~/.netrc``."""
    return request


def secured(session: requests.Session, adapter: HTTPAdapter) -> None:
    """Let *session* send nothing but by *adapter*, no password of ``~/.netrc``, and take no compressed answer."""
    session.auth = as_it_is
    # Not compressed: a small answer could grow without bound.
    session.headers["Accept-Encoding"] = "identity"
    session.mount("https://", adapter)
    session.mount("http://", adapter)


def default_certificates() -> tuple[str, str]:
    """Return the CA bundle of requests, and the variable that names it (requests, "SSL Cert Verification")."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(variable):
            return path, variable
    return DEFAULT_CA_BUNDLE_PATH, "certifi"


def context_of(path: str) -> ssl.SSLContext:
    """Return the TLS context that trusts the certificates in *path*; see :func:`.certificates.context_of`."""
    return certificates.context_of(path, create_urllib3_context)


def context_for(verify: Verify) -> ssl.SSLContext | None:
    """Return the TLS context of the CA bundle that requests would use, or ``None``: requests then verifies, or fails.

    A client certificate needs a context of its own, since requests loads it into the context.
    """
    if verify is False:
        return None
    try:
        return context_of(path_for(verify))
    except (OSError, ValueError):
        return None


def path_for(verify: Verify) -> str:
    """Return the file or directory of the certificates that requests would verify by."""
    return verify if isinstance(verify, str) else default_certificates()[0]


class ContextAdapter(HTTPAdapter):
    """Verifies servers, and proxies reached over TLS, with one TLS context.

    requests would read the certificates again for each host. Here they are read again only once their file has changed;
    open connections stay as they are.

    :param context: the context; ``None`` leaves verification to requests.
    :param path: the file or directory that holds the context's certificates.
    """

    def __init__(self, context: ssl.SSLContext | None, path: str) -> None:
        self._context = context
        self._path = path
        self._proxying = threading.Lock()
        super().__init__(pool_maxsize=MAX_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the manager of the connection pools."""
        super().init_poolmanager(*args, **{**kwargs, **self._tls()})

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Return the manager of the connection pools of a proxy, a new one if the context has changed since."""
        tls = self._tls()
        if tls and proxy.lower().startswith("https://"):
            kwargs["proxy_ssl_context"] = tls["ssl_context"]
        with self._proxying:  # requests looks for the former one twice
            former = self.proxy_manager.get(proxy)
            if former and former.connection_pool_kw.get("ssl_context") is not tls.get("ssl_context"):
                del self.proxy_manager[proxy]
            return super().proxy_manager_for(proxy, **kwargs, **tls)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """Return the key of a pool, without the CA bundle: the certificates are in the context."""
        host, tls = super().build_connection_pool_key_attributes(request, verify, cert)
        if self._context:
            with contextlib.suppress(OSError, ValueError):  # it is just being replaced
                self._context = context_of(self._path)
            own = {name: value for name, value in tls.items() if name not in ("ca_certs", "ca_cert_dir")}
            return host, {**own, **self._tls()}
        return host, tls

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Set how a connection is verified."""
        super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
        if self._context:  # a bundle that is named here would be read again for each connection
            conn.ca_certs = conn.ca_cert_dir = None

    def _tls(self) -> dict[str, Any]:
        return {"ssl_context": self._context} if self._context else {}
