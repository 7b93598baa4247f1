"""Warnings that say a thing once, however often it happens."""

from __future__ import annotations

import logging
import time
from typing import Final

log = logging.getLogger(__name__)

WARNING_INTERVAL: Final = 60.0
"""Seconds in which one class of warning is logged once; further ones go to DEBUG."""

clock = time.monotonic
_warned: dict[object, float] = {}


def warn(subject: object, message: str, *args: object) -> None:
    """Log a WARNING, once per *subject* and minute and process."""
    # No lock, which a fork could leave held: at worst two threads say the same thing once each.
    now = clock()
    due = now - _warned.get(subject, -WARNING_INTERVAL) >= WARNING_INTERVAL
    if due:
        _warned[subject] = now
    log.log(logging.WARNING if due else logging.DEBUG, message, *args)
