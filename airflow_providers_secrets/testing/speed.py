"""How fast the machine is at this moment, for tests that bound a time."""

from __future__ import annotations

import timeit

LOOK = 6e-8
"""Seconds in which the machine looks into a dict by whose measure the bounds are."""


def slowness() -> float:
    """Tell how many times slower than :data:`LOOK` the machine is just now; no less than once."""
    known = {"x": 1}
    return max(1.0, min(timeit.repeat(lambda: known.get("x"), number=1000, repeat=20)) / 1000 / LOOK)
