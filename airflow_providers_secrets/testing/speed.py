"""How fast the machine is at this moment, for tests that limit a duration."""

from __future__ import annotations

import timeit

LOOK = 6e-8
"""Seconds that a dict lookup takes on the machine for which the limits were chosen."""


def slowness() -> float:
    """Return how many times slower than :data:`LOOK` the machine is just now; at least 1."""
    known = {"x": 1}
    return max(1.0, min(timeit.repeat(lambda: known.get("x"), number=1000, repeat=20)) / 1000 / LOOK)
