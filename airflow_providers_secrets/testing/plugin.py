"""The fixtures of the contract suite: ``pytest_plugins = ["airflow_providers_secrets.testing.plugin"]``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from airflow_providers_secrets.lookup import access, answers, cache, forks, notices
from airflow_providers_secrets.lookup.deadline import DeadlineCall, end_idle_threads

pytest.register_assert_rewrite(
    "airflow_providers_secrets.testing.contract", "airflow_providers_secrets.testing.lookups"
)

from airflow_providers_secrets.testing.lookups import Clock, Waits  # noqa: E402  # its asserts are rewritten

MARKERS: Final = (
    "measured: bounds CPU time, by the machine's speed at that moment; run it with nothing beside it",
    "each_rig_in_ci: starts processes of its own, so that it takes seconds",
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the suite's markers, for ``--strict-markers``."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.fixture(autouse=True)
def process_state(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Drop clients, idle threads and the memory of warnings from other tests."""
    end_idle_threads()
    forks.let_threads_end()
    answers.reset_after_fork()
    notices._warned.clear()
    # Airflow's logging set-up may have ended propagation to pytest's handler.
    monkeypatch.setattr(logging.getLogger("airflow_providers_secrets"), "propagate", True)
    yield


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which answers in memory expire."""
    clock = Clock()
    monkeypatch.setattr(cache, "clock", clock)
    return clock


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """The seconds that each call to the store was given; a test may shorten them."""
    waits = Waits()

    class Watched(DeadlineCall):
        def __init__(self, work: Callable[..., Any], seconds: float, *call_backs: Any) -> None:
            waits.granted.append(seconds)
            super().__init__(work, waits.shortened(seconds), *call_backs)

        def finished(self) -> bool:
            waits.on_wait()
            return super().finished()

    monkeypatch.setattr(access, "DeadlineCall", Watched)
    return waits


@pytest.fixture
def multi_team(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow in multi-team mode."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause before another attempt; no test sits them out."""
    made: list[float] = []
    monkeypatch.setattr(access, "sleep_using_event", lambda _: made.append)
    return made
