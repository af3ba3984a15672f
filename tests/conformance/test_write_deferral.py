"""Deferral of writes, and its switches: of a loop, of the environment, of a transport. With it off, hoop sends inside
write(), as asyncio does: a callback may write and block until the answer has come.

Reports: uvloop#631.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from typing import Any

import pytest
from conformance.peers import LOCALHOST, Recorder, connected, off_loop, read_exactly
from conformance.tls_peers import client_context, wrap_server
from conformance.watched_peers import KINDS, PATIENCE_S, opened, seen


def loops_at_once(loop_name: str) -> dict[str, Any]:
    """Loops on which write() sends inside write()."""
    if loop_name == "asyncio":
        return {"asyncio": asyncio.SelectorEventLoop}
    import hoop

    return {"keyword": lambda: hoop.Loop(defer_writes=False), "environment": hoop.Loop}


@pytest.mark.parametrize("how", ["asyncio", "keyword", "environment"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_defers_nothing(loop_name, monkeypatch, how, kind):
    """A callback writes and blocks until the answer has come. (uvloop#631)"""
    factories = loops_at_once(loop_name)
    if how not in factories:
        pytest.skip("of the other loop")
    monkeypatch.setenv("HOOP_DEFER_WRITES", "0" if how == "environment" else "1")

    async def main() -> None:
        async with opened(kind) as (transport, peer):
            arrived = threading.Event()
            thread = threading.Thread(target=lambda: (peer.recv(10), arrived.set()))
            thread.start()
            transport.write(b"request")
            assert arrived.wait(PATIENCE_S)
            thread.join()
            transport.writelines([b"two ", b"more"])
            assert seen(peer)

    with asyncio.Runner(loop_factory=factories[how]) as runner:
        runner.run(main())


class TestSwitches:
    """hoop's own: what asyncio does anyhow."""

    @pytest.fixture
    def run(self):
        import hoop

        return hoop.run

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_is_written_is_held_until_the_callback_ends(self, run, kind):
        async def main() -> None:
            async with opened(kind) as (transport, peer):
                transport.write(b"held")
                assert not seen(peer, 0)
                assert await off_loop(read_exactly, peer, 4) == b"held"

        run(main())

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_transport_s_own(self, run, kind):
        async def main() -> None:
            async with opened(kind) as (transport, peer):
                transport.write(b"held, ")
                transport.set_write_deferral(False)
                assert seen(peer)
                transport.write(b"at once, ")
                assert await off_loop(read_exactly, peer, 15) == b"held, at once, "
                transport.write(b"x")
                assert seen(peer)
                assert await off_loop(read_exactly, peer, 1) == b"x"
                transport.set_write_deferral(True)
                transport.write(b"held again")
                assert not seen(peer, 0)

        run(main())

    @pytest.mark.parametrize("kind", KINDS)
    def test_on_a_loop_that_defers_nothing(self, kind):
        import hoop

        async def main() -> None:
            async with opened(kind) as (transport, peer):
                transport.set_write_deferral(True)
                transport.write(b"held")
                assert not seen(peer, 0)

        with asyncio.Runner(loop_factory=lambda: hoop.Loop(defer_writes=False)) as runner:
            runner.run(main())

    def test_a_pipe_can_be_told_to_hold(self, run):
        async def main() -> None:
            reading, writing = os.pipe()
            protocol = Recorder()
            pipe, _ = await asyncio.get_running_loop().connect_write_pipe(lambda: protocol, os.fdopen(writing, "wb", 0))
            pipe.set_write_deferral(True)
            pipe.write(b"held")
            assert not seen(reading, 0)
            pipe.get_extra_info("pipe")
            assert seen(reading, 0)
            pipe.close()
            await protocol.until_lost()
            os.close(reading)

        run(main())

    def test_tls_inherits_the_switch_of_the_transport_below(self, run):
        async def main() -> None:
            below, peer = await connected(Recorder())
            below.set_write_deferral(False)
            handshake = asyncio.ensure_future(off_loop(wrap_server, peer))
            protocol = Recorder()
            transport = await asyncio.get_running_loop().start_tls(
                below, protocol, client_context(), server_hostname="localhost"
            )
            wrapped = await handshake
            transport.write(b"at once")
            assert seen(wrapped)
            transport.abort()
            await protocol.until_lost()
            wrapped.close()

        run(main())

    def test_native_sockets(self):
        """Told before there is a connection, and after."""
        import hoop

        loop = hoop.Loop()
        with socket.create_server((LOCALHOST, 0)) as listener:
            answers: list[bool] = []

            def connected(handle: hoop.Socket) -> None:
                peer, _ = listener.accept()
                with peer:
                    handle.write(b"at once")
                    answers.append(seen(peer))
                    peer.recv(100)
                    handle.set_write_deferral(True)
                    handle.write(b"held")
                    answers.append(seen(peer, 0))
                    handle.set_write_deferral(False)
                    answers.append(seen(peer))
                    handle.destroy()

            handle = loop.connect_tcp(*listener.getsockname())
            handle.set_write_deferral(False)
            handle.on_connect = connected
            loop.run()
            loop.close()
            assert answers == [True, False, True]
