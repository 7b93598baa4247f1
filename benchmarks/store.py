"""A stand-in for SSM Parameter Store on loopback that counts requests, light enough not to disturb the measurement.

It answers ``GetParameter`` and ``GetParametersByPath`` in its own process, checks no signature, and can be told to
delay each answer and to add the time of the answer to each value.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from typing import Any

PAGE_SIZE = 10


class Store:
    """The stand-in from the view of the process that started it: a process with an address and counts."""

    def __init__(self, parameters: dict[str, str], latency: float = 0.0, *, stamped: bool = False) -> None:
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([parameters, latency, stamped]).encode() + b"\n")
        self._process.stdin.flush()
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def counts(self) -> dict[str, int]:
        """Return what was counted since the last call, and reset the counts."""
        with urllib.request.urlopen(f"{self.url}/counts", timeout=10) as answer:
            counted: dict[str, int] = json.load(answer)
        return counted

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate()


class _Connection(asyncio.Protocol):
    parameters: dict[str, str]
    latency: float
    stamped: bool
    counts: Counter[str] = Counter()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._received = b""
        self._is_counted = False

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, ended, body = self._received.partition(b"\r\n\r\n")
        fields = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n"))
        }
        if not ended or len(body) < int(fields.get("content-length", 0)):
            return
        self._received = b""
        if head.startswith(b"GET /counts "):
            self._send(200, dict(self.counts))
            self.counts.clear()
            return
        operation = fields["x-amz-target"].rpartition(".")[2]
        self.counts[operation] += 1
        self.counts["requests"] += 1
        if not self._is_counted:
            self._is_counted = True
            self.counts["connections"] += 1
        status, answer = getattr(self, operation)(json.loads(body))
        asyncio.get_running_loop().call_later(self.latency, self._send, status, answer)

    def GetParameter(self, asked: dict[str, Any]) -> tuple[int, Any]:  # noqa: N802
        value = self.parameters.get(asked["Name"])
        if value is None:
            return 400, {"__type": "ParameterNotFound"}
        if self.stamped:
            value = f"{value}@{time.time()}"
        return 200, {"Parameter": {"Name": asked["Name"], "Type": "SecureString", "Value": value}}

    def GetParametersByPath(self, asked: dict[str, Any]) -> tuple[int, Any]:  # noqa: N802
        names = sorted(name for name in self.parameters if name.startswith(asked["Path"].rstrip("/") + "/"))
        start = int(asked.get("NextToken", 0))
        end = start + min(PAGE_SIZE, asked.get("MaxResults", PAGE_SIZE))
        page = [{"Name": name, "Type": "SecureString", "Value": self.parameters[name]} for name in names[start:end]]
        return 200, {"Parameters": page} | ({"NextToken": str(end)} if end < len(names) else {})

    def _send(self, status: int, answer: Any) -> None:
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def _serve() -> None:
    _Connection.parameters, _Connection.latency, _Connection.stamped = json.loads(sys.stdin.readline())
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
