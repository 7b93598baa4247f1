"""What is loaded before which fork, and who waits for a fork."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import pytest

from airflow_providers_secrets.errors import MissingDependencyError
from airflow_providers_secrets.lookup import forks, resolve
from airflow_providers_secrets.testing.processes import run_python
from airflow_providers_secrets.testing.signals import TimeIsUp, waits_for_another


class Impatient(threading.Condition):
    """Fails whoever waits."""

    def wait(self, timeout: float | None = None) -> bool:
        raise AssertionError(f"waited, for {timeout} s at most")


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has noted nothing."""
    monkeypatch.setattr(forks, "_unprepared", {})
    monkeypatch.setattr(forks, "_prepared", set())
    monkeypatch.setattr(forks, "_worth_it_for_one", set())


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of what was loaded before a fork."""
    loaded: list[str] = []

    def prepare(config: Any, *, for_many: bool) -> None:
        assert for_many == forks._forks_for_many()
        loaded.append(config.title)

    monkeypatch.setattr(resolve, "prepare", prepare)
    return loaded


def config(title: str) -> Any:
    return SimpleNamespace(fingerprint=title.encode(), title=title)


# What is loaded.


@pytest.mark.parametrize(
    ("main", "arguments", "many"),
    [
        (None, ["airflow", "scheduler"], True),
        (None, ["airflow", "tasks", "list"], True),
        (None, ["airflow", "dags", "run"], True),
        (None, ["tasks", "run"], True),
        (None, ["airflow", "tasks", "run", "dag", "task"], False),
        ("airflow.sdk.execution_time.execute_workload", ["--json-string", "{}"], False),
        ("airflow.sdk.execution_time.supervisor", ["x"], True),
    ],
)
def test_a_process_that_runs_one_task_is_told_by_its_command(
    monkeypatch: pytest.MonkeyPatch, main: str | None, arguments: list[str], many: bool
) -> None:
    module: Any = ModuleType("__main__")
    module.__spec__ = main and SimpleNamespace(name=main)
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(sys, "argv", arguments)
    assert forks._forks_for_many() == many


@pytest.mark.usefixtures("noted")
@pytest.mark.parametrize("many", [False, True])
def test_each_store_is_loaded_before_one_fork(monkeypatch: pytest.MonkeyPatch, prepared: list[str], many: bool) -> None:
    """Also stores that are noted after others were loaded; what only many children pay for is left to a single one."""
    monkeypatch.setattr(forks, "_forks_for_many", lambda: many)
    for turn in range(3):
        for number in range(4):
            forks.prepare_before_fork(config(f"light {turn}.{number}"), also_for_one=True)
            forks.prepare_before_fork(config(f"heavy {turn}.{number}"), also_for_one=False)
        prepared.clear()
        forks._prepare()
        kinds = ("light", "heavy") if many else ("light",)
        assert sorted(prepared) == sorted(f"{kind} {turn}.{number}" for kind in kinds for number in range(4))
        forks.prepare_before_fork(config(f"light {turn}.0"), also_for_one=True)
        prepared.clear()
        forks._prepare()
        assert prepared == []


@pytest.mark.usefixtures("noted")
def test_what_cannot_be_loaded_fails_no_fork(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The lookup that needs it will say more."""

    def prepare(_: object, *, for_many: bool) -> None:
        raise MissingDependencyError(f"S3cr3t {for_many}")

    monkeypatch.setattr(resolve, "prepare", prepare)
    forks.prepare_before_fork(config("Acme"), also_for_one=True)
    with caplog.at_level(logging.DEBUG):
        forks._prepare()
    assert [record.getMessage() for record in caplog.records if record.name == forks.__name__] == [
        "Acme: not loaded before a fork (MissingDependencyError)."
    ]


@pytest.mark.usefixtures("prepared")
def test_a_fork_registers_no_hook_that_an_earlier_one_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be run by every later fork. And nothing is prepared where nothing was noted."""
    forks._before()
    forks._after_in_parent()
    done: list[str] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **_: done.append("registered"))
    monkeypatch.setattr(forks, "_prepare", lambda: done.append("prepared"))
    forks._before()
    forks._after_in_parent()
    assert done == []


LOADS_AN_EXECUTOR = """
import os
from airflow_providers_secrets.lookup import forks, resolve

def prepare(*_, **__):
    import concurrent.futures.thread

resolve.prepare = prepare
forks.prepare_before_fork(type("Config", (), {"fingerprint": b"", "title": ""}), also_for_one=True)
if not os.fork():
    os._exit(0)
os.wait()
"""


def test_an_executor_loaded_for_a_fork_reports_no_error() -> None:
    """Its module acquires a lock before each fork and releases it after that."""
    run = run_python(LOADS_AN_EXECUTOR)
    assert (run.returncode, run.stderr) == (0, "")


# Who waits.


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_gate", Impatient())


@pytest.mark.usefixtures("impatient")
def test_nobody_waits_where_nobody_is_in_the_way() -> None:
    with forks.no_fork():
        forks._before()  # of an import's own thread
        with forks.no_fork():
            assert forks.holds_forks()
        forks._after_in_parent()
    assert not forks.holds_forks()
    forks._before()
    forks._after_in_parent()
    with forks.no_fork():
        pass


def test_a_fork_does_not_wait_for_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """With gevent, a lookup's thread that ends is a greenlet, and has the number of the thread that it ran in."""
    slept: list[float] = []
    monkeypatch.setattr(forks, "time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append))
    forks.thread_ending(threading.get_native_id())
    forks.let_threads_end()
    assert slept == []


def test_an_import_waits_for_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "LONGEST_WAIT", 60.0)
    inside = threading.Event()

    def enter() -> None:
        with forks.no_fork():
            inside.set()

    thread = threading.Thread(target=enter)
    forks._before()
    try:
        thread.start()
        while not waits_for_another(thread.ident):
            assert not inside.is_set()
    finally:
        forks._after_in_parent()
    assert inside.wait(60)
    thread.join(60)


def test_an_import_waits_for_every_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another thread has forked meanwhile."""
    monkeypatch.setattr(forks, "LONGEST_WAIT", 60.0)
    inside = threading.Event()

    def enter() -> None:
        with forks.no_fork():
            inside.set()

    def fork() -> None:
        forks._before()
        forks._after_in_parent()

    threads = [threading.Thread(target=target) for target in (fork, enter)]
    forks._before()
    try:
        threads[0].start()
        threads[0].join(60)
        threads[1].start()
        while not waits_for_another(threads[1].ident):
            assert not inside.is_set()
    finally:
        forks._after_in_parent()
    assert inside.wait(60)
    threads[1].join(60)


def test_a_fork_waits_for_an_import_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no longer than the import takes."""
    monkeypatch.setattr(forks, "LONGEST_WAIT", 60.0)
    inside, may_end, forked = threading.Event(), threading.Event(), threading.Event()

    def enter() -> None:
        with forks.no_fork():
            inside.set()
            may_end.wait(60)

    def fork() -> None:
        forks._before()
        forked.set()
        forks._after_in_parent()

    threads = [threading.Thread(target=target) for target in (enter, fork)]
    threads[0].start()
    assert inside.wait(60)
    threads[1].start()
    while not waits_for_another(threads[1].ident):
        assert not forked.is_set()
    may_end.set()
    for thread in threads:
        thread.join(60)
    assert forked.is_set()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_waits_for_no_thread_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they were at when it was forked."""
    monkeypatch.setattr(forks, "LONGEST_WAIT", 0.01)
    inside, may_end = threading.Event(), threading.Event()

    def enter() -> None:
        with forks.no_fork(), forks.collector_paused():
            inside.set()
            may_end.wait(60)

    thread = threading.Thread(target=enter)
    thread.start()
    assert inside.wait(60)
    child = multiprocessing.get_context("fork").Process(target=_goes_on)
    child.start()
    child.join(60)
    may_end.set()
    thread.join(60)
    assert child.exitcode == 0
    assert gc.isenabled()


@contextlib.contextmanager
def raised_in(function: str, when: Callable[[], bool]) -> Iterator[None]:
    """Raise in *function* as a signal's handler would, before the first line of which *when* holds."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_name != function:
            return None
        if event == "line" and when():
            raise TimeoutError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(TimeoutError):
            yield
    finally:
        sys.settrace(before)


def test_a_signal_that_raises_leaves_the_collector_on() -> None:
    with raised_in("collector_paused", lambda: not gc.isenabled()), forks.collector_paused():
        pass
    assert gc.isenabled()


@pytest.fixture
def raising() -> Iterator[signal.Signals]:
    """A signal whose handler raises, as Airflow's time-outs do."""

    def raise_it(*_: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGUSR1, raise_it)
    yield signal.SIGUSR1
    assert signal.signal(signal.SIGUSR1, before) is raise_it


def test_a_signal_that_raises_while_handlers_are_replaced_leaves_those_of_others(raising: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT)
    with raised_in("begin", lambda: signal.getsignal(signal.SIGINT) is not before):
        forks._before()
    assert forks._forking  # the fork is prepared all the same
    forks._after_in_parent()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_raises_while_handlers_are_put_back_leaves_none_replaced(raising: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT)
    forks._before()
    with raised_in("_put_back", lambda: signal.getsignal(signal.SIGINT) is before):
        forks._after_in_parent()
    assert isinstance(signal.getsignal(raising), FunctionType)


SIGNALLED_IN_A_HOOK = """
import os, signal, threading
from airflow_providers_secrets.lookup import forks
from airflow_providers_secrets.lookup.shared_cache import directory  # it has a hook of its own

class TimeIsUp(BaseException):
    pass

def raise_it(*_):
    raise TimeIsUp

class Signalling(threading.Condition):
    def notify_all(self):
        super().notify_all()
        signal.raise_signal(signal.SIGUSR1)

signal.signal(signal.SIGUSR1, raise_it)
forks._gate = Signalling()
forks.in_child.append(lambda: signal.raise_signal(signal.SIGUSR1))
parent = os.getpid()
try:
    os.fork()
    said = "not raised"
except TimeIsUp:
    said = "raised"
if os.getpid() == parent:
    os.wait()
print(said, signal.getsignal(signal.SIGUSR1) is raise_it, flush=True)
os._exit(0)
"""


def test_a_signal_in_a_hook_after_the_fork_is_raised_behind_the_hooks() -> None:
    """In the parent and in the child."""
    run = run_python(SIGNALLED_IN_A_HOOK)
    assert run.stdout.splitlines() == ["raised True"] * 2, run.stderr


OF_A_LOOP = """
import asyncio, os, signal
from airflow_providers_secrets.lookup import forks

async def main():
    handled = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, handled.append, "once")
    forks.before_waiting.append(lambda: signal.raise_signal(signal.SIGUSR1))
    if not os.fork():
        os._exit(0)
    os.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    print(handled)

asyncio.run(main())
"""


def test_a_loop_handles_a_signal_that_comes_during_a_fork_once() -> None:
    run = run_python(OF_A_LOOP)
    assert run.stdout.splitlines() == ["['once']"], run.stderr


LOADED_BEFORE_A_FORK = """
import os, signal
from airflow_providers_secrets.lookup import forks, resolve

class TimeIsUp(BaseException):
    pass

def raise_it(*_):
    raise TimeIsUp

def prepare(config, for_many):
    # As a module with hooks of its own, in Python, that is imported here; and a signal comes meanwhile.
    os.register_at_fork(after_in_parent=lambda: [None for _ in range(100)])
    signal.raise_signal(signal.SIGUSR1)

class Config:
    fingerprint, title = b"x", "x"

signal.signal(signal.SIGUSR1, raise_it)
resolve.prepare = prepare
forks.prepare_before_fork(Config, also_for_one=True)
try:
    if not os.fork():
        os._exit(0)
    os.wait()
    print("lost")
except TimeIsUp:
    print("raised")
"""


def test_a_signal_is_raised_behind_the_hooks_of_what_was_loaded_for_the_fork() -> None:
    run = run_python(LOADED_BEFORE_A_FORK)
    assert run.stdout.splitlines() == ["raised"], run.stderr


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_handle_what_came_to_its_parent(
    monkeypatch: pytest.MonkeyPatch, raising: signal.Signals
) -> None:
    monkeypatch.setattr(forks, "before_waiting", [*forks.before_waiting, lambda: signal.raise_signal(raising)])
    parent = os.getpid()
    try:
        os.fork()
        is_raised = False
    except TimeIsUp:
        is_raised = True
    if os.getpid() != parent:
        os._exit(1 if is_raised else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) == 0
    assert is_raised
    # A signal is raised once.
    monkeypatch.undo()
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_in_another_thread_gives_its_child_the_handlers_back(raising: signal.Signals) -> None:
    """The main thread was about to fork, too."""
    statuses: list[int] = []

    def fork() -> None:
        child = os.fork()
        if child == 0:
            os._exit(0 if isinstance(signal.getsignal(raising), FunctionType) else 1)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    forks._before()
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join(60)
    assert not isinstance(signal.getsignal(raising), FunctionType)  # the parent's own still wait
    forks._after_in_parent()
    assert statuses == [0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_was_forked_by_an_import_ends_the_import() -> None:
    with forks.no_fork():
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with forks.no_fork():
                    pass
                status = 0 if forks.holds_forks() else 2
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not forks.holds_forks()


def _goes_on() -> None:
    assert gc.isenabled()  # though a thread of the parent was importing
    assert _imports_at_once()  # though the parent was forking
    threading.Condition.wait = Impatient.wait  # type: ignore[method-assign]
    with forks.no_fork(), forks.collector_paused():
        assert not gc.isenabled()
    forks._before()
    assert gc.isenabled()
    gc.disable()  # by somebody else, which its own children inherit
    forks._after_in_child()
    assert not gc.isenabled()


def _imports_at_once() -> bool:
    """Tell whether another thread of this process is inside :func:`.no_fork` without having waited."""
    inside = threading.Event()

    def enter() -> None:
        with forks.no_fork():
            inside.set()

    forks._gate = Impatient()
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(60)
    return inside.is_set()
