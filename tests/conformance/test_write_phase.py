"""What the callbacks of one phase of the turn write (the ready callbacks, the polled events, the timers) may leave when
the phase ends, and earlier where a bound is reached (docs/writes.md). asyncio sends inside write(): so each test of
both loops asks for no more than that a peer has been sent something by a certain moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from conformance.peers import DEADLINE_S, Recorder, off_loop, read_exactly, reset, soon
from conformance.test_write_moment import let_time_pass
from conformance.watched_peers import KINDS, opened, seen

MANY = 64  # docs/writes.md: connections that have written
MUCH = 64 * 1024  # and bytes
ATTEMPTS = 20
SLOW_S = 0.001

PHASES = ["ready", "I/O", "timer"]


def queue(phase: str, callback: Callable[[], object], stack: contextlib.ExitStack) -> None:
    """Have the next turn call callback in that phase."""
    loop = asyncio.get_running_loop()
    if phase == "ready":
        loop.call_soon(callback)
    elif phase == "timer":
        loop.call_later(0, callback)
    else:
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        theirs.send(b"x")

        def once() -> None:
            loop.remove_reader(ours)
            callback()

        loop.add_reader(ours, once)


async def connections(stack: contextlib.AsyncExitStack, kind: str, count: int) -> list[tuple[Any, Any]]:
    return [await stack.enter_async_context(opened(kind)) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
class TestTheLoopBlocks:
    """The peers have what the phase before has written."""

    @pytest.mark.parametrize("phase", PHASES)
    def test_in_its_poll(self, run, kind, phase):
        async def main() -> None:
            async with contextlib.AsyncExitStack() as stack:
                with contextlib.ExitStack() as sockets:
                    pairs = await connections(stack, kind, 3)
                    for number, (transport, _) in enumerate(pairs):
                        queue(
                            phase, lambda transport=transport, number=number: transport.write(b"%d" % number), sockets
                        )
                    answers = await off_loop(lambda: [read_exactly(peer, 1) for _, peer in pairs])
                    assert answers == [b"0", b"1", b"2"]

        run(main())

    @pytest.mark.parametrize(("writing", "blocking"), list(itertools.combinations(PHASES, 2)))
    def test_in_a_callback_of_a_later_phase(self, run, kind, writing, blocking):
        async def main() -> None:
            done = asyncio.get_running_loop().create_future()
            async with contextlib.AsyncExitStack() as stack:
                with contextlib.ExitStack() as sockets:
                    pairs = await connections(stack, kind, 2)
                    for transport, _ in pairs:
                        queue(writing, lambda transport=transport: transport.write(b"answer"), sockets)
                    queue(blocking, lambda: done.set_result([seen(peer) for _, peer in pairs]), sockets)
                    assert await soon(done) == [True, True]

        run(main())

    def test_in_a_callback_of_the_next_turn(self, run, kind):
        async def main() -> None:
            async with opened(kind) as (transport, peer):
                transport.write(b"answer")
                await asyncio.sleep(0)
                assert seen(peer)

        run(main())


@pytest.mark.parametrize("kind", KINDS)
class TestBounds:
    """A later callback of the same phase sees that what an earlier one has written was sent."""

    def seen_by_the_last(self, run: Any, kind: str, count: int, write: Callable[[Any], object], then: Any) -> None:
        """Each of twice `count` connections is written to by a callback of its own, and the last callback looks: what
        the first `count` have written was sent. (The others' may be held still, where the bound on time has sent
        earlier ones, and the count began anew.)"""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            async with contextlib.AsyncExitStack() as stack:
                pairs = await connections(stack, kind, 2 * count)
                for transport, _ in pairs:
                    loop.call_soon(write, transport)
                if then is not None:
                    loop.call_soon(then)
                loop.call_soon(lambda: done.set_result([seen(peer) for _, peer in pairs[:count]]))
                assert await soon(done) == [True] * count

        run(main())

    def test_time(self, run, kind):
        """A callback that computes holds back what others have written only until it ends."""
        self.seen_by_the_last(run, kind, 2, lambda transport: transport.write(b"answer"), let_time_pass)

    def test_number(self, run, kind):
        self.seen_by_the_last(run, kind, MANY, lambda transport: transport.write(b"answer"), None)

    def test_bytes(self, run, kind):
        size = 60_000  # under the high-water mark
        self.seen_by_the_last(run, kind, -(-MUCH // size), lambda transport: transport.write(b"x" * size), None)


@pytest.mark.parametrize("kind", KINDS)
class TestOneOfThemFails:
    def test_the_peer_of_one_is_reset_in_the_middle(self, run, kind):
        """The others are sent, and each protocol hears of its own error."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with contextlib.AsyncExitStack() as stack:
                pairs = await connections(stack, kind, 5)
                for number, (transport, peer) in enumerate(pairs):
                    loop.call_soon(transport.write, b"%d" % number)
                    if number == 2:
                        loop.call_soon(reset, peer)
                        loop.call_soon(transport.write, b"into the void")
                lost = pairs[2][0].get_protocol()
                error = await lost.until_lost()
                assert error is None or isinstance(error, OSError)
                for number in (0, 1, 3, 4):
                    transport, peer = pairs[number]
                    assert await off_loop(read_exactly, peer, 1) == b"%d" % number
                    assert not transport.is_closing()
                    assert transport.get_protocol().count("connection_lost") == 0

        run(main())

    def test_a_protocol_writes_and_raises(self, run, kind):
        """What it wrote is sent; what others have written in the same phase is, too."""

        def refuse(protocol: Recorder, data: bytes) -> None:
            protocol.transport.write(b"bye")
            raise ValueError("of the protocol")

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            async with contextlib.AsyncExitStack() as stack:
                pairs = await connections(stack, kind, 3)
                protocols = [transport.get_protocol() for transport, _ in pairs]
                for protocol in protocols:
                    protocol.hooks["data_received"] = refuse
                for _, peer in pairs:
                    await off_loop(peer.send, b"x")
                for protocol, (_, peer) in zip(protocols, pairs, strict=True):
                    assert await off_loop(read_exactly, peer, 3) == b"bye"
                    await protocol.until_lost()

        run(main())


class TestHolding:
    """hoop's own."""

    @pytest.fixture
    def run(self):
        import hoop

        return hoop.run

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_one_callback_writes_is_held_while_the_next_one_runs(self, run, kind):
        """Unless much time passes in between, or a callback (a handshake) was slow: one attempt has to succeed."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + DEADLINE_S
            async with opened(kind) as (transport, peer):
                while loop.time() < deadline:
                    held = loop.create_future()
                    loop.call_soon(transport.write, b"x")
                    loop.call_soon(lambda held=held: held.set_result(not seen(peer, 0)))
                    is_held = await held
                    assert await off_loop(read_exactly, peer, 1) == b"x"
                    if is_held:
                        return
            raise AssertionError("never held")

        run(main())

    def test_nothing_is_held_for_a_while_once_a_callback_was_slow(self, run):
        """From one callback to the next. Most attempts have to fall into that while."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with opened("unix") as (transport, peer):
                held = []
                for _ in range(ATTEMPTS):
                    loop.call_soon(transport.write, b"x")
                    loop.call_soon(let_time_pass, 2 * SLOW_S)
                    for _ in range(5):
                        answer = loop.create_future()
                        loop.call_soon(transport.write, b"x")
                        loop.call_soon(lambda answer=answer: answer.set_result(seen(peer, 0)))
                        held.append(not await answer)
                        peer.recv(100)
                assert held.count(False) > held.count(True)

        run(main())

    def test_it_is_held_behind_callbacks_that_wrote_nothing(self, run):
        """However long those took, in all: none of them has kept a write waiting. One attempt has to succeed."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + DEADLINE_S
            async with opened("unix") as (transport, peer):
                while loop.time() < deadline:
                    early = loop.create_future()
                    loop.call_soon(let_time_pass, 2 * SLOW_S)
                    loop.call_soon(transport.write, b"first, ")
                    loop.call_soon(transport.write, b"second")
                    loop.call_soon(lambda early=early: early.set_result(peer.recv(100) if seen(peer, 0) else b""))
                    arrived = await early
                    rest = b"first, second".removeprefix(arrived)
                    assert await off_loop(read_exactly, peer, len(rest)) == rest
                    if b"second" in rest:
                        return
            raise AssertionError("never held")

        run(main())

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_a_microtask_writes_goes_with_it(self, run, kind):
        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with opened(kind) as (transport, peer):

                def write() -> None:
                    transport.write(b"head, ")
                    loop.queue_microtask(transport.write, b"body")

                loop.call_soon(write)
                assert await off_loop(peer.recv, 100) == b"head, body"

        run(main())

    def test_a_signal_handler_writes(self, run):
        """Python runs it before the loop sleeps, or when a signal has ended its sleep: not in a phase."""

        async def main() -> None:
            async with opened("unix") as (transport, peer):
                main_thread = threading.main_thread().ident
                assert main_thread is not None

                def signal_and_read() -> bytes:
                    signal.pthread_kill(main_thread, signal.SIGUSR1)
                    return read_exactly(peer, 9)

                former = signal.signal(signal.SIGUSR1, lambda number, frame: transport.write(b"signalled"))
                try:
                    assert await off_loop(signal_and_read) == b"signalled"
                finally:
                    signal.signal(signal.SIGUSR1, former)

        run(main())
