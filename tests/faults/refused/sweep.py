"""Each system call of each program fails once, with each error that it can have; or, now and then, all of them do.

    LD_PRELOAD=refusals.so python -m faults.refused.sweep --seconds 60 --seed 1 [--program tcp] [--calls 3]

Every case is a child of its own, forked, so a crash is seen as one. What is expected of a case: an error that says "try
again" or "not here" is not noticed; another is raised by the operation that met it, or told to the exception handler,
as an OSError with that number, or is the end of a connection for the other end. Afterwards the loop works and is idle,
and all descriptors are gone. The last line of the output is JSON: {"cases": ..., "refused": ..., "broken": [...]}.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import ctypes
import errno
import gc
import json
import os
import random
import signal
import socket
import ssl
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import hoop
from conformance.tls_peers import client_context, server_context
from faults.refused.programs import PROGRAMS, Program

E = errno
NO_ROOM = (E.ENOMEM,)
NO_DESCRIPTOR = (E.EMFILE, E.ENFILE, E.ENOMEM)
AGAIN = (E.EAGAIN, E.EINTR)
SENDING = (*AGAIN, E.ENOBUFS, E.ENOMEM, E.EPIPE, E.ECONNRESET, E.ETIMEDOUT, E.EHOSTUNREACH, E.EPERM)
RECEIVING = (*AGAIN, E.ENOMEM, E.ECONNRESET, E.ETIMEDOUT, E.ECONNREFUSED)
NOT_HERE = (E.ENOSYS, E.EPERM)
WRITING_FILES = (E.EINTR, E.EIO, E.ENOSPC, E.EDQUOT)

# What each call can say, by its man page, as far as the caller's arguments are right.
ERRORS: dict[str, tuple[int, ...]] = {
    "epoll_create1": NO_DESCRIPTOR,
    "epoll_ctl": (E.ENOMEM, E.ENOSPC),
    "epoll_wait": (E.EINTR,),
    "epoll_pwait2": (E.EINTR, *NOT_HERE),
    "poll": (E.EINTR, E.ENOMEM),
    "ppoll": (E.EINTR, E.ENOMEM),
    "io_uring_setup": (*NO_DESCRIPTOR, *NOT_HERE),
    "io_uring_enter": (E.EINTR, E.EAGAIN, E.EBUSY, E.ENOMEM, *NOT_HERE),
    "eventfd": (*NO_DESCRIPTOR, *NOT_HERE),
    "timerfd_create": (*NO_DESCRIPTOR, *NOT_HERE),
    "timerfd_settime": NOT_HERE,
    "read": (E.EINTR, E.EIO),
    "write": (E.EINTR, E.EIO),
    "writev": (*AGAIN, E.EIO, E.EPIPE),
    "send": SENDING,
    "sendmsg": SENDING,
    "sendto": SENDING,
    "sendmmsg": (*SENDING, E.ENOSYS),
    "recv": RECEIVING,
    "recvfrom": RECEIVING,
    "recvmmsg": (*RECEIVING, E.ENOSYS),
    "accept4": (*AGAIN, *NO_DESCRIPTOR, E.ENOBUFS, E.ECONNABORTED, E.EPERM, E.EPROTO),
    "socket": (*NO_DESCRIPTOR, E.ENOBUFS, E.EACCES),
    "connect": (E.EAGAIN, E.ECONNREFUSED, E.ETIMEDOUT, E.ENETUNREACH, E.EADDRNOTAVAIL, E.EPERM),
    "bind": (E.EADDRINUSE, E.EACCES, E.ENOMEM),
    "listen": (E.EADDRINUSE,),
    "setsockopt": (E.ENOMEM, E.ENOBUFS, E.EINVAL),
    "getsockopt": (E.ENOBUFS,),
    "getsockname": (E.ENOBUFS,),
    "getpeername": (E.ENOBUFS, E.ENOTCONN),
    "shutdown": (E.ENOTCONN, E.ENOBUFS),
    "close": (E.EINTR, E.EIO),
    "fcntl": NO_ROOM,
    "pipe2": NO_DESCRIPTOR[:2],
    "pidfd_open": (*NO_DESCRIPTOR, E.ENODEV, *NOT_HERE),
    "pthread_create": (E.EAGAIN,),
    "getaddrinfo": (socket.EAI_AGAIN, socket.EAI_MEMORY, socket.EAI_FAIL),
    "open": (E.EINTR, *NO_DESCRIPTOR, E.EACCES),
    "openat": (E.EINTR, *NO_DESCRIPTOR, E.EACCES),
    "openat2": (E.EINTR, *NO_DESCRIPTOR, E.EAGAIN, *NOT_HERE),
    "statx": (E.ENOMEM, *NOT_HERE),
    "preadv2": (E.EINTR, E.EAGAIN, E.EIO, E.EOPNOTSUPP, *NOT_HERE),
    "pread": (E.EINTR, E.EIO),
    "pwrite": WRITING_FILES,
    "fsync": WRITING_FILES,
    "fstat": NO_ROOM,
    "copy_file_range": (E.EINTR, E.EIO, E.ENOSPC, E.EXDEV, E.EOPNOTSUPP, *NOT_HERE),
    "sendfile": (*AGAIN, E.EIO, E.ENOMEM, E.EPIPE),
}
# Calls that hoop does without: whatever they say is not noticed.
DISPENSABLE = {
    *("epoll_pwait2", "timerfd_create", "timerfd_settime", "pidfd_open", "openat2", "statx", "preadv2"),
    *("io_uring_setup", "io_uring_enter"),
}
# Calls that have a substitute where a kernel does not know them, or a sandbox refuses them.
REPLACEABLE = {"eventfd", "recvmmsg", "sendmmsg", "copy_file_range"}
# What cannot be seen, since nobody who calls could do anything about it.
UNSEEN = {("close", E.EINTR)}

# Errors that are over once they are told, so that a kernel that has nothing else to say is none.
PASSING = {E.ECONNABORTED, E.EPROTO}

LONGEST_S = 12.0  # a listener that is refused a descriptor tries again after 1 s
ALARM_S = 30
FEW_TURNS = 60  # of a loop with nothing to do
FOR_A_WHILE_S = 0.15

Rule = tuple[str, int, int, int]  # name, error, first, every
shim: Any = ctypes.CDLL(None)


def is_unnoticed(name: str, error: int) -> bool:
    """Whether a program must go on as if nothing had been."""
    if name in ("pthread_create", "getaddrinfo", "socket", "connect"):
        return False
    return (
        error in AGAIN or name in DISPENSABLE or (name, error) in UNSEEN or (name in REPLACEABLE and error in NOT_HERE)
    )


def comes_from(error: BaseException | None, numbers: set[int]) -> bool:
    """Whether an exception is, or was made from, an OSError with one of the numbers."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, OSError) and one.errno in numbers:
            return True
        waiting += [one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ())]
    return False


def is_consequence(error: BaseException, rules: list[Rule]) -> bool:
    """Whether an operation may have ended so because of the rules: their errors, or the other end's end."""
    numbers = {number for _, number, _, _ in rules}
    if comes_from(error, numbers) or isinstance(error, ConnectionError | EOFError | ssl.SSLError):
        return True
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return any(name == "pthread_create" for name, _, _, _ in rules)
    # create_connection and create_server put their own words around the numbers
    return isinstance(error, OSError) and any(os.strerror(number).lower() in str(error).lower() for number in numbers)


def descriptors() -> set[str]:
    """Open descriptors and what they are, without the one that lists them."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{name}: {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def set_rules(rules: list[Rule]) -> None:
    for name, error, first, every in rules:
        shim.refusals_set(name.encode(), error, ctypes.c_long(first), ctypes.c_long(every))
    shim.refusals_arm(1)


class Case:
    """One run of one program under rules, in this process."""

    def __init__(self, program: Program, rules: list[Rule], is_for_a_while: bool) -> None:
        self.program = program
        self.rules = rules
        self.is_for_a_while = is_for_a_while
        self.wrong: list[str] = []
        self.reports: list[dict[str, Any]] = []
        self.turns = 0

    def run(self, folder: Path, contexts: Any) -> list[str]:
        """What is wrong."""
        before = descriptors()
        set_rules(self.rules)
        try:
            loop = hoop.Loop()
        except Exception as error:
            self.judge(error, "Loop()")
            loop = None
        if loop is not None:
            loop.set_exception_handler(lambda _, context: self.reports.append(context))
            self.run_on(loop, folder, contexts)
        shim.refusals_arm(0)
        for context in self.reports:
            error = context.get("exception")
            if error is None or not is_consequence(error, self.rules):
                self.wrong.append(f"a report: {context}")
        self.program = None  # type: ignore[assignment]
        loop = None
        self.reports.clear()
        gc.collect()
        if left := descriptors() - before:
            self.wrong.append(f"descriptors: {sorted(left)}")
        return self.wrong

    def run_on(self, loop: hoop.Loop, folder: Path, contexts: Any) -> None:
        if self.is_for_a_while:
            loop.call_later(FOR_A_WHILE_S, shim.refusals_arm, 0)
        try:
            loop.run_until_complete(asyncio.wait_for(self.program(folder, contexts), LONGEST_S))
        except Exception as error:
            self.judge(error, "the program")
        is_armed_again = not self.is_for_a_while
        shim.refusals_arm(0)
        try:
            loop.run_until_complete(asyncio.wait_for(still_works(loop), LONGEST_S))
        except Exception as error:
            self.wrong.append(f"afterwards: {told(error)}")
        shim.refusals_arm(is_armed_again)
        try:
            loop.close()
        except Exception as error:
            self.judge(error, "close()")

    def judge(self, error: Exception, what: str) -> None:
        noticed = [(name, number) for name, number, _, _ in self.rules if not is_unnoticed(name, number)]
        if not noticed or not is_consequence(error, self.rules):
            self.wrong.append(f"{what}: {told(error)}")


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)[-6:])


async def still_works(loop: Any) -> None:
    """A connection, a call from a thread, a timer; then the loop has nothing to do."""
    left, right = socket.socketpair()
    with left, right:
        for sock in (left, right):
            sock.setblocking(False)
        receiving = loop.create_task(loop.sock_recv(right, 10))
        await asyncio.sleep(0.0011)
        await loop.sock_sendall(left, b"ping")
        assert await receiving == b"ping"
    assert await loop.run_in_executor(None, abs, -1) == 1
    before = loop.metrics().turns
    await asyncio.sleep(0.02)
    turns = loop.metrics().turns - before
    assert turns < FEW_TURNS, f"an idle loop takes {turns} turns"
    await loop.shutdown_default_executor()


class Sweep:
    """Makes cases and runs them, until the time is over."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.random = random.Random(options.seed)
        self.contexts = (server_context(), client_context())
        self.deadline = time.monotonic() + options.seconds
        self.broken: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()

    def in_child(self, program: str, rules: list[Rule], is_for_a_while: bool = False) -> dict[str, Any]:
        """Run a case; what it says: {"wrong": [...], "seen": {...}, "made": ...}."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            self.be_child(writing, program, rules, is_for_a_while)
        os.close(writing)
        text = bytearray()
        while data := os.read(reading, 65536):
            text += data
        os.close(reading)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            what = "hangs" if code == -signal.SIGALRM else f"ends with {code}"
            return {"wrong": [f"the process {what}"], "seen": {}, "made": 1}
        said: dict[str, Any] = json.loads(text)
        return said

    def be_child(self, writing: int, program: str, rules: list[Rule], is_for_a_while: bool) -> None:
        code = 99
        try:
            signal.alarm(ALARM_S)
            folder = self.folder / str(os.getpid())
            folder.mkdir()
            wrong = Case(PROGRAMS[program], rules, is_for_a_while).run(folder, self.contexts)
            seen = {name: shim.refusals_seen(name.encode()) for name in ERRORS}
            made = sum(shim.refusals_made(name.encode()) for name in {rule[0] for rule in rules})
            said = json.dumps({"wrong": wrong, "seen": seen, "made": made}).encode()
            while said:
                said = said[os.write(writing, said) :]
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def note(self, program: str, rules: list[Rule], said: dict[str, Any], kind: str) -> None:
        self.counts[kind] += 1
        self.counts["refused"] += said["made"]
        for name, _, _, _ in rules if len(rules) == 1 else ():
            self.counts[f"refused {name}"] += said["made"]
        for wrong in said["wrong"]:
            shown = ", ".join(
                f"{name}={code_of(name, error)} at {first}/{every}" for name, error, first, every in rules
            )
            self.broken.append(f"{program}, {shown}: {wrong}")
            print(f"BROKEN {self.broken[-1]}", flush=True)

    def cases(self, program: str) -> list[tuple[str, list[Rule], bool]]:
        """All cases of one program: each call that it makes fails once, and then for a while."""
        seen = self.in_child(program, [])
        self.note(program, [], seen, "without refusals")
        cases: list[tuple[str, list[Rule], bool]] = []
        for name, count in seen["seen"].items():
            for error in ERRORS[name]:
                times = range(1, min(count, self.options.calls) + 1)
                cases += [(program, [(name, error, first, 0)], False) for first in times]
                if count and error not in AGAIN and error not in PASSING:
                    cases.append((program, [(name, error, 1, 1)], True))
        return cases

    def at_random(self, program: str) -> list[Rule]:
        """Every call now and then."""
        rules = []
        for name, errors in ERRORS.items():
            every = self.random.randrange(5, 200)
            rules.append((name, self.random.choice(errors), self.random.randrange(1, every), every))
        return rules

    def run(self) -> None:
        programs = [self.options.program] if self.options.program else list(PROGRAMS)
        cases = [case for program in programs for case in self.cases(program)]
        self.random.shuffle(cases)
        self.counts["planned"] = len(cases)
        for program, rules, is_for_a_while in cases:
            if time.monotonic() > self.deadline:
                break
            kind = "for a while" if is_for_a_while else "once"
            self.note(program, rules, self.in_child(program, rules, is_for_a_while), kind)
            if self.random.random() < 0.1:
                mixed = self.at_random(program)
                self.note(program, mixed, self.in_child(program, mixed), "at random")


def run_always(sweep: Sweep, refused: str) -> None:
    """Every program, with "name=number name=number" refused from its first call to its last."""
    rules = [(name, int(number), 1, 1) for name, _, number in (item.partition("=") for item in refused.split())]
    for program in PROGRAMS:
        sweep.note(program, rules, sweep.in_child(program, rules), "always")


def code_of(name: str, error: int) -> str:
    return str(error) if name == "getaddrinfo" else errno.errorcode[error]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="then it stops, between two cases")
    parser.add_argument("--seed", type=int, default=1, help="the order of the cases, and what is refused at random")
    parser.add_argument(
        "--calls", type=int, default=3, help="how many of the first calls of a name fail, one in each case"
    )
    parser.add_argument("--always", help='only this: "name=number ..." refused all the time, in every program')
    parser.add_argument("--program", choices=list(PROGRAMS), help="only this one")
    options = parser.parse_args()
    if not hasattr(shim, "refusals_arm"):
        parser.error("runs with LD_PRELOAD=refusals.so only")
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(options, Path(folder))
        if options.always:
            run_always(sweep, options.always)
        else:
            sweep.run()
    print(json.dumps({"counts": sweep.counts, "broken": len(sweep.broken)}))
    return 1 if sweep.broken else 0


if __name__ == "__main__":
    sys.exit(main())
