"""hoop.run(main(), drain=...) and signals: programs of their own, driven through their sockets and standard streams."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

DEADLINE_S = 60.0

# Answers "answer" to a line with "?", "late" to "slow" once it is told to drain, and nothing to all else.
PROGRAM = """
import asyncio
import sys

import hoop


class Lines(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data = data
        if b"?" in data:
            self.transport.write(b"answer")
        print("got", data.decode(), flush=True)

    def drain_requested(self):
        print("asked", flush=True)
        if self.data == b"slow":
            self.transport.write(b"late")
            self.transport.close()


async def main():
    server = await asyncio.get_running_loop().create_server(Lines, "127.0.0.1", 0)
    print(*server.sockets[0].getsockname(), flush=True)
    try:
        await server.serve_forever()
    finally:
        print("cleaned up", flush=True)
        if "result" in sys.argv:
            return "from main"


result = hoop.run(main(), drain=hoop.Drain(idle_grace=0.02, timeout=None if "hang" in sys.argv else 20))
print("returned", result, flush=True)
"""


class Program:
    def __init__(self, *words: str) -> None:
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore::SyntaxWarning", "-c", PROGRAM, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        host, port = self.line().split()
        self.address = (host, int(port))

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def peer(self) -> socket.socket:
        return socket.create_connection(self.address, DEADLINE_S)

    def told(self, peer: socket.socket, data: bytes) -> None:
        """Send, and wait until the program has it."""
        peer.sendall(data)
        assert self.line() == f"got {data.decode()}"

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Its exit status, and what it wrote since."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    program = Program(*getattr(request, "param", ()))
    yield program
    if program.process.poll() is None:
        program.process.kill()
        program.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains_and_ends_with_status_0(program: Program, number: int) -> None:
    with program.peer() as slow, program.peer() as silent:
        program.told(slow, b"slow")
        program.told(silent, b"hello?")
        assert silent.recv(6) == b"answer"
        program.signal(number)
        assert slow.recv(100) == b"late"
        assert silent.recv(100) == b""
        assert program.end() == (0, "asked\nasked\ncleaned up\nreturned None\n", "")


@pytest.mark.parametrize("program", [["result"]], indirect=True)
def test_result_of_main_is_returned(program: Program) -> None:
    program.signal(signal.SIGTERM)
    assert program.end() == (0, "cleaned up\nreturned from main\n", "")


@pytest.mark.parametrize("program", [["hang"]], indirect=True)
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)]
)
def test_d12_second_signal_ends_at_once(program: Program, number: int, status: int) -> None:
    with program.peer() as peer:
        program.told(peer, b"hang")
        program.signal(number)
        assert program.line() == "asked"
        program.signal(number)
        code, out, err = program.end()
        assert (code, out) == (status, "cleaned up\n")
        assert ("KeyboardInterrupt" in err) == (number == signal.SIGINT)
        assert peer.recv(100) == b""


def test_main_that_ends_by_itself_needs_no_signal() -> None:
    import hoop

    async def main() -> int:
        return 42

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert hoop.run(main(), drain=hoop.Drain()) == 42
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_main_that_fails_raises() -> None:
    import hoop

    async def main() -> None:
        raise LookupError("from main")

    with pytest.raises(LookupError, match="from main"):
        hoop.run(main(), drain=hoop.Drain())
