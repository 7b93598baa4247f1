"""DAG parsing with secrets at the top level of DAG files, by Airflow's own DAG processor.

    python benchmarks/dag_parse.py --official PYTHON

PYTHON is the interpreter of an environment with ``apache-airflow-providers-amazon`` and the same Airflow;
without it the official class is left out. Each of 50 files looks up 10 variables and 5 connections each time
it is parsed; of the 100 names 70 are absent. ``airflow dag-processor`` parses them until it has done so 10
times on average, each time in a child that it forks. The arms take turns, each with a home, a metastore and (where it has one) a shared cache
of its own. In the floor the same values are environment variables, so that what Airflow itself does about the
absent ones is the same in all arms.

Airflow asks the backend twice about a name that is absent: in the child, and then in the processor, to which the
child turns next.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.arms import Arm, Home, Names, arms, end, medians, migrated, ratio
from benchmarks.store import Store

VARIABLES_PER_FILE = 10
CONNECTIONS_PER_FILE = 5
TIMEOUT = 170.0
"""Seconds for one arm in one round."""

DAG_FILE = """
import os, time
from airflow.sdk import DAG, BaseHook, Variable

started, cpu_started = time.time(), time.process_time()
answers = {{name: Variable.get(name, "absent") for name in {variables!r}}}
for name in {connections!r}:
    try:
        answers[name] = BaseHook.get_connection(name).host
    except Exception as error:
        answers[name] = "absent" if "isn't defined" in str(error) else repr(error)
used, ended = time.process_time() - cpu_started, time.time()

with DAG("parsed_{number}", schedule=None):
    pass

line = f"{{started}} {{ended}} {{used}} {{answers == {expected!r}}}\\n"
journal = os.open({journal!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(journal, line.encode())
os.close(journal)
"""


def write_dag_files(home: Home, files: int) -> Path:
    """Write DAG files that note each of their parses in a journal, a line for each."""
    journal = home.path / "journal"
    present = Names.present()
    for number in range(files):
        variables = _some(Names.variables, number, VARIABLES_PER_FILE)
        connections = _some(Names.connections, number, CONNECTIONS_PER_FILE)
        expected = {name: present["variables"].get(name, "absent") for name in variables} | {
            name: name if name in present["connections"] else "absent" for name in connections
        }
        (home.path / "dags" / f"parsed_{number}.py").write_text(
            DAG_FILE.format(
                number=number, variables=variables, connections=connections, expected=expected, journal=str(journal)
            )
        )
    return journal


def _some(names: list[str], number: int, count: int) -> list[str]:
    return [names[(number * count + position) % len(names)] for position in range(count)]


def parse(arm: Arm, home: Home, store: Store, files: int, parses: int) -> dict[str, float]:
    """Have files parsed until they have been *parses* times on average, and give what that came to."""
    journal = write_dag_files(home, files)
    store.counts()
    processor = home.start("dag-processor", AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL="0")
    try:
        # Airflow's own --num-runs ends before the first result where that takes a few rounds of its loop.
        home.wait_until(lambda: len(_lines(journal)) >= files * parses, processor, TIMEOUT)
        counts, lines = store.counts(), _lines(journal)
    finally:
        end(processor)
    used, count = home.usage(), len(_lines(journal))
    wrong = [line for line in lines if line[3] != "True"]
    if wrong:
        raise RuntimeError(f"{arm.label}: {len(wrong)} parses of {len(lines)} had a wrong answer")
    started, ended = min(float(line[0]) for line in lines), max(float(line[1]) for line in lines)
    return {
        "parses": len(lines),
        "requests": counts.get("requests", 0),
        "listing pages": counts.get("GetParametersByPath", 0),
        "connections": counts.get("connections", 0),
        "lookups CPU ms": statistics.median(float(line[2]) for line in lines) * 1000,
        "lookups wall ms": statistics.median(float(line[1]) - float(line[0]) for line in lines) * 1000,
        "child CPU ms": used["children"] / count * 1000,
        "processor CPU ms": used["own"] / count * 1000,
        "CPU ms": (used["children"] + used["own"]) / count * 1000,
        "wall ms": (ended - started) / len(lines) * 1000,
        "seconds": ended - started,
    }


def _lines(journal: Path) -> list[list[str]]:
    return [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []


def compare(
    official: str | None, *, files: int, parses: int, rounds: int, latency: float, lifetimes: dict[str, float]
) -> dict[str, Any]:
    """Run every arm in every round, and give all figures, their medians and ratios."""
    compared = arms(official, **lifetimes)
    store = Store(Names.parameters(), latency)
    ran: list[dict[str, dict[str, float]]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="dag-parse-", ignore_cleanup_errors=True) as directory:
            database = migrated(Path(directory, "migrated"), store.url)
            for number in range(rounds):
                ran.append({})
                # Each round starts with another arm, so that none is always the first.
                for position in range(len(compared)):
                    arm = compared[(position + number) % len(compared)]
                    home = Home(Path(directory, f"{number}-{position}"), arm, store.url, database)
                    ran[-1][arm.label] = parse(arm, home, store, files, parses)
    finally:
        store.stop()
    median = {arm.label: medians([one[arm.label] for one in ran]) for arm in compared}
    ratios = {
        arm.label: {
            f"{figure} / {to.partition(':')[0]}": found
            for to in (compared[0].label, "official")
            for figure in ("lookups CPU ms", "child CPU ms", "CPU ms", "wall ms", "requests")
            if (found := ratio(ran, figure, arm.label, to)) is not None
        }
        for arm in compared
    }
    return {
        "files": files,
        "parses": parses,
        "rounds": rounds,
        "latency": latency,
        "lifetimes": lifetimes,
        "names": Names.count,
        "lookups": files * parses * (VARIABLES_PER_FILE + CONNECTIONS_PER_FILE),
        "median": median,
        "ratios": ratios,
        "rounds' figures": ran,
    }


def show(found: dict[str, Any]) -> None:
    columns = (
        "requests",
        "connections",
        "lookups CPU ms",
        "child CPU ms",
        "processor CPU ms",
        "CPU ms",
        "wall ms",
        "seconds",
    )
    print(
        f"{found['lookups']} lookups of {found['names']} names: {found['files']} files, {found['parses']} parses of each;"
        f" medians of {found['rounds']} rounds, ms per parse; lifetimes: {found['lifetimes'] or 'defaults'}"
    )
    print(f"  {'':<26}" + "".join(f"{column:>18}" for column in columns))
    for label, figures in found["median"].items():
        print(f"  {label:<26}" + "".join(f"{figures[column]:>18.1f}" for column in columns))
    for label, ratios in found["ratios"].items():
        print(f"  {label:<26}" + "   ".join(f"{name} {value:.3f}" for name, value in ratios.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", metavar="PYTHON")
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--parses", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that the store thinks")
    parser.add_argument("--lifetime", type=float, help="seconds: cache_ttl and cache_negative_ttl, else the defaults")
    parser.add_argument("--json", type=Path, default=Path("dag_parse.json"), help="where the figures are written")
    parser.add_argument("--quick", action="store_true", help="a few files, twice, once: for tests")
    given = parser.parse_args()
    if given.quick:
        given.files, given.parses, given.rounds = 4, 2, 1
    lifetimes = dict.fromkeys(("cache_ttl", "cache_negative_ttl"), given.lifetime) if given.lifetime else {}
    found = compare(
        given.official,
        files=given.files,
        parses=given.parses,
        rounds=given.rounds,
        latency=given.latency,
        lifetimes=lifetimes,
    )
    show(found)
    given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
