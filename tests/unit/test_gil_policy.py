"""The GIL is given up for a wait that will block, and not while there is something to do.

A loop that gives it up at each poll loses most of its throughput beside one busy thread, which takes a switch interval
to hand it back (trap 50). The counters tell how often the loop really slept.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading

import hoop


def sleeps(loop: hoop.Loop) -> int:
    return loop.metrics().sleeps


def test_trap_50_a_poll_with_events_keeps_the_gil() -> None:
    loop = hoop.Loop(poll_every_turn=True)
    left, right = socket.socketpair()
    seen: list[int] = []

    def readable() -> None:
        seen.append(len(seen))  # nothing is read: the next poll finds it readable again
        if len(seen) == 500:
            loop.stop()

    right.send(b"x")
    loop.add_reader(left, readable)
    before = sleeps(loop)
    loop.run_forever()
    assert len(seen) == 500
    assert sleeps(loop) == before
    loop.close()
    left.close()
    right.close()


def test_trap_50_ready_callbacks_keep_the_gil() -> None:
    async def main() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)

    loop = hoop.Loop(poll_every_turn=True)
    loop.run_until_complete(main())
    assert sleeps(loop) == 0
    loop.close()


def test_a_wait_lets_other_threads_run() -> None:
    """The thread can only finish, and wake the loop, if the sleeping loop has given the GIL up."""
    loop = hoop.Loop()
    answer: list[int] = []

    def work() -> None:
        answer.append(sum(range(200_000)))
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=work)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert answer == [sum(range(200_000))]
    loop.close()


def test_an_idle_loop_sleeps_once() -> None:
    """A thousand idle connections and a timer: the loop blocks until the timer, with no wake-up in between."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        clients = [await loop.create_connection(asyncio.Protocol, *address) for _ in range(100)]
        await asyncio.sleep(0)
        before = loop.metrics()  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)
        after = loop.metrics()  # type: ignore[attr-defined]
        # one sleep for the timer; the accepts of the last connection may still take a turn or two before it
        assert after.sleeps - before.sleeps <= 3
        assert after.turns - before.turns <= 6
        for transport, _ in clients:
            transport.abort()
        server.close()

    hoop.run(main())


def test_a_large_transfer_lets_other_threads_run() -> None:
    """A send of megabytes and its echo pass through while another thread holds the loop's attention: data is right."""

    async def main() -> bytes:
        left, right = socket.socketpair()
        left.setblocking(False)
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(sock=left)
        payload = os.urandom(1 << 20) * 4

        def echo() -> None:
            with right:
                received = bytearray()
                while len(received) < len(payload):
                    received += right.recv(1 << 20)
                right.sendall(received)

        thread = loop.run_in_executor(None, echo)
        writer.write(payload)
        echoed = await reader.readexactly(len(payload))
        await thread
        writer.close()
        assert echoed == payload
        return echoed

    hoop.run(main())
