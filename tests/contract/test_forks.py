"""What a fork waits for, so that its child finds no lock held by a thread that does not exist there."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.lookup import deadline, forks
from tests.rigs import Rig
from tests.support.sharing import KEY

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are told by Linux alone")
def test_fork_waits_for_the_threads_of_lookups_that_have_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = rig.backend()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(backend.get_variable, ["absent"] * 20))
    ours = [thread.native_id for thread in threading.enumerate() if thread.name == "secrets-lookup"]
    assert ours
    deadline.end_idle_threads()
    forks.let_threads_end()
    assert not [one for one in ours if Path(f"/proc/self/task/{one}").exists()]
    # A thread that does not end holds a fork up for a moment only.
    monkeypatch.setattr(forks, "LONGEST_WAIT", 0.05)
    forks.thread_ending(threading.get_native_id())
    started = time.monotonic()
    forks.let_threads_end()
    assert time.monotonic() - started >= 0.05  # and not for ever, since this is reached


def test_fork_waits_for_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_sdk.py").write_text(
        textwrap.dedent("""
        import threading
        started, go_on = threading.Event(), threading.Event()
        import sys
        sys.modules["slow_sdk_events"] = sys.modules[__name__]
        started.set()
        go_on.wait(0.3)
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def import_it() -> None:
        with forks.no_fork():
            __import__("slow_sdk")

    thread = threading.Thread(target=import_it)
    thread.start()
    while "slow_sdk_events" not in sys.modules:
        os.sched_yield()
    child = multiprocessing.get_context("fork").Process(target=__import__, args=("slow_sdk",))
    child.start()
    child.join(10)
    alive = child.is_alive()
    child.kill()
    thread.join(10)
    del sys.modules["slow_sdk"], sys.modules["slow_sdk_events"]
    assert not alive
    assert child.exitcode == 0


def test_an_import_that_hangs_holds_a_fork_up_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "LONGEST_WAIT", 0.05)
    holds, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        with forks.no_fork():
            holds.set()
            may_end.wait(30)

    thread = threading.Thread(target=hang)
    thread.start()
    assert holds.wait(10)
    child = multiprocessing.get_context("fork").Process(target=forks.no_fork().__enter__)
    child.start()
    assert forks._busy  # it was not waited for: it still hangs
    child.join(10)
    assert child.exitcode == 0
    may_end.set()
    thread.join(10)
    # The lock is as it was: nobody holds it.
    with forks.no_fork():
        pass


# What a child inherits.


def _in_a_process(rig: Rig, code: str, **options: Any) -> list[str]:
    """Run *code* in a process that has Airflow loaded and has built ``backend``, and return what it printed."""
    module, _, name = rig.class_path.rpartition(".")
    given = {**rig.options(), **options}
    preamble = (
        "import gc, os, signal, sys, threading, airflow.configuration, airflow.models\n"
        f"from {module} import {name} as Backend\n"
        "def fork(work):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        work()\n"
        "        sys.stdout.flush()\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        f"given = {given!r}\n"
        "backend = Backend(**given)\n"
    )
    run = subprocess.run(
        [sys.executable, "-u", "-W", "ignore", "-c", preamble + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.splitlines()


WATCH = """
class Watch:
    def find_spec(name, path=None, target=None):
        imported.append(name)
imported = []
opened = []
site = os.path.dirname(os.path.dirname(sys.modules["airflow"].__file__))
def audit(event, args):
    if event == "open" and str(args[0]).startswith(site):
        opened.append(args[0])
"""


@pytest.mark.each_rig_in_ci
def test_a_child_imports_and_reads_nothing_of_its_own(rig: Rig, tmp_path: Path) -> None:
    rig.put(rig.path("variables", "inherited"), "x")
    code = WATCH + (
        "def work():\n"
        "    sys.meta_path.insert(0, Watch)\n"
        "    sys.addaudithook(audit)\n"
        "    print(backend.get_variable('inherited'), imported, opened)\n"
        "fork(work)\n"
    )
    shared = {"shared_cache": f"file://{tmp_path}/shared", "shared_cache_key": KEY}
    for options in ({}, shared):
        assert _in_a_process(rig, code, **options)[-1:] == ["x [] []"]


@pytest.mark.each_rig_in_ci
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are told by Linux alone")
def test_the_parent_opens_nothing_and_starts_no_thread(rig: Rig) -> None:
    """Importing urllib3 makes a socket to find out whether there is IPv6, and closes it."""
    code = """
    seen = []
    events = ("socket.connect", "socket.getaddrinfo", "_thread.start_new_thread", "subprocess.Popen", "os.posix_spawn")
    sys.addaudithook(lambda event, args: seen.append(event) if event in events else None)
    def held():
        return [len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task")]
    before, modules = held(), len(sys.modules)
    fork(lambda: None)
    print(seen, len(sys.modules) - modules > 20, held() == before)
    """
    assert _in_a_process(rig, code)[-1:] == ["[] True True"]


OPENED = """
from airflow_providers_secrets.lookup import shared_cache
opened = []
really = shared_cache.opened
def noted(*arguments):
    opened.append(os.getpid() == parent)
    return really(*arguments)
shared_cache.opened = noted
parent = os.getpid()
def work():
    print(backend.get_variable("inherited"), opened)
"""


@pytest.mark.each_rig_in_ci
def test_a_child_finds_its_shared_cache_open(rig: Rig, tmp_path: Path) -> None:
    rig.put(rig.path("variables", "inherited"), "x")
    shared = {"shared_cache": f"file://{tmp_path}/shared", "shared_cache_key": KEY}
    with rig.counted() as calls:
        printed = _in_a_process(rig, OPENED + "fork(work)\nfork(work)\n", **shared)
    assert [line for line in printed if line.startswith("x ")] == ["x [True]"] * 2
    assert calls == [rig.path("variables", "inherited")]


@pytest.mark.each_rig_in_ci
def test_a_child_opens_its_shared_cache_itself_where_the_parent_s_does_not_fit(rig: Rig, tmp_path: Path) -> None:
    """Somebody else asks in the child, or the directory was removed since."""
    rig.put(rig.path("variables", "inherited"), "x")
    code = OPENED + textwrap.dedent("""
    def somebody_else():
        os.environ["HOME"] = "elsewhere"
        work()
    fork(work)
    fork(somebody_else)
    import shutil
    shutil.rmtree(given["shared_cache"].removeprefix("file://"))
    fork(work)
    fork(work)
    """)
    shared = {"shared_cache": f"file://{tmp_path}/shared", "shared_cache_key": KEY}
    with rig.counted() as calls:
        printed = [line for line in _in_a_process(rig, code, **shared) if line.startswith("x ")]  # an SDK may log
    assert printed == ["x [True]", "x [True, False]", "x [True, False]", "x [True]"]
    # Each of the first three asks the store; the last one finds what the one before it has left.
    assert calls == [rig.path("variables", "inherited")] * 3


@pytest.mark.parametrize("source", ["fernet_key_secret", "fernet_key_cmd"])
def test_no_key_is_fetched_in_a_fork(ssm: Rig, tmp_path: Path, source: str) -> None:
    """A command or a lookup for it would run in the hook."""
    ssm.put(ssm.path("variables", "inherited"), "x")
    ssm.put(ssm.path("config", "key"), KEY)
    said = "key" if source.endswith("secret") else f"echo {KEY}"
    code = f"""
    os.environ.pop("AIRFLOW__CORE__FERNET_KEY", None)
    os.environ["AIRFLOW__CORE__{source.upper()}"] = {said!r}
    fork(lambda: None)
    print(opened)
    """
    shared = {"shared_cache": f"file://{tmp_path}/shared"}
    with ssm.counted() as calls:
        assert _in_a_process(ssm, OPENED + textwrap.dedent(code), **shared)[-1:] == ["[]"]
    assert calls == []


@pytest.mark.each_rig_in_ci
def test_only_the_first_fork_loads(rig: Rig) -> None:
    code = WATCH + (
        "fork(lambda: None)\nsys.meta_path.insert(0, Watch)\nBackend(**given)\nfork(lambda: None)\nprint(imported)\n"
    )
    assert _in_a_process(rig, code)[-1:] == ["[]"]


@pytest.mark.each_rig_in_ci
def test_what_is_loaded_for_children_is_frozen_where_the_heap_is(rig: Rig) -> None:
    code = """
    gc.freeze()
    frozen = gc.get_freeze_count()
    fork(lambda: None)
    print(gc.get_freeze_count() - frozen > 1000, len(gc.get_objects()) < 2000)
    """
    assert _in_a_process(rig, code)[-1:] == ["True True"]


TIMEOUT_IN_THE_HOOK = """
class TimeIsUp(BaseException):
    pass
def raise_it(*_):
    raise TimeIsUp
signal.signal(signal.SIGALRM, raise_it)
class Alarm:
    def find_spec(name, path=None, target=None):
        if name == "airflow_providers_secrets.lookup.resolve":
            sys.meta_path.remove(Alarm)
            {signal}
"""


@pytest.mark.parametrize(
    "signalled", ["os.kill(os.getpid(), signal.SIGALRM)", "signal.raise_signal(signal.SIGALRM)"], ids=["kill", "raise"]
)
def test_a_time_out_that_arrives_while_the_parent_loads_is_raised_after_the_fork(ssm: Rig, signalled: str) -> None:
    """What is raised inside an at-fork hook is printed and lost."""
    ssm.put(ssm.path("variables", "inherited"), "x")
    code = TIMEOUT_IN_THE_HOOK.format(signal=signalled) + (
        "sys.meta_path.insert(0, Alarm)\n"
        "reader, writer = os.pipe()\n"
        "try:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os.write(writer, backend.get_variable('inherited').encode())\n"
        "        os._exit(0)\n"
        "    print('not raised')\n"
        "except TimeIsUp:\n"
        "    print('raised', 'airflow_providers_secrets.lookup.resolve' in sys.modules)\n"
        "os.close(writer)\n"
        "print(os.read(reader, 10).decode(), signal.getsignal(signal.SIGALRM) is raise_it)\n"
        "fork(lambda: print('again'))\n"  # the signal is raised once
        "print('end')\n"
    )
    assert _in_a_process(ssm, code)[-4:] == ["raised True", "x True", "again", "end"]


def test_a_child_collects_garbage_though_a_thread_of_its_parent_was_importing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "LONGEST_WAIT", 0.01)
    paused, may_end = threading.Event(), threading.Event()

    def pause() -> None:
        with forks.no_fork(), forks.collector_paused():
            paused.set()
            may_end.wait(30)

    thread = threading.Thread(target=pause)
    thread.start()
    assert paused.wait(10)
    child = multiprocessing.get_context("fork").Process(target=_exit_by_collector)
    child.start()
    child.join(10)
    may_end.set()
    thread.join(10)
    assert child.exitcode == 0
    assert gc.isenabled()


def _exit_by_collector() -> None:
    sys.exit(0 if gc.isenabled() else 1)


def test_two_threads_that_import_do_not_wait_for_each_other() -> None:
    inside = threading.Barrier(2)

    def enter() -> None:
        with forks.no_fork():
            inside.wait(10)  # each waits for the other inside

    threads = [threading.Thread(target=enter) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not inside.broken


def test_backends_of_one_store_keep_their_own_prefixes(rig: Rig) -> None:
    """One client and cache; what is looked up where is each backend's own."""
    option = rig.prefix_option.format(kind="variables")
    rig.put(rig.path("variables", "whose", base="one"), "of one")
    rig.put(rig.path("variables", "whose", base="two"), "of two")
    one, two = rig.backend(**{option: "one"}), rig.backend(**{option: "two"})
    assert one.config.fingerprint == two.config.fingerprint
    assert (one.get_variable("whose"), two.get_variable("whose")) == ("of one", "of two")


@pytest.mark.parametrize("store", ["ssm", "vault"])
def test_a_process_for_one_task_leaves_a_heavy_sdk_to_its_child(store: str, request: pytest.FixtureRequest) -> None:
    """The pod of a KubernetesExecutor forks once: what it loads is of use to nobody where the task looks nothing up."""
    rig: Rig = request.getfixturevalue(store)
    rig.put(rig.path("variables", "inherited"), "x")
    code = WATCH + (
        "{mark}\n"
        "sys.meta_path.insert(0, Watch)\n"
        "fork(lambda: print(backend.get_variable('inherited')))\n"
        "print('loaded' if 'airflow_providers_secrets.lookup.resolve' in sys.modules else 'left')\n"
    )
    pod = "import types; sys.modules['__main__'].__spec__ = types.SimpleNamespace(name={!r})"
    in_a_pod = "loaded" if store == "vault" else "left"
    for mark, expected in (
        (pod.format("airflow.sdk.execution_time.execute_workload"), in_a_pod),
        ("sys.argv = ['airflow', 'tasks', 'run', 'a', 'b']", in_a_pod),
        ("sys.argv = ['airflow', 'dag-processor']", "loaded"),
    ):
        assert _in_a_process(rig, code.replace("{mark}", mark))[-2:] == ["x", expected]
