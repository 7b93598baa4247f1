"""Who makes a client or logs in, while others wait: one at a time, and nobody waits for one that nobody waits for."""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Callable, Iterator

import pytest

from airflow_providers_secrets.stores import base
from airflow_providers_secrets.stores.base import LOGIN_REFUSED, LoginGuard, StoreError, Turn

AGES = 60.0
"""Seconds that no test waits for unless something is wrong."""


@contextlib.contextmanager
def calling(seconds: float, given_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Be a call that has so long."""
    tokens = base.deadline.set(time.monotonic() + seconds), base.given_up.set(given_up)
    yield
    base.deadline.reset(tokens[0])
    base.given_up.reset(tokens[1])


@pytest.fixture
def turn() -> Turn:
    return Turn()


def held(turn: Turn, seconds: float, given_up: Callable[[], bool] = lambda: False) -> contextlib.ExitStack:
    """Have a call take the turn, and keep it until the stack is closed.

    :param seconds: how long it has from then on.
    """
    taken = contextlib.ExitStack()

    def take() -> None:
        base.deadline.set(time.monotonic() + AGES)
        base.given_up.set(given_up)
        taken.enter_context(turn.taken())
        turn._current._holder = time.monotonic() + seconds, given_up

    contextvars.copy_context().run(take)
    return taken


def test_the_turn_is_one_calls_alone(turn: Turn) -> None:
    with held(turn, AGES), calling(0.05), pytest.raises(TimeoutError), turn.taken():
        pass
    with calling(AGES), turn.taken():
        pass


def test_a_call_past_its_deadline_begins_nothing(turn: Turn) -> None:
    with calling(0.0), pytest.raises(TimeoutError), turn.taken():
        pass


@pytest.mark.parametrize(("seconds", "given_up"), [(0.0, False), (AGES, True)], ids=["late", "ended by a signal"])
def test_who_is_left_behind_is_waited_for_no_more(turn: Turn, seconds: float, given_up: bool) -> None:
    """And takes nobody's turn away as it ends after all."""
    left_behind = held(turn, seconds, lambda: given_up)
    with calling(AGES), turn.taken():
        left_behind.close()
        with calling(0.05), pytest.raises(TimeoutError), turn.taken():
            pass


def taking(monkeypatch: pytest.MonkeyPatch, turn: Turn, meanwhile: Callable[[], None]) -> None:
    """Have *meanwhile* happen while the next call waits for the one that holds the turn now, in vain."""
    watched, acquire, waits = turn._current, base._Lock.acquire, iter([meanwhile])

    def acquiring(lock: base._Lock, seconds: float) -> bool:
        if lock is watched and (happens := next(waits, None)):
            happens()
            return False
        return acquire(lock, seconds)

    monkeypatch.setattr(base._Lock, "acquire", acquiring)


def test_who_took_over_meanwhile_has_its_own_time(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no reason to let a third one in that the first one's time is over."""
    first = held(turn, 0.0)
    others: list[contextlib.ExitStack] = []

    def ends_and_another_begins() -> None:
        first.close()
        others.append(held(turn, AGES))

    taking(monkeypatch, turn, ends_and_another_begins)
    with calling(0.05), pytest.raises(TimeoutError), turn.taken():
        pass
    others[0].close()


def test_those_who_stop_waiting_together_go_on_to_one(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    first, hung = held(turn, 0.0), turn._current
    others: list[contextlib.ExitStack] = []

    def another_goes_on() -> None:
        others.append(held(turn, AGES))
        turn._current = hung  # as this one has seen it before

    taking(monkeypatch, turn, another_goes_on)
    with calling(0.05), pytest.raises(TimeoutError), turn.taken():
        pass
    others[0].close()
    first.close()


def test_a_login_that_was_left_behind_and_succeeds_ends_a_refusal() -> None:
    """It began before the refused one, which did not wait for it."""
    guard = LoginGuard()
    with guard.login():
        with pytest.raises(StoreError), guard.login():
            raise StoreError("login refused (HTTP 400)", LOGIN_REFUSED)
        assert guard.is_closed
        with pytest.raises(StoreError, match="HTTP 400"), guard.login():
            pass
    assert not guard.is_closed
    with guard.login() as was_refused:
        assert not was_refused
