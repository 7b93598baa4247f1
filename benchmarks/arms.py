"""What the benchmarks inside real Airflow share: the ways to get secrets that they compare, and where each runs."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from benchmarks.store import Store

ROOT = Path(__file__).parent.parent
OURS = "airflow_providers_secrets.backends.aws_ssm.SystemsManagerParameterStoreBackend"
OFFICIAL = "airflow.providers.amazon.aws.secrets.systems_manager.SystemsManagerParameterStoreBackend"
FLOOR = "floor"
FERNET_KEY = "ZmVybmV0LWtleS1vZi10aGUtYmVuY2htYXJrcy1vbmw="


@dataclass
class Arm:
    """One way to get secrets.

    :param kwargs: the backend's options; ``{home}`` in them is replaced with the run's own directory.
    :param backend: the class; ``None`` for values in environment variables, the floor.
    """

    label: str
    backend: str | None = OURS
    kwargs: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)


def arms(official: str | None, lifetime: float | None, redis: str | None = None) -> list[Arm]:
    """Return the arms of a comparison.

    :param official: the interpreter of an environment with the official class, which is left out without it.
    :param lifetime: seconds of ``cache_ttl`` and ``cache_negative_ttl`` in two more arms; without it, only the
        defaults are measured.
    :param redis: the URL of a Redis, for two more arms: the fleet's cache alone, and after the host's directory.
    """
    shared = {"shared_cache": "file://{home}/shared"}
    preload = {**shared, "preload": ["connections", "variables"]}
    found = [Arm(FLOOR, None)]
    if official:
        found += [
            Arm("official", OFFICIAL, python=official),
            Arm("official, use_cache", OFFICIAL, {}, official, {"AIRFLOW__SECRETS__USE_CACHE": "True"}),
        ]
    found += [Arm("ours"), Arm("ours, shared", kwargs=shared), Arm("ours, preload", kwargs=preload)]
    if redis:
        prefix = {"shared_cache_prefix": "{home}:"}
        found += [
            Arm("ours, Redis", kwargs={"shared_cache": redis, **prefix}),
            Arm("ours, both", kwargs={"shared_cache": ["file://{home}/shared", redis], **prefix}),
        ]
    if lifetime:
        long = dict.fromkeys(("cache_ttl", "cache_negative_ttl"), lifetime)
        found += [
            Arm(f"ours, shared, {lifetime:g} s", kwargs={**shared, **long}),
            Arm(f"ours, preload, {lifetime:g} s", kwargs={**preload, **long}),
        ]
    return found


class Names:
    """100 names: 70 variables and 30 connections. The store has 30 % of each."""

    variables = [f"bench_variable_{number}" for number in range(70)]
    connections = [f"bench_connection_{number}" for number in range(30)]
    count = len(variables) + len(connections)

    @staticmethod
    def is_present(name: str) -> bool:
        return int(name.rpartition("_")[2]) % 10 in (0, 3, 6)

    @classmethod
    def present(cls) -> dict[str, dict[str, str]]:
        return {
            "variables": {name: f"value of {name}" for name in cls.variables if cls.is_present(name)},
            "connections": {name: f"http://{name}" for name in cls.connections if cls.is_present(name)},
        }

    @classmethod
    def parameters(cls) -> dict[str, str]:
        return {
            f"/airflow/{kind}/{name}": text for kind, texts in cls.present().items() for name, text in texts.items()
        }

    @classmethod
    def environment(cls) -> dict[str, str]:
        """Return the present ones as Airflow's environment variables."""
        shapes = {"variables": "AIRFLOW_VAR_", "connections": "AIRFLOW_CONN_"}
        return {
            shapes[kind] + name.upper(): text for kind, texts in cls.present().items() for name, text in texts.items()
        }


class Home:
    """An arm's own ``AIRFLOW_HOME`` and environment for one run."""

    def __init__(self, directory: Path, arm: Arm, url: str, database: Path | None = None) -> None:
        self.path = directory
        self.arm = arm
        (directory / "dags").mkdir(parents=True)
        if database:
            shutil.copy(database, directory / "airflow.db")
        self.environment = {
            "PATH": f"{Path(arm.python).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(directory),
            "NO_PROXY": "127.0.0.1,localhost",
            "AIRFLOW_HOME": str(directory),
            "AIRFLOW__CORE__FERNET_KEY": FERNET_KEY,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AWS_ACCESS_KEY_ID": "AKIATESTING",
            "AWS_SECRET_ACCESS_KEY": "test-secret-key",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_SSM": url,
            **arm.environment,
        }
        if arm.backend:
            self.environment["AIRFLOW__SECRETS__BACKEND"] = arm.backend
            kwargs = json.dumps(arm.kwargs).replace("{home}", str(directory))
            self.environment["AIRFLOW__SECRETS__BACKEND_KWARGS"] = kwargs
        else:
            self.environment.update(Names.environment())

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start ``airflow`` with *arguments*; its output goes to a file next to the database."""
        with (self.path / f"{arguments[0]}.out").open("wb") as output:
            return subprocess.Popen(
                [self.arm.python, "-m", "airflow", *arguments],
                env={**self.environment, **environment},
                cwd=self.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *arguments: str) -> None:
        """Run ``airflow`` with *arguments* until it ends."""
        process = self.start(*arguments)
        self.wait_until(lambda: process.poll() is not None, process, 180)
        if process.returncode:
            raise RuntimeError(f"{self.arm.label}: airflow {arguments[0]} failed\n{self._said()}")

    def wait_until(self, is_so: Callable[[], bool], process: subprocess.Popen[bytes], timeout: float) -> None:
        """Wait until *is_so*, which *process* should bring about."""
        deadline = time.monotonic() + timeout
        while not is_so():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.arm.label}: ended early or took longer than {timeout:g} s\n{self._said()}")
            time.sleep(0.05)

    def _said(self) -> str:
        return "".join(path.read_text(errors="replace")[-3000:] for path in self.path.glob("*.out"))


def migrated(directory: Path, url: str) -> Path:
    """Create the metastore of which every run gets a copy."""
    Home(directory, Arm("migration", None), url).run("db", "migrate")
    return directory / "airflow.db"


def end(process: subprocess.Popen[bytes], patience: float = 20) -> None:
    """End *process*, which leads its own process group, and the rest of that group."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait(patience)


class Used(NamedTuple):
    """CPU seconds so far, of processes and of everything that they started."""

    own: float
    children: float

    @classmethod
    def by(cls, *processes: subprocess.Popen[bytes]) -> Used:
        """Return those of *processes*, with those of ended and running children."""
        own = children = 0.0
        for tree in [psutil.Process(process.pid) for process in processes]:
            times = tree.cpu_times()
            own += times.user + times.system
            children += times.children_user + times.children_system
            for child in tree.children(recursive=True):
                with suppress(psutil.Error):
                    children += sum(child.cpu_times()[:4])
        return cls(own, children)

    def since(self, before: Used) -> Used:
        return Used(self.own - before.own, self.children - before.children)


def read_journal(path: Path) -> list[list[str]]:
    """Return the fields of each line that a process has appended."""
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def summary(label: str, lines: list[list[str]], counts: dict[str, int], used: Used, count: int) -> dict[str, float]:
    """Return the figures of one arm in one round.

    :param lines: the journal's: when the lookups started and ended, their CPU seconds, whether all answers were right.
    :param counts: the store's counts.
    :param used: CPU seconds during *count* lines.
    """
    if wrong := [line for line in lines if line[3] != "True"]:
        raise RuntimeError(f"{label}: {len(wrong)} of {len(lines)} had a wrong answer")
    started, ended = min(float(line[0]) for line in lines), max(float(line[1]) for line in lines)
    return {
        "times": len(lines),
        "requests": counts.get("requests", 0),
        "pages": counts.get("GetParametersByPath", 0),
        "connections": counts.get("connections", 0),
        "lookups CPU ms": statistics.median(float(line[2]) for line in lines) * 1000,
        "lookups wall ms": statistics.median(float(line[1]) - float(line[0]) for line in lines) * 1000,
        "own CPU ms": used.own / count * 1000,
        "child CPU ms": used.children / count * 1000,
        "CPU ms": (used.own + used.children) / count * 1000,
        "wall ms": (ended - started) / len(lines) * 1000,
        "seconds": ended - started,
    }


COLUMNS: Final = (
    "requests", "pages", "connections", "lookups CPU ms", "lookups wall ms", "child CPU ms", "own CPU ms", "CPU ms",
    "wall ms", "seconds",
)  # fmt: skip
RATIOS: Final = ("requests", "lookups CPU ms", "child CPU ms", "CPU ms", "wall ms")

Run = Callable[[Arm, Home, Store], dict[str, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that every comparison has."""
    parser.add_argument("--official", metavar="PYTHON")
    parser.add_argument("--only", action="append", metavar="ARM", help="this arm; may be given several times")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that the store thinks")
    parser.add_argument("--redis", metavar="URL", help="two more arms, over this Redis")
    parser.add_argument("--lifetime", type=float, help="seconds: two more arms with caches this long")
    parser.add_argument("--json", type=Path, help="where the figures are written, else beside the program")


def compare(title: str, given: argparse.Namespace, run: Run) -> dict[str, Any]:
    """Run every arm in every round, print the medians and their ratios, and write all figures as JSON."""
    if not importlib.util.find_spec("airflow.sdk"):
        raise SystemExit("The DAG files of the benchmarks need Airflow 3.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also ends what was started
    compared = [
        arm for arm in arms(given.official, given.lifetime, given.redis) if not given.only or arm.label in given.only
    ]
    rounds: list[dict[str, dict[str, float]]] = []
    store = Store(Names.parameters(), given.latency)
    try:
        with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as directory:
            database = migrated(Path(directory, "migrated"), store.url)
            for number in range(given.rounds):
                rounds.append({})
                for position in range(len(compared)):
                    # Each round starts with a different arm, so that none is always first.
                    arm = compared[(position + number) % len(compared)]
                    home = Home(Path(directory, f"{number}-{position}"), arm, store.url, database)
                    figures = rounds[-1][arm.label] = run(arm, home, store)
                    quoted = ", ".join(f"{name} {figure:.1f}" for name, figure in figures.items())
                    print(f"round {number + 1}, {arm.label}: {quoted}", flush=True)
    finally:
        store.stop()
    median = {
        arm.label: {
            figure: statistics.median(one[arm.label][figure] for one in rounds) for figure in rounds[0][arm.label]
        }
        for arm in compared
    }
    ratios = {
        f"{figure} / {to}": {
            arm.label: statistics.median(one[arm.label][figure] / one[to][figure] for one in rounds) for arm in compared
        }
        for to in (FLOOR, "official")
        for figure in RATIOS
        if to in median and all(one[to][figure] for one in rounds)
    }
    print(f"{title}; medians of {given.rounds} round(s), ms are for each")
    _show({column: {label: figures[column] for label, figures in median.items()} for column in COLUMNS}, "{:.1f}")
    _show(ratios, "{:.3f}")
    found = {
        "title": title,
        "arguments": {name: str(value) for name, value in vars(given).items() if name not in {"json", "official"}},
        "median": median,
        "ratios": ratios,
        "rounds": rounds,
    }
    written = given.json or Path(sys.argv[0]).with_suffix(".json")
    written.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _show(columns: dict[str, dict[str, float]], shape: str) -> None:
    labels = next(iter(columns.values()), {})
    print(" " * 26 + " ".join(f"{column:>16}" for column in columns))
    for label in labels:
        print(f"  {label:<24}" + " ".join(f"{shape.format(figures[label]):>16}" for figures in columns.values()))
