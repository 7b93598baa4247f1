"""TLS for a cache in Redis: the certificates are read once, and forked children inherit them.

redis-py reads the system's CA certificates for each connection, which costs a child about 25 ms of CPU each time.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Any, Final

from redis.connection import SSLConnection
from redis.sentinel import SentinelManagedSSLConnection

from airflow_providers_secrets.files import Version, version

FLAGS: Final = ("ssl_include_verify_flags", "ssl_exclude_verify_flags")


class Tls:
    """The TLS context of all connections to one cache. Holds no socket; any thread, and a forked child, may use it.

    Parameters mean what they mean to redis-py: a named CA is trusted in addition to the system's. Replaced files are
    read again for the next connection, so that certificates may be renewed.

    :param settings: a redis-py connection that was never opened: it has checked the parameters.
    """

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self._read: tuple[Any, ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context.

        :raises OSError: for a file that cannot be read, or holds no certificate or key (``ssl.SSLError``).
        """
        state = self._state_of_files()
        read = self._read
        if read is None or read[0] != state:
            read = self._read = (state, self._made())
        return read[1]

    def load(self) -> None:
        """Read the files, and make OpenSSL set up what a handshake needs. No socket is opened."""
        greeting = self.context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="h")
        with contextlib.suppress(ssl.SSLWantReadError):  # its ClientHello went nowhere, and it waits for the answer
            greeting.do_handshake()

    def connection_class(self, *, of_sentinel: bool = False) -> type[SSLConnection]:
        """Return a redis-py connection class that uses this context."""
        tls = self

        class TlsConnection(SentinelManagedSSLConnection if of_sentinel else SSLConnection):  # type: ignore[misc]
            """A connection whose certificates have been read already."""

            def _connect(self) -> Any:
                plain = super(SSLConnection, self)._connect()  # type: ignore[misc]
                try:
                    return tls.context().wrap_socket(plain, server_hostname=self.host)
                except BaseException:
                    plain.close()
                    raise

        return TlsConnection

    def _state_of_files(self) -> list[Version | None]:
        settings = self._settings
        system = ssl.get_default_verify_paths()
        paths = (settings.certfile, settings.keyfile, settings.ca_certs, settings.ca_path, system.cafile, system.capath)
        return [_state(path) for path in paths if path]

    def _made(self) -> ssl.SSLContext:
        settings = self._settings
        context = ssl.create_default_context()
        context.check_hostname = settings.check_hostname and settings.cert_reqs != ssl.CERT_NONE
        context.verify_mode = settings.cert_reqs
        included, excluded = (getattr(settings, name, None) or () for name in FLAGS)
        for flag in included:
            context.verify_flags |= flag
        for flag in excluded:
            context.verify_flags &= ~flag
        if settings.certfile or settings.keyfile:
            # Without a password, OpenSSL would ask for that of an encrypted key at the terminal, and wait.
            password = settings.certificate_password or (lambda: "")
            context.load_cert_chain(settings.certfile, settings.keyfile, password)
        if settings.ca_certs or settings.ca_path or settings.ca_data:
            context.load_verify_locations(settings.ca_certs, settings.ca_path, settings.ca_data)
        if (oldest := getattr(settings, "ssl_min_version", None)) is not None:
            context.minimum_version = oldest
        if ciphers := getattr(settings, "ssl_ciphers", None):
            context.set_ciphers(ciphers)
        return context


def _state(path: str) -> Version | None:
    with contextlib.suppress(OSError):
        return version(path)
    return None
