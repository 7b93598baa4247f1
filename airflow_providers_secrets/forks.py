"""Keeps a fork from falling into the middle of an import.

The child of a fork has the forking thread alone. A module that another thread was importing stays half made in it,
locked for ever: whoever imports it waits for a thread that does not exist. So a fork waits for the imports of this
package to end.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Final

LONGEST_WAIT: Final = 1.0
"""Seconds that a fork waits at most. Making a client may hang on a network; a fork must not."""

_importing = threading.RLock()
_forking = threading.local()


@contextlib.contextmanager
def unforked() -> Iterator[None]:
    """Let no fork of another thread happen meanwhile, unless this takes longer than :data:`LONGEST_WAIT`."""
    with _importing:
        yield


def _before() -> None:
    _forking.waited = _importing.acquire(timeout=LONGEST_WAIT)


def _after_in_parent() -> None:
    if _forking.waited:
        _importing.release()


def _after_in_child() -> None:
    global _importing  # noqa: PLW0603
    _importing = threading.RLock()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
