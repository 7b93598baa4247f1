"""Cold start: import of the SDK, client, login and first answer, in a fresh process that has Airflow loaded.

    python benchmarks/cold_start.py --official PYTHON [STORE …]

PYTHON is the interpreter of an environment with the official providers and the same Airflow; without it the official
classes are left out. A process pays this cost once; a forked child inherits most of it (``first_lookup_in_a_fork.py``).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.paired import Contender, compare
from benchmarks.setups import ROOT, SETUPS, chosen

ASKED = '\nassert backend.get_variable("x") == "1"\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", choices=[*SETUPS, []])
    parser.add_argument("--official", metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    for setup in chosen(arguments.stores):
        environment = {**setup.environment, "PYTHONPATH": str(ROOT)}
        contenders = [
            Contender("ours", setup.ours + ASKED, environment=environment),
            Contender("plain SDK", setup.plain + '\nassert look_up() == "1"\n', environment=environment),
        ]
        if arguments.official:
            official = Contender("official class", setup.official + ASKED, arguments.official, environment)
            contenders.insert(1, official)
        compare(f"cold start, {setup.name}", contenders, arguments.runs)


if __name__ == "__main__":
    main()
