"""One Redis under the load of a fleet: the server's resources, and the time of an answer.

    python benchmarks/redis_load.py

Simulated on Redis's own protocol, with entries sealed as by the package: each host runs 8 processes at a time that live
30 s each and are then replaced. A process connects at its first lookup and looks up 15 names over its life, all of
them found, as DAG parses and tasks do with answers that outlive them. Every name is written again every 54 s, which
is how long ``cache_ttl`` 60 lasts on average. The steady state is measured: all processes run before counting starts.

Columns: processes at a time; hits per second; the server's CPU (100 is one core, by INFO's own count) and its CPU µs
per hit, connecting included; bytes in and out per hit; the time from sending to the answer at the generator, which
shares the machine; the server's memory. One column of the environment is varied at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import ssl
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

PROCESSES, LIFE, LOOKUPS, REWRITTEN = 8, 30.0, 15, 54.0
RAMP, CHARACTERS = 6.0, 100
KEY = "c29hay1zb2FrLXNvYWstc29hay1zb2FrLXNvYWstMDE="
PREFIX = "airflow-secrets:"


def command(*words: bytes) -> bytes:
    """Encode a command as redis-py does."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def entries(secrets: int) -> dict[bytes, bytes]:
    """Return sealed entries, by key."""
    from airflow_providers_secrets.lookup.shared_cache.entries import Seal, SharedEntry

    seal = Seal(KEY, b"load")
    made = {}
    for number in range(secrets):
        token = seal.token(f"/airflow/variables/secret-{number}")
        made[f"{PREFIX}{token}".encode()] = seal.close(token, SharedEntry("x" * CHARACTERS, time.time()))
    return made


class Connection(asyncio.Protocol):
    """One process's connection; records how long each answer took."""

    def __init__(self, seconds: list[float]) -> None:
        self._seconds = seconds
        self._sent: deque[float] = deque()
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, sent: bytes) -> None:
        """Send *sent*, which must have one answer."""
        self._sent.append(time.perf_counter())
        self.transport.write(sent)

    def data_received(self, data: bytes) -> None:
        if data[:1] == b"-":
            raise RuntimeError(data[:100])
        self._received += data
        while b"\r\n" in self._received:
            line, _, rest = self._received.partition(b"\r\n")
            length = int(line[1:]) + 2 if line[:1] == b"$" and line != b"$-1" else 0  # else one line, as "+OK"
            if len(rest) < length:
                return
            self._received = rest[length:]
            self._seconds.append(time.perf_counter() - self._sent.popleft())


class Fleet:
    """Hosts whose processes look up."""

    def __init__(self, port: int, hosts: int, known: dict[bytes, bytes], tls: ssl.SSLContext | None) -> None:
        self._port, self._tls = port, tls
        self._hosts, self._known = hosts, known
        self._keys = list(known)
        self.seconds: list[float] = []
        self.born = 0

    async def process(self, born: float) -> None:
        """Simulate a process that began at *born*, in the loop's time."""
        loop = asyncio.get_running_loop()
        connection: Any = None
        for number in range(LOOKUPS):
            due = born + LIFE * number / LOOKUPS
            if due < loop.time() - 1:
                continue  # due before the simulation began
            await asyncio.sleep(due - loop.time())
            if connection is None:
                self.born += 1
                how = {"ssl": self._tls, "server_hostname": "127.0.0.1"} if self._tls else {}
                _, connection = await loop.create_connection(
                    lambda: Connection(self.seconds), "127.0.0.1", self._port, **how
                )
            key = random.choice(self._keys)
            connection.ask(command(b"GETRANGE", key, b"0", b"4194304"))
        await asyncio.sleep(born + LIFE - loop.time())
        if connection:
            connection.transport.close()

    async def host(self, until: float) -> None:
        """Run processes, and replace each one that ends."""

        async def place() -> None:
            born = loop.time() - random.uniform(0, LIFE)
            await asyncio.sleep(random.uniform(0, RAMP / 2))
            while born < until:
                await self.process(born)
                born += LIFE

        loop = asyncio.get_running_loop()
        await asyncio.gather(*(place() for _ in range(PROCESSES)))

    async def writer(self, until: float) -> None:
        """Write every name again and again, at even intervals."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection([]), "127.0.0.1", self._port,
            **({"ssl": self._tls, "server_hostname": "127.0.0.1"} if self._tls else {}),
        )  # fmt: skip
        pause, number = REWRITTEN / len(self._keys), 0
        began = loop.time()
        while loop.time() < until:
            key = self._keys[number % len(self._keys)]
            connection.ask(command(b"SET", key, self._known[key], b"PX", b"990000"))
            number += 1
            await asyncio.sleep(max(0.0, began + number * pause - loop.time()))


async def simulate(server: Any, hosts: int, secrets: int, seconds: float, tls: Any) -> dict[str, float]:
    """Return the figures of one size of fleet."""
    loop = asyncio.get_running_loop()
    known = entries(secrets)
    server.client.flushall()
    empty = server.client.info("memory")["used_memory"]
    with server.client.pipeline(transaction=False) as batch:
        for key, entry in known.items():
            batch.set(key, entry, px=990_000)
        batch.execute()
    stored = server.client.info("memory")["used_memory"] - empty
    fleet = Fleet(server.port, hosts, known, tls)
    until = loop.time() + RAMP + seconds
    tasks = [loop.create_task(fleet.host(until)) for _ in range(hosts)] + [loop.create_task(fleet.writer(until))]
    await asyncio.sleep(RAMP)
    before, began = server.client.info(), time.perf_counter()
    fleet.seconds.clear()
    born = fleet.born
    await asyncio.sleep(seconds)
    after, took = server.client.info(), time.perf_counter() - began
    answered = sorted(fleet.seconds)
    born = fleet.born - born
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [one for one in done if isinstance(one, Exception) and not isinstance(one, asyncio.CancelledError)]
    if failed:
        raise failed[0]
    spent = sum(after[name] - before[name] for name in ("used_cpu_sys", "used_cpu_user"))
    hits = after["keyspace_hits"] - before["keyspace_hits"]
    wire = {way: after[f"total_net_{way}_bytes"] - before[f"total_net_{way}_bytes"] for way in ("input", "output")}
    return {
        "hosts": hosts,
        "secrets": secrets,
        "processes": after["connected_clients"],
        "started/s": born / took,
        "hits/s": hits / took,
        "missed": after["keyspace_misses"] - before["keyspace_misses"],
        "CPU %": spent / took * 100,
        "CPU us/hit": spent / hits * 1e6,
        "in B/hit": wire["input"] / hits,
        "out B/hit": wire["output"] / hits,
        "p50 ms": answered[len(answered) // 2] * 1000,
        "p99 ms": answered[int(len(answered) * 0.99)] * 1000,
        "MiB": after["used_memory"] / 2**20,
        "B/entry": stored / secrets,
    }


def trusted() -> ssl.SSLContext:
    from tests.rigs import redis_fleet

    context = ssl.create_default_context(cafile=redis_fleet.ca_file())
    files = redis_fleet.client_certificate()
    context.load_cert_chain(files["ssl_certfile"], files["ssl_keyfile"])
    return context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--quick", action="store_true", help="two hosts, for a second")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    from tests.rigs import redis_fleet

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sizes = [(10, 100), (100, 100), (1000, 100), (1000, 10_000)]
    encrypted = [(100, 100), (250, 100)]
    if arguments.quick:
        sizes, encrypted, arguments.seconds = [(2, 10)], [(2, 10)], 1.0
    found = []
    for tls in (False, True):
        for hosts, secrets in encrypted if tls else sizes:
            # Each size gets a new server: closed connections leave its memory fragmented.
            server = redis_fleet.RedisServer(tls=tls, maxclients=20_000)
            if not found:
                print(f"redis-server {server.client.info('server')['redis_version']}")
            figures = asyncio.run(simulate(server, hosts, secrets, arguments.seconds, trusted() if tls else None))
            server.stop()
            if not found:
                print("   TLS" + "".join(f"{name:>12}" for name in figures))
            found.append({"tls": tls, **figures})
            shown = (f"{figure:12.1f}" if isinstance(figure, float) else f"{figure:12}" for figure in figures.values())
            print(f"{'yes' if tls else 'no':>6}" + "".join(shown), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
