"""The benchmarks that check answers, for a few seconds; those that measure are for a quiet machine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_providers_secrets
from tests.rigs.redis import redis_url

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.parametrize("shared", [False, True], ids=["each process", "shared"])
def test_soak(tmp_path: Path, *, shared: bool) -> None:
    place = ["--shared-cache", f"file://{tmp_path}/shared"] if shared else []
    run = _run("soak.py", "--seconds", "4", *place)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "wrong: 0" in run.stdout
    assert "found" in run.stdout


@pytest.mark.long
def test_dag_processor_reads_in_bulk(tmp_path: Path) -> None:
    """Airflow's own DAG processor, its children and one shared listing of each kind; wrong answers end the program."""
    figures = tmp_path / "figures.json"
    run = _run("dag_parse.py", "--quick", "--lifetime", "300", "--only", "ours, preload, 300 s", "--json", str(figures))
    if not importlib.util.find_spec("airflow.sdk"):
        assert run.returncode != 0
        assert "need Airflow 3" in run.stderr
        return
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(figures.read_text())["median"]["ours, preload, 300 s"]
    assert found["times"] >= 8
    # 9 connections and 21 variables, ten a page. One by one it would be 15 for each parse.
    assert found["requests"] == found["pages"] == 4


@pytest.mark.long
def test_forks_share_what_one_asked_for(tmp_path: Path) -> None:
    """Eight forks, one after another, look 100 names up, 20 of them twice; wrong answers end the program."""
    figures = tmp_path / "figures.json"
    arms = ("--only", "ours", "--only", "ours, shared, 300 s")
    run = _run("fork_per_file.py", "--files", "8", "--lifetime", "300", *arms, "--json", str(figures))
    if not importlib.util.find_spec("airflow.sdk"):
        assert run.returncode != 0
        assert "need Airflow 3" in run.stderr
        return
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(figures.read_text())["median"]
    assert {label: arm["requests"] for label, arm in found.items()} == {"ours": 120, "ours, shared, 300 s": 100}


@pytest.mark.long
def test_redis_fails_over() -> None:
    """Fifty times is for a quiet machine."""
    redis_url()
    run = _run("redis_failover.py", "--elections", "1", "--deaths", "1", "--moves", "2", "--timeout", "40")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "problems: none" in run.stdout


@pytest.mark.long
def test_one_redis_under_a_fleet(tmp_path: Path) -> None:
    redis_url()
    figures = tmp_path / "figures.json"
    run = _run("redis_load.py", "--quick", "--json", str(figures))
    assert run.returncode == 0, run.stdout + run.stderr
    assert [(one["tls"], one["missed"], one["hits/s"] > 0) for one in json.loads(figures.read_text())] == [
        (False, 0, True),
        (True, 0, True),
    ]


@pytest.mark.long
@pytest.mark.parametrize("store", ["ssm", "vault", "azure", "google-rest"])
def test_requests_are_as_many_as_the_figures_say(tmp_path: Path, store: str) -> None:
    """One for 100 lookups of a name, one for each child, and one for all children that share; whatever the machine."""
    figures = _run("bench.py", "--ours-alone", "--parts", "requests", "--stores", store, "--out", str(tmp_path))
    assert figures.returncode == 0, figures.stdout + figures.stderr
    (found,) = json.loads((tmp_path / "bench.json").read_text())["stores"].values()
    assert found["requests"] == {
        "ours": {"100 lookups": 1, "10 children": 10},
        "ours, shared_cache": {"10 children": 1},
    }


@pytest.mark.long
def test_an_outage_costs_five_lookups_their_attempts(tmp_path: Path) -> None:
    """The other five are refused at once: the store counts as down."""
    run = _run(
        "bench.py",
        "--ours-alone",
        "--parts",
        "shared",
        "outage",
        "--runs",
        "1",
        "--stores",
        "ssm",
        "--out",
        str(tmp_path),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (found,) = json.loads((tmp_path / "bench.json").read_text())["stores"].values()
    assert found["outage"]["ours"]["requests"] == 15
    assert found["outage"]["ours"]["first"] < found["outage"]["ours"]["all"]
    assert list(found["shared"]["median"]["ours"]) == ["child"]


HANGING = """
import math, sys
import benchmarks.first_lookup_in_a_fork as fork

fork.LONGEST = 1
make = '''
import os, time
parent = os.getpid()
class backend:
    def get_variable(key):
        while os.getpid() != parent:
            time.sleep(1)
        return "1"
'''
figures = fork.run(make, sys.executable, {})
print(sorted(name for name, figure in figures.items() if math.isnan(figure)))
"""


@pytest.mark.long
def test_a_child_that_hangs_is_left_out() -> None:
    run = subprocess.run(
        [sys.executable, "-c", HANGING], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.stdout.splitlines()[-1:] == ["['after', 'bill', 'both MB', 'child', 'frozen', 'pod']"], (
        run.stdout + run.stderr
    )


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"benchmarks/{program}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(Path(airflow_providers_secrets.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
