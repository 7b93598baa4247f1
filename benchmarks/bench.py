"""Every comparison with the official classes in one run: ``tox run -e bench``.

    python benchmarks/bench.py [--stores STORE …] [--runs N] [--whole] [--out DIRECTORY]

The official providers are installed with this package in one environment, and the arms take turns in each round, so
that the machine's noise affects all of them alike. Medians, the median of the ratios per round, and their quartiles are
printed, and written to ``bench.json`` with every single figure, and to ``*.svg``.

- weight: distributions and megabytes beyond Airflow's own, if the provider is installed with all that it requires;
- import: CPU ms of importing the backend's module, and of importing and constructing the backend;
- cold: CPU ms of a first lookup in a fresh process;
- fork: what ``first_lookup_in_a_fork.py`` measures: children of an idle, a frozen and a busy parent, a pod with one
  lookup, with none, and memory;
- lookups: µs of a lookup that is answered from the process, of one that asks, of one of an absent name, and of 16
  threads; requests for 100 lookups of one name, in one process and in 10 children;
- shared: CPU ms of a child's first lookup for which another process has left the answer in a shared directory, and
  those of the official class, which asks;
- outage: seconds and requests of ten lookups of ten names while the store answers only that it is overloaded;
- whole: Airflow's DAG processor and tasks (``dag_parse.py``, ``tasks.py``), an hour or more; only with ``--whole``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import first_lookup_in_a_fork, weight
from benchmarks.paired import Contender, measure
from benchmarks.setups import ROOT, SETUPS, Setup

HELD_AGAINST: Final = {"after": "child"}
"""The official class's figure with which ours is compared, if it is not the same one: its children keep using their
parent's client, which has answered one child with another one's secret."""

IDLE: Final = ("idle parent",)
PARTS: Final = ("import", "cold", "fork", "lookups", "shared", "requests", "outage")

Rounds = list[dict[str, dict[str, float]]]
"""For each round, for each arm, figures by name."""

LOOKUPS: Final = """
import json, multiprocessing, os, sys, tempfile, timeit
from concurrent.futures import ThreadPoolExecutor
import airflow.configuration, airflow.models, airflow.secrets.base_secrets
{make}
backend.get_variable("x")
def each(work, number):
    return min(timeit.repeat(work, number=number, repeat=5)) / number * 1e6
figures = {{"again": each(lambda: backend.get_variable("x"), 20)}}
names = iter(range(1000))
figures["absent"] = each(lambda: backend.get_variable(f"absent-{{next(names)}}"), 10)
with ThreadPoolExecutor(16) as pool:
    figures["16 threads"] = each(lambda: list(pool.map(backend.get_variable, ["x"] * 64)), 1) / 64
print("\\n" + json.dumps(figures))
"""
COUNTED: Final = """
import os
import airflow.configuration, airflow.models, airflow.secrets.base_secrets
{make}
def in_children(number):
    for _ in range(number):
        child = os.fork()
        if child == 0:
            ended = 1
            try:
                ended = int(backend.get_variable("x") != "1")
            finally:
                os._exit(ended)
        assert os.waitpid(child, 0)[1] == 0
if {children}:
    in_children({children})
else:
    assert [backend.get_variable("x") for _ in range(100)] == ["1"] * 100
"""
OUTAGE: Final = """
import json, signal, sys, time
import airflow.configuration, airflow.models, airflow.secrets.base_secrets
{make}
def given_up(*_):
    raise TimeoutError
signal.signal(signal.SIGALRM, given_up)
spent = []
for number in range(10):
    begun = time.monotonic()
    signal.alarm({longest})
    try:
        assert backend.get_variable(f"x-{{number}}") is None
    except Exception:
        pass
    signal.alarm(0)
    spent.append(time.monotonic() - begun)
print("\\n" + json.dumps({{"first": spent[0], "all": sum(spent)}}))
"""
LONGEST: Final = 5
"""Seconds after which a lookup is aborted in an outage; with the official classes, one may take a minute."""


def run(code: str, setup: Setup) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": str(ROOT), **setup.environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return done.stdout


def makers(setup: Setup, *, official: bool) -> dict[str, str]:
    return {"ours": setup.ours, **({"official": setup.official} if official else {})}


def imports(setup: Setup, runs: int, *, official: bool) -> Rounds:
    contenders = [
        Contender(f"{label} {what}", code, environment={**setup.environment, "PYTHONPATH": str(ROOT)})
        for label, make in makers(setup, official=official).items()
        for what, code in (("import", make.splitlines()[0]), ("import and build", make))
    ]
    return [split(one, ("import", "import and build")) for one in measure(contenders, runs)]


def cold(setup: Setup, runs: int, *, official: bool) -> Rounds:
    asked = '\nassert backend.get_variable("x") == "1"\n'
    contenders = [
        Contender(f"{label} first lookup", make + asked, environment={**setup.environment, "PYTHONPATH": str(ROOT)})
        for label, make in makers(setup, official=official).items()
    ]
    return [split(one, ("first lookup",)) for one in measure(contenders, runs)]


def split(figures: dict[str, float], names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for label, figure in figures.items():
        arm, _, name = label.partition(" ")
        assert name in names
        found.setdefault(arm, {})[name] = figure
    return found


def lookups(setup: Setup, runs: int, *, official: bool) -> Rounds:
    return [
        {
            label: json.loads(run(LOOKUPS.format(make=make), setup).splitlines()[-1])
            for label, make in makers(setup, official=official).items()
        }
        for _ in range(runs)
    ]


def counted(setup: Setup, directory: str, *, official: bool) -> dict[str, dict[str, float]]:
    """Return the requests for 100 lookups of one name in one process, and for one lookup in each of 10 children."""
    found: dict[str, dict[str, float]] = {}
    for label, make in makers(setup, official=official).items():
        found[label] = {}
        for name, children in (("100 lookups", 0), ("10 children", 10)):
            before = setup.calls()
            run(COUNTED.format(make=make, children=children), setup)
            found[label][name] = setup.calls() - before
    # Each run needs a directory of its own: otherwise the answers of an earlier run would be there.
    place = tempfile.mkdtemp(prefix="bench-", dir=directory)
    before = setup.calls()
    run(COUNTED.format(make=sharing(setup.ours, place), children=10), setup)
    found["ours, shared_cache"] = {"10 children": setup.calls() - before}
    return found


def sharing(make: str, place: str) -> str:
    """Return *make* with a shared cache in the directory *place*."""
    return make.rstrip().removesuffix(")") + f", shared_cache='file://{place}/shared', shared_cache_key='{'c' * 43}=')"


def shared(setup: Setup, runs: int, *, official: bool) -> Rounds:
    """Return the figures of children's first lookups; ours are answered from the shared cache."""
    with tempfile.TemporaryDirectory() as place:
        arms = {**makers(setup, official=official), "ours": sharing(setup.ours, place)}
        rounds = [
            {
                label: {"child": first_lookup_in_a_fork.run(make, sys.executable, setup.environment, IDLE)["child"]}
                for label, make in arms.items()
            }
            for _ in range(runs + 1)
        ]
    return rounds[1:]  # the first round asked the store, and left the answer


def outage(setup: Setup, *, official: bool) -> dict[str, dict[str, float]]:
    """Return the seconds and requests of lookups while the store is down, in one process for each arm."""
    found = {}
    with setup.outage():
        for label, make in makers(setup, official=official).items():
            before = setup.calls()
            found[label] = json.loads(run(OUTAGE.format(make=make, longest=LONGEST), setup).splitlines()[-1])
            found[label]["requests"] = setup.calls() - before
    return found


def summary(rounds: Rounds) -> dict[str, Any]:
    """Return medians by arm and figure, and the median and quartiles of the ratios of ours to the official class."""
    names = list(rounds[0]["ours"])
    found: dict[str, Any] = {
        "median": {
            arm: {name: first_lookup_in_a_fork.median(one[arm][name] for one in rounds) for name in names}
            for arm in rounds[0]
        }
    }
    if "official" in rounds[0]:
        found["ratio"] = {
            name: spread([one["ours"][name] / one["official"][HELD_AGAINST.get(name, name)] for one in rounds])
            for name in names
        }
    return found


def spread(ratios: list[float]) -> dict[str, float]:
    numbers = sorted(ratio for ratio in ratios if not math.isnan(ratio))
    if not numbers:
        return {"median": math.nan, "low": math.nan, "high": math.nan}
    low, middle, high = statistics.quantiles(numbers, n=4, method="inclusive") if len(numbers) > 1 else numbers * 3
    return {"median": middle, "low": low, "high": high}


def show(title: str, found: dict[str, Any]) -> None:
    print(f"\n{title}")
    for name in found["median"]["ours"]:
        figures = "  ".join(f"{arm} {figures[name]:9.2f}" for arm, figures in found["median"].items())
        ratio = found.get("ratio", {}).get(name)
        told = f"   ratio {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""
        print(f"  {name:<18}{figures}{told}", flush=True)


def plot(found: dict[str, Any], directory: Path) -> None:
    """Draw the ratios of each part, one bar for each store and figure, with their quartiles."""
    if not importlib.util.find_spec("matplotlib"):
        print("\nno plots: matplotlib is not installed")
        return
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "bench"
    from matplotlib import pyplot as plt

    for part in ("import", "cold", "fork", "lookups", "shared"):
        bars = [
            (f"{store}: {name}", ratio)
            for store, parts in found["stores"].items()
            for name, ratio in parts.get(part, {}).get("ratio", {}).items()
            if not math.isnan(ratio["median"])
        ]
        if not bars:
            continue
        figure, axes = plt.subplots(figsize=(9, 0.3 * len(bars) + 1.2), layout="constrained")
        medians = [ratio["median"] for _, ratio in bars]
        errors = [
            [max(0.0, ratio["median"] - ratio["low"]) for _, ratio in bars],
            [max(0.0, ratio["high"] - ratio["median"]) for _, ratio in bars],
        ]
        axes.barh([label for label, _ in bars], medians, xerr=errors, height=0.6)
        axes.axvline(1.0, color="black", linewidth=1)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel("here / official class: median, quartiles")
        axes.set_title(part)
        figure.savefig(directory / f"{part}.svg", metadata={"Date": None})
        plt.close(figure)


def whole(directory: Path) -> dict[str, Any]:
    found = {}
    for program in ("dag_parse", "tasks"):
        written = directory / f"{program}.json"
        arguments = ["--official", sys.executable, "--lifetime", "300", "--json", str(written)]
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / f"{program}.py"), *arguments], check=True)
        found[program] = json.loads(written.read_text())
    return found


def write(found: dict[str, Any], directory: Path) -> None:
    (directory / "bench.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="*", choices=list(SETUPS), default=list(SETUPS))
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--ours-alone", action="store_true", help="without the official classes")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("bench"))
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the server would log a line for each request
    parts = given.parts
    official = not given.ours_alone
    given.out.mkdir(parents=True, exist_ok=True)
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {given.runs} interleaved rounds")
    found: dict[str, Any] = {"python": platform.python_version(), "runs": given.runs, "stores": {}}
    found["weight"] = weight.weigh()
    print("\nweight: distributions and MB beyond Airflow's own")
    for extra, arms in found["weight"].items():
        print(
            f"  {extra:<12}" + "  ".join(f"{arm}: {one['distributions']}, {one['MB']} MB" for arm, one in arms.items())
        )
    for name in given.stores:
        setup = SETUPS[name]()
        store = found["stores"][setup.name] = {}
        for part, work in (("import", imports), ("cold", cold), ("lookups", lookups), ("shared", shared)):
            if part in parts:
                rounds = work(setup, given.runs, official=official)
                store[part] = {**summary(rounds), "rounds": rounds}
                show(f"{part}, {setup.name}, {'µs' if part == 'lookups' else 'CPU ms'}", store[part])
        if "fork" in parts:
            rounds = first_lookup_in_a_fork.measure(setup, sys.executable if official else None, given.runs)
            store["fork"] = {**summary(rounds), "rounds": rounds}
            show(f"fork, {setup.name}, CPU ms", store["fork"])
        if "requests" in parts:
            store["requests"] = counted(setup, str(given.out.resolve()), official=official)
            print(f"\nrequests, {setup.name}: {store['requests']}", flush=True)
        if "outage" in parts:
            store["outage"] = outage(setup, official=official)
            print(f"\noutage, {setup.name}: {store['outage']}", flush=True)
        write(found, given.out)  # a run that is cut short keeps what it has measured
    if given.whole:
        found["whole"] = whole(given.out)
    write(found, given.out)
    plot(found, given.out)
    print(f"\nwritten to {given.out}")


if __name__ == "__main__":
    main()
