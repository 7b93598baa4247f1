"""What the contract suite's tests of a lookup share."""

from airflow_providers_secrets.testing.lookups import (
    HOSTILE,
    LOOKUP,
    MAX_STALE,
    NEGATIVE_TTL,
    ONE_TRY,
    TTL,
    VALUE,
    Clock,
    Waits,
    ask,
    credentials,
    failing,
    stored,
    warned,
)

__all__ = [
    "HOSTILE",
    "LOOKUP",
    "MAX_STALE",
    "NEGATIVE_TTL",
    "ONE_TRY",
    "TTL",
    "VALUE",
    "Clock",
    "Waits",
    "ask",
    "credentials",
    "failing",
    "stored",
    "warned",
]
