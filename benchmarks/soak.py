"""Every answer checked, for minutes: threads and forks look up, values rotate each second, one call in five fails.

    python benchmarks/soak.py --seconds 600 --shared-cache file:///tmp/soak

A loopback stand-in for SSM returns for each parameter a value with its name and the second in which it was returned.
So a lookup can tell whether it got another name's value, another backend's, or one that is older than the options
allow. Exits with 1 if any did, or if memory or descriptors grew.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULTS = 0.2
LIFETIMES = {"cache_ttl": 2, "cache_negative_ttl": 1, "max_stale": 3}
OLDEST = LIFETIMES["cache_ttl"] + LIFETIMES["max_stale"]
SLACK = 3.0  # seconds, for the rounding of the value's time and for a machine with more threads than cores
KEY = "c29hay1zb2FrLXNvYWstc29hay1zb2FrLXNvYWstMDE="
KEYS = [f"key-{number}" for number in range(12)]
PREFIXES = ("/one", "/two")


class Ssm(BaseHTTPRequestHandler):
    """Answers for the names that end with an even number; one call in five fails, in a random way."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["Name"]
        with self.server.counted:
            self.server.requests.value += 1
        known = int(asked.rpartition("-")[2]) % 2 == 0
        value = {"Parameter": {"Name": asked, "Type": "String", "Value": f"{asked}@{int(time.time())}"}}
        answer = (200, value) if known else (400, {"__type": "ParameterNotFound"})
        if random.random() < FAULTS:
            fault = random.choice(["error", "throttled", "denied", "reset", "malformed", "other"])
            if fault == "reset":
                self.close_connection = True
                return
            if fault == "other":
                value["Parameter"]["Name"] = "/one/key-of-somebody-else"
            answer = {
                "error": (500, {"__type": "InternalServerError"}),
                "throttled": (400, {"__type": "ThrottlingException"}),
                "denied": (400, {"__type": "AccessDeniedException"}),
                "malformed": (200, '{"Parameter": '),
                "other": (200, value),
            }[fault]
        status, body = answer
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_):
        pass


def serve(ready, requests):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ssm)
    server.daemon_threads = True
    server.requests, server.counted = requests, threading.Lock()
    ready.put(server.server_address[1])
    server.serve_forever()


def backends(port, shared_cache):
    from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend

    return {
        prefix: SystemsManagerParameterStoreBackend(
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="eu-west-1",
            aws_access_key_id="soak",
            aws_secret_access_key="soak",
            variables_prefix=prefix,
            shared_cache=shared_cache,
            shared_cache_key=KEY if shared_cache else None,
            timeout=2,
            max_attempts=2,
            **LIFETIMES,
        )
        for prefix in PREFIXES
    }


def look_up(by_prefix, results):
    """Make one lookup and count its result."""
    from airflow_providers_secrets.errors import LookupFailed

    prefix, key = random.choice(PREFIXES), random.choice(KEYS)
    try:
        value = by_prefix[prefix].get_variable(key)
    except LookupFailed as error:
        results[type(error).__name__] += 1
        return
    if value is None:
        results["absent" if int(key.rpartition("-")[2]) % 2 else "WRONG: absent"] += 1
        return
    name, _, second = value.partition("@")
    age = time.time() - int(second)
    if name != f"{prefix}/{key}":
        results["WRONG: another name"] += 1
    elif age > OLDEST + SLACK:
        results["WRONG: too old"] += 1
    else:
        results["found"] += 1


def child(port, shared_cache, queue):
    """Act like a DAG-file process or a task: a few threads, a few lookups, then the end."""
    by_prefix, counters = backends(port, shared_cache), [Counter() for _ in range(3)]
    threads = [
        threading.Thread(target=lambda results=results: [look_up(by_prefix, results) for _ in range(60)])
        for results in counters
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.put(sum(counters, Counter()))


def use_of_memory():
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def soak(port, shared_cache, seconds):
    """Look up in threads of this process and in forked children, and return the results of all lookups."""
    context = multiprocessing.get_context("fork")
    by_prefix, counters = backends(port, shared_cache), [Counter() for _ in range(4)]
    end = time.monotonic() + seconds

    def loop(results):
        while time.monotonic() < end:
            for _ in range(200):
                look_up(by_prefix, results)
            time.sleep(0.02)  # leaves the cores to the children

    threads = [threading.Thread(target=loop, args=(results,)) for results in counters]
    for thread in threads:
        thread.start()
    in_children, children, measured, queue = Counter(), 0, [], context.Queue()
    while time.monotonic() < end:
        batch = [context.Process(target=child, args=(port, shared_cache, queue)) for _ in range(3)]
        for process in batch:
            process.start()
        for _ in batch:
            in_children += queue.get(timeout=120)
        for process in batch:
            process.join(30)
            in_children["WRONG: a child ended with an error"] += process.exitcode != 0
        children += len(batch)
        measured.append((use_of_memory(), open_descriptors()))
    for thread in threads:
        thread.join()
    return +(sum(counters, Counter()) + in_children), children, measured


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--shared-cache", default=None)
    arguments = parser.parse_args()

    context = multiprocessing.get_context("fork")
    ready, requests = context.Queue(), context.Value("L")
    server = context.Process(target=serve, args=(ready, requests), daemon=True)
    server.start()
    port = ready.get(timeout=30)

    import airflow.configuration  # noqa: F401  # as in every process of Airflow

    logging.disable(logging.CRITICAL)
    results, children, measured = soak(port, arguments.shared_cache, arguments.seconds)
    server.terminate()
    server.join(10)

    early, late = measured[len(measured) // 5], measured[-1]
    print(f"{sum(results.values())} lookups in {children} children and 4 threads, {requests.value} requests")
    for ending, count in sorted(results.items()):
        print(f"  {ending}: {count}")
    print(f"memory {early[0]:.1f} → {late[0]:.1f} MiB, descriptors {early[1]} → {late[1]}")
    wrong = sum(count for ending, count in results.items() if ending.startswith("WRONG"))
    grown = late[0] - early[0] > 8 or late[1] - early[1] > 5
    print("wrong:", wrong, "AND SOMETHING GREW" if grown else "")
    return 1 if wrong or grown else 0


if __name__ == "__main__":
    sys.exit(main())
