"""The first lookup of a forked child that finds its answer in the shared cache, for each kind of cache.

    python benchmarks/shared_lookup_in_a_fork.py [--runs N] [PLACE …]

Each run is a fresh process that has Airflow loaded, constructs the backend, looks nothing up and forks; an earlier
process has left the answer. The columns are those of ``first_lookup_in_a_fork.py``; none of the counted runs asks the
store. The servers are redis-server, on this machine; TLS is mutual.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import first_lookup_in_a_fork
from benchmarks.setups import aws

COLUMNS: Final = ("child", "bill", "MB")
KEY: Final = "c29hay1zb2FrLXNvYWstc29hay1zb2FrLXNvYWstMDE="


@contextlib.contextmanager
def directory() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as made:
        yield f"file://{made}/cache"


@contextlib.contextmanager
def server(*, tls: bool = False) -> Iterator[str]:
    from tests.rigs import redis_fleet

    one = redis_fleet.RedisServer(tls=tls)
    try:
        yield f"rediss://127.0.0.1:{one.port}/0{redis_fleet.tls_query()}" if tls else f"redis://127.0.0.1:{one.port}/0"
    finally:
        one.stop()


@contextlib.contextmanager
def several(kind: str, **options: Any) -> Iterator[str]:
    from tests.rigs import redis_fleet

    servers = getattr(redis_fleet, kind)(**options)
    try:
        yield servers.url
    finally:
        servers.stop()


PLACES: Final[dict[str, Callable[[], contextlib.AbstractContextManager[str]]]] = {
    "directory": directory,
    "redis": server,
    "redis-tls": lambda: server(tls=True),
    "cluster": lambda: several("Cluster"),
    "cluster-tls": lambda: several("Cluster", tls=True),
    "sentinel": lambda: several("Sentinels"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", choices=[*PLACES, []])
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the store's server would log a line for each request
    store = aws("ssm")
    with contextlib.ExitStack() as stack:
        arms = {}
        for place in arguments.places or PLACES:
            options = {
                "shared_cache": stack.enter_context(PLACES[place]()),
                "shared_cache_key": KEY,
                "cache_ttl": 3000,
            }
            arms[place] = f"{store.ours[:-1]}, **{options!r})"
        rounds = []
        for number in range(arguments.runs + 1):  # the first writes bytecode and fills the caches
            calls = store.calls()
            rounds.append(
                {
                    place: first_lookup_in_a_fork.run(make, sys.executable, store.environment, ["idle parent"])
                    for place, make in arms.items()
                }
            )
            if number and store.calls() != calls:
                raise SystemExit(f"The store was asked {store.calls() - calls} times: the answer was not shared.")
    print(f"medians of {arguments.runs} interleaved runs, CPU ms, Python {sys.version.split()[0]}")
    print(" " * 14 + "".join(f"{column:>9}" for column in COLUMNS))
    for place in arms:
        medians = [first_lookup_in_a_fork.median(one[place][column] for one in rounds[1:]) for column in COLUMNS]
        print(f"  {place:<12}" + "".join(f"{figure:9.2f}" for figure in medians))


if __name__ == "__main__":
    main()
