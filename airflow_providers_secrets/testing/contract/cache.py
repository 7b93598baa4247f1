"""What a process caches of a store, for every backend, on every server."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
import timeit
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_providers_secrets.errors import AccessDenied, InvalidSecret, LookupFailed, StoreUnavailable
from airflow_providers_secrets.lookup import cache
from airflow_providers_secrets.testing.lookups import (
    MAX_STALE,
    NEGATIVE_TTL,
    ONE_TRY,
    TTL,
    Clock,
    failing,
    needs_fault,
    stored,
)
from airflow_providers_secrets.testing.rig import Rig
from airflow_providers_secrets.testing.speed import slowness

# Hits.


def test_a_value_is_asked_for_once_in_its_time_to_live(rig: Rig, clock: Clock) -> None:
    path, backend = stored(rig, "cached", "one"), rig.caching()
    with rig.counted() as calls:
        for _ in range(500):
            assert backend.get_variable("cached") == "one"
        clock.now += TTL * cache.JITTER[0] - 0.1
        assert backend.get_variable("cached") == "one"
    assert calls == [path]


def test_rotation_is_seen_when_the_time_to_live_has_passed(rig: Rig, clock: Clock) -> None:
    path, backend = stored(rig, "rotated", "one"), rig.caching()
    assert backend.get_variable("rotated") == "one"
    rig.put(path, "two")
    clock.now += TTL
    assert backend.get_variable("rotated") == "two"


def test_an_absence_is_asked_for_once_in_its_time_to_live(rig: Rig, clock: Clock) -> None:
    path, backend = rig.path("variables", "not-yet"), rig.caching()
    with rig.counted() as calls:
        assert [backend.get_variable("not-yet") for _ in range(50)] == [None] * 50
        clock.now += NEGATIVE_TTL * cache.JITTER[0] - 0.1
        assert backend.get_variable("not-yet") is None
    assert calls == [path]
    rig.put(path, "come")
    clock.now += NEGATIVE_TTL
    assert backend.get_variable("not-yet") == "come"
    rig.remove(path)


def test_lifetimes_are_options(rig: Rig, clock: Clock) -> None:
    path, backend = stored(rig, "brief", "x"), rig.caching(cache_ttl="5", cache_negative_ttl=0)
    with rig.counted() as calls:
        for passed in (0, 3.9, 5):
            clock.now = 1000.0 + passed
            assert backend.get_variable("brief") == "x"
        assert [backend.get_variable("absent") for _ in range(3)] == [None] * 3
    assert calls == [path] * 2 + [rig.path("variables", "absent")] * 3


def test_a_connection_is_decoded_once(rig: Rig) -> None:
    """Decoding makes a new text of a password that is a number."""
    rig.put(rig.path("connections", "decoded"), '{"conn_type": "x", "password": 5}')
    backend = rig.caching()
    assert backend.get_conn_value("decoded") is backend.get_conn_value("decoded")


def test_every_backend_object_with_the_same_options_has_the_same_cache(rig: Rig) -> None:
    path = stored(rig, "common", "x")
    with rig.counted() as calls:
        assert [rig.caching().get_variable("common") for _ in range(4)] == ["x"] * 4
        assert rig.caching(variables_lookup_pattern="c").get_variable("common") == "x"
    assert calls == [path]


def test_other_bases_and_other_options_never_share_an_answer(rig: Rig) -> None:
    prefix_option = rig.prefix_option.format(kind="variables")
    elsewhere = rig.path("variables", "same", base="elsewhere")
    stored(rig, "same", "here")
    rig.put(elsewhere, "there")
    here, there = rig.caching(), rig.caching(**{prefix_option: "elsewhere"})
    for _ in range(2):
        assert here.get_variable("same") == "here"
        assert there.get_variable("same") == "there"
        assert here.get_config("same") is None
    path = rig.path("variables", "same")
    with rig.counted() as calls:
        assert rig.caching(read_timeout=4).get_variable("same") == "here"
    assert calls == [path]


def test_one_secret_is_a_variable_and_no_connection(rig: Rig) -> None:
    """Both kinds may have one base: what is kept of the one is not the answer for the other."""
    bases = {rig.prefix_option.format(kind=kind): "elsewhere" for kind in ("connections", "variables")}
    rig.put(rig.path("variables", "same", base="elsewhere"), "x")
    backend = rig.caching(**bases)
    assert backend.get_variable("same") == "x"
    (error,) = failing(lambda: backend.get_conn_value("same"))
    assert isinstance(error, InvalidSecret)
    assert backend.get_variable("same") == "x"


@pytest.mark.usefixtures("multi_team")
def test_teams_never_share_an_answer(rig: Rig) -> None:
    stored(rig, "owned", "everybody's")
    rig.put(rig.path("variables", "owned", team="red"), "red's")
    backend = rig.caching()
    fallback = rig.backend().get_variable("owned", team_name="blue")  # a store may have no fallback
    assert fallback != "red's"
    for _ in range(2):
        assert backend.get_variable("owned", team_name="red") == "red's"
        assert backend.get_variable("owned", team_name="blue") == fallback
        assert backend.get_variable("owned") == "everybody's"


def test_the_number_of_entries_is_bounded(rig: Rig) -> None:
    backend = rig.caching(cache_size=3)
    keys = [f"bounded-{number}" for number in range(4)]
    with rig.counted() as calls:
        for key in (*keys, *keys[1:], keys[0]):
            assert backend.get_variable(key) is None
    assert calls == [rig.path("variables", key) for key in (*keys, keys[0])]


@pytest.mark.measured
@pytest.mark.each_rig_in_ci
def test_a_hit_takes_two_microseconds(rig: Rig) -> None:
    stored(rig, "warm", "x")
    rig.put(rig.path("connections", "warm"), '{"conn_type": "x"}')
    backend = rig.caching()
    for lookup, secret_id in ((backend.get_variable, "warm"), (backend.get_conn_value, "warm")):
        assert lookup(secret_id)
        medians: list[float] = []
        while len(medians) < 20 and min(medians, default=1.0) > 2e-6:  # the machine's noise only adds
            runs = timeit.repeat(lambda: lookup(secret_id), number=200, repeat=25, timer=time.process_time)  # noqa: B023
            medians.append(statistics.median(runs) / 200 / slowness())
        assert min(medians) <= 2e-6, medians


@pytest.mark.parametrize("negative_ttl", [NEGATIVE_TTL, 0])
def test_an_unusable_value_is_kept_no_longer_than_an_absence(rig: Rig, clock: Clock, negative_ttl: float) -> None:
    path, backend = rig.path("connections", "repaired"), rig.caching(cache_negative_ttl=negative_ttl)
    rig.put(path, "postgres//broken")
    with rig.counted() as calls:
        errors = failing(lambda: backend.get_conn_value("repaired"), 3)
    assert {type(error) for error in errors} == {InvalidSecret}
    assert calls == [path] * (1 if negative_ttl else 3)
    clock.now += negative_ttl
    with rig.counted() as calls:  # the same text again, which is known by now
        failing(lambda: backend.get_conn_value("repaired"), 2)
    assert calls == [path] * (1 if negative_ttl else 2)
    rig.put(path, "postgres://h/db")
    clock.now += negative_ttl
    assert backend.get_conn_value("repaired") == "postgres://h/db"
    clock.now += TTL * cache.JITTER[0] - 0.1
    with rig.counted() as calls:
        assert backend.get_conn_value("repaired") == "postgres://h/db"
    assert calls == []


# One flight.


def test_64_threads_on_a_cold_key_ask_once(rig: Rig) -> None:
    path, barrier = stored(rig, "cold", "x"), threading.Barrier(64)

    def look_up(_: int) -> tuple[str | None, str | None]:
        backend = rig.caching()
        barrier.wait(60)
        return backend.get_variable("cold"), backend.get_variable("nowhere")

    with rig.counted() as calls, ThreadPoolExecutor(64) as pool:
        assert set(pool.map(look_up, range(64))) == {("x", None)}
    assert sorted(calls) == sorted([path, rig.path("variables", "nowhere")])


def test_threads_that_wait_get_the_failure(rig: Rig) -> None:
    barrier = threading.Barrier(16)

    def look_up(_: int) -> type[BaseException] | None:
        backend = rig.caching(**ONE_TRY)
        barrier.wait(60)
        try:
            backend.get_variable("cold")
        except LookupFailed as error:
            return type(error)
        return None

    with rig.fault("server-error"), rig.counted() as calls, ThreadPoolExecutor(16) as pool:
        assert set(pool.map(look_up, range(16))) == {StoreUnavailable}
    assert len(calls) == 1


# Stale values.


def test_an_expired_value_stands_in_while_the_store_gives_no_answer(
    rig: Rig, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    stored(rig, "outlived", "S3cr3t-old")
    backend = rig.caching(**ONE_TRY)
    backend.get_variable("outlived")
    with rig.fault("server-error"):
        for passed in (TTL, TTL + 1, MAX_STALE):
            clock.now = 1000.0 + passed
            assert backend.get_variable("outlived") == "S3cr3t-old"
        warnings = [record for record in caplog.records if record.levelname == "WARNING"]
        assert len([one for one in warnings if "last known value" in one.getMessage()]) == 1
        assert "S3cr3t" not in caplog.text
        clock.now = 1000.0 + TTL + MAX_STALE
        failing(lambda: backend.get_variable("outlived"))


@pytest.mark.parametrize("fault", ["malformed", "wrong-name", "truncated", "redirect"])
def test_an_expired_value_stands_in_for_an_answer_that_is_not_the_stores_own(
    rig: Rig, clock: Clock, fault: str
) -> None:
    """A proxy's page in place of an answer invalidates nothing, and does not count as an outage of the store."""
    needs_fault(rig, fault)
    stored(rig, "outlived", "x")
    backend = rig.caching(**ONE_TRY)
    backend.get_variable("outlived")
    clock.now += TTL
    with rig.fault(fault):
        assert backend.get_variable("outlived") == "x"
        failing(lambda: backend.get_variable("never-seen"))
        clock.now += MAX_STALE
        failing(lambda: backend.get_variable("outlived"))


def test_max_stale_zero_serves_nothing_expired(rig: Rig, clock: Clock) -> None:
    stored(rig, "outlived", "x")
    backend = rig.caching(max_stale=0, **ONE_TRY)
    backend.get_variable("outlived")
    clock.now += TTL
    with rig.fault("server-error"):
        failing(lambda: backend.get_variable("outlived"))


def test_nothing_stands_in_after_a_denial(rig: Rig, clock: Clock) -> None:
    stored(rig, "denied-now", "x")
    backend = rig.caching(**ONE_TRY)
    backend.get_variable("denied-now")
    clock.now += TTL
    with rig.fault("denied"):
        failing(lambda: backend.get_variable("denied-now"))
    clock.now += TTL
    with rig.fault("server-error"):
        failing(lambda: backend.get_variable("denied-now"))


def test_a_name_that_was_absent_is_passed_over_while_the_store_gives_no_answer(rig: Rig, clock: Clock) -> None:
    """A team without a secret of its own gets everybody's; an outage does not change that."""
    stored(rig, "everybody-s", "x")
    backend = rig.caching(**ONE_TRY)
    assert backend.get_variable("everybody-s", team_name="red") == "x"
    with rig.fault("server-error"):
        for passed in (TTL, MAX_STALE):
            clock.now = 1000.0 + passed
            assert backend.get_variable("everybody-s", team_name="red") == "x"
        failing(lambda: backend.get_variable("nobody-s", team_name="red"))
        clock.now = 1000.0 + TTL + MAX_STALE
        failing(lambda: backend.get_variable("everybody-s", team_name="red"))
    own = rig.path("variables", "everybody-s", team="red")
    rig.put(own, "red's")
    clock.now += 10 * TTL
    # The value depends on whether the store distinguishes teams.
    assert backend.get_variable("everybody-s", team_name="red") == rig.backend().get_variable(
        "everybody-s", team_name="red"
    )
    rig.remove(own)


def test_nothing_stands_in_after_a_proven_absence(rig: Rig, clock: Clock) -> None:
    path = stored(rig, "gone", "x")
    backend = rig.caching(**ONE_TRY)
    backend.get_variable("gone")
    rig.remove(path)
    clock.now += TTL
    assert backend.get_variable("gone") is None
    clock.now += TTL
    with rig.fault("server-error"):
        failing(lambda: backend.get_variable("gone"))


# Failures.


def test_a_denial_is_remembered_and_then_asked_again(rig: Rig, clock: Clock) -> None:
    path, backend = stored(rig, "denied", "x"), rig.caching()
    with rig.fault("denied"):
        failing(lambda: backend.get_variable("denied"))
        with rig.counted() as calls:
            errors = failing(lambda: backend.get_variable("denied"), 20)
        assert calls == []
    assert {type(error) for error in errors} == {AccessDenied}
    clock.now += NEGATIVE_TTL
    with rig.counted() as calls:
        assert backend.get_variable("denied") == "x"
    assert calls == [path]


def test_a_remembered_failure_is_a_new_error_each_time(rig: Rig) -> None:
    backend = rig.caching(**ONE_TRY)
    with rig.fault("server-error"):
        first, *rest = failing(lambda: backend.get_variable("found"), 30)
    assert len({id(error) for error in (first, *rest)}) == 30  # or threads would add their tracebacks to a common one
    for error in rest:
        assert str(error) == str(first)
        assert error.__cause__ is error.__context__ is None
        assert len(traceback.extract_tb(error.__traceback__)) < 15


def test_no_answer_is_remembered_ever_longer(rig: Rig, clock: Clock) -> None:
    """Each attempt costs a time-out: a process must not pay it at every lookup during an outage."""
    backend = rig.caching(**ONE_TRY)
    asked = []
    with rig.fault("server-error"):
        while clock.now < 1000 + 200:
            with rig.counted() as calls:
                failing(lambda: backend.get_variable("found"))
            asked += [clock.now - 1000] * len(calls)
            clock.now += 1
    assert asked == [0, 2, 6, 14, 30, 62, 122, 182]


def test_an_outage_costs_a_bounded_number_of_calls(rig: Rig, clock: Clock) -> None:
    backend = rig.caching(**ONE_TRY)
    with rig.fault("server-error"):
        with rig.counted() as calls:
            errors = [failing(lambda: backend.get_variable(f"name-{n}"))[0] for n in range(50)]  # noqa: B023
        assert len(calls) == cache.Breaker.FAILURES
        assert "one is tried about every 15 s" in str(errors[-1])
        with rig.counted() as calls:
            for second in range(61):
                clock.now = 1000.0 + second
                failing(lambda: backend.get_variable(f"later-{second}"))  # noqa: B023
        assert 3 <= len(calls) <= 5


def test_the_store_is_asked_again_once_a_try_succeeds(rig: Rig, clock: Clock) -> None:
    for number in range(8):
        stored(rig, f"name-{number}", "x")
    backend = rig.caching(**ONE_TRY)
    with rig.fault("server-error"):
        for number in range(8):
            failing(lambda: backend.get_variable(f"name-{number}"))  # noqa: B023
    failing(lambda: backend.get_variable("name-7"))
    clock.now += 18.1
    assert [backend.get_variable(f"name-{number}") for number in range(8)] == ["x"] * 8


def test_failures_far_apart_do_not_count_as_an_outage(rig: Rig, clock: Clock) -> None:
    backend = rig.caching(**ONE_TRY)
    with rig.fault("server-error"), rig.counted() as calls:
        for number in range(12):
            failing(lambda: backend.get_variable(f"name-{number}"))  # noqa: B023
            clock.now += 31
    assert len(calls) == 12


def test_without_a_cache_every_lookup_asks(rig: Rig) -> None:
    backend = rig.caching(cache_ttl=0, **ONE_TRY)
    with rig.fault("denied"), rig.counted() as calls:
        failing(lambda: backend.get_variable("found"), 2)
    denied = len(calls)
    with rig.fault("server-error"), rig.counted() as calls:
        failing(lambda: backend.get_variable("found"), 8)
    assert denied >= 2
    assert len(calls) == 8


# Processes.


def _look_up(rig: Rig, results: Any) -> None:
    backend = rig.caching()
    with rig.counted() as calls:
        values = [backend.get_variable("forked") for _ in range(5)]
    results.put((values, len(calls)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_starts_with_nothing(rig: Rig) -> None:
    path, backend = stored(rig, "forked", "one"), rig.caching()
    assert backend.get_variable("forked") == "one"
    rig.put(path, "two")
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_look_up, args=(rig, results))
    child.start()
    values, _ = results.get(timeout=120)
    child.join(60)
    assert values == ["two"] * 5
    assert backend.get_variable("forked") == "one"
