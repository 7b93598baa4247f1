"""What a process keeps of a store, without one: bounds, spread, and one flight for all threads."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_providers_secrets.errors import AccessDenied, LookupFailed, StoreUnavailable
from airflow_providers_secrets.lookup import cache
from airflow_providers_secrets.lookup.cache import Breaker, Entry, Lifetimes, ProcessCache
from airflow_providers_secrets.lookup.shared_cache.entries import Found, SharedEntry
from airflow_providers_secrets.testing.lookups import MAX_STALE, NEGATIVE_TTL, TTL, Clock
from airflow_providers_secrets.testing.signals import TimeIsUp, raised_in_the_main_thread

DOWN = StoreUnavailable("a store", "x", "HTTP 500", "Wait.")
DENIED = AccessDenied("a store", "x", "HTTP 403", "Allow it.")


@pytest.fixture
def memory(clock: Clock) -> ProcessCache:
    return ProcessCache(Lifetimes(TTL, NEGATIVE_TTL, MAX_STALE, 1000), lambda _: DOWN)


def fresh_for(seconds: float, text: str | None = "x") -> Entry:
    return Entry(text, cache.clock() + seconds)


# Entries.


def test_an_entry_counts_until_its_moment_and_no_longer(memory: ProcessCache, clock: Clock) -> None:
    entry = memory.keep("x", fresh_for(TTL))
    clock.now += TTL - 0.001
    assert memory.fresh("x") is entry
    clock.now += 0.001
    assert memory.fresh("x") is None
    assert memory.fresh("another") is None


def test_an_expired_value_stands_in_for_max_stale_and_an_absence_never(memory: ProcessCache, clock: Clock) -> None:
    value, absence = memory.keep("value", fresh_for(TTL)), memory.keep("absence", fresh_for(TTL, None))
    assert memory.stale("value") is value
    assert memory.fresh("absence") is absence
    clock.now += TTL + MAX_STALE - 0.001
    assert memory.stale("value") is value
    assert memory.stale("absence") is None
    clock.now += 0.001
    assert memory.stale("value") is None


def test_an_absence_is_passed_over_for_as_long_as_a_value_may_stand_in(memory: ProcessCache, clock: Clock) -> None:
    """Afterwards, a team may have got a secret of its own, and everybody's is not the answer."""
    memory.keep("absence", fresh_for(TTL, None))
    memory.keep("value", fresh_for(TTL))
    clock.now += TTL + MAX_STALE - 0.001
    assert [memory.was_absent(name) for name in ("absence", "value", "never seen")] == [True, False, False]
    clock.now += 0.001
    assert not memory.was_absent("absence")


def test_expiries_are_spread() -> None:
    spread = [cache.jittered(TTL) for _ in range(200)]
    assert TTL * cache.JITTER[0] <= min(spread) < TTL * 0.82
    assert TTL * 0.98 < max(spread) <= TTL


def test_absences_have_their_own_time_and_a_listing_the_shorter_one() -> None:
    lifetimes = Lifetimes(TTL, NEGATIVE_TTL, MAX_STALE, 1000)
    assert (lifetimes.of("x"), lifetimes.of(""), lifetimes.of(None)) == (TTL, TTL, NEGATIVE_TTL)
    assert (lifetimes.listing, Lifetimes(5, 30, 0, 1).listing) == (NEGATIVE_TTL, 5)


def test_the_number_of_entries_is_bounded(clock: Clock) -> None:
    memory = ProcessCache(Lifetimes(TTL, NEGATIVE_TTL, MAX_STALE, 3), lambda _: DOWN)
    for number in range(4):
        memory.keep(str(number), fresh_for(TTL))
    assert [number for number in range(4) if memory.fresh(str(number))] == [1, 2, 3]


def test_the_size_of_entries_is_bounded(memory: ProcessCache) -> None:
    large = 1024 * 1024
    for number in range(40):
        memory.keep(str(number), fresh_for(TTL, "x" * large))
    kept = [number for number in range(40) if memory.fresh(str(number))]
    assert kept == list(range(40 - len(kept), 40))
    assert 0 < len(kept) * large <= cache.MAX_BYTES


def test_a_large_entry_takes_the_place_of_many_small_ones(memory: ProcessCache) -> None:
    for number in range(1000):
        memory.keep(str(number), fresh_for(TTL))
    memory.keep("large", fresh_for(TTL, "x" * (cache.MAX_BYTES // 2)))
    kept = [number for number in range(1000) if memory.fresh(str(number))]
    assert memory.fresh("large")
    assert kept == list(range(1000 - len(kept), 1000))
    assert 490 < len(kept) <= 500


def test_room_is_for_what_is_kept_now(clock: Clock) -> None:
    memory = ProcessCache(Lifetimes(TTL, NEGATIVE_TTL, MAX_STALE, 3), lambda _: DOWN)

    def kept() -> list[str]:
        return [name for name in ("first", "again", "third", "fourth") if memory.fresh(name)]

    for name in ("first", *("again",) * 10, "forgotten", "third"):
        memory.keep(name, fresh_for(TTL))
        memory.forget("forgotten")
    assert kept() == ["first", "again", "third"]
    memory.keep("first", fresh_for(TTL))  # is the last one now
    memory.keep("fourth", fresh_for(TTL))
    assert kept() == ["first", "third", "fourth"]
    memory.clear()
    for name in ("first", "again", "third"):
        memory.keep(name, fresh_for(TTL))
    assert kept() == ["first", "again", "third"]


def test_what_stays_is_the_last_to_go(clock: Clock) -> None:
    """A listing, which the names that it answers would otherwise evict."""
    memory = ProcessCache(Lifetimes(TTL, NEGATIVE_TTL, MAX_STALE, 3), lambda _: DOWN)
    for name in ("listing", "first", "second"):
        memory.keep(name, fresh_for(TTL))
    memory.stay("listing")
    memory.stay("gone")  # another thread may have evicted it
    memory.keep("third", fresh_for(TTL))
    assert [name for name in ("listing", "first", "second", "third") if memory.fresh(name)] == [
        "listing",
        "second",
        "third",
    ]


def test_failures_are_bounded_like_entries(clock: Clock) -> None:
    memory = ProcessCache(Lifetimes(TTL, NEGATIVE_TTL, MAX_STALE, 2), lambda _: DOWN)
    for name in ("x", "y", "z"):
        memory.note_failure(name, DENIED)
    assert [memory.refusal(name) is not None for name in ("x", "y", "z")] == [False, True, True]


def test_what_is_forgotten_or_dropped_is_gone(memory: ProcessCache) -> None:
    for name in ("x", "y"):
        memory.keep(name, fresh_for(TTL))
    memory.forget("x")
    memory.forget("never there")
    assert memory.fresh("x") is memory.stale("x") is None
    assert memory.fresh("y")
    memory.note_failure("z", DENIED)
    for name in ("x", "z"):
        assert memory.knows_newer(name, cache.clock() - 1)
        assert not memory.knows_newer(name, cache.clock())
    memory.clear()
    assert memory.fresh("y") is memory.refusal("z") is None


def test_no_text_is_in_a_repr() -> None:
    assert repr(fresh_for(1, "S3cr3t")) == "Entry(present)"
    assert repr(fresh_for(1, None)) == "Entry(absent)"
    shared = SharedEntry("S3cr3t", 1.0)
    assert repr(shared) == "SharedEntry(at=1.0, failure=None)"
    assert repr(Found("token", b"sealed", shared)) == f"Found({shared})"


# Failures.


def test_a_denial_stands_for_a_call_and_then_ends(memory: ProcessCache, clock: Clock) -> None:
    memory.keep("x", fresh_for(TTL))
    memory.note_failure("x", DENIED)
    assert memory.stale("x") is None
    clock.now += NEGATIVE_TTL * cache.JITTER[0] - 0.001
    refusal = memory.refusal("x")
    assert isinstance(refusal, AccessDenied)
    assert refusal is not DENIED
    clock.now += NEGATIVE_TTL
    assert memory.refusal("x") is None


def test_denials_end_at_different_times(memory: ProcessCache, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.random, "uniform", lambda *ends: ends[0])
    memory.note_failure("x", DENIED)
    clock.now += NEGATIVE_TTL * cache.JITTER[0]
    assert memory.refusal("x") is None


def test_no_answer_after_a_denial_pauses_like_any_other(memory: ProcessCache, clock: Clock) -> None:
    memory.note_failure("x", DENIED)
    clock.now += NEGATIVE_TTL
    memory.note_failure("x", DOWN)
    clock.now += cache.FIRST_PAUSE - 0.001
    assert memory.refusal("x") is not None
    clock.now += 0.001
    assert memory.refusal("x") is None


def test_no_answer_keeps_what_was_known_and_pauses_ever_longer(memory: ProcessCache, clock: Clock) -> None:
    memory.keep("x", fresh_for(0))
    for pause in (2, 4, 8, 16, 32, 60, 60):
        memory.note_failure("x", DOWN)
        memory.answered("another")  # or the breaker would be what refuses
        clock.now += pause - 0.001
        assert memory.refusal("x") is not None, pause
        clock.now += 0.002
        assert memory.refusal("x") is None, pause
        assert memory.stale("x")
    memory.answered("x")
    memory.note_failure("x", DOWN)
    clock.now += cache.FIRST_PAUSE
    assert memory.refusal("x") is None


def test_no_answer_for_a_fault_before_the_store_is_no_sooner_asked_again(memory: ProcessCache) -> None:
    """Each lookup would otherwise wait for a dead proxy until its deadline."""
    on_the_way = copy.copy(DOWN)
    on_the_way.on_the_way = True
    for number in range(Breaker.FAILURES):
        memory.note_failure(str(number), on_the_way)
    assert memory.refusal("1") is not None
    assert memory.refusal("another") is None  # its error names the proxy; one about an outage would not


# The breaker.


def test_five_failures_in_a_row_open_the_breaker(clock: Clock) -> None:
    breaker = Breaker()
    for number in range(Breaker.FAILURES):
        assert breaker.lets_through(), number
        assert not breaker.is_open
        breaker.failed()
        clock.now += Breaker.WITHIN
    assert breaker.is_open


def test_failures_far_apart_are_no_row(clock: Clock) -> None:
    breaker = Breaker()
    for _ in range(3 * Breaker.FAILURES):
        breaker.failed()
        clock.now += Breaker.WITHIN + 0.001
    assert not breaker.is_open


def test_one_caller_probes_at_a_time(clock: Clock) -> None:
    breaker = Breaker()
    for _ in range(Breaker.FAILURES):
        breaker.failed()
    least, most = (Breaker.PAUSE * part for part in Breaker.PAUSE_JITTER)
    clock.now += least - 0.001
    assert not breaker.lets_through()
    clock.now += most - least + 0.001
    assert [breaker.lets_through() for _ in range(3)] == [True, False, False]
    assert breaker.answered()
    assert [breaker.lets_through() for _ in range(3)] == [True] * 3
    assert not breaker.answered()


def test_an_answer_ends_a_row(clock: Clock) -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(Breaker.FAILURES - 1):
            breaker.failed()
        assert not breaker.is_open
        breaker.answered()
    for _ in range(Breaker.FAILURES):
        breaker.failed()
    assert breaker.is_open


@pytest.mark.parametrize("end", [0, 1], ids=["shortest", "longest"])
def test_the_pause_between_probes_is_spread(clock: Clock, monkeypatch: pytest.MonkeyPatch, end: int) -> None:
    monkeypatch.setattr(cache.random, "uniform", lambda *ends: ends[end])
    breaker = Breaker()
    for _ in range(Breaker.FAILURES):
        breaker.failed()
    clock.now += Breaker.PAUSE * Breaker.PAUSE_JITTER[end] - 0.001
    assert not breaker.lets_through()
    clock.now += 0.001
    assert breaker.lets_through()


def test_an_open_breaker_refuses_every_name_until_one_is_answered(memory: ProcessCache, clock: Clock) -> None:
    for number in range(Breaker.FAILURES):
        assert memory.refusal(str(number)) is None
        memory.note_failure(str(number), DOWN)
    assert memory.refusal("another") is DOWN
    memory.answered("probe")
    assert memory.refusal("another") is None
    assert memory.refusal("1") is None  # its own pause ended with the outage


def test_an_outage_is_over_when_the_store_denies_something(memory: ProcessCache) -> None:
    for number in range(Breaker.FAILURES):
        memory.note_failure(str(number), DOWN)
    assert memory.refusal("another") is DOWN
    memory.note_failure("probe", DENIED)
    assert memory.refusal("another") is memory.refusal("1") is None


def test_a_denial_outlasts_the_end_of_an_outage(memory: ProcessCache, clock: Clock) -> None:
    memory.note_failure("denied", DENIED)
    for number in range(Breaker.FAILURES):
        memory.note_failure(str(number), DOWN)
    memory.answered("probe")
    assert isinstance(memory.refusal("denied"), AccessDenied)
    assert memory.refusal("1") is None


# One flight.


class Gathering:
    """Lets a test see how many threads wait for a flight."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrived = threading.Semaphore(0)
        gathering = self

        class Flight(cache._Flight):
            __slots__ = ()

            def __init__(self, deadline: float) -> None:
                super().__init__(deadline)
                self.done = Landing()

        class Landing(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                gathering.arrived.release()
                return super().wait(timeout)

        monkeypatch.setattr(cache, "_Flight", Flight)

    def wait_for(self, threads: int) -> None:
        for _ in range(threads):
            assert self.arrived.acquire(timeout=60)


@pytest.fixture
def gathering(monkeypatch: pytest.MonkeyPatch) -> Gathering:
    return Gathering(monkeypatch)


def held(took_off: threading.Event, may_land: threading.Event, find: Callable[[], Entry]) -> Callable[[], Entry]:
    def found() -> Entry:
        took_off.set()
        assert may_land.wait(60)
        return find()

    return found


@pytest.mark.parametrize("failure", [None, DOWN, DENIED])
def test_all_who_wait_get_what_the_flight_brings(
    memory: ProcessCache, gathering: Gathering, failure: LookupFailed | None
) -> None:
    took_off, may_land, flights = threading.Event(), threading.Event(), []

    def find() -> Entry:
        flights.append(1)
        if failure:
            raise failure
        return memory.keep("x", fresh_for(TTL))

    with ThreadPoolExecutor(8) as pool:
        leader = pool.submit(memory.single_flight, "x", held(took_off, may_land, find), 60)
        assert took_off.wait(60)
        waiting = [pool.submit(memory.single_flight, "x", find, 60) for _ in range(7)]
        gathering.wait_for(7)
        may_land.set()
        results = [future.exception() or future.result() for future in (leader, *waiting)]
    assert flights == [1]
    if failure is None:
        assert {id(result) for result in results} == {id(memory.fresh("x"))}
    else:
        # An exception of one's own each: threads would add their tracebacks to a common one.
        assert {type(result) for result in results} == {type(failure)}
        assert len({id(result) for result in results}) == 8


def test_threads_that_wait_go_on_when_a_signal_ends_the_one_that_asks(
    memory: ProcessCache, gathering: Gathering
) -> None:
    never, flights = threading.Event(), []

    def find() -> Entry:
        flights.append(1)
        return memory.keep("x", fresh_for(TTL))

    with ThreadPoolExecutor(4) as pool, raised_in_the_main_thread() as raise_it:
        waiting = []

        def asked() -> Entry:
            waiting.extend(pool.submit(memory.single_flight, "x", find, 120) for _ in range(4))
            gathering.wait_for(4)
            raise_it()
            never.wait(60)
            raise AssertionError("no signal came")

        with pytest.raises(TimeIsUp):
            memory.single_flight("x", asked, 120)  # they do not wait for as long as it would have
        assert [future.result(60).text for future in waiting] == ["x"] * 4
    assert flights == [1]


def test_a_flight_that_does_not_land_holds_nobody_beyond_the_deadline(memory: ProcessCache) -> None:
    took_off, may_land = threading.Event(), threading.Event()

    def find() -> Entry:
        return memory.keep("x", fresh_for(TTL, "late"))

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(memory.single_flight, "x", held(took_off, may_land, find), 60)
        assert took_off.wait(60)
        with pytest.raises(TimeoutError):
            memory.single_flight("x", find, 0.01)
        assert not first.done()
        may_land.set()
        assert first.result(60).text == "late"
    fresh = memory.fresh("x")
    assert fresh is not None
    assert fresh.text == "late"


@pytest.mark.parametrize("by_another_thread", [True, False])
def test_a_flight_that_a_signal_left_behind_is_replaced(memory: ProcessCache, by_another_thread: bool) -> None:
    """The handler raised just as the flight was about to land."""

    class Interrupted(dict[str, cache._Flight]):
        def get(self, *_: object) -> None:  # type: ignore[override]
            raise TimeIsUp

    def find() -> Entry:
        return Entry("x", cache.clock())  # at once no longer fresh

    memory._flights = Interrupted()
    with pytest.raises(TimeIsUp):
        memory.single_flight("x", find, 0 if by_another_thread else 60)
    assert memory._flights
    memory._flights = dict(memory._flights)
    if by_another_thread:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(memory.single_flight, "x", find, 60).result(60).text == "x"
    else:
        assert memory.single_flight("x", find, 60).text == "x"
    assert not memory._flights


def test_one_that_arrives_as_another_lands_does_not_ask_again(memory: ProcessCache) -> None:
    landed = memory.keep("x", fresh_for(TTL))

    def find() -> Entry:
        raise AssertionError("asked again")

    assert memory.single_flight("x", find, 60) is landed


def test_a_signals_handler_that_looks_something_up_waits_for_nothing_that_it_interrupted(memory: ProcessCache) -> None:
    """``on_kill`` of a task at SIGTERM runs in the midst of whatever the main thread was doing."""

    def find() -> Entry:
        return memory.keep("x", fresh_for(TTL, "found"))

    def interrupted() -> Entry:
        # Here the handler runs, and wants the very name that is being asked for.
        assert memory.single_flight("x", find, 60).text == "found"
        return find()

    done: list[str | None] = []

    def main() -> None:
        done.append(memory.single_flight("x", interrupted, 60).text)
        with memory._lock:  # and here, inside each of the cache's own methods
            memory.keep("y", fresh_for(0))
            memory.note_failure("z", DOWN)
            done.append("locked")

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    thread.join(60)
    assert done == ["found", "locked"]
