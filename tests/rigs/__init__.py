"""One rig for each server of a store: the contract suite runs on all of them."""

from airflow_providers_secrets.testing.rig import (
    FAULTS,
    FROM_THE_STORE,
    HOSTILE_FAULTS,
    PAGE,
    PATIENT,
    Answer,
    Rig,
    answer_to,
    http_faults,
    running,
)

__all__ = [
    "FAULTS",
    "FROM_THE_STORE",
    "HOSTILE_FAULTS",
    "PAGE",
    "PATIENT",
    "Answer",
    "Rig",
    "answer_to",
    "http_faults",
    "running",
]
