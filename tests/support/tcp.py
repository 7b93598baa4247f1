"""A loopback TCP proxy in front of a server whose protocol is not HTTP/1.1; it injects faults of the wire."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

PAGE = b"<html>S3cr3t-page: not found</html>"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE)


class TcpProxy:
    """Forwards connections to *upstream* (host, port), or those that speak HTTP/1.1 to *plain*.

    Faults, for open connections as for new ones: ``reset`` ends them by a RST, ``truncated`` passes half of the
    server's next bytes on and ends them, ``drip`` passes single bytes on, ``proxy-404`` answers with a page.
    """

    def __init__(self, upstream: tuple[str, int], plain: tuple[str, int]) -> None:
        self._upstream = upstream
        self._plain = plain
        self._fault: str | None = None
        self._changed = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @contextlib.contextmanager
    def fault(self, fault: str) -> Iterator[None]:
        self._changed.clear()
        self._fault = fault
        if fault in ("reset", "proxy-404"):
            self._reset_all()
        try:
            yield
        finally:
            self._fault = None
            self._changed.set()
            # What a fault has left half sent is of no further use.
            self._reset_all()

    def stop(self) -> None:
        self._changed.set()
        self._listener.close()
        self._reset_all()

    def _reset_all(self) -> None:
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _reset(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._fault == "reset":
            _reset(client)
            return
        if self._fault == "proxy-404":
            with contextlib.suppress(OSError), client:
                client.recv(65536)
                client.sendall(NOT_FOUND)
            return
        with contextlib.suppress(OSError):
            # RFC 9113, section 3.4: "PRI * HTTP/2.0 …"
            is_http2 = client.recv(3, socket.MSG_PEEK) == b"PRI"
            self._pass_on(client, self._upstream if is_http2 else self._plain)

    def _pass_on(self, client: socket.socket, upstream: tuple[str, int]) -> None:
        server = socket.create_connection(upstream)
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(client)
        threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
        self._forward(server, client, faulty=True)
        with self._lock:
            self._open.discard(client)
        client.close()
        server.close()

    def _forward(self, source: socket.socket, sink: socket.socket, *, faulty: bool = False) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                if faulty and self._fault == "truncated":
                    sink.sendall(chunk[: len(chunk) // 2])
                    break
                if faulty and self._fault == "drip":
                    for byte in chunk:
                        sink.sendall(bytes((byte,)))
                        if self._changed.wait(0.1):
                            break
                    continue
                sink.sendall(chunk)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Ends the calls that other threads wait in; closing alone would not.
        connection.shutdown(socket.SHUT_RD)
        connection.close()
