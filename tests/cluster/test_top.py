"""hoop top: a table, JSON, and a screen that is drawn in place and leaves its terminal as it was."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from clusters import LINES_APP, PATIENCE_S, Cluster
from hoop.cluster.control import ControlClient
from hoop.command.main import main
from hoop.command.screen import ENTER, LEAVE

OWN_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # its keys and its size are signals for us
from hoop.command.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a cluster of two, one worker of which has been killed."""
    folder = tmp_path_factory.mktemp("top")
    (folder / "app.py").write_text(LINES_APP)
    path = folder / "c.sock"
    words = ["serve", "app:main", "--workers", "2", "--bind", "127.0.0.1:0", "--control", str(path)]
    cluster = Cluster(f"import sys\nfrom hoop.command.main import main\nsys.exit(main({words!r}))", folder)
    try:
        cluster.expect("serving on")
        os.kill(int(look_at(path)["workers"][1]["pid"]), signal.SIGKILL)
        cluster.expect("was killed by SIGKILL")
        cluster.expect("ready after")
        yield path
    finally:
        cluster.close()


def look_at(path: Path) -> Any:
    with ControlClient(path) as client:
        return client.ask("look")


def test_json_for_programs(control: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--control", str(control), "--once", "--json", "--interval", "0.05"]) == 0
    worker = json.loads(capsys.readouterr().out)["result"]["workers"][1]
    assert worker["slot"] == 1 and worker["state"] == "serving"
    assert worker["last_exit"]["how"] == "was killed by SIGKILL" and worker["last_exit"]["count"] == 1
    assert worker["seconds"] >= 0.05 and 0 <= worker["utilization"] <= 1
    assert {"lag_p50", "lag_p99", "lag_max", "cpu", "rss", "jobs", "connections", "accepts_per_s"} <= worker.keys()


def test_a_table_where_the_output_is_no_terminal(control: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--control", str(control), "--once", "--interval", "0.05"]) == 0
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert output.isascii() and "\x1b" not in output
    assert lines[0].startswith("master ") and lines[3].split()[:2] == ["SLOT", "PID"]
    assert "ago: was killed by SIGKILL" in lines[5]


def test_mistakes_are_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    for words, text in (
        ([], "no terminal: --once"),
        (["--json"], "--json needs --once"),
        (["--interval", "0"], "is not between"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["top", *words])
        assert ended.value.code == 2 and text in capsys.readouterr().err
    assert main(["top", "--once", "--control", "/nowhere/x"]) == 4
    assert "no cluster answers at /nowhere/x" in capsys.readouterr().err


class Terminal:
    """hoop top under a pseudoterminal, and what it has drawn."""

    def __init__(self, *words: str, **environment: str) -> None:
        self.master, self._slave = pty.openpty()
        self.resize(100, 12)
        self.before = termios.tcgetattr(self._slave)
        base = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, "top", *words],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={**base, "TERM": "xterm", **environment},
            start_new_session=True,
        )
        self.output = ""

    def resize(self, columns: int, lines: int) -> None:
        """The kernel tells the program: SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def expect(self, pattern: str) -> str:
        """Read until that is there; what came up to its end."""
        deadline = time.monotonic() + PATIENCE_S * 2
        while (found := re.search(pattern, self.output, re.DOTALL)) is None:
            ready = select.select([self.master], [], [], max(deadline - time.monotonic(), 0))[0]
            assert ready, f"{pattern!r} has not come: {self.output!r}"
            self.output += os.read(self.master, 65536).decode()
        seen, self.output = self.output[: found.end()], self.output[found.end() :]
        return seen

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def ended(self) -> int:
        status = self.process.wait(PATIENCE_S * 2)
        assert termios.tcgetattr(self._slave) == self.before
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self.master)


def test_the_screen_is_drawn_in_place_and_left_as_it_was(control: Path) -> None:
    with Terminal("--control", str(control), "--interval", "0.05") as terminal:
        assert terminal.expect(re.escape(ENTER)) == ENTER
        first = terminal.expect("q quits")
        assert first.startswith("\x1b[H") and "\x1b[2J" not in first  # nothing flickers
        assert "\x1b[32mserving" in first
        terminal.expect("q quits")
        terminal.resize(40, 5)
        terminal.expect(r"\x1b\[H[^\n]{1,60}\n[^\n]{1,60}\n[^\n]{1,60}\n[^\n]*SLOT[^\n]*\n[^\n]*more")
        terminal.type("q")
        terminal.expect(re.escape(LEAVE))
        assert terminal.ended() == 0


@pytest.mark.parametrize(
    ("leave", "status"), [("\x03", 0), (signal.SIGTERM, 128 + signal.SIGTERM)], ids=["ctrl_c", "sigterm"]
)
def test_trap_whatever_ends_it_puts_the_terminal_back(control: Path, leave: str | int, status: int) -> None:
    with Terminal("--control", str(control), "--interval", "0.05", NO_COLOR="1") as terminal:
        assert not re.search(r"\x1b\[\d+m", terminal.expect("q quits"))
        if isinstance(leave, str):
            terminal.type(leave)
        else:
            terminal.process.send_signal(leave)
        terminal.expect(re.escape(LEAVE))
        assert terminal.ended() == status


def test_stopped_by_ctrl_z_it_hands_the_terminal_over(control: Path) -> None:
    with Terminal("--control", str(control), "--interval", "0.05") as terminal:
        terminal.expect("q quits")
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.expect(re.escape(LEAVE))
        os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.expect(re.escape(ENTER))
        terminal.expect("q quits")
        terminal.type("q")
        assert terminal.ended() == 0


def test_what_has_ended_stays_on_the_screen_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    program = f"""
import asyncio, hoop, hoop.inspect
async def main():
    with hoop.inspect.serve({str(path)!r}):
        print("open", flush=True)
        await asyncio.to_thread(input)
hoop.run(main())
"""

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"open\n"
        return process

    served = start()
    try:
        with Terminal("--control", str(path), "--interval", "0.05") as terminal:
            terminal.expect(f"process {served.pid} running")
            served.communicate(b"\n")
            terminal.expect("no cluster answers|it has ended; these are its last figures")
            served = start()
            terminal.expect(f"process {served.pid} running")
            served.send_signal(signal.SIGSTOP)
            terminal.expect("no answer for")
            served.send_signal(signal.SIGCONT)
            terminal.type("q")
            assert terminal.ended() == 0
    finally:
        served.communicate(b"\n")
