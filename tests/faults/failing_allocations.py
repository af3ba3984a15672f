"""Run a small program again and again while the k-th allocation fails, for many k. A script, for a process of its own:

    LD_PRELOAD=failing_allocator.so \
    python failing_allocations.py failing_allocator.so PROGRAM LOOP OWNERS RUNS SEED [K...]

OWNERS: on whose behalf the allocation is made, "hoop" (its compiled code), "python" (Python code), "other" (other
compiled modules), or a sum ("hoop+python"); only these count. RUNS: how many of the k are tried, spread evenly from a
place that SEED chooses; "all" for every one. K: only these. Each is a child of fork(2), so that a crash or a hang is
that one's. One line of JSON for each k at which something is wrong, and one at the end with what was done.

What is wrong: a crash; no end; MemoryError neither raised nor told to an exception handler, and yet something is
missing; anything that happened twice; a descriptor, thread or hook that stays; a loop, or a process, on which the same
program does not work afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import random
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import hoop
from small_programs import PROGRAMS, Log, Program

LONGEST_S = 4  # a run takes milliseconds
INSIST_S = 0.02
FOR_EVER = 2**40
OWNERS = {"hoop": 1, "python": 2, "other": 4}  # as in failing_allocator.c

allocator: Any = None


class Run:
    """One loop and what is told of it."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop], program: Program) -> None:
        self.factory = factory
        self.program = program
        self.told: list[str] = []
        self.log = Log()
        self.loop: Any = None
        self.task: asyncio.Task[None] | None = None

    def tell(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.told.append(f"{context['message']}: {described(error)}")
        if self.task is not None:
            self.insist(self.task)

    def insist(self, task: asyncio.Task[None]) -> None:
        """Whoever waits for what will not come any more is woken, and again in its `finally`."""
        if not task.done():
            task.cancel()
            self.loop.call_later(INSIST_S, self.insist, task)

    def go(self) -> None:
        """The program, on a loop that is made if there is none yet. What it raises is told."""
        try:
            if self.loop is None:
                self.loop = self.factory()
            self.loop.set_exception_handler(self.tell)
            self.task = self.loop.create_task(self.program(self.log))
            self.loop.run_until_complete(self.task)
        except BaseException as error:
            self.told.append(f"raised: {described(error)}")
            del error

    def close(self) -> None:
        try:
            if self.loop is not None:
                self.loop.close()
        except BaseException as error:
            self.told.append(f"close: {described(error)}")
            self.loop.close()

    def clear(self) -> None:
        """After a failure: what still runs is cancelled."""
        left = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        for task in left:
            task.cancel()
        if left:
            self.task = self.loop.create_task(asyncio.wait(left))
            self.loop.run_until_complete(self.task)


def described(error: BaseException | None) -> str:
    if error is None:
        return "None"
    causes = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(causes[-1].filename)}:{causes[-1].lineno} {causes[-1].name}" if causes else ""
    inner = ", ".join(described(each) for each in error.exceptions) if isinstance(error, BaseExceptionGroup) else ""
    return f"{type(error).__name__}({str(error)[:80]}{inner}){place}"


def start_thread(start: Callable[[threading.Thread], None], thread: threading.Thread) -> None:
    """threading.Thread.start() waits for ever for a thread that found no memory to begin with: that is CPython's."""
    allocator.pause_failing(1)
    try:
        start(thread)
    finally:
        allocator.pause_failing(0)


def descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return {fd: kind for fd, kind in found.items() if not kind.endswith("/fd")}


def process_state() -> dict[str, Any]:
    """What a loop must put back."""
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return {
        "wakeup descriptor": wakeup,
        "asyncgen hooks": tuple(sys.get_asyncgen_hooks()),
        "origin depth": sys.get_coroutine_origin_tracking_depth(),
        "running loop": asyncio._get_running_loop(),
        "SIGUSR1": signal.getsignal(signal.SIGUSR1),
    }


def faults_of(log: Log, told: list[str], expected: set[str]) -> list[str]:
    """What is wrong with what happened."""
    faults = [f"{name} happened {count} times" for name, count in log.noted.items() if count > 1]
    for peer in log.made:
        if peer.begun > 1 or peer.ended > 1:
            faults.append(f"connection_made {peer.begun} times, connection_lost {peer.ended} times")
        elif peer.begun != peer.ended and not told:
            faults.append(f"connection_made {peer.begun} times, connection_lost {peer.ended} times, nothing was told")
    if not told and set(log.noted) != expected:
        faults.append(f"nothing was told, but missing: {sorted(expected - set(log.noted))}")
    return faults


def attempt(run: Run, first: int, last: int, owners: int, expected: set[str]) -> dict[str, Any]:
    """In a child: the allocations from first on fail, up to last. What became of it."""
    fds, state = descriptors(), process_state()
    sys.unraisablehook = lambda told: run.told.append(
        f"unraisable: {told.err_msg} {told.object!r} {described(told.exc_value)}"
    )
    threading.excepthook = lambda told: run.told.append(f"thread: {described(told.exc_value)}")
    start = threading.Thread.start
    threading.Thread.start = lambda thread: start_thread(start, thread)  # type: ignore[method-assign]
    allocator.fail_allocations(first, last, owners)
    run.go()
    if not run.told:
        run.close()
    made = allocator.allocations_made()
    allocator.stop_failing()
    told = list(run.told)
    first_log = run.log
    faults = []
    wrong = [line for line in told if "Error" in line and "MemoryError" not in line]
    if run.loop is not None and not run.loop.is_closed():
        run.clear()
        run.told.clear()
        run.log = Log()
        run.go()
        if run.told or faults_of(run.log, [], expected):
            faults.append(f"the loop does not work any more: {run.told} {faults_of(run.log, [], expected)}")
        run.close()
    run.task = None
    gc.collect()
    faults += faults_of(first_log, told, expected)
    del first_log
    later = Run(run.factory, run.program)
    later.go()
    later.close()
    if later.told or faults_of(later.log, [], expected):
        faults.append(f"a new loop does not work any more: {later.told} {faults_of(later.log, [], expected)}")
    run.loop = later.loop = run.task = later.task = None
    run.log = later.log = Log()
    gc.collect()
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(1)
            if thread.is_alive():
                faults.append(f"{thread} is left")
    left = {fd: kind for fd, kind in descriptors().items() if fd not in fds}
    if left:
        faults.append(f"descriptors are left: {left}")
    after = process_state()
    faults += [f"{name} is {after[name]!r}, was {state[name]!r}" for name in state if after[name] != state[name]]
    return {"made": made, "told": told, "faults": faults, "odd": wrong}


def watch(run: Run) -> None:
    """Show what is waited for when time is up, then die of SIGALRM."""

    def show(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        signal.alarm(1)
        print("told:", run.told, file=sys.stderr)
        traceback.print_stack(frame)
        for task in asyncio.all_tasks(run.loop) if run.loop is not None else ():
            task.print_stack()
        sys.stderr.flush()

    signal.signal(signal.SIGALRM, show)
    signal.alarm(LONGEST_S)


def forked(run: Run, first: int, last: int, owners: int, expected: set[str]) -> dict[str, Any]:
    """attempt() in a child, which may die of it."""
    read_end, write_end = os.pipe()
    with tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            os.dup2(errors.fileno(), 2)
            faulthandler.enable()
            watch(run)
            report = attempt(run, first, last, owners, expected)
            signal.alarm(0)
            os.write(write_end, json.dumps(report).encode())
            os._exit(0)
        os.close(write_end)
        text = b""
        while piece := os.read(read_end, 65536):
            text += piece
        os.close(read_end)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            report = json.loads(text)
        else:
            what = {-signal.SIGALRM: "it does not end"}.get(code, f"it ends with status {code}")
            report = {"made": 0, "told": [], "faults": [what], "odd": []}
        if report["faults"]:
            errors.seek(0)
            report["errors"] = errors.read()[-6000:].decode("utf-8", "replace")
    return report


def main() -> None:
    global allocator
    library, name, loop_name, owners, runs, seed, *numbers = sys.argv[1:]
    allocator = ctypes.CDLL(library)
    warnings.simplefilter("ignore")
    whose = sum(OWNERS[owner] for owner in owners.split("+"))
    factory: Any = asyncio.SelectorEventLoop if loop_name == "asyncio" else hoop.Loop
    program = PROGRAMS[name]
    for _ in range(3):  # what is made at first use is made now
        run = Run(factory, program)
        run.go()
        expected = set(run.log.noted)
        run.close()
        if run.told:
            raise SystemExit(f"{name} on {loop_name} fails without a fault: {run.told}")
    del run
    gc.collect()
    gc.freeze()
    count = forked(Run(factory, program), FOR_EVER, FOR_EVER, whose, expected)["made"]
    if numbers:
        chosen = [int(number) for number in numbers]
    else:
        step = 1.0 if runs == "all" else max(1.0, count / int(runs))
        start = random.Random(int(seed)).random() * step
        chosen = sorted({1 + int(start + step * index) for index in range(int(count / step))})
    bad = told = 0
    for k in chosen:
        report = forked(Run(factory, program), k, k + 1, whose, expected)
        told += bool(report["told"])
        bad += bool(report["faults"])
        if report["faults"] or numbers:
            print(json.dumps({"program": name, "k": k, **report}), flush=True)
    print(
        json.dumps({"program": name, "allocations": count, "runs": len(chosen), "told": told, "bad": bad}), flush=True
    )


if __name__ == "__main__":
    main()
