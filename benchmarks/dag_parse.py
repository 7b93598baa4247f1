"""DAG parsing with secrets at the top level of DAG files, by Airflow's own DAG processor.

    python benchmarks/dag_parse.py --official PYTHON

PYTHON is the interpreter of an environment with ``apache-airflow-providers-amazon`` and the same Airflow;
without it the official class is left out. Each of 50 files looks up 10 variables and 5 connections whenever it
is parsed; of the 100 names 70 are absent. ``airflow dag-processor`` parses the files in children that it forks,
until it has done so 500 times. The arms take turns, each with its own home, metastore and (if it has one) shared
cache. In the floor the same values are environment variables, so that what Airflow itself does about absent names is
the same in all arms.

Airflow asks a backend twice about an absent name: in the child, and then in the processor, which the child asks next.

"CPU" counts from the first parse on and excludes start-up. "lookups" is the part of a child in which it looks up.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.arms import Arm, Home, Names, Used, add_arguments, compare, end, read_journal, summary
from benchmarks.store import Store

VARIABLES_PER_FILE = 10
CONNECTIONS_PER_FILE = 5
TIMEOUT = 600.0
"""Maximum seconds for one arm in one round, even on a busy machine."""

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
    """Write DAG files that add a line to a journal for each parse, and return the journal's path."""
    journal = home.path / "journal"
    for number, looked_up in enumerate(lookups(files)):
        (home.path / "dags" / f"parsed_{number}.py").write_text(
            DAG_FILE.format(number=number, journal=str(journal), **looked_up)
        )
    return journal


def lookups(files: int) -> list[dict[str, Any]]:
    """Return what each file looks up, and the expected answers."""
    present = Names.present()
    made = []
    for number in range(files):
        variables = _some(Names.variables, number, VARIABLES_PER_FILE)
        connections = _some(Names.connections, number, CONNECTIONS_PER_FILE)
        expected = {name: present["variables"].get(name, "absent") for name in variables} | {
            name: name if name in present["connections"] else "absent" for name in connections
        }
        made.append({"variables": variables, "connections": connections, "expected": expected})
    return made


def _some(names: list[str], number: int, count: int) -> list[str]:
    return [names[(number * count + position) % len(names)] for position in range(count)]


def parse(arm: Arm, home: Home, store: Store, files: int, parses: int) -> dict[str, float]:
    """Let Airflow parse *files* until each was parsed *parses* times on average, and return the figures."""
    journal = write_dag_files(home, files)
    store.counts()
    processor = home.start("dag-processor", AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL="0")
    try:
        # Start-up is over when the first file has been parsed.
        home.wait_until(lambda: bool(read_journal(journal)), processor, TIMEOUT)
        before, first = Used.by(processor), len(read_journal(journal))
        # Airflow's own --num-runs would end before the first result if that takes a few rounds of its loop.
        home.wait_until(lambda: len(read_journal(journal)) >= files * parses, processor, TIMEOUT)
        used, lines = Used.by(processor).since(before), read_journal(journal)
        counts, count = store.counts(), len(lines) - first
    finally:
        end(processor)
    return summary(arm.label, lines, counts, used, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--parses", type=int, default=10, help="of each file, on average")
    parser.add_argument(
        "--quick", action="store_true", help="a few files, twice, and the shared cache alone: for tests"
    )
    given = parser.parse_args()
    if given.quick:
        given.files, given.parses, given.rounds = 4, 2, 1
        given.only = given.only or ["ours, shared", "ours, preload"]
    compare(
        f"{given.files * given.parses} parses of {VARIABLES_PER_FILE + CONNECTIONS_PER_FILE} lookups each",
        given,
        lambda arm, home, store: parse(arm, home, store, given.files, given.parses),
    )


if __name__ == "__main__":
    main()
