"""What tests raise exceptions from signals with."""

from __future__ import annotations

import threading

import pytest

from airflow_providers_secrets.testing.signals import TimeIsUp, raised_in_the_main_thread


def test_the_main_thread_is_interrupted_among_many_others() -> None:
    """Servers' handlers and callers that were left behind go on in a long run of tests."""
    may_end = threading.Event()
    others = [threading.Thread(target=may_end.wait, daemon=True) for _ in range(120)]
    try:
        with raised_in_the_main_thread() as raise_it, pytest.raises(TimeIsUp):
            raise_it()
            for other in others:  # waits for each to start, which is not interrupted
                other.start()
            threading.Event().wait(60)
        assert all(other.is_alive() for other in others)
    finally:
        may_end.set()
        for other in others:
            other.join(60)
