"""A loopback HTTP proxy in front of a store's server: it counts requests and injects faults."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """An answer sent instead of the server's.

    :param truncate: announce the whole body, send half of it, and close the connection.
    :param drip: seconds between single bytes of the body.
    :param reset: end the connection with a RST before any answer.
    :param lost: let the server answer first, so that it has carried out the request; with *reset*.
    :param hang: answer nothing until the proxy is told to go on.
    :param endless: send the body again and again, without saying how long it is.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    truncate: bool = False
    drip: float | None = None
    reset: bool = False
    lost: bool = False
    hang: bool = False
    endless: bool = False


Fault = Callable[[Request], "Reply | None"]


class Proxy:
    """Forwards to *upstream* (host, port); with a fault set, sends the fault's reply instead if it returns one.

    Runs in a daemon thread, on a free port of 127.0.0.1.

    :ivar requests: every request so far.
    :ivar connections: how many connections were opened.
    :ivar go_on: set while no fault is; what a fault's reply waits for before it continues.
    """

    def __init__(self, upstream: tuple[str, int] | None = None) -> None:
        self.upstream = upstream
        self.requests: list[Request] = []
        self.connections = 0
        self.go_on = threading.Event()
        self._fault: Fault = lambda _: None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def fault(self, fault: Fault | Reply) -> Iterator[None]:
        """Answer by *fault* meanwhile: a reply, or a function that returns one, or ``None`` to forward the request."""
        before = self._fault
        self._fault = (lambda _: fault) if isinstance(fault, Reply) else fault
        self.go_on.clear()
        try:
            yield
        finally:
            self._fault = before
            self.go_on.set()

    def reply(self, request: Request) -> Reply | None:
        """Return the fault's reply to *request*; ``None`` to forward it."""
        return self._fault(request)

    def stop(self) -> None:
        """Stop listening."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: Proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors: clients that give up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One segment for headers and body, or Nagle and delayed ACK add 40 ms to every answer.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.proxy.connections += 1

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        proxy = self.server.proxy
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # the client was killed while sending: that is not a request
            self.close_connection = True
            return
        request = Request(self.command, self.path, dict(self.headers.items()), body)
        if self.command != "HEAD":  # not for a store: the command asks for the time with it
            proxy.requests.append(request)
        reply = proxy.reply(request)
        if reply is not None and reply.lost:
            self._forwarded(request)
        self._send(reply or self._forwarded(request))

    def _forwarded(self, request: Request) -> Reply:
        assert self.server.proxy.upstream, "no server behind this proxy"
        connection = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=30)
        try:
            connection.request(request.method, request.path, request.body, request.headers)
            answer = connection.getresponse()
            headers = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP}
            return Reply(answer.status, answer.read(), headers)
        finally:
            connection.close()

    def _send(self, reply: Reply) -> None:
        if reply.hang:
            self.server.proxy.go_on.wait(120)
            self.close_connection = True
            return
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.endless:
            self._send_for_ever(reply.body)
            return
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if reply.truncate:
            self.wfile.write(reply.body[: len(reply.body) // 2])
            self.close_connection = True
        elif reply.drip is not None:
            for position in range(len(reply.body)):
                self.wfile.write(reply.body[position : position + 1])
                self.wfile.flush()
                if self.server.proxy.go_on.wait(reply.drip):
                    break
            self.close_connection = True
        else:
            self.wfile.write(reply.body)
        self.wfile.flush()

    def _send_for_ever(self, body: bytes) -> None:
        self.close_connection = True
        self.end_headers()
        with contextlib.suppress(OSError):  # until the client has had enough
            while not self.server.proxy.go_on.is_set():
                self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


_HOP_BY_HOP = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}
