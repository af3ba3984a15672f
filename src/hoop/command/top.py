"""hoop top: what a cluster, or one process, does now; drawn again each second."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from hoop.cluster.control import ControlClient, Json, Refused, find_control
from hoop.cluster.log import is_coloured
from hoop.command.parser import seconds
from hoop.command.reaching import add_control_option, ask_soon, status_of
from hoop.command.top_frame import frame

DESCRIPTION = """\
Show what the workers of a cluster do, or one process that has called hoop.inspect.serve(): connections, processor
time, how busy the loops are and how late they look for work. It reads what they write anyway: no worker is asked.

Figures are those of the time since the last look. LAG50, LAG99 and MAX: what became ready waited at most so long until
its loop looked, in half of the cases, in 99 of 100, at worst. POOL: jobs in the loop's thread pool.
"""
EPILOG = """\
examples:
  hoop top                        the only cluster of yours that runs; q or Ctrl-C leaves
  hoop top --interval 5
  hoop top --once                 one table, of the second that follows
  hoop top --once --json          the same for programs
  hoop top --control /run/app/control.sock

exit status: 0 done, 1 it could not be told, 2 wrong options, 4 no cluster and no process answers.
"""
SHORTEST_S, LONGEST_S = 0.05, 3600.0
PIPE_WIDTH = 160  # columns where the output is no terminal


def add_to(commands: Any) -> None:
    """The subcommand's parser."""
    parser = commands.add_parser(
        "top",
        help="look at a cluster, or a process, that runs",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    add_control_option(parser)
    parser.add_argument("--interval", metavar="TIME", type=interval, default=1.0, help="between two looks (default: 1)")
    parser.add_argument("--once", action="store_true", help="look for one interval, print, and end")
    parser.add_argument("--json", action="store_true", help="print JSON, with --once")


def interval(text: str) -> float:
    value = seconds(text)
    if not SHORTEST_S <= value <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not between {SHORTEST_S} and {LONGEST_S:.0f} seconds")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Look; the exit status."""
    if arguments.json and not arguments.once:
        arguments.parser.error("--json needs --once")
    if not arguments.once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        arguments.parser.error("this is no terminal: --once prints one table")
    return status_of("top", arguments, once if arguments.once else watch)


def once(arguments: argparse.Namespace) -> int:
    with ControlClient(find_control(arguments.control)) as client:
        ask_soon(client, "look")
        time.sleep(arguments.interval)
        look = ask_soon(client, "look")
    if arguments.json:
        print(json.dumps({"ok": True, "result": look}, indent=2))
        return 0
    width = PIPE_WIDTH
    if sys.stdout.isatty():
        with contextlib.suppress(OSError):
            width = os.get_terminal_size(sys.stdout.fileno()).columns or PIPE_WIDTH
    lines = frame(look, width, len(look["workers"]) + 10, coloured=is_coloured(sys.stdout))
    print("\n".join(lines[:-1]))  # without the keys
    return 0


# ---- on a terminal --------------------------------------------------------------------------------------------------


class Source:
    """Answers to "look", one after the other, of a cluster that may end, start again or not answer for a while."""

    def __init__(self, control: str | None) -> None:
        self._control = control
        self._client: ControlClient | None = None
        self._unread = b""
        self._asked_at: float | None = None  # and not answered yet
        self.notice: str | None = None

    @property
    def socket(self) -> Any:
        """To wait for."""
        return None if self._client is None else self._client.socket

    def ask(self) -> None:
        """Unless the last question has no answer yet: then say so."""
        now = time.monotonic()
        if self._asked_at is not None:
            self.notice = f"no answer for {now - self._asked_at:.0f} s: these are the figures of before"
            return
        try:
            if self._client is None:
                self._client = ControlClient(find_control(self._control))
                self._client.socket.setblocking(False)
            self._client.socket.sendall(b'{"command": "look"}\n')
            self._asked_at = now
        except (LookupError, OSError) as error:
            self._lose(error.strerror or str(error) if isinstance(error, OSError) else str(error))

    def read(self) -> Iterator[Json]:
        """What has come. Refused if the other side will not."""
        assert self._client is not None
        try:
            data = self._client.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if not data:
            self._lose("it has ended; these are its last figures")
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if not answer["ok"]:
                raise Refused(answer["error"])
            self._asked_at = self.notice = None
            yield answer["result"]

    def _lose(self, reason: str) -> None:
        self.close()
        self.notice = reason

    def close(self) -> None:
        """Idempotent."""
        if self._client is not None:
            self._client.close()
        self._client, self._asked_at, self._unread = None, None, b""


def watch(arguments: argparse.Namespace) -> int:
    """Until q. What cannot be reached at the beginning is an error; later, it may come back."""
    from hoop.command.screen import Ended, Screen

    with ControlClient(find_control(arguments.control)) as client:
        look = ask_soon(client, "look")
    source = Source(arguments.control)
    try:
        with Screen() as screen:
            loop(screen, source, look, arguments.interval)
    except Ended as ended:
        return 128 + int(str(ended))
    finally:
        source.close()
    return 0


def loop(screen: Any, source: Source, look: Json, every: float) -> None:
    from hoop.command.screen import KEY, READY, TIME

    coloured = is_coloured(sys.stdout)
    due = time.monotonic()
    while True:
        what, key = screen.wait(due - time.monotonic(), source.socket)
        if what == KEY and ("q" in key or "Q" in key):
            return
        if what == TIME and time.monotonic() >= due:
            due = max(due + every, time.monotonic())
            source.ask()
            if source.notice is None:
                continue  # the answer is what is drawn
        if what == READY:
            answers = list(source.read())
            if not answers and source.notice is None:
                continue  # a part of an answer
            look = answers[-1] if answers else look
        width, height = screen.size()
        screen.draw(frame(look, width, height, coloured=coloured, notice=source.notice))
