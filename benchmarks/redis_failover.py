"""Every answer checked while the fleet's Redis fails over, again and again.

    python benchmarks/redis_failover.py

20 times a primary dies and Sentinel elects another, 15 times a primary of a cluster dies, and 15 times slots move
to another primary with the keys in them. Meanwhile two processes look variables up in threads, and in children that
they fork. Each value contains its name and the time when the store returned it, so a lookup can tell whether it got
another name's value, or one that is older than ``cache_ttl``. After each failover two processes that have just started
look up a name that nobody has looked up before: the second one must find the first one's answer.

Times are shortened, or this would take a day: Redis is not used for one second after a failure instead of 15, answers
live for two seconds, Sentinel considers a primary dead after 0.5 s and a cluster after one. Exits with 1 if any lookup
failed, was wrong or too old, took longer than its ``timeout``, or if the cache was not used again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

TTL, PAUSE = 2.0, 1.0
SLACK = 1.0  # seconds, for a call to the store and for threads that wait for a core
KEY = "c29hay1zb2FrLXNvYWstc29hay1zb2FrLXNvYWstMDE="
NAMES = 24
"""Number of names that are looked up; every second one exists."""
PROBES_AT_MOST = 20
WORKERS, THREADS = 2, 2


# What looks up.


def made(url: str, place: str, timeout: str) -> Any:
    from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend
    from airflow_providers_secrets.lookup.shared_cache import redis_server

    redis_server.REDIS_PAUSE = PAUSE  # type: ignore[misc]
    return SystemsManagerParameterStoreBackend(
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="soak",
        aws_secret_access_key="soak",
        shared_cache=place,
        shared_cache_key=KEY,
        timeout=timeout,
        cache_ttl=TTL,
        cache_negative_ttl=TTL / 2,
        max_stale=0,
    )


class Tally:
    """How lookups ended, and how long they took."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.seconds: list[float] = []

    def look_up(self, backend: Any) -> None:
        number = random.randrange(NAMES)
        name, started, begun = f"key-{number}", time.time(), time.monotonic()
        try:
            value = backend.get_variable(name)
        except Exception as error:  # failures are counted
            self.ended[f"FAILED: {type(error).__name__} after {time.monotonic() - begun:.1f} s: {error}"] += 1
            return
        finally:
            self.seconds.append(time.monotonic() - begun)
        self.ended[judged(name, value, started, exists=number % 2 == 0)] += 1

    def add(self, other: dict[str, Any]) -> None:
        self.ended.update(other["ended"])
        self.seconds += other["seconds"]

    def said(self) -> dict[str, Any]:
        return {"ended": self.ended, "seconds": self.seconds}


def judged(name: str, value: str | None, started: float, *, exists: bool) -> str:
    if value is None or not exists:
        return "absent" if value is None and not exists else "WRONG: absent"
    of, _, at = value.partition("@")
    if of != name:
        return "WRONG: another name"
    return "found" if started - float(at) <= TTL + SLACK else "WRONG: too old"


def own_output() -> TextIO:
    """Return standard output for this program alone: what Airflow logs there goes to standard error instead."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return output


def work(*how: str) -> None:
    """Look up in threads and in forked children until standard input ends, and print the tally."""
    out = own_output()
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    handler.setLevel(logging.WARNING)
    logging.getLogger("airflow_providers_secrets").addHandler(handler)
    backend, ends = made(*how), threading.Event()
    tallies = [Tally() for _ in range(THREADS)]

    def loop(tally: Tally) -> None:
        while not ends.wait(0.01):
            tally.look_up(backend)

    def wait() -> None:
        sys.stdin.read()
        ends.set()

    threads = [threading.Thread(target=loop, args=(tally,)) for tally in tallies]
    for thread in [*threads, threading.Thread(target=wait, daemon=True)]:
        thread.start()
    total, children = Tally(), 0
    while not ends.is_set():
        total.add(in_a_child(backend))
        children += 1
        ends.wait(0.05)
    for thread in threads:
        thread.join()
    for tally in tallies:
        total.add(tally.said())
    json.dump({**total.said(), "children": children, "warnings": warnings}, out)
    out.flush()


def probe(*how: str) -> None:
    """For each name on a line of standard input, print the values that two new children of this process get."""
    out, backend = own_output(), made(*how)
    for line in sys.stdin:
        name = line.strip()
        values = [forked(partial(backend.get_variable, name)) for _ in range(2)]
        print(json.dumps(values), file=out, flush=True)


def in_a_child(backend: Any) -> dict[str, Any]:
    def looked_up() -> dict[str, Any]:
        tally = Tally()
        for _ in range(15):
            tally.look_up(backend)
        return tally.said()

    return forked(looked_up) or {"ended": {"FAILED: a child died": 1}, "seconds": []}


def forked(work: Callable[[], Any]) -> Any:
    """Return what *work* returns in a child; ``None`` if the child ended without a result."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            with os.fdopen(writer, "w") as told:
                told.write(json.dumps(work()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        said = told.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


def started(*arguments: str) -> subprocess.Popen[str]:
    # Not a fork of this process: it would hold the pipes that are used to end the servers.
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


# What fails over.


def elections(fleet: Any) -> Iterator[Callable[[], None]]:
    """Yield functions that kill the primary that Sentinel knows and return once another one is primary."""
    servers = [fleet.primary, fleet.replica]

    def is_primary(server: Any) -> bool:
        state = fleet.sentinel.client.sentinel_masters()[fleet.SERVICE]
        return bool(state["port"] == server.port and server.client.info("replication")["role"] == "master")

    def follows(server: Any) -> bool:
        slaves = fleet.sentinel.client.sentinel_slaves(fleet.SERVICE)
        known = [one for one in slaves if one["port"] == server.port]
        return server.client.info("replication").get("master_link_status") == "up" and bool(
            known and not known[0]["is_sdown"]
        )

    def fail_over() -> None:
        primary, replica = servers
        until(lambda: follows(replica), "the replica follows")
        primary.kill()
        until(lambda: is_primary(replica), "the replica is elected")
        primary.start()
        # As an operator would do; Sentinel takes 10 s for it.
        primary.client.config_set("masterauth", fleet.PASSWORD)
        primary.client.execute_command("REPLICAOF", "127.0.0.1", replica.port)
        servers.reverse()

    while True:
        yield fail_over


def deaths(cluster: Any) -> Iterator[Callable[[], None]]:
    """Yield functions that kill the primary that has a replica and return once the replica has its slots."""
    pair = [cluster.nodes[0], cluster.nodes[3]]

    def fail_over() -> None:
        primary, replica = pair
        until(lambda: replica.client.info("replication").get("master_link_status") == "up", "the replica follows")
        primary.kill()
        until(lambda: replica.client.info("replication")["role"] == "master", "the replica is elected")
        for node in (*cluster.nodes[1:3], replica):
            until(lambda node=node: cluster_is_up(node), "the cluster serves all slots")
        primary.start()
        until(lambda: primary.client.info("replication")["role"] == "slave", "the old primary follows")
        pair.reverse()

    while True:
        yield fail_over


def moves(cluster: Any) -> Iterator[Callable[[], None]]:
    """Yield functions that move the slots of up to 8 keys between the primaries that stay alive."""
    from redis.crc import key_slot

    ways = [cluster.nodes[1], cluster.nodes[2]]

    def move() -> None:
        source, target = ways
        names = {node.port: cluster.identifier(node) for node in ways}
        for slot in {key_slot(key) for key in until(lambda: source.client.keys("*"), "the node has keys")[:8]}:
            target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[source.port])
            source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[target.port])
            while keys := source.client.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
                for key in keys:
                    source.client.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000, "REPLACE")
            for node in (target, source):
                node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", names[target.port])
        ways.reverse()

    while True:
        yield move


def cluster_is_up(node: Any) -> bool:
    from tests.rigs import redis_fleet

    return b"cluster_state:ok" in redis_fleet.raw(node, "CLUSTER INFO")


def until(state: Callable[[], Any], what: str) -> Any:
    from tests.rigs import redis_fleet

    return redis_fleet.until(state, what)


# The run.


class Run:
    """Processes that look up through one cache while it fails over."""

    def __init__(self, url: str, place: str, timeout: float) -> None:
        self._timeout = timeout
        self._workers = [started("--worker", url, place, str(timeout)) for _ in range(WORKERS)]
        self._prober = started("--probe", url, place, str(timeout))
        self._probes = 0
        while not self.is_used():  # also waits until all have started
            pass
        self.problems: list[str] = []
        self.used_again: list[float] = []

    def is_used(self) -> bool:
        """Tell whether a process finds the answer that another one has just got from the store."""
        self._probes += 1
        name = f"probe-{self._probes}"
        assert self._prober.stdin
        assert self._prober.stdout
        self._prober.stdin.write(f"{name}\n")
        self._prober.stdin.flush()
        first, second = json.loads(self._prober.stdout.readline())
        return bool(first and first.startswith(f"{name}@") and first == second)

    def fail_over(self, how: Callable[[], None], label: str) -> None:
        time.sleep(0.3)  # lets lookups happen between two failovers
        begun = time.monotonic()
        how()
        over = time.monotonic()
        for _ in range(PROBES_AT_MOST):
            if self.is_used():
                break
        else:
            self.problems.append(f"{label}: the cache is not used again")
        self.used_again.append(time.monotonic() - over)
        print(f"{label}: over after {over - begun:.1f} s, used again after {time.monotonic() - over:.1f}", flush=True)

    def end(self) -> dict[str, Any]:
        self._prober.communicate("", timeout=180)
        tally, children, warnings = Tally(), 0, 0
        for worker in self._workers:
            told = json.loads(worker.communicate("", timeout=180)[0])
            tally.add(told)
            children += told["children"]
            warnings += len(told["warnings"])
        self.problems += [
            f"{count} {ending}" for ending, count in tally.ended.items() if ending.isupper() or ":" in ending
        ]
        slowest = max(tally.seconds)
        if slowest > self._timeout + SLACK:
            self.problems.append(f"a lookup took {slowest:.1f} s")
        tally.seconds.sort()
        return {
            "lookups": len(tally.seconds), "children": children, **tally.ended, "warnings": warnings,
            "median ms": statistics.median(tally.seconds) * 1000,
            "p99 ms": tally.seconds[int(len(tally.seconds) * 0.99)] * 1000,
            "slowest ms": slowest * 1000, "over 500 ms": sum(one > 0.5 for one in tally.seconds),
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elections", type=int, default=20)
    parser.add_argument("--deaths", type=int, default=15)
    parser.add_argument("--moves", type=int, default=15)
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds that a lookup may take")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--probe", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
        return 0
    if arguments.probe:
        probe(*arguments.probe)
        return 0

    from benchmarks.store import Store
    from tests.rigs import redis_fleet

    elected, killed, moved = arguments.elections, arguments.deaths, arguments.moves
    known = [f"key-{number}" for number in range(0, NAMES, 2)] + [
        f"probe-{number}" for number in range(PROBES_AT_MOST * (elected + killed + moved + 2))
    ]
    store = Store({f"/airflow/variables/{name}": name for name in known}, stamped=True)
    problems: list[str] = []
    try:
        if elected:
            sentinels = redis_fleet.Sentinels(down_after_ms=500, failover_timeout_ms=1500)
            run, how = Run(store.url, sentinels.url, arguments.timeout), elections(sentinels)
            for number in range(elected):
                run.fail_over(next(how), f"Sentinel elects, {number + 1}")
            epoch = sentinels.sentinel.client.sentinel_masters()[sentinels.SERVICE]["config-epoch"]
            report(f"Sentinel, {elected} elections ({epoch} by its own count)", run, problems)
            sentinels.stop()
        if killed or moved:
            cluster = redis_fleet.Cluster(fails_over=True)
            run = Run(store.url, cluster.url, arguments.timeout)
            dying, moving = deaths(cluster), moves(cluster)
            for number in range(max(killed, moved)):
                if number < killed:
                    run.fail_over(next(dying), f"a cluster's primary dies, {number + 1}")
                if number < moved:
                    run.fail_over(next(moving), f"slots move, {number + 1}")
            report(f"cluster, {killed} deaths and {moved} moves", run, problems)
            cluster.stop()
        print(f"{store.counts()['requests']} requests to the store")
    finally:
        store.stop()
    print("problems:", "; ".join(problems) or "none")
    return 1 if problems else 0


def report(label: str, run: Run, problems: list[str]) -> None:
    figures = run.end()
    problems += run.problems
    shown = ", ".join(
        f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
    )
    print(f"{label}: {shown}; used again after {statistics.median(run.used_again):.1f} s, the median", flush=True)


if __name__ == "__main__":
    sys.exit(main())
