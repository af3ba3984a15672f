"""Undocumented parts of a loop that asyncio's ecosystem uses, and that belong to no one kind of handle.

The rest is tested beside what it belongs to: run_until_complete's done callback and signals between two runs, handles
and their contexts, patched loops and transports, isinstance() of handles and transports, a dead child's stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from conformance.datagrams import DatagramRecorder, endpoint, raw_udp
from conformance.peers import (
    DEADLINE_S,
    LOCALHOST,
    BufferedRecorder,
    HandlerLog,
    Recorder,
    connected,
    context_keys,
    off_loop,
    soon,
    tcp_pair,
    turns,
)
from conformance.tls_peers import server_context, tls_connected

# start_tls asks the transport


@pytest.mark.parametrize("kind", ["TCP", "UNIX", "TLS"])
def test_transports_say_that_start_tls_can_use_them(run: Any, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        peer: socket.socket
        if kind == "TLS":
            transport, peer = await tls_connected(protocol)
        elif kind == "TCP":
            transport, peer = await connected(protocol)
        else:
            ours, peer = socket.socketpair()
            ours.setblocking(False)
            transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: protocol, sock=ours)
        assert transport._start_tls_compatible is True
        transport.abort()
        await protocol.until_lost()
        peer.close()

    run(main())


@pytest.mark.parametrize("family", ["TCP", "UNIX"])
@pytest.mark.parametrize("is_secure", [True, False])
def test_a_server_shows_its_tls_context_to_those_who_look(
    run: Any, tmp_path: Any, family: str, is_secure: bool
) -> None:
    """websockets' own test helper reads Server._ssl_context to know the scheme of its URL."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        context = server_context() if is_secure else None
        if family == "TCP":
            server = await loop.create_server(Recorder, LOCALHOST, 0, ssl=context)
        else:
            server = await loop.create_unix_server(Recorder, tmp_path / "socket", ssl=context)
        assert server._ssl_context is context
        server.close()

    run(main())


# Coroutines of the streams

STREAM_CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "read": lambda reader, writer: reader.read(100),
    "readline": lambda reader, writer: reader.readline(),
    "readexactly": lambda reader, writer: reader.readexactly(5),
    "readuntil": lambda reader, writer: reader.readuntil(b"\n"),
    "anext": lambda reader, writer: reader.__anext__(),
    "drain": lambda reader, writer: writer.drain(),
    "wait_closed": lambda reader, writer: writer.wait_closed(),
}


@pytest.mark.parametrize("module", ["asyncio", "hoop"])
@pytest.mark.parametrize("call", STREAM_CALLS)
def test_streams_give_real_coroutines(run: Any, module: str, call: str) -> None:
    """create_task() takes them, a task group too, and one that is thrown away warns."""
    if module == "hoop":
        import hoop as streams
    else:
        streams = asyncio  # type: ignore[assignment]

    async def main() -> None:
        ours, peer = tcp_pair()
        reader, writer = await streams.open_connection(sock=ours)
        make = STREAM_CALLS[call]
        with pytest.warns(RuntimeWarning, match="never awaited"):
            make(reader, writer)
            gc.collect()
        coroutine = make(reader, writer)
        assert asyncio.iscoroutine(coroutine) and inspect.isawaitable(coroutine)
        task = asyncio.get_running_loop().create_task(coroutine, name="of a stream")
        assert task.get_coro() is coroutine
        await turns(3)
        if call == "wait_closed":
            writer.close()
        elif call != "drain":
            assert not task.done()
            peer.sendall(b"four\n")
        expected = None if call in ("drain", "wait_closed") else b"four\n"
        assert await soon(task) == expected
        async with asyncio.TaskGroup() as group:
            again = group.create_task(make(reader, writer))
            with contextlib.suppress(OSError):
                peer.sendall(b"five\n")
        assert again.result() in (None, b"five\n")
        writer.close()
        await soon(writer.wait_closed())
        peer.close()

    run(main())


# What the exception handler is told


def fail(*arguments: Any) -> None:
    raise LookupError("on purpose")


async def in_call_soon() -> None:
    asyncio.get_running_loop().call_soon(fail)


async def in_call_soon_threadsafe() -> None:
    loop = asyncio.get_running_loop()
    await off_loop(loop.call_soon_threadsafe, fail)


async def in_a_timer() -> None:
    asyncio.get_running_loop().call_later(0, fail)


async def in_a_done_callback() -> None:
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(fail)
    future.set_result(None)


async def in_a_task_that_nobody_awaits() -> None:
    async def failing() -> None:
        fail()

    task = asyncio.ensure_future(failing())
    await asyncio.wait([task])
    del task
    gc.collect()


async def in_a_forgotten_future() -> None:
    asyncio.get_running_loop().create_future().set_exception(LookupError("on purpose"))
    gc.collect()


async def in_data_received() -> None:
    _, peer = await connected(Recorder(data_received=fail))
    peer.sendall(b"x")
    peer.detach()


async def in_buffer_updated() -> None:
    _, peer = await connected(BufferedRecorder(buffer_updated=fail))
    peer.sendall(b"x")
    peer.detach()


async def in_eof_received() -> None:
    _, peer = await connected(Recorder(eof_received=fail))
    peer.close()


async def in_connection_lost() -> None:
    transport, peer = await connected(Recorder(connection_lost=fail))
    transport.close()
    peer.close()


async def in_tls_data_received() -> None:
    _, peer = await tls_connected(Recorder(data_received=fail))
    await off_loop(peer.sendall, b"x")
    peer.detach()


async def in_datagram_received() -> None:
    transport, _ = await endpoint(DatagramRecorder(datagram_received=fail), local_addr=(LOCALHOST, 0))
    with raw_udp() as peer:
        peer.sendto(b"x", transport.get_extra_info("sockname"))


async def in_a_pipe() -> None:
    reading, writing = os.pipe()
    file = os.fdopen(reading, "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: Recorder(data_received=fail), file)
    os.write(writing, b"x")
    os.close(writing)


async def in_a_stream_handler() -> None:
    async def handler(reader: Any, writer: Any) -> None:
        writer.close()
        fail()

    server = await asyncio.start_server(handler, LOCALHOST, 0)
    with socket.create_connection(server.sockets[0].getsockname(), timeout=DEADLINE_S):
        await turns()
    server.close()


TELLS_OF_HANDLERS = "Unhandled exception" in inspect.getsource(asyncio.StreamReaderProtocol.connection_made)
PLACES = {
    in_call_soon: {"message", "exception", "handle"},
    in_call_soon_threadsafe: {"message", "exception", "handle"},
    in_a_timer: {"message", "exception", "handle"},
    in_a_done_callback: {"message", "exception", "handle"},
    in_a_task_that_nobody_awaits: {"message", "exception", "future"},
    in_a_forgotten_future: {"message", "exception", "future"},
    in_data_received: {"message", "exception", "transport", "protocol"},
    in_buffer_updated: {"message", "exception", "transport", "protocol"},
    in_eof_received: {"message", "exception", "transport", "protocol"},
    in_connection_lost: {"message", "exception", "handle"},
    in_tls_data_received: {"message", "exception", "transport", "protocol"},
    in_datagram_received: {"message", "exception", "handle"},
    in_a_pipe: {"message", "exception", "handle"},
    # From 3.11.7 on; before, the task of the handler is one that nobody awaits.
    in_a_stream_handler: {"message", "exception", "transport" if TELLS_OF_HANDLERS else "future"},
}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_keys_of_the_exception_handlers_context(run: Any, place: Callable[[], Any]) -> None:
    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        await place()
        context = await log.first()
        assert isinstance(context["exception"], LookupError)
        assert context_keys(context) == PLACES[place]  # type: ignore[index]

    run(main())


# Looking into a process from outside


@pytest.mark.skipif(sys.version_info < (3, 14), reason="`python -m asyncio ps` came with Python 3.14")
@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_asyncio_ps_shows_the_tasks_of_another_process(loop_name: str, command: str) -> None:
    source = textwrap.dedent(
        """
        import asyncio, sys

        async def waits_for_ever(): await asyncio.get_running_loop().create_future()

        async def main():
            task = asyncio.create_task(waits_for_ever(), name="a task by this name")
            await asyncio.sleep(0)
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)

        if sys.argv[1] == "hoop":
            import hoop
        asyncio.run(main(), loop_factory=hoop.new_event_loop if sys.argv[1] == "hoop" else asyncio.SelectorEventLoop)
        """
    )
    arguments = [sys.executable, "-c", source, loop_name]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            looking = [sys.executable, "-m", "asyncio", command, str(child.pid)]
            shown = subprocess.run(looking, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        finally:
            child.kill()
    if "ermission" in shown.stderr:
        pytest.skip(f"this system lets no process look into another: {shown.stderr.strip().splitlines()[-1]}")
    assert shown.returncode == 0, shown.stderr
    assert "a task by this name" in shown.stdout and "waits_for_ever" in shown.stdout
