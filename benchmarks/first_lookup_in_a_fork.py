"""The first lookup of a forked child, in which Airflow's DAG files and tasks run, and its total cost.

    python benchmarks/first_lookup_in_a_fork.py --official PYTHON [STORE …]

PYTHON is the interpreter of an environment with the official providers and the same Airflow; without it the official
classes are left out. Each run is a fresh process that has Airflow loaded, constructs the backend and forks: a child
that looks one variable up, and one that looks nothing up. Columns, medians of interleaved runs:

- child: CPU ms of the child's first lookup, as measured by the child;
- frozen: the same if the parent has frozen its heap, as Airflow's DAG processor and LocalExecutor do;
- after: the same if the parent looked something up before the fork (the ratio is to the official "child");
- idle: CPU ms of a child that looks nothing up, from the fork to its end;
- bill: CPU ms of the parent beyond loading Airflow, and of one child with one lookup;
- pod: the same in the pod of a KubernetesExecutor, which forks once, for its one task;
- none: the same, for a task that looks nothing up;
- MB: the parent's memory after the fork (proportional set size, or resident if the system does not report it);
- both MB: the same for the parent and one child together, which has looked the variable up and is still alive;
- after MB: the same for a parent that has looked something up itself.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.setups import ROOT, SETUPS, Setup, chosen

COLUMNS = ("child", "frozen", "after", "idle", "bill", "pod", "none", "MB", "both MB", "after MB")

PROGRAM = """
import gc, json, os, resource, signal, sys, time, types
import airflow.configuration, airflow.models, airflow.secrets.base_secrets
begun = time.process_time()
{make}

def in_a_child(work):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # A child that hangs in C, where no Python handler runs, is ended all the same.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm({longest})
        os.close(reader)
        os.write(writer, json.dumps(work()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        result = json.loads(told.read() or "null")
    _, status, used = os.wait4(child, 0)
    if status == signal.SIGALRM:
        return float("nan"), float("nan")
    assert status == 0, status
    return result, (used.ru_utime + used.ru_stime) * 1000

def look_up():
    started = time.process_time()
    assert backend.get_variable("x") == "1"
    return (time.process_time() - started) * 1000

def nothing():
    return 0.0

def memory():
    try:
        rollup = open("/proc/self/smaps_rollup").read()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(rollup.partition("Pss:")[2].split()[0]) / 1024

def beside_a_child():
    looked_up, let_go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm({longest})
        os.close(let_go[1])
        look_up()
        os.write(looked_up[1], b".")
        os.read(let_go[0], 1)
        os.write(looked_up[1], json.dumps(memory()).encode())
        os.read(let_go[0], 1)
        os._exit(0)
    os.close(looked_up[1])
    os.read(looked_up[0], 1)
    of_parent = memory()
    os.write(let_go[1], b".")
    of_child = json.loads(os.read(looked_up[0], 100) or "NaN")
    os.close(let_go[1])
    os.waitpid(child, 0)
    return of_parent + of_child

figures = {{}}
if {mode!r} == "idle parent":
    figures["child"], spent = in_a_child(look_up)
    figures["bill"] = (time.process_time() - begun) * 1000 + spent
    figures["MB"] = memory()
    figures["idle"] = in_a_child(nothing)[1]
    figures["both MB"] = beside_a_child()
elif {mode!r} == "frozen parent":
    gc.freeze()
    figures["frozen"] = in_a_child(look_up)[0]
elif {mode!r} in ("pod", "none"):
    # What a process is told by: see ONE_TASK_MODULES in lookup/forks.py.
    sys.modules["__main__"].__spec__ = types.SimpleNamespace(name="airflow.sdk.execution_time.execute_workload")
    spent = in_a_child(look_up if {mode!r} == "pod" else nothing)[1]
    figures[{mode!r}] = (time.process_time() - begun) * 1000 + spent
else:
    look_up()
    figures["after MB"] = memory()
    figures["after"] = in_a_child(look_up)[0]
print("\\n" + json.dumps(figures))
"""
LONGEST = 30
"""Seconds after which a child counts as hanging; half a second is usual on a busy machine."""
MODES = ("idle parent", "frozen parent", "pod", "none", "busy parent")
NONE = "class backend:\n    get_variable = staticmethod({'x': '1'}.get)\n"


def run(make: str, python: str, environment: dict[str, str], modes: Sequence[str] = MODES) -> dict[str, float]:
    """Return the figures of one round: a fresh process for each mode."""
    figures: dict[str, float] = {}
    for mode in modes:
        done = subprocess.run(
            [python, "-W", "ignore", "-c", PROGRAM.format(make=make, mode=mode, longest=LONGEST)],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{mode}: {done.stderr[-3000:]}")
        figures |= json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(setup: Setup, official: str | None, runs: int) -> list[dict[str, dict[str, float]]]:
    """Return the figures of each arm in each round; the arms take turns. Those of a child that hung are NaN."""
    arms = {"no backend": (NONE, sys.executable), "ours": (setup.ours, sys.executable)}
    if official:
        arms["official"] = (setup.official, official)
    return [
        {label: run(make, python, setup.environment) for label, (make, python) in arms.items()} for _ in range(runs + 1)
    ][1:]  # the first writes bytecode and fills the file cache


def median(figures: Iterable[float]) -> float:
    """Return the median of the figures that are not NaN."""
    numbers = [figure for figure in figures if not math.isnan(figure)]
    return statistics.median(numbers) if numbers else math.nan


def compare(setup: Setup, official: str | None, runs: int) -> dict[str, dict[str, float]]:
    """Print and return the medians of each arm, and of the pairwise ratios of ours to the official class."""
    rounds = measure(setup, official, runs)
    found = {label: {column: median(one[label][column] for one in rounds) for column in COLUMNS} for label in rounds[0]}
    if official:
        found["ours / official"] = {
            # A child of the official class keeps using its parent's client, which has answered one child with another
            # one's secret. So ours is compared with the official class's first lookup.
            column: median(
                one["ours"][column] / one["official"]["child" if column == "after" else column] for one in rounds
            )
            for column in COLUMNS
        }
    print(f"{setup.name}: medians of {runs} interleaved runs, Python {sys.version.split()[0]}")
    print(" " * 18 + "".join(f"{column:>10}" for column in COLUMNS))
    for label, figures in found.items():
        print(f"  {label:<16}" + "".join(f"{figures[column]:10.2f}" for column in COLUMNS), flush=True)
    for label in rounds[0]:
        if hung := sum(math.isnan(figure) for one in rounds for figure in one[label].values()):
            print(f"  {label}: {hung} figures left out, of children that hung for {LONGEST} s")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", choices=[*SETUPS, []])
    parser.add_argument("--official", metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the medians there")
    arguments = parser.parse_args()
    found = {setup.name: compare(setup, arguments.official, arguments.runs) for setup in chosen(arguments.stores)}
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
