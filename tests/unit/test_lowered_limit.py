"""RLIMIT_NOFILE lowered while more descriptors are watched than it then allows (joyent/libuv#1189).

poll(2) refuses so many with EINVAL, and a loop on it must go on all the same; epoll takes no notice. In a process of
its own, since the limit is the process's.
"""

from __future__ import annotations

import hoop
import pytest
from interpreter import run_script

PROGRAM = """
import asyncio, resource, socket
import hoop

COUNT = 64
loop = hoop.Loop(poller=POLLER)
pairs = [socket.socketpair() for _ in range(COUNT)]
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
seen = []


def ready(number):
    assert pairs[number][0].recv(1) == b"x"
    seen.append(number)
    if len(seen) == COUNT:
        loop.stop()
    else:
        pairs[number + 1][1].send(b"x")


for number, (ours, _) in enumerate(pairs):
    ours.setblocking(False)
    loop.add_reader(ours, ready, number)
resource.setrlimit(resource.RLIMIT_NOFILE, (16, hard))
pairs[0][1].send(b"x")
loop.run_forever()
assert seen == list(range(COUNT)), seen


async def main():
    # Timers, another thread's wake-up, a descriptor that is closed while it is watched, and waiting to write.
    await asyncio.sleep(0.001)
    assert await asyncio.wait_for(loop.run_in_executor(None, int, "7"), 30) == 7
    pairs[1][0].close()
    writable = loop.create_future()
    loop.add_writer(pairs[2][0], writable.set_result, None)
    await asyncio.wait_for(writable, 30)
    loop.remove_writer(pairs[2][0])
    assert await asyncio.wait_for(loop.run_in_executor(None, int, "8"), 30) == 8


loop.run_until_complete(main())
before = loop.metrics().turns
loop.run_until_complete(asyncio.sleep(0.05))
assert loop.metrics().turns - before < 20, "it spins"
loop.close()
for pair in pairs:
    for sock in pair:
        sock.close()
print("done")
"""


@pytest.mark.parametrize("poller", ["poll", "epoll", "kqueue"])
def test_more_descriptors_are_watched_than_the_limit_allows(poller: str) -> None:
    try:
        hoop.Loop(poller=poller).close()
    except ValueError:
        pytest.skip(f"no {poller} here")
    assert run_script(f"POLLER = {poller!r}\n{PROGRAM}") == (0, "done", "")
