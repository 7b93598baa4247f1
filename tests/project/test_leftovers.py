"""A run of the tests leaves no process and no file behind, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

import airflow_providers_secrets
from tests.support.processes import processes_of

CHECKOUT: Final = Path(__file__).parents[2]
PACKAGE_ROOT: Final = Path(airflow_providers_secrets.__file__).parent.parent
IN_MEMORY: Final = Path("/dev/shm")

PATIENCE: Final = 120.0
"""Seconds in which a run, and all that it started, has ended at the latest; 2 are usual after a signal."""

PLANTED: Final = """
import multiprocessing, os, signal, subprocess, sys, tempfile, threading
from pathlib import Path

import pytest
import trustme

from tests.conftest import RIGS
from tests.rigs import running
from tests.rigs.redis import redis_url


@pytest.mark.parametrize("number", range(2))
def test_planted(number, tmp_path):
    for name in ("ssm-moto", "vault-openbao", "azure", "google-grpc", "kubernetes"):
        running(RIGS[name])
    redis_url()
    # What a test that ends in its midst leaves: a child, a process, files where they were asked for.
    multiprocessing.get_context("fork").Process(target=signal.pause).start()
    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    for directory in (tmp_path, Path(tempfile.mkdtemp())):
        trustme.CA().private_key_pem.write_to_path(str(directory / "key.pem"))
    Path(os.environ["PLANTED_READY"], str(number)).touch()
    if os.environ["PLANTED_WAITS"]:
        threading.Event().wait(300)
    pytest.fail("planted")
"""
"""Starts every kind of server and process that the tests have, and fails; or waits to be ended."""


class Run:
    """A run of the planted tests, with a home and a place for temporary files of its own."""

    def __init__(self, place: Path, *arguments: str, waits: bool) -> None:
        self.temporary, self.home, self.ready = (place / name for name in ("temporary", "home", "ready"))
        for directory in (self.temporary, self.home, self.ready):
            directory.mkdir()
        (place / "test_planted.py").write_text(PLANTED)
        ours = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "SECRETS_TEST_DIR"))
        }
        self.output = place / "output"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-o", "addopts=",
                 "-c", str(CHECKOUT / "pyproject.toml"), "--rootdir", str(place), *arguments, str(place / "test_planted.py")],
                env={
                    **ours,
                    "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{PACKAGE_ROOT}",
                    "TMPDIR": str(self.temporary),
                    "HOME": str(self.home),
                    "PLANTED_READY": str(self.ready),
                    "PLANTED_WAITS": "yes" if waits else "",
                },
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self._place = place

    def wait_until_servers_run(self, tests: int) -> None:
        def all_ready() -> bool:
            assert self.process.poll() is None, self.said
            return len(list(self.ready.iterdir())) == tests

        until(all_ready, lambda: self.said)

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def ended(self) -> int:
        """Wait until the run and every process of its has ended; return its exit status."""
        status = self.process.wait(PATIENCE)
        until(lambda: not processes_of(self._place), lambda: f"still there: {processes_of(self._place)}\n{self.said}")
        return status

    def stop(self) -> None:
        """End whatever is there, where the test has failed."""
        for process in processes_of(self._place):
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)


def until(state: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not state():
        assert time.monotonic() < deadline, what()
        pause.wait(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Start a run of the planted tests."""
    started: list[Run] = []

    def start(workers: int, *, waits: bool) -> Run:
        # A planted test that waits does not fail; if it does, its run ends at once, and says why.
        started.append(Run(tmp_path, "-n", str(workers), *(["-x"] if waits else []), waits=waits))
        if waits:
            started[0].wait_until_servers_run(max(1, workers))
        return started[0]

    in_memory = names(IN_MEMORY)
    yield start
    for run in started:
        run.stop()
    assert [name for name in names(IN_MEMORY) - in_memory if name.startswith(("airflow-secrets", "psm_"))] == []


def names(directory: Path) -> set[str]:
    return {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()


def by_terminal(run: Run) -> None:
    """As Ctrl-C does: every process of the terminal's group is sent it."""
    os.killpg(run.process.pid, signal.SIGINT)


def by_terminal_twice(run: Run) -> None:
    by_terminal(run)
    with contextlib.suppress(ProcessLookupError):  # it may have ended
        by_terminal(run)


def by_supervisor(run: Run) -> None:
    run.process.terminate()


def by_kernel(run: Run) -> None:
    """As the out-of-memory killer does: nothing of the run's own can notice."""
    run.process.kill()


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "end", [by_terminal, by_terminal_twice, by_supervisor, by_kernel], ids=lambda end: end.__name__
)
def test_nothing_is_left_of_a_run_that_is_ended(
    start: Callable[..., Run], workers: int, end: Callable[[Run], None]
) -> None:
    run = start(workers, waits=True)
    end(run)
    assert run.ended() != 0
    assert (names(run.temporary), names(run.home)) == (set(), set()), run.said


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_is_left_of_a_run_that_fails(start: Callable[..., Run], workers: int) -> None:
    run = start(workers, waits=False)
    assert run.ended() == pytest.ExitCode.TESTS_FAILED, run.said
    assert "2 failed" in run.said
    assert (names(run.temporary), names(run.home)) == (set(), set()), run.said
