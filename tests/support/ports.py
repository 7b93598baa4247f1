"""Ports for servers that must be told theirs."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Final

FIRST: Final = 20000
LAST: Final = 32000
"""Below what Linux gives to outgoing connections (from 32768 on), one of which would take a port before its server."""


def free_port() -> int:
    """Return a port that is free."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Return the first of *count* ports in a row that are free."""
    chance = random.SystemRandom()  # hypothesis seeds the other one alike in every process
    for _ in range(100):
        first = chance.randrange(FIRST, LAST - count)
        with contextlib.ExitStack() as bound, contextlib.suppress(OSError):
            for port in range(first, first + count):
                bound.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise RuntimeError("no free ports")
