"""What the benchmarks inside real Airflow share: the ways to have secrets that they compare, and where each runs."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OURS = "airflow_providers_secrets.backends.aws_ssm.SystemsManagerParameterStoreBackend"
OFFICIAL = "airflow.providers.amazon.aws.secrets.systems_manager.SystemsManagerParameterStoreBackend"
FERNET_KEY = "ZmVybmV0LWtleS1vZi10aGUtYmVuY2htYXJrcy1vbmw="

DRIVER = """
import atexit, json, os, resource, sys
def used(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime
at_first_fork = []
pid = os.getpid()
os.register_at_fork(before=lambda: at_first_fork or at_first_fork.append(used(resource.RUSAGE_SELF)))
def tell():
    if os.getpid() == pid:
        own, children = used(resource.RUSAGE_SELF), used(resource.RUSAGE_CHILDREN)
        start = at_first_fork[0] if at_first_fork else own
        with open(os.environ["BENCHMARK_USAGE"], "w") as file:
            json.dump({"start": start, "own": own - start, "children": children}, file)
atexit.register(tell)
sys.argv = ["airflow", *sys.argv[1:]]
from airflow.__main__ import main
main()
"""
"""Runs ``airflow`` and leaves the CPU seconds it took: to its first fork, after it, and in ended children."""


@dataclass
class Arm:
    """One way to have secrets.

    :param kwargs: the backend's options; ``{home}`` in them is the run's own directory.
    :param backend: the class; none for values in environment variables, the floor.
    """

    label: str
    backend: str | None = OURS
    kwargs: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)


def arms(official: str | None, **lifetimes: float) -> list[Arm]:
    """Give the arms of a comparison.

    :param official: the interpreter of an environment with the official class; without it that is left out.
    :param lifetimes: ``cache_ttl`` and ``cache_negative_ttl``, where not the defaults.
    """
    shared = {**lifetimes, "shared_cache": "file://{home}/shared"}
    found = [Arm("floor: no backend", None)]
    if official:
        found += [
            Arm("official", OFFICIAL, python=official),
            Arm("official, use_cache", OFFICIAL, {}, official, {"AIRFLOW__SECRETS__USE_CACHE": "True"}),
        ]
    return [
        *found,
        Arm("ours", kwargs=dict(lifetimes)),
        Arm("ours, shared cache", kwargs=shared),
        Arm("ours, shared and preload", kwargs={**shared, "preload": ["connections", "variables"]}),
    ]


class Names:
    """100 names: 70 variables and 30 connections, of each of which the store has 30 %."""

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
        """The same as Airflow's environment variables."""
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
            "BENCHMARK_USAGE": str(directory / "usage.json"),
            **arm.environment,
        }
        if arm.backend:
            self.environment["AIRFLOW__SECRETS__BACKEND"] = arm.backend
            kwargs = json.dumps(arm.kwargs).replace("{home}", str(directory))
            self.environment["AIRFLOW__SECRETS__BACKEND_KWARGS"] = kwargs
        else:
            self.environment.update(Names.environment())

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start ``airflow`` with *arguments*; its output goes to a file beside the database."""
        with (self.path / f"{arguments[0]}.out").open("wb") as output:
            return subprocess.Popen(
                [self.arm.python, "-c", DRIVER, *arguments],
                env={**self.environment, **environment},
                cwd=self.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, is_so: Callable[[], bool], process: subprocess.Popen[bytes], timeout: float) -> None:
        """Wait for what *process* is to bring about."""
        deadline = time.monotonic() + timeout
        while not is_so():
            if process.poll() is not None or time.monotonic() > deadline:
                said = "".join(path.read_text(errors="replace")[-3000:] for path in self.path.glob("*.out"))
                raise RuntimeError(f"{self.arm.label}: ended early or took longer than {timeout:g} s\n{said}")
            time.sleep(0.05)

    def usage(self) -> dict[str, float]:
        """Give the CPU seconds that the process which ended last took."""
        usage: dict[str, float] = json.loads((self.path / "usage.json").read_text())
        return usage


def migrated(directory: Path, url: str) -> Path:
    """Make the metastore that every run gets a copy of."""
    home = Home(directory, Arm("migration", None), url)
    process = home.start("db", "migrate")
    if process.wait(180):
        raise RuntimeError((directory / "db.out").read_text(errors="replace")[-3000:])
    return directory / "airflow.db"


def end(process: subprocess.Popen[bytes], patience: float = 20) -> None:
    """End *process*, which leads a process group of its own, and what is left of the group."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait(patience)


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Give the median of each figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def ratio(rounds: Iterable[dict[str, dict[str, float]]], figure: str, label: str, to: str) -> float | None:
    """Give the median, over the rounds, of one arm's figure divided by another's of the same round."""
    pairs = [(one[label][figure], one[to][figure]) for one in rounds if label in one and to in one]
    return statistics.median(a / b for a, b in pairs) if pairs and all(b for _, b in pairs) else None
