"""TLS contexts whose certificates are read once per process and inherited by forked children."""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Callable

from airflow_providers_secrets.files import Version, version


def context_of(path: str, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Return the context that trusts the certificates in the file or directory *path*.

    They are read again only if it has changed: reading those of all public CAs takes 20 ms. A context holds neither
    sockets nor sessions, so a forked child may keep using it.

    :param make: creates a context, as the caller's SDK does.
    :raises OSError: if they cannot be read, or are not certificates.
    :raises ValueError: if *path* is not a valid path.
    """
    return _context(path, make, version(path))


@functools.lru_cache(maxsize=8)
def _context(path: str, make: Callable[[], ssl.SSLContext], _: Version) -> ssl.SSLContext:
    context = make()
    if os.path.isdir(path):  # noqa: PTH112
        context.load_verify_locations(capath=path)
    else:
        context.load_verify_locations(cafile=path)
    return context
