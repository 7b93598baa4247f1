"""The signals of the contract suite."""

from airflow_providers_secrets.testing.signals import (
    TimeIsUp,
    raised_in_the_main_thread,
    raised_where_a_wait_has_let_its_lock_go,
    waits_for_another,
)

__all__ = [
    "TimeIsUp",
    "raised_in_the_main_thread",
    "raised_where_a_wait_has_let_its_lock_go",
    "waits_for_another",
]
