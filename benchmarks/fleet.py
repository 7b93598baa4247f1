"""The requests of a fleet to the store in one day, extrapolated from measured processes.

    python benchmarks/tasks.py --official PYTHON && python benchmarks/dag_parse.py --official PYTHON
    python benchmarks/fleet.py

Simulated, lookup by lookup: 1,000 hosts run 1,000,000 tasks in 24 hours, at uniformly random times; each looks up three
of 100 names, 70 of them absent, chosen uniformly at random. One DAG processor parses 50 files every 30 s, with 15
lookups each. The requests of a process without a shared cache come from the two measurements next to this file. If
processes share answers, a lookup is a call if no process that shares them has asked within the time to live. Prices and
limits are AWS's of November 2026.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from pathlib import Path

HOSTS, TASKS, LOOKUPS, NAMES, ABSENT = 1_000, 1_000_000, 3, 100, 70
PARSES, PARSED_LOOKUPS = 50 * 86_400 // 30, 15
DAY = 86_400.0
TTL, NEGATIVE_TTL, JITTER = 60.0, 30.0, (0.8, 1.0)
PAGES = 4  # 30 parameters, connections and variables, ten per page
DOLLARS_FOR_A_CALL = 0.05 / 10_000  # AWS Secrets Manager
SSM_LIMIT = 40.0  # calls per second, account and region


class Reach:
    """Processes that share answers: each name is requested again when its answer expires."""

    def __init__(self, jittered: random.Random) -> None:
        self._drawn = jittered
        self._until: dict[int, float] = {}

    def asks(self, name: int, now: float) -> bool:
        if now < self._until.get(name, 0.0):
            return False
        self._until[name] = now + (NEGATIVE_TTL if name < ABSENT else TTL) * self._drawn.uniform(*JITTER)
        return True


def shared(hosts: int, seed: int = 1) -> Counter[int]:
    """Return the calls per second if the processes of each of *hosts* share answers."""
    jittered, calls = random.Random(seed), Counter()
    reaches = [Reach(jittered) for _ in range(hosts)]
    server, processor = Reach(jittered), Reach(jittered)
    if hosts == 1:  # one cache for the whole fleet, the API server and the DAG processor included
        server = processor = reaches[0]
    tasks = [(jittered.uniform(0, DAY), True) for _ in range(TASKS)]
    parses = [(DAY * number / PARSES, False) for number in range(PARSES)]
    for now, is_task in sorted(tasks + parses):
        reach = reaches[jittered.randrange(hosts)] if is_task else processor
        for _ in range(LOOKUPS if is_task else PARSED_LOOKUPS):
            name = jittered.randrange(NAMES)
            calls[int(now)] += reach.asks(name, now)
            if is_task and name < ABSENT:  # for what the task's backend lacks, Airflow asks the API server's
                calls[int(now)] += server.asks(name, now)
    return calls


def preloaded() -> Counter[int]:
    """Return the calls per second if one cache for the fleet holds listings."""
    jittered, calls, now = random.Random(1), Counter(), 0.0
    while now < DAY:
        calls[int(now)] += PAGES
        now += min(TTL, NEGATIVE_TTL) * jittered.uniform(*JITTER)
    return calls


def measured(path: Path, arm: str) -> float | None:
    """Return the requests per task or parse, or ``None`` if the arm was not measured."""
    figures = json.loads(path.read_text())["median"].get(arm)
    return figures and figures["requests"] / figures["times"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).parent
    parser.add_argument("--tasks", type=Path, default=here / "tasks.json")
    parser.add_argument("--parses", type=Path, default=here / "dag_parse.json")
    given = parser.parse_args()
    print(f"{'':<34}{'calls a day':>14}{'USD a day':>11}{'of 40 a s':>11}{'peak a s':>10}")
    for arm in ("official", "official, use_cache", "ours"):
        by_task, by_parse = measured(given.tasks, arm), measured(given.parses, arm)
        if by_task is not None and by_parse is not None:
            show(arm, TASKS * by_task + PARSES * by_parse, None)
    for label, by_second in (
        ("ours, shared by each host", shared(HOSTS)),
        ("ours, shared by the fleet", shared(1)),
        ("ours, shared by the fleet, preload", preloaded()),
    ):
        show(label, by_second.total(), max(by_second.values()))


def show(label: str, calls: float, peak: int | None) -> None:
    print(
        f"{label:<34}{calls:>14,.0f}{calls * DOLLARS_FOR_A_CALL:>11.2f}{calls / DAY / SSM_LIMIT:>11.2f}"
        f"{'' if peak is None else peak:>10}"
    )


if __name__ == "__main__":
    main()
