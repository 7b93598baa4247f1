"""What a store's backend adds to an environment that has Airflow: distributions and megabytes on disk.

    python benchmarks/weight.py

Counted from the metadata of installed distributions: those that the official provider, or this package's extra,
requires and Airflow itself does not. Nothing is run, so the figures are always the same in the same environment.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from typing import Final

from packaging.requirements import Requirement

AIRFLOW: Final = ("apache-airflow", ())
OURS: Final = "airflow-providers-secrets"
PAIRS: Final = {
    "aws": "apache-airflow-providers-amazon",
    "vault": "apache-airflow-providers-hashicorp",
    "azure": "apache-airflow-providers-microsoft-azure",
    "google": "apache-airflow-providers-google",
    "kubernetes": "apache-airflow-providers-cncf-kubernetes",
}
"""The official provider of each extra."""
MEGABYTE: Final = 1024 * 1024


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def needed(name: str, extras: tuple[str, ...] = ()) -> set[str]:
    """Return every installed distribution that *name* requires with these *extras*, including *name* itself."""
    seen: dict[str, set[str]] = {}
    todo = [(_name(name), extras)]
    while todo:
        one, wanted = todo.pop()
        known = seen.get(one)
        if known is not None and known >= set(wanted):
            continue
        seen[one] = {*(known or ()), *wanted}
        try:
            requires = importlib.metadata.distribution(one).requires or []
        except importlib.metadata.PackageNotFoundError:
            del seen[one]
            continue
        for line in requires:
            required = Requirement(line)
            if any(required.marker is None or required.marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                todo.append((_name(required.name), tuple(required.extras)))
    return set(seen)


def is_whole(name: str) -> bool:
    """Tell whether *name* is installed with all its direct requirements."""
    try:
        lines = importlib.metadata.distribution(name).requires or []
        for required in map(Requirement, lines):
            if required.marker is None or required.marker.evaluate({"extra": ""}):
                importlib.metadata.distribution(required.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def megabytes(names: set[str]) -> float:
    """Return the size of *names* on disk in MB, without bytecode."""
    return sum(size for name in names for size in _sizes(name)) / MEGABYTE


def _sizes(name: str) -> Iterator[int]:
    for path in importlib.metadata.distribution(name).files or []:
        located = path.locate()
        if path.suffix != ".pyc" and located.is_file():
            yield located.stat().st_size


def weigh() -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures of each pair, by extra; those of an official provider only if it is installed completely."""
    base = needed(*AIRFLOW)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for extra, provider in PAIRS.items():
        arms = {"ours": needed(OURS, (extra,)) - base}
        if is_whole(provider):
            arms["official"] = needed(provider) - base
        found[extra] = {
            label: {"distributions": len(names), "MB": round(megabytes(names), 1)} for label, names in arms.items()
        }
    return found


if __name__ == "__main__":
    for extra, arms in weigh().items():
        print(extra, arms)
