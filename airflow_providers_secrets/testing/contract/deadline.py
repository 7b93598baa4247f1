"""A lookup ends at its deadline even while a client is being made, and blocks nothing else meanwhile."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_providers_secrets.errors import StoreUnavailable
from airflow_providers_secrets.lookup import access, forks
from airflow_providers_secrets.stores import base
from airflow_providers_secrets.testing.lookups import DRIP, ONE_TRY, hanging, stored
from airflow_providers_secrets.testing.rig import Rig
from airflow_providers_secrets.testing.signals import TimeIsUp, raised_in_the_main_thread

TIME_OUT = 0.3

AGES = 60.0
"""Seconds that no test waits for unless something is wrong."""


class Hang:
    """Stands in for a credential endpoint or process that never answers; counts its calls, and can let them end.

    :ivar sat_out: whether a call has hung until it gave up by itself, which no test should wait for.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.came = threading.Event()
        self.may_end = threading.Event()
        self.sat_out = False

    def __call__(self, *_: Any) -> None:
        self.calls += 1
        self.came.set()
        self.sat_out |= not self.may_end.wait(AGES)
        raise OSError


@pytest.fixture
def hang(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hang]:
    hang = Hang()
    store_class = type(access.store_of(rig.backend().config))
    with monkeypatch.context() as patched:
        patched.setattr(store_class, "connect", hang)
        yield hang
    hang.may_end.set()
    assert not hang.sat_out


def test_a_login_that_hangs_ends_at_the_deadline(rig: Rig, hang: Hang) -> None:
    backend = rig.backend(timeout=TIME_OUT)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match=r"no answer within 0\.(3|2\d+) s"):
            backend.get_variable("x")
    assert hang.calls == 3  # later callers do not wait for an abandoned one


def test_an_error_of_the_sdk_at_the_deadline_is_told_as_late(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the same whichever notices first, an SDK's time-out or the lookup's own."""

    def ends_at_the_deadline(*_: object) -> None:
        base.deadline.set(time.monotonic())
        raise OSError

    backend = rig.backend(timeout=60, max_attempts=1)
    monkeypatch.setattr(type(access.store_of(backend.config)), "fetch", ends_at_the_deadline)
    with pytest.raises(StoreUnavailable, match="no answer within 60 s"):
        backend.get_variable("x")


def test_calls_that_hang_in_a_login_are_bounded(rig: Rig, hang: Hang, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(access, "clock", lambda: now)
    backend = rig.backend(timeout=0.05)
    # On a busy machine, a call's thread may start after its deadline; then it does not begin a login.
    while hang.calls < access.MAX_OVERDUE:
        with pytest.raises(StoreUnavailable, match=r"no answer|still hang"):
            backend.get_variable("x")
    with pytest.raises(StoreUnavailable, match="still hang"):
        backend.get_variable("x")
    assert hang.calls == access.MAX_OVERDUE
    while hang.calls == access.MAX_OVERDUE:
        now += access.OVERDUE_PROBE + 1  # one more call finds out whether the store still hangs
        with pytest.raises(StoreUnavailable, match="no answer"):
            backend.get_variable("x")
    with pytest.raises(StoreUnavailable, match="still hang"):
        backend.get_variable("x")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_login_that_hangs_holds_no_fork_and_no_collector_up(rig: Rig, hang: Hang) -> None:
    """Only imports delay a fork and pause the collector."""
    backend = rig.backend(timeout=60)
    thread = threading.Thread(target=_fails, args=(backend,), daemon=True)
    thread.start()
    assert hang.came.wait(AGES)
    assert gc.isenabled()
    assert not forks._busy
    child = multiprocessing.get_context("fork").Process(target=_exit_where_the_collector_is_on)
    child.start()
    child.join(AGES)
    assert child.exitcode == 0
    hang.may_end.set()
    thread.join(AGES)
    assert not thread.is_alive()


def _fails(backend: Any) -> None:
    with pytest.raises(StoreUnavailable):
        backend.get_variable("x")


def _exit_where_the_collector_is_on() -> None:
    raise SystemExit(0 if gc.isenabled() else 1)


def test_a_time_out_from_a_signal_is_raised_though_a_login_hangs(rig: Rig, hang: Hang) -> None:
    backend = rig.backend(timeout=2 * AGES)
    with raised_in_the_main_thread() as raise_it, pytest.raises(TimeIsUp):
        raise_it()
        backend.get_variable("x")
    # Nor does the next caller wait for it, such as Airflow's callback for a task that took too long.
    assert hang.came.wait(AGES)
    hang.came.clear()
    thread = threading.Thread(target=_fails, args=(backend,), daemon=True)
    thread.start()
    assert hang.came.wait(AGES)
    assert hang.calls == 2
    hang.may_end.set()
    thread.join(AGES)
    assert not thread.is_alive()


def test_a_call_ends_with_the_lookup_that_waits_for_it(rig: Rig) -> None:
    """Whatever read_timeout allows: few calls of a process may hang."""
    stored(rig, "found", "x")
    rig.backend(read_timeout=600).get_variable("found")
    with rig.fault("hang"):
        with pytest.raises(StoreUnavailable):
            rig.backend(read_timeout=600, timeout=TIME_OUT, **ONE_TRY).get_variable("found")
        assert not hanging()


def test_a_call_ends_though_bytes_of_its_answer_keep_coming(rig: Rig) -> None:
    """A read time-out counts from byte to byte."""
    stored(rig, "found", "x")
    rig.backend().get_variable("found")
    with rig.answering(DRIP):
        with pytest.raises(StoreUnavailable, match="no answer within"):
            rig.backend(timeout=TIME_OUT, **ONE_TRY).get_variable("found")
        assert not hanging()


def test_a_login_that_fails_once_is_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.put(rig.path("variables", "found"), "x")
    backend = rig.backend()
    store_class = type(access.store_of(backend.config))
    connect = store_class.connect
    failures = iter([ConnectionError()])

    def failing_once(store: Any) -> Any:
        for failure in failures:
            raise failure
        return connect(store)

    monkeypatch.setattr(store_class, "connect", failing_once)
    assert backend.get_variable("found") == "x"
