"""Work in threads: handed from one call to the next, and never lost."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from airflow_providers_secrets.lookup import access, deadline, forks, resolve
from airflow_providers_secrets.lookup.deadline import DeadlineCall
from airflow_providers_secrets.stores.base import seconds_left
from airflow_providers_secrets.testing.processes import run_python

AGES = 60.0
"""Seconds that no test waits for unless something is wrong."""

asked_by = ContextVar("asked_by", default="nobody")


def result_of(call: DeadlineCall) -> object:
    assert call.finished()
    assert call.error is None
    return call.result


def waiting_worker() -> deadline._Worker:
    """The thread of a call that has just ended."""
    worker = result_of(DeadlineCall(lambda _: threading.current_thread(), AGES))
    assert isinstance(worker, deadline._Worker)
    while worker not in deadline._idle:
        assert worker.is_alive()
    return worker


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Idle threads wait for as long as the test takes."""
    monkeypatch.setattr(deadline, "LINGER", AGES)
    yield
    deadline.end_idle_threads()


@pytest.mark.usefixtures("patient")
def test_calls_in_turn_share_a_thread() -> None:
    first = waiting_worker()
    assert waiting_worker() is first


def test_an_error_of_the_work_carries_none_of_its_frames() -> None:
    """They hold what was sent and read, for as long as a failure is remembered."""

    def work(_: threading.Event) -> None:
        raise ValueError

    call = DeadlineCall(work, AGES)
    assert call.finished()
    assert isinstance(call.error, ValueError)
    assert call.error.__traceback__ is None


@pytest.mark.usefixtures("patient")
def test_work_that_hangs_holds_its_own_thread_alone() -> None:
    go_on = threading.Event()
    hanging = DeadlineCall(lambda _: go_on.wait(AGES), 0.01)
    assert not hanging.finished()
    assert result_of(DeadlineCall(lambda _: "answered", AGES)) == "answered"
    go_on.set()


@pytest.mark.usefixtures("patient")
def test_each_call_has_its_own_context_and_deadline() -> None:
    waiting_worker()
    asked_by.set("the first")
    assert result_of(DeadlineCall(lambda _: (asked_by.get(), seconds_left() > 1000), 10_000)) == ("the first", True)
    asked_by.set("the second")
    assert result_of(DeadlineCall(lambda _: (asked_by.get(), seconds_left() > 1000), AGES)) == ("the second", False)


def test_idle_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "LINGER", 0.01)
    worker = result_of(DeadlineCall(lambda _: threading.current_thread(), AGES))
    assert isinstance(worker, threading.Thread)
    worker.join(AGES)
    assert not worker.is_alive()
    assert worker not in deadline._idle


def test_thread_that_has_just_ended_loses_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end and the next call may cross: it was taken out while it waited, and ended before it was handed the call."""
    monkeypatch.setattr(deadline, "LINGER", 0.01)
    worker = result_of(DeadlineCall(lambda _: threading.current_thread(), AGES))
    assert isinstance(worker, deadline._Worker)
    worker.join(AGES)
    deadline._idle.append(worker)
    assert result_of(DeadlineCall(lambda _: "answered", AGES)) == "answered"


@pytest.mark.usefixtures("patient")
def test_work_is_done_once_though_two_threads_were_given_it() -> None:
    done: list[int] = []
    call = DeadlineCall(lambda _: done.append(1), AGES)
    assert call.finished()
    call.run()
    assert done == [1]


def test_thread_taken_by_who_was_interrupted_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken(deque[Any]):
        """Whoever waits in it is taken out at once, and handed nothing."""

        def append(self, _: object) -> None:
            """Keep nobody."""

    monkeypatch.setattr(deadline, "LINGER", 0.01)
    monkeypatch.setattr(deadline, "_idle", Taken())
    worker = result_of(DeadlineCall(lambda _: threading.current_thread(), AGES))
    assert isinstance(worker, deadline._Worker)
    worker.join(AGES)
    assert not worker.is_alive()


@pytest.mark.usefixtures("patient")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_leaves_no_idle_thread_to_either_side() -> None:
    worker = waiting_worker()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if result_of(DeadlineCall(lambda _: 7, AGES)) == 7 and worker not in deadline._idle else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    worker.join(AGES)
    assert not worker.is_alive()
    assert worker not in deadline._idle


@pytest.mark.usefixtures("patient")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_hands_nothing_to_a_thread_that_became_idle_just_before_its_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the idle ones were told to end: another thread's call was done only then."""
    monkeypatch.setattr(forks, "let_threads_end", waiting_worker)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if DeadlineCall(lambda _: 7, 5.0).finished() else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_no_thread_to_be_had_means_work_in_the_caller_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(deadline._Worker, "start", no_thread)
    assert result_of(DeadlineCall(lambda _: threading.current_thread(), AGES)) is threading.current_thread()


SIGNALLED_AS_IT_FELL_ASLEEP = """
import os, signal, threading
from airflow_providers_secrets.lookup.cache import Lifetimes, ProcessCache
from airflow_providers_secrets.lookup.deadline import DeadlineCall

class Stopped(BaseException):
    pass

def stop(*_):
    raise Stopped

signal.signal(signal.SIGUSR1, stop)
main = f"/proc/self/task/{threading.get_native_id()}/stat"
never = threading.Event()

def is_asleep():
    with open(main) as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"

def signal_another_thread_than_the_one_that_waits(*_):
    asleep = 0
    while asleep < 1000:  # in a row: no wait for the interpreter's lock
        asleep = asleep + 1 if is_asleep() else 0
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    never.wait()

def call():
    DeadlineCall(signal_another_thread_than_the_one_that_waits, 3600).finished()

def flight():
    cache = ProcessCache(Lifetimes(60, 60, 60, 60), lambda _: None)
    begun = threading.Event()
    def find():
        begun.set()
        signal_another_thread_than_the_one_that_waits()
    threading.Thread(target=lambda: cache.single_flight("x", find, 3600), daemon=True).start()
    begun.wait()
    cache.single_flight("x", find, 3600)

try:
    WAIT()
except Stopped:
    print("stopped", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("wait", ["call", "flight"])
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="what a thread does is told by Linux alone")
def test_a_signal_that_does_not_wake_the_waiting_thread_is_handled_all_the_same(wait: str) -> None:
    run = run_python(SIGNALLED_AS_IT_FELL_ASLEEP.replace("WAIT()", f"{wait}()"))
    assert run.stdout.strip() == "stopped", run.stderr


LOOPS_AT_EACH_DEPTH = """
import resource, sys
from airflow_providers_secrets.lookup.deadline import roomy

def called():
    if 0:  # a frame that is larger than a step in depth
        a = b = c = d = e = f = g = h = i = j = k = l = m = n = o = p = q = r = s = t = u = v = w = x = y = z = 0

def loop():
    for _ in range(1000):
        called()

def mapped_at(depth, work):
    if depth:
        return mapped_at(depth - 1, work)
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

sys.setrecursionlimit(2000)
plain = max(mapped_at(depth, loop) for depth in range(400))
print(plain, max(mapped_at(depth, roomy(loop)) for depth in range(400)))
"""


def test_a_roomy_function_calls_others_at_any_depth_without_mapping_memory_for_each() -> None:
    plain, roomy = map(int, run_python(LOOPS_AT_EACH_DEPTH).stdout.split())

    assert roomy < 100, f"{roomy} pages were mapped for 1000 calls; {plain} by a function that is not roomy"


@pytest.mark.parametrize("function", [access._load, resolve.prepare])
def test_what_imports_an_sdk_is_roomy(function: FunctionType) -> None:
    assert function.__code__.co_stacksize >= deadline.ROOM
