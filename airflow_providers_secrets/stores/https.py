"""Sessions of requests that an SDK asks by: certificates are read once, and no login but the SDK's own is sent."""

from __future__ import annotations

import os
import ssl
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
    """Leave *request* alone. A session without ``auth`` puts a password of ``~/.netrc`` in the place of the token."""
    return request


def default_certificates() -> tuple[str, str]:
    """Return the file that requests verifies by, and the variable that names it (requests, "SSL Cert Verification")."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(variable):
            return path, variable
    return DEFAULT_CA_BUNDLE_PATH, "certifi"


def context_of(path: str) -> ssl.SSLContext:
    """Return the TLS context that trusts the certificates in *path*; see :func:`.certificates.context_of`."""
    return certificates.context_of(path, create_urllib3_context)


def context_for(verify: Verify) -> ssl.SSLContext | None:
    """Return the context of what requests would verify by; ``None`` where requests is left to do so, or to say why not.

    A client's own certificate needs a context of its own, since requests puts it there.
    """
    if verify is False:
        return None
    try:
        return context_of(verify if isinstance(verify, str) else default_certificates()[0])
    except (OSError, ValueError):
        return None


class ContextAdapter(HTTPAdapter):
    """Verifies servers, and proxies that are asked over TLS, by one TLS context.

    requests would read the certificates anew for each host.

    :param context: the context; ``None`` leaves it all to requests.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        super().__init__(pool_maxsize=MAX_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the connections' pools."""
        super().init_poolmanager(*args, **{**kwargs, **self._tls()})

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Return the pools of a proxy's connections."""
        if self._context and proxy.lower().startswith("https://"):
            kwargs["proxy_ssl_context"] = self._context
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
        if self._context:  # naming a bundle would have it read again for each connection
            conn.ca_certs = conn.ca_cert_dir = None

    def _tls(self) -> dict[str, Any]:
        return {"ssl_context": self._context} if self._context else {}
