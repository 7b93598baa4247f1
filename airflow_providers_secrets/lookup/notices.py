"""Warnings that are not repeated within a minute, however often their cause recurs."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import time
import warnings
from collections.abc import Iterator
from typing import Final

log = logging.getLogger(__name__)

WARNING_INTERVAL: Final = 60.0
"""Seconds between two warnings about the same subject; those in between go to DEBUG."""

clock = time.monotonic
_warned: dict[object, float] = {}
_left_to_children = contextvars.ContextVar("_left_to_children", default=False)


@contextlib.contextmanager
def left_to_children() -> Iterator[None]:
    """Neither give nor record the calling thread's warnings, so that forked children give them.

    Nor is anything constructed that runs code of others: see :func:`are_left_to_children`.
    """
    token = _left_to_children.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _left_to_children.reset(token)


def are_left_to_children() -> bool:
    """Return whether the calling thread is in :func:`left_to_children`, in a hook before a fork."""
    return _left_to_children.get()


def warn(subject: object, message: str, *args: object) -> None:
    """Log a WARNING, at most once a minute per *subject* and process."""
    if are_left_to_children():
        return
    # No lock, since a fork could leave it held: at worst, two threads log the same warning once each.
    now = clock()
    due = now - _warned.get(subject, -WARNING_INTERVAL) >= WARNING_INTERVAL
    if due:
        _warned[subject] = now
    log.log(logging.WARNING if due else logging.DEBUG, message, *args)
