"""The way to a store: what is too long, how long pauses are, and what a call is told that has no answer."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from airflow_providers_secrets.errors import InvalidSecret, StoreUnavailable
from airflow_providers_secrets.lookup import access, answers, resolve
from airflow_providers_secrets.lookup.access import StoreAccess
from airflow_providers_secrets.stores.base import deadline
from airflow_providers_secrets.testing.contract.deadline import Hang
from airflow_providers_secrets.testing.lookups import warned
from tests.rigs import Rig
from tests.support.sharing import KEY

PATIENT = 60.0


def calls_of(rig: Rig) -> StoreAccess:
    return StoreAccess(rig.backend().config)


# Bounds.


@pytest.mark.parametrize(("bound", "found"), [(5, "12345"), (4, None)])
def test_the_longest_text_is_taken_and_a_longer_one_is_not(
    ssm: Rig, monkeypatch: pytest.MonkeyPatch, bound: int, found: str | None
) -> None:
    """A listing leaves it to the read of its own, which says so."""
    ssm.put("/bounds/one", "12345")
    monkeypatch.setattr(access, "MAX_VALUE_LENGTH", bound)
    assert calls_of(ssm).ask_for_all("/bounds/", PATIENT) == {"/bounds/one": found}
    if found:
        assert calls_of(ssm).ask("/bounds/one", PATIENT) == found
        return
    words = r"could not give '/bounds/one': its value is longer than 4 characters\. "
    with pytest.raises(InvalidSecret, match=words):
        calls_of(ssm).ask("/bounds/one", PATIENT)


def test_the_longest_listing_is_taken_and_a_longer_one_is_not(ssm: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    ssm.put("/all/one", "12345")
    ssm.put("/all/two", "67")
    monkeypatch.setattr(access, "MAX_LISTING_LENGTH", 23)
    assert calls_of(ssm).ask_for_all("/all/", PATIENT) == {"/all/one": "12345", "/all/two": "67"}
    monkeypatch.setattr(access, "MAX_LISTING_LENGTH", 22)
    with pytest.raises(InvalidSecret, match=r"could not give '/all/': all of it is longer than 22 characters\. "):
        calls_of(ssm).ask_for_all("/all/", PATIENT)


def test_a_thread_that_starts_after_its_deadline_makes_no_client(ssm: Rig) -> None:
    """Others would wait for it."""
    calls = calls_of(ssm)
    store = access.loaded_store(ssm.backend().config)

    def late() -> None:
        deadline.set(time.monotonic() - 1)
        with pytest.raises(TimeoutError):
            calls._client(store)

    contextvars.copy_context().run(late)
    assert calls.clients == []
    calls._client(store)
    assert len(calls.clients) == 1


# Pauses.


@pytest.mark.parametrize(
    ("fault", "longest"),
    [
        ("server-error", [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]),
        ("throttled", [1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0]),
    ],
)
def test_pauses_grow_up_to_a_bound(
    ssm: Rig, monkeypatch: pytest.MonkeyPatch, pauses: list[float], fault: str, longest: list[float]
) -> None:
    """Each is drawn between nothing and twice as much as before."""
    drawn_from: list[float] = []

    def uniform(least: float, most: float) -> float:
        drawn_from.append(least)
        return most

    monkeypatch.setattr("tenacity.wait.random.uniform", uniform)
    backend = ssm.backend(max_attempts=8, timeout=3600.0)
    with ssm.fault(fault), ssm.counted() as calls, pytest.raises(StoreUnavailable):
        backend.get_variable("found")
    assert len(calls) == 8
    assert pauses == pytest.approx(longest)
    assert set(drawn_from) == {0}


# No answer.


def test_a_call_that_hangs_is_told_by_what_it_was_to_do(ssm: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = Hang()
    monkeypatch.setattr(type(access.store_of(ssm.backend().config)), "connect", hang)
    calls = calls_of(ssm)
    waited, refused = "no answer within 0.05 s", f"{access.MAX_OVERDUE} earlier calls still hang"
    reasons: list[str] = []
    # On a busy host, a call may wait for the client that another one makes, and end by itself.
    while refused not in reasons and len(reasons) < 5 * access.MAX_OVERDUE:
        with pytest.raises(StoreUnavailable) as raised:
            calls.call("/some/name", 0.05, lambda *_: "never", act="write")
        assert str(raised.value).startswith("AWS SSM Parameter Store could not write '/some/name': ")
        reasons.append(raised.value.code)
    hang.may_end.set()
    assert len(reasons) > access.MAX_OVERDUE
    assert (set(reasons[:-1]), reasons[-1]) == ({waited}, refused)


def test_a_signal_that_raises_as_a_call_is_left_behind_takes_no_place(
    ssm: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, may_end = calls_of(ssm), threading.Event()
    assert calls.call("/some/name", PATIENT, lambda *_: "found") == "found"
    leave_behind = calls._leave_behind

    def interrupted(call: Any) -> NoReturn:
        leave_behind(call)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(calls, "_leave_behind", interrupted)
        for _ in range(access.MAX_OVERDUE):
            with pytest.raises(KeyboardInterrupt):
                calls.call("/some/name", 0.05, lambda *_: may_end.wait(PATIENT))
    with pytest.raises(StoreUnavailable, match="still hang"):
        calls.call("/some/name", PATIENT, lambda *_: "found")
    hanging = [thread for thread in threading.enumerate() if thread.name == "secrets-lookup"]
    may_end.set()
    for thread in hanging:
        thread.join(PATIENT)
    assert calls.call("/some/name", PATIENT, lambda *_: "found") == "found"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_call_whose_thread_is_ended_is_told(ssm: Rig) -> None:
    def ended(*_: Any) -> NoReturn:
        raise SystemExit

    words = "AWS SSM Parameter Store could not write '/some/name': the lookup's thread was ended. "
    with pytest.raises(StoreUnavailable) as raised:
        calls_of(ssm).call("/some/name", PATIENT, ended, act="write")
    assert str(raised.value).startswith(words)
    for thread in threading.enumerate():
        if thread.name == "secrets-lookup":
            thread.join(PATIENT)


def test_what_no_table_foresaw_is_told_without_its_words(
    ssm: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend: Any = ssm.backend()

    def decode(*_: Any) -> NoReturn:
        raise KeyError("S3cr3t")

    monkeypatch.setattr(backend, "decode", decode)
    ssm.put("/airflow/variables/found", "x")
    with pytest.raises(StoreUnavailable) as raised:
        backend.get_variable("found")
    assert str(raised.value) == (
        "AWS SSM Parameter Store could not give '/airflow/variables/found': unexpected KeyError. "
        "Report this with the versions that 'airflow-secrets check' prints."
    )
    assert warned(caplog) == [f"Variables lookup failed: {raised.value}"]


def test_a_lookup_that_cannot_be_planned_fails_as_any_other(ssm: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own error would have it ask a weaker source, whatever ``on_unavailable`` says."""
    pytest.importorskip("airflow.configuration")
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "perhaps")
    backend: Any = ssm.backend()
    with pytest.raises(StoreUnavailable, match="could not give 'red--x': unexpected AirflowConfigException"):
        backend.get_variable("red--x")


# Plans.


def test_plans_are_kept_up_to_a_bound(ssm: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "MAX_CACHED_PLANS", 3)
    backend = ssm.backend()
    kept = []
    for number in range(5):
        assert backend.get_variable(f"absent-{number}") is None
        kept.append(len(backend.plans))
    assert kept == [1, 2, 3, 1, 2]


def test_what_is_excluded_is_told_at_debug_level_alone(ssm: Rig, caplog: pytest.LogCaptureFixture) -> None:
    backend = ssm.backend(variables_lookup_pattern="^of-ours")
    with caplog.at_level(logging.DEBUG, logger=resolve.__name__), ssm.counted() as calls:
        assert backend.get_variable("of-others") is None
    assert calls == []
    (told,) = (record for record in caplog.records if record.name == resolve.__name__)
    assert told.levelno == logging.DEBUG
    assert told.getMessage().startswith("AWS SSM Parameter Store: 'of-others' (variables) is not looked up: ")


# Before a fork.


def test_what_children_would_make_alike_is_made_for_them(
    ssm: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A client, and the shared cache open; by what the hook before a fork calls, whose errors nobody sees."""
    config = ssm.caching(shared_cache=f"file://{tmp_path}/shared", shared_cache_key=KEY).config
    access.loaded_store(config)  # which files are read is no secret
    with caplog.at_level(logging.DEBUG, logger="botocore"):
        resolve.prepare(config)
    assert [record for record in caplog.records if record.name.startswith("botocore")] == []  # as in a lookup
    prepared = answers._for_children[config.fingerprint]
    assert prepared.config is config
    assert prepared._shared is not None
    assert access.store_of(config)._spare is not None
    assert config.fingerprint not in answers._answers  # the parent uses nothing of it


# From memory.


def test_what_memory_tells_is_counted_each_time(ssm: Rig) -> None:
    """What it does not tell is counted by who asks."""
    ssm.put("/airflow/variables/known", "x")
    backend = ssm.caching()
    assert (backend.get_variable("known"), backend.get_variable("absent")) == ("x", None)
    known = answers.answers_of(backend.config)
    present, absent = "/airflow/variables/known", "/airflow/variables/absent"
    for names, told, counted in (
        ([absent, present], ("x",), (1, 1)),
        ([present, absent], ("x",), (2, 1)),
        ([absent, absent], (None,), (2, 3)),
        ([absent], (None,), (2, 4)),
        ([absent, "/unheard-of", present], None, (2, 4)),
        ([absent, present], ("x",), (3, 5)),
    ):
        assert known.decoded_in_memory("variables", names) == told
        assert (known.counts.hits, known.counts.negative_hits) == counted
