"""The call fuzzer: seeded rounds of calls of every public method, with values that suit and others, in any order.

    python -m fuzz.calls FOLDER SEED SECONDS [ROUND]     from the folder tests; with ROUND only that one

Each round has loops of its own. Its calls come from the thread that owns the loop while it does not run, from inside
its callbacks, and from other threads while it runs. Exceptions are a right answer. A crash, a hang, a SystemError (C
code that failed without saying why) or a descriptor left over when all is closed is not; the process then ends with the
calls of that round in its folder, in the file `calls`. The file `faults` has what was found.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import functools
import gc
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any, TextIO

import hoop
from fuzz.world import World, opened

STEPS = 80
HANG_S = 60.0  # longer than any round needs, also on a machine that does ten other things
SETTLE_S = 20.0
FIRST_OWN = 500  # descriptors from here on are the fuzzer's: no call gets them or can be given them

faults: list[str] = []


def kept_open(path: Path, mode: str) -> TextIO:
    """A file whose descriptor no call will close by taking its number for another's."""
    with open(path, mode) as file:
        return os.fdopen(fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, FIRST_OWN), mode)


def note_unraisable(unraisable: Any) -> None:
    if isinstance(unraisable.exc_value, SystemError):
        faults.append(f"unraisable {unraisable.exc_value!r} in {unraisable.object!r}")


def note_in_thread(arguments: Any) -> None:
    if isinstance(arguments.exc_value, SystemError):
        faults.append(f"{arguments.exc_value!r} in a thread")


def run_for_a_moment(world: World) -> None:
    """A loop runs until somebody stops it, with a step of the round inside."""
    loop = world.random.choice(world.loops)
    schedule = world.random.choice(
        [
            loop.call_soon,
            loop.next_tick,
            loop.queue_microtask,
            loop.set_immediate,
            functools.partial(loop.call_later, 0),
        ]
    )
    world.say("the loop runs")
    schedule(world.react, "the running loop")
    world.random.choice([loop.run_forever, loop.run_forever, loop.run])()


def step_elsewhere(world: World) -> None:
    thread = threading.Thread(target=world.step, args=("in a thread: ",), daemon=True)
    thread.start()
    world.threads.append(thread)


def play(world: World) -> None:
    for _ in range(STEPS):
        chance = world.random.random()
        if chance < 0.55:
            world.step()
        elif chance < 0.7:
            step_elsewhere(world)
        else:
            try:
                run_for_a_moment(world)
            except SystemError:
                raise
            except Exception as error:
                world.say(f"  the run ended with {type(error).__name__}")


def keep_stopping(world: World, is_over: threading.Event) -> None:
    while not is_over.wait(0.01):
        world.stop_all()


def one_round(seed: str, folder: Path, say: Any) -> None:
    os.chdir(folder)
    world, is_over = World(seed, say), threading.Event()
    asyncio.set_event_loop(world.loops[0])  # or asyncio makes one of its own for whoever asks, and never closes it
    stopper = threading.Thread(target=keep_stopping, args=(world, is_over), daemon=True)
    stopper.start()
    try:
        play(world)
    finally:
        say("the end")
        for thread in world.threads:
            thread.join(HANG_S)
        world.shut_down()  # stopped by that thread, too: a loop whose clock stands still calls no timer
        is_over.set()
        stopper.join()
        asyncio.set_event_loop(None)


def left_over(before: set[str]) -> set[str]:
    """Descriptors that are open now and were not, when threads and garbage have had the time to go."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        gc.collect()
        remaining = {entry for entry in opened() if int(entry.split()[0]) < FIRST_OWN and not is_report(entry)} - before
        if not remaining or time.monotonic() > deadline:
            return remaining
        time.sleep(0.01)


def is_report(entry: str) -> bool:
    """Whether it is the file of AddressSanitizer, which it opens when it warns of a size that cannot be had."""
    return entry.endswith(f"/address.{os.getpid()}")


def quieten(folder: Path) -> TextIO:
    """Standard descriptors lead nowhere, so that no call is hurt or hurts by them. The file that crashes go to."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nowhere, number)
    os.dup2(os.open(folder / "errors", os.O_WRONLY | os.O_CREAT), 2)
    crash = kept_open(folder / "crash", "w")
    faulthandler.enable(crash)
    sys.unraisablehook = note_unraisable
    threading.excepthook = note_in_thread
    warnings.simplefilter("ignore")
    import logging

    logging.disable()
    if hasattr(sys, "gettotalrefcount"):
        # A debug build of CPython asserts that the last instruction of a frame is one of its code. The frames that
        # Cython makes for coroutines have none, so the representation of their tasks would end the process there.
        asyncio.coroutines._format_coroutine = lambda coroutine: type(coroutine).__name__  # type: ignore[attr-defined]
    return crash


def main(folder: Path, seed: int, seconds: float, only: int | None) -> int:
    calls = kept_open(folder / "calls", "w+")
    summary = kept_open(folder / "faults", "w")
    crash = quieten(folder)

    def say(text: str) -> None:
        calls.write(text[:200] + "\n")
        calls.flush()

    hoop.run(hoop.fs.exists("."))  # what is opened once for the process
    random.seed(seed)
    end, number = time.monotonic() + seconds, only or 0
    count = 0
    while time.monotonic() < end or (only is not None and count == 0):
        calls.truncate(0)
        calls.seek(0)
        say(f"seed {seed}, round {number}")
        faulthandler.dump_traceback_later(HANG_S, exit=True, file=crash)
        before = {entry for entry in opened() if int(entry.split()[0]) < FIRST_OWN}
        place = Path(tempfile.mkdtemp(dir=folder))
        try:
            one_round(f"{seed}:{number}", place, say)
        except SystemError as error:
            faults.append(f"{error!r} at {error.__traceback__ and error.__traceback__.tb_lineno}")
        os.chdir(folder)
        if remaining := left_over(before):
            faults.append(f"left open: {sorted(remaining)}")
            faulthandler.dump_traceback(crash)
        faulthandler.cancel_dump_traceback_later()
        with contextlib.suppress(OSError):
            shutil.rmtree(place)
        count += 1
        if faults:
            summary.write("\n".join([f"seed {seed}, round {number}:", *faults]) + "\n")
            summary.flush()
            return 1
        if only is not None:
            break
        number += 1
    summary.write(f"{count} rounds\n")
    summary.flush()
    return 0


if __name__ == "__main__":
    given = [*sys.argv[1:], None][:4]
    os._exit(main(Path(given[0]), int(given[1]), float(given[2]), None if given[3] is None else int(given[3])))
