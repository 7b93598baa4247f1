"""A Redis server of the tests' own, for the shared cache of a fleet."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import socket
import subprocess

import pytest


@functools.cache
def _started() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.wait)
    atexit.register(server.terminate)
    assert server.stdout is not None
    for line in server.stdout:
        if "Ready to accept connections" in line:
            return f"redis://127.0.0.1:{port}/0"
    raise AssertionError("redis-server did not start")


def redis_url() -> str:
    """Give the URL of the session's server, or skip loudly where the machine has none."""
    if not shutil.which("redis-server"):
        reason = "redis-server is not installed; run: apt-get install redis-server"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return _started()
