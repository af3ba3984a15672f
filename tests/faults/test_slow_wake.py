"""A loop that closes while a thread of a pool is about to wake it: the thread must not find the waker closed."""

from __future__ import annotations

from pathlib import Path

import pytest
from preloaded import built_shim, run_under

SHIM = Path(__file__).with_name("slow_wake.c")

PROGRAM = '''
import os
import sys
import threading

import hoop

begun, begun_end = os.pipe()
go, go_end = os.pipe()
os.environ.update(SLOW_BEGUN_FD=str(begun_end), SLOW_GO_FD=str(go))
TRIES = 10_000


def let_go(loop):
    """Once the loop is closed; or it waits for this."""
    for _ in range(TRIES):
        if loop.is_closed():
            break
        os.sched_yield()
    os.write(go_end, b"g")


def is_caught(pool, loop):
    """Run a job; whether its thread found the loop asleep, and has not yet woken it."""
    caught = []

    def stop(is_wake_up):
        caught.append(is_wake_up)
        loop.stop()

    loop.add_reader(begun, stop, True)
    pool.run_for(loop, int, ()).add_done_callback(lambda _: stop(False))
    loop.run_forever()
    loop.remove_reader(begun)
    return caught[0]


pool = hoop.Pool(1, spin_us=0)
loop = hoop.Loop(pool=pool) if sys.argv[1] == "own" else hoop.Loop()
for _ in range(TRIES):
    if is_caught(pool, loop):
        break
else:
    print("never caught")
os.read(begun, 1)
helper = threading.Thread(target=let_go, args=(loop,))
helper.start()
loop.close()
helper.join()
pool.close()
print("closed")
'''


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_shim(SHIM, tmp_path_factory.mktemp("shim"))


@pytest.mark.parametrize("whose", ["own", "another"])
def test_trap_32_a_loop_closes_while_a_thread_wakes_it(shim: Path, tmp_path: Path, whose: str) -> None:
    """Whether the pool is the loop's own or was only handed a job."""
    assert run_under(shim, PROGRAM, tmp_path, whose) == (0, "closed\n")
