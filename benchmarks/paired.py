"""Runs small programs in turn, each in a fresh process that has Airflow loaded, and compares their CPU time.

The machine's noise affects all of them alike, so the ratios carry over to other machines; the milliseconds do
not.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

PREAMBLE = """
import json, time
import airflow.configuration, airflow.models, airflow.secrets.base_secrets
_started = time.process_time()
"""
POSTSCRIPT = """
print("\\n" + json.dumps((time.process_time() - _started) * 1000))
"""


@dataclass
class Contender:
    """One way to do the task: its code runs between two readings of the process's CPU clock."""

    label: str
    code: str
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)

    def run(self) -> float:
        done = subprocess.run(
            [self.python, "-c", PREAMBLE + self.code + POSTSCRIPT],
            # Bytecode is written, as in any installation.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{self.label}: {done.stderr[-2000:]}")
        return float(json.loads(done.stdout.splitlines()[-1]))


def measure(contenders: list[Contender], runs: int) -> list[dict[str, float]]:
    """Return the CPU ms of each contender in each round; they take turns."""
    for contender in contenders:
        contender.run()  # writes bytecode, fills the file cache
    return [{contender.label: contender.run() for contender in contenders} for _ in range(runs)]


def compare(title: str, contenders: list[Contender], runs: int) -> dict[str, float]:
    """Print the medians, and the median of the pairwise ratios of the first contender to each other one.

    :return: those ratios by label.
    """
    rounds = [list(one.values()) for one in measure(contenders, runs)]
    print(f"{title}: CPU ms, {runs} interleaved runs, Python {sys.version.split()[0]}")
    ratios = {}
    for position, contender in enumerate(contenders):
        figures = [one[position] for one in rounds]
        ratio = statistics.median(one[0] / one[position] for one in rounds)
        ratios[contender.label] = ratio
        print(
            f"  {contender.label:<24} median {statistics.median(figures):7.1f}  min {min(figures):7.1f}"
            f"  max {max(figures):7.1f}   {contenders[0].label} / this: {ratio:.2f}"
        )
    return ratios
