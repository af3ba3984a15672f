"""Trap 24: TLS 1.2 renegotiation, begun by either side in the middle of the talk. The peer is OpenSSL's own program.

Python's ssl can answer a renegotiation but not begin one; `openssl s_server` and `s_client` begin one for a line "R".
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance.peers import DEADLINE_S, LOCALHOST, Clients, HandlerLog, Recorder, address_of, off_loop, soon
from conformance.tls_peers import NAME, certificate, client_context, server_context

pytestmark = [
    pytest.mark.each_tls_engine,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program"),
]

TLS_1_2 = ssl.TLSVersion.TLSv1_2
ALLOW_CLIENT_RENEGOTIATION = 1 << 8  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION of OpenSSL 3; before, it was always allowed
LARGE = b"0123456789abcdef" * 4096 + b"\n"


class Program:
    """One end of a connection in another process, which talks by its standard streams."""

    def __init__(self, *arguments: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            ["openssl", *arguments], stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, bufsize=0
        )

    def say(self, text: bytes) -> None:
        """What the program reads at once: a line "R", or bytes for its peer."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)

    def until(self, mark: bytes) -> bytes:
        """Blocking: what the program prints, up to and including mark."""
        assert self.process.stdout is not None
        seen = bytearray()
        while mark not in seen:
            chunk = self.process.stdout.read(65536)
            assert chunk, f"the program ended after {bytes(seen[-2000:])!r}"
            seen += chunk
        return bytes(seen)


@pytest.fixture
def programs() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def started(programs: contextlib.ExitStack, *arguments: str) -> Program:
    program = Program(*arguments)

    def end() -> None:
        program.process.kill()
        with program.process:  # closes its pipes
            program.process.wait(DEADLINE_S)

    programs.callback(end)
    return program


class Hellos:
    """Counts the CLIENT_HELLOs that a context's connections send or receive."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.count = 0
        self._changed = asyncio.Event()
        context._msg_callback = self._note  # type: ignore[attr-defined]

    def _note(self, connection: Any, direction: str, version: Any, kind: Any, message: Any, data: bytes) -> None:
        if getattr(message, "name", "") == "CLIENT_HELLO":
            self.count += 1
            self._changed.set()

    async def until(self, count: int) -> None:
        while self.count < count:
            self._changed.clear()
            await soon(self._changed.wait())


def test_trap_24_the_server_renegotiates(run: Any, programs: contextlib.ExitStack, tmp_path: Path) -> None:
    """A write made while the new handshake is under way waits for its end, and nothing is lost or changes places."""

    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        (tmp_path / "pem").write_bytes(certificate().private_key_and_cert_chain_pem.bytes())
        arguments = ("-accept", f"{LOCALHOST}:0", "-cert", str(tmp_path / "pem"), "-tls1_2")
        peer = started(programs, "s_server", *arguments)
        banner = await off_loop(peer.until, b"ACCEPT " + LOCALHOST.encode() + b":")
        if not banner.endswith(b"\n"):
            banner += await off_loop(peer.until, b"\n")
        port = int(banner.rsplit(b":", 1)[1])
        context = client_context(version=TLS_1_2)
        hellos = Hellos(context)
        protocol = Recorder()
        transport, _ = await soon(
            asyncio.get_running_loop().create_connection(
                lambda: protocol, LOCALHOST, port, ssl=context, server_hostname=NAME
            )
        )
        transport.write(b"before\n")
        await off_loop(peer.until, b"before\n")
        for count in range(2, 4):
            peer.say(b"R\n")
            await hellos.until(count)
            transport.write(b"meanwhile\n")
            transport.write(LARGE)
            transport.write(b"afterwards\n")
            seen = await off_loop(peer.until, b"afterwards\n")
            assert b"meanwhile\n" + LARGE + b"afterwards\n" in seen
            peer.say(b"answer\n")
            assert (await protocol.until_received(7 * (count - 1))).endswith(b"answer\n")
        transport.close()
        assert await protocol.until_lost() is None
        assert log == []

    run(main())


@pytest.mark.parametrize("is_allowed", [True, False], ids=["allowed", "refused"])
def test_trap_24_the_client_renegotiates(run: Any, programs: contextlib.ExitStack, is_allowed: bool) -> None:
    """Refused by a context as it comes: the client hears so and leaves, the server goes on."""
    if not is_allowed and ssl.OPENSSL_VERSION_INFO < (3,):
        pytest.skip("this OpenSSL lets any client renegotiate")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        log = HandlerLog(loop)
        context = server_context()
        context.maximum_version = TLS_1_2
        if is_allowed:
            context.options |= ALLOW_CLIENT_RENEGOTIATION
        hellos = Hellos(context)
        clients = Clients()
        server = await loop.create_server(clients, LOCALHOST, 0, ssl=context)
        host, port = address_of(server)
        peer = started(programs, "s_client", "-connect", f"{host}:{port}", "-tls1_2")
        protocol = await clients.until_made()
        peer.say(b"before\n")
        await protocol.until_received(7)
        peer.say(b"R\n")
        await hellos.until(2 if is_allowed else 1)
        if is_allowed:
            protocol.transport.write(LARGE + b"meanwhile\n")
            assert LARGE + b"meanwhile\n" in await off_loop(peer.until, b"meanwhile\n")
            peer.say(b"after\n")
            assert await protocol.until_received(13) == b"before\nafter\n"
            protocol.transport.close()
            assert await protocol.until_lost() is None
        else:
            await off_loop(peer.until, b"no renegotiation")
            await protocol.until_lost()
            assert bytes(protocol.data) == b"before\n" and protocol.count("connection_lost") == 1
        assert log == []
        server.close()

    run(main())
