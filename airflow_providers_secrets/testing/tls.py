"""Puts TLS in front of plain servers on loopback, in a process of its own.

A thread of the tests that answered over TLS could hold one of OpenSSL's global locks at the moment of a fork, and
the forked child would wait for it for ever.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import ssl
import subprocess
import sys


class TlsFront:
    """Listens with TLS for each of some plain servers.

    :param certificate: paths of the certificate and its key.
    :param plain: the servers' ports.
    :param clients: path of the CA certificates that clients' own must be issued by; ``""`` asks clients for none.
    :ivar ports: the ports with TLS, in the same order.
    """

    def __init__(self, certificate: tuple[str, str], *plain: int, clients: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, *certificate, clients, *map(str, plain)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests, which may still need their servers to clean up
        )
        owner = os.getpid()
        atexit.register(lambda: self.stop() if os.getpid() == owner else None)
        # Not above: this file is also run on its own, where the package may not be importable.
        from airflow_providers_secrets.testing.processes import next_line

        self.ports = [int(port) for port in next_line(self._process).split()]
        assert len(self.ports) == len(plain)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate(timeout=30)


async def serve(certificate: str, key: str, clients: str, *plain: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    servers = [await front(context, int(port)) for port in plain]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    # Until the tests' process ends, however that happens.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def front(context: ssl.SSLContext, plain: int) -> asyncio.Server:
    async def connected(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", plain)
        pumps = [asyncio.create_task(pump(*ends)) for ends in ((client, to_server), (server, to_client))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for writer in (to_client, to_server):
            with contextlib.suppress(OSError, ssl.SSLError):
                writer.close()
                await writer.wait_closed()
        await asyncio.gather(*pumps)

    return await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context, backlog=128)


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while octets := await source.read(65536):
            sink.write(octets)
            await sink.drain()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
