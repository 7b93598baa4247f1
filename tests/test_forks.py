"""What a fork waits for, so that its child finds no lock held by a thread that does not exist there."""

from __future__ import annotations

import multiprocessing
import os
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from airflow_providers_secrets import forks
from tests.rigs import Rig

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are told by Linux alone")
def test_fork_waits_for_the_threads_of_lookups_that_have_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = rig.backend()
    for _ in range(20):
        backend.get_variable("absent")
    ending = list(forks._ending)
    assert len(ending) >= 20
    forks.let_threads_end()
    assert not [one for one in ending if Path(f"/proc/self/task/{one}").exists()]
    # A thread that does not end holds a fork up for a moment only.
    monkeypatch.setattr(forks, "LONGEST_WAIT", 0.05)
    forks.note_end()
    started = time.monotonic()
    forks.let_threads_end()
    assert 0.05 <= time.monotonic() - started < 1


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
    from airflow_providers_secrets.access import load_sdk

    thread = threading.Thread(target=load_sdk, args=(("slow_sdk",), "aws"))
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
        with forks.unforked():
            holds.set()
            may_end.wait(30)

    thread = threading.Thread(target=hang)
    thread.start()
    assert holds.wait(10)
    started = time.monotonic()
    child = multiprocessing.get_context("fork").Process(target=forks.unforked().__enter__)
    child.start()
    assert time.monotonic() - started < 1
    child.join(10)
    assert child.exitcode == 0
    may_end.set()
    thread.join(10)
    # The lock is as it was: nobody holds it.
    with forks.unforked():
        pass
