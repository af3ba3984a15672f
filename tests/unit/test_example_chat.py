"""examples/chat_server.py, as a program: what guests say reaches the others, and its limits hold."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hoop
import pytest
from conformance.peers import DEADLINE_S

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "chat_server.py"


class Chat:
    """The running program and its guests."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(Path(hoop.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        said = re.fullmatch(r"listening on 127\.0\.0\.1 port (\d+)\n", line)
        assert said, line
        self.address = ("127.0.0.1", int(said[1]))
        self.guests: list[socket.socket] = []

    def connect(self) -> socket.socket:
        guest = socket.create_connection(self.address, DEADLINE_S)
        self.guests.append(guest)
        return guest

    def enter(self, name: bytes) -> socket.socket:
        guest = self.connect()
        guest.sendall(name + b"\n")
        assert heard(guest).startswith(b"welcome, " + name)
        return guest

    def stop(self) -> str:
        """What the program prints at the end."""
        self.process.send_signal(signal.SIGINT)
        text, _ = self.process.communicate(timeout=DEADLINE_S)
        return text

    def close(self) -> None:
        for guest in self.guests:
            guest.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=DEADLINE_S)


@pytest.fixture
def chat() -> Iterator[Chat]:
    chat = Chat()
    yield chat
    chat.close()


def heard(guest: socket.socket) -> bytes:
    """The next line; what is left at the end of the stream."""
    line = b""
    while not line.endswith(b"\n") and (byte := guest.recv(1)):
        line += byte
    return line


def test_guests_hear_one_another(chat: Chat) -> None:
    ada, ben = chat.enter(b"ada"), chat.enter(b"ben")
    assert heard(ada) == b"ben comes in\n"
    ada.sendall(b"hello\nhow are ")
    ada.sendall(b"you?\n")
    assert [heard(ben), heard(ben)] == [b"ada: hello\n", b"ada: how are you?\n"]
    ben.close()
    assert heard(ada) == b"ben leaves\n"
    assert "accepted=2, active=1" in chat.stop()


def test_a_line_that_does_not_end(chat: Chat) -> None:
    ada, ben = chat.enter(b"ada"), chat.enter(b"ben")
    assert heard(ada) == b"ben comes in\n"
    ben.sendall(b"x" * 5000)
    assert heard(ben) == b""
    assert heard(ada) == b"ben leaves\n"
    assert "a line of more than 4096 bytes" in chat.stop()


def test_a_flood_from_one_host(chat: Chat) -> None:
    inside = [chat.enter(b"guest %d" % number) for number in range(20)]
    outside = [chat.connect() for _ in range(5)]
    assert [heard(guest) for guest in outside] == [b""] * 5
    inside[0].sendall(b"all well\n")
    assert heard(inside[19]) == b"guest 0: all well\n"
    assert "refused_per_host=5" in chat.stop()


def test_a_guest_who_does_not_listen(chat: Chat) -> None:
    """The deaf one's buffers fill up; then max_write_buffer lets it go, and the others notice."""
    deaf, ada = chat.enter(b"deaf"), chat.enter(b"ada")
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line = b"x" * 4000 + b"\n"
    for _ in range(4000):  # 16 MB at most: the kernel takes some of it
        ada.settimeout(DEADLINE_S)
        ada.sendall(line)
        ada.setblocking(False)
        try:
            said = ada.recv(100)
        except BlockingIOError:
            continue
        assert said == b"deaf leaves\n"
        break
    else:
        raise AssertionError("nobody was let go")
    assert "write_buffer_overflows=1" in chat.stop()
