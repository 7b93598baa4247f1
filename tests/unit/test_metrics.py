"""Telling Airflow's metrics what was counted: once, and never at a lookup's cost."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_providers_secrets.lookup import metrics
from airflow_providers_secrets.lookup.metrics import Counts


class Stats:
    """What Airflow's metrics are told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def incr(self, name: str, count: int) -> None:
        self.told.append((name, count))

    def timing(self, name: str, milliseconds: float) -> None:
        self.told.append((name, milliseconds))


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> Stats:
    stats = Stats()
    monkeypatch.setattr(metrics, "_stats", lambda: stats)
    return stats


def test_each_call_and_error_is_told_once(stats: Stats) -> None:
    counts = Counts("vault")
    counts.called(0.25)
    counts.called(0.5, KeyError())
    for _ in range(2):
        counts.tell()
    assert stats.told == [
        ("secrets_backend.vault.calls", 2),
        ("secrets_backend.vault.errors.KeyError", 1),
        ("secrets_backend.vault.call", 250.0),
        ("secrets_backend.vault.call", 500.0),
    ]


def test_what_one_thread_tells_is_not_told_by_another_one(stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counts("vault")
    counts.called(0.25)
    so_far, looks = Counts.so_far, [1, 2]

    def while_another_one_tells(telling: Counts) -> dict[str, int]:
        if looks.pop() == 2:  # the first
            counts.tell()
        return so_far(telling)

    monkeypatch.setattr(Counts, "so_far", while_another_one_tells)
    counts.tell()
    assert stats.told == [("secrets_backend.vault.calls", 1), ("secrets_backend.vault.call", 250.0)]


def test_what_is_counted_before_metrics_are_set_up_is_told_once_they_are(
    stats: Stats, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts("vault")
    counts.called(0.25)
    with monkeypatch.context() as before:
        before.setattr(metrics, "_stats", lambda: None)
        counts.tell()
    counts.tell()
    assert stats.told == [("secrets_backend.vault.calls", 1), ("secrets_backend.vault.call", 250.0)]


def test_another_thread_that_counts_meanwhile_fails_no_lookup(stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told where a lookup's answer is about to be returned, which an exception would replace."""

    def changed(_: Any) -> dict[str, int]:
        raise RuntimeError

    counts = Counts("vault")
    counts.called(0.25)
    monkeypatch.setattr(Counts, "so_far", changed)
    counts.tell()
    monkeypatch.undo()
    assert stats.told == []


def test_what_is_counted_while_timings_are_told_is_told_next_time(stats: Stats) -> None:
    counts = Counts("vault")
    counts.called(0.25)
    timing = stats.timing

    def counting(name: str, milliseconds: float) -> None:
        timing(name, milliseconds)
        if len(counts.recent) < 3:
            counts.called(1.0)

    stats.timing = counting  # type: ignore[method-assign]
    counts.tell()
    counts.tell()
    assert [told for _, told in stats.told if told > 100] == [250.0, 1000.0, 1000.0]


def test_a_task_tells_its_own_metrics_rather_than_those_that_it_has_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    """With OpenTelemetry, using both would lose what Airflow itself has counted in the task."""
    component, task = (SimpleNamespace(_factory=object, _backend=None) for _ in metrics.SET_UP_BY)
    for name, module in zip(metrics.SET_UP_BY, (component, task), strict=True):
        monkeypatch.setitem(sys.modules, name, module)
    assert metrics._stats() is component
    task._backend = object()
    assert metrics._stats() is task
    component._backend = object()
    assert metrics._stats() is component
