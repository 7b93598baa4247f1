"""A fork for each DAG file and 15 lookups in it, without Airflow's DAG processor around it.

    python benchmarks/fork_per_file.py --official PYTHON

PYTHON is the interpreter of an environment with ``apache-airflow-providers-amazon`` and the same Airflow; without it
the official class is left out. The parent has Airflow and its metastore loaded, has constructed the backend and looks
nothing up. It forks for each of 50 files; the child looks up 10 variables and 5 connections in Airflow's search order
(backend, environment, metastore) and ends. Of the 100 names 70 are absent, so that Airflow goes on to the metastore; in
the floor, which has no backend, the 30 others are environment variables.

"child CPU" is the total of a child, from the fork to its end, "lookups CPU" the part in which it looks up, and "CPU"
adds the parent's. The arms take turns, each with its own home, metastore and (if it has one) shared cache.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.arms import Arm, Home, add_arguments, compare
from benchmarks.dag_parse import CONNECTIONS_PER_FILE, TIMEOUT, VARIABLES_PER_FILE, lookups
from benchmarks.store import Store

PROGRAM = """
import json, os, statistics, sys, time, warnings
warnings.simplefilter("ignore")
from airflow.configuration import ensure_secrets_loaded
from airflow.models import Connection, Variable
from airflow.secrets.metastore import MetastoreBackend

ensure_secrets_loaded()
MetastoreBackend().get_variable("none")
MetastoreBackend().get_connection("none")

def look_up(variables, connections, expected):
    started, cpu_started = time.time(), time.process_time()
    answers = {name: Variable.get(name, "absent") for name in variables}
    for name in connections:
        try:
            answers[name] = Connection.get_connection_from_secrets(name).host
        except Exception as error:
            answers[name] = "absent" if "isn't defined" in str(error) else repr(error)
    used, ended = time.process_time() - cpu_started, time.time()
    assert answers == expected, answers
    return used, ended - started

begun, own = time.time(), time.process_time()
found = []
for file in json.load(sys.stdin):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, json.dumps(look_up(**file)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        lookups = json.loads(told.read())
    spent = os.wait4(child, 0)[2]
    found.append((*lookups, spent.ru_utime + spent.ru_stime))
own = (time.process_time() - own) / len(found)
cpu, wall, children = (statistics.median(column) * 1000 for column in zip(*found))
seconds = time.time() - begun
print("\\n" + json.dumps({
    "lookups CPU ms": cpu, "lookups wall ms": wall, "child CPU ms": children, "own CPU ms": own * 1000,
    "CPU ms": children + own * 1000, "wall ms": seconds / len(found) * 1000, "seconds": seconds,
}))
"""


def fork(arm: Arm, home: Home, store: Store, count: int) -> dict[str, float]:
    """Fork for each of *count* files, and return the figures."""
    store.counts()
    done = subprocess.run(
        [arm.python, "-c", PROGRAM],
        env=home.environment,
        cwd=home.path,
        input=json.dumps(lookups(count)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{arm.label}: {done.stderr[-3000:]}")
    counts = store.counts()
    return {
        "times": count,
        "requests": counts.get("requests", 0),
        "pages": counts.get("GetParametersByPath", 0),
        "connections": counts.get("connections", 0),
        **json.loads(done.stdout.splitlines()[-1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--files", type=int, default=50)
    given = parser.parse_args()
    compare(
        f"{given.files} forks of {VARIABLES_PER_FILE + CONNECTIONS_PER_FILE} lookups each",
        given,
        lambda arm, home, store: fork(arm, home, store, given.files),
    )


if __name__ == "__main__":
    main()
