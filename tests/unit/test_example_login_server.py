"""examples/login_server.py, as a process of its own, over its socket."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "login_server.py"
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = subprocess.Popen(
        [sys.executable, str(EXAMPLE), "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline().split()[-1])
        server.send_signal(signal.SIGINT)
        assert server.wait(LIMIT_S) == 0
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@contextlib.contextmanager
def client(port: int) -> Iterator[tuple[socket.socket, socket.SocketIO]]:
    with socket.create_connection(("localhost", port), LIMIT_S) as sock, sock.makefile("rb") as lines:
        yield sock, lines  # type: ignore[misc]


def converse(port: int, *lines: str) -> list[str]:
    """The replies to lines that are sent in one go."""
    with client(port) as (sock, replies):
        sock.sendall("".join(f"{line}\n" for line in lines).encode())
        return [replies.readline().decode().strip() for _ in lines]


def test_who_registers_may_log_in(port: int) -> None:
    assert converse(port, "login ada secret word", "register ada secret word", "login ada secret word") == [
        "401 no",
        "201 registered",
        "200 welcome",
    ]
    assert converse(port, "login ada secret", "login ada", "register ada other", "login ada other", "hello") == [
        "401 no",
        "400 say: register NAME PASSWORD, or: login NAME PASSWORD",
        "409 that name is taken",
        "401 no",
        "400 say: register NAME PASSWORD, or: login NAME PASSWORD",
    ]


def test_a_connection_is_served_while_others_hash(port: int) -> None:
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(client(port)) for _ in range(20)]
        for number, (sock, _) in enumerate(busy):
            sock.sendall(f"register user{number} password\n".encode())
        assert converse(port, "hello")[0].startswith("400")
        assert {lines.readline() for _, lines in busy} == {b"201 registered\n"}


def test_a_line_without_end_is_not_kept_for_ever(port: int) -> None:
    with client(port) as (sock, lines):
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                sock.sendall(b"x" * 1024)
        with contextlib.suppress(ConnectionError):  # closed with unread data: a reset
            assert lines.readline() == b""
    assert converse(port, "hello")[0].startswith("400")
