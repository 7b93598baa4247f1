"""Stand-ins for what is asked about an identity: a directory (LDAP), a RADIUS server and the internet, on loopback."""

from __future__ import annotations

import hashlib
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator


class Radius:
    """Accepts one user by password (RFC 2865)."""

    SECRET = b"shared-with-the-server"

    def __init__(self, user: str, password: str) -> None:
        self._user, self._password = user.encode(), password.encode()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            packet, peer = self._socket.recvfrom(4096)
            if not packet:
                return
            self._socket.sendto(self._answer(packet), peer)

    def _answer(self, packet: bytes) -> bytes:
        _, identifier, length = struct.unpack("!BBH", packet[:4])
        authenticator, attributes = packet[4:20], dict(_attributes(packet[20:length]))
        accepted = attributes[1] == self._user and self._clear(attributes[2], authenticator) == self._password
        head = struct.pack("!BBH", 2 if accepted else 3, identifier, 20)
        return head + hashlib.md5(head + authenticator + self.SECRET).digest()

    def _clear(self, hidden: bytes, authenticator: bytes) -> bytes:
        """Give the password, which is hidden block by block (section 5.2)."""
        clear, previous = b"", authenticator
        for start in range(0, len(hidden), 16):
            block = hidden[start : start + 16]
            pad = hashlib.md5(self.SECRET + previous).digest()
            clear += bytes(a ^ b for a, b in zip(block, pad, strict=True))
            previous = block
        return clear.rstrip(b"\0")

    def stop(self) -> None:
        # Closing alone does not wake the thread that waits; an empty packet tells it to end.
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(60)
        self._socket.close()


def _attributes(octets: bytes) -> Iterator[tuple[int, bytes]]:
    while octets:
        yield octets[0], octets[2 : octets[1]]
        octets = octets[octets[1] :]


class Directory:
    """Accepts one simple bind and finds nothing (RFC 4511)."""

    def __init__(self, name: str, password: str) -> None:
        self.name, self.password = name.encode(), password.encode()
        self._server = _DirectoryServer(("127.0.0.1", 0), _DirectorySession)
        self._server.directory = self
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _DirectoryServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    directory: Directory


BIND, SEARCH = 0x60, 0x63
INVALID_CREDENTIALS = 49


class _DirectorySession(socketserver.StreamRequestHandler):
    server: _DirectoryServer

    def handle(self) -> None:
        while message := self._element():
            number, operation = _elements(message)[:2]
            if operation[0] == BIND:
                _, name, password = _elements(operation[1])
                expected = self.server.directory
                right = (name[1], password[1]) == (expected.name, expected.password)
                self._send(number[1], BIND + 1, 0 if right else INVALID_CREDENTIALS)
            elif operation[0] == SEARCH:
                self._send(number[1], SEARCH + 2, 0)
            else:
                return

    def _element(self) -> bytes:
        head = self.rfile.read(2)
        if len(head) < 2:
            return b""
        length = head[1]
        if length & 0x80:
            length = int.from_bytes(self.rfile.read(length & 0x7F), "big")
        return self.rfile.read(length)

    def _send(self, number: bytes, operation: int, code: int) -> None:
        result = bytes([operation, 7, 0x0A, 1, code, 4, 0, 4, 0])
        body = bytes([2, len(number)]) + number + result
        self.wfile.write(bytes([0x30, len(body)]) + body)


def _elements(octets: bytes) -> list[tuple[int, bytes]]:
    """Give tag and content of each element (X.690, definite lengths)."""
    found = []
    while octets:
        tag, length, start = octets[0], octets[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(octets[2:start], "big")
        found.append((tag, octets[start : start + length]))
        octets = octets[start + length :]
    return found


class Internet:
    """An HTTPS proxy that takes each host for one plain HTTP server, behind a certificate of the tests.

    :param port: of that server.
    :param certificate: paths of the certificate and its key.
    """

    def __init__(self, port: int, certificate: tuple[str, str]) -> None:
        self.server_port = port
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(*certificate)
        self._server = _InternetServer(("127.0.0.1", 0), _Tunnel)
        self._server.internet = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _InternetServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    internet: Internet


class _Tunnel(socketserver.BaseRequestHandler):
    server: _InternetServer
    request: socket.socket

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            octet = self.request.recv(1)
            if not octet:
                return
            head += octet
        assert head.startswith(b"CONNECT ")
        self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        internet = self.server.internet
        with (
            internet.tls.wrap_socket(self.request, server_side=True) as outer,
            socket.create_connection(("127.0.0.1", internet.server_port)) as inner,
        ):
            answers = threading.Thread(target=_pump, args=(inner, outer), daemon=True)
            answers.start()
            _pump(outer, inner)
            answers.join(60)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while octets := source.recv(65536):
            sink.sendall(octets)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        """The other side has gone, as clients do."""
