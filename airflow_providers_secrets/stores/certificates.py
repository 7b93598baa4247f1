"""TLS contexts whose certificates are read once in a process, and inherited by the children of a fork."""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Callable


def context_of(path: str, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Return the context that trusts the certificates in the file or directory *path*.

    They are read once while it stays as it is: those of all public authorities take 20 ms. A context holds neither
    sockets nor sessions, so that a forked child may go on with it.

    :param make: makes a context, as the caller's SDK does.
    :raises OSError: where they cannot be read, or are none.
    :raises ValueError: where no path is like that.
    """
    about = os.stat(path)  # noqa: PTH116  # pathlib would be imported for it
    return _context(path, make, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=8)
def _context(path: str, make: Callable[[], ssl.SSLContext], _: int, __: int) -> ssl.SSLContext:
    context = make()
    if os.path.isdir(path):  # noqa: PTH112
        context.load_verify_locations(capath=path)
    else:
        context.load_verify_locations(cafile=path)
    return context
