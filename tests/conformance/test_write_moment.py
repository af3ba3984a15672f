"""When written bytes leave: never after something else that the same callback has done and that hoop sees.

asyncio sends inside write(). hoop may hold what a callback writes until the callback has ended (docs/writes.md), so
each test looks at the other end while the callback still runs: `seen` waits, with a deadline, until there is something
to read. What holds for asyncio must hold for hoop.

Reports: uvloop#631 (a project left uvloop, since what a callback had written before it blocked was not sent).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest
from conformance.peers import DEADLINE_S, LOCALHOST, Recorder, off_loop, read_exactly, read_to_end
from conformance.watched_peers import KINDS, PATIENCE_S, opened, seen

LONG_ENOUGH_S = 0.001  # docs/writes.md: a write that finds bytes held for 0.25 ms or longer sends


def let_time_pass(seconds: float = LONG_ENOUGH_S) -> None:
    """What a callback that computes does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@pytest.mark.parametrize("kind", KINDS)
class TestTheSocketObject:
    """It goes past the transport."""

    def test_asking_for_it_sends(self, run, kind):
        async def main() -> None:
            async with opened(kind) as (transport, peer):
                transport.write(b"before")
                transport.get_extra_info("socket")
                assert seen(peer)
                assert await off_loop(read_exactly, peer, 6) == b"before"

        run(main())

    @pytest.mark.parametrize(
        "use",
        [
            lambda sock: sock.fileno(),
            lambda sock: sock.dup().close(),
            lambda sock: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
            lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        ],
        ids=["fileno", "dup", "getsockopt", "setsockopt"],
    )
    def test_using_one_that_was_asked_for_before(self, run, kind, use):
        async def main() -> None:
            async with opened(kind) as (transport, peer):
                sock = transport.get_extra_info("socket")
                transport.write(b"before")
                use(sock)
                assert seen(peer)
                assert await off_loop(read_exactly, peer, 6) == b"before"

        run(main())

    def test_shutdown_ends_the_stream_behind_what_was_written(self, run, kind):
        async def main() -> None:
            async with opened(kind) as (transport, peer):
                sock = transport.get_extra_info("socket")
                transport.write(b"first, ")
                transport.write(b"then the end")
                sock.shutdown(socket.SHUT_WR)
                assert await off_loop(read_exactly, peer, 19) == b"first, then the end"
                with contextlib.suppress(ssl.SSLError):  # no close_notify: a truncated stream, for TLS
                    assert await off_loop(peer.recv, 1) == b""

        run(main())

    def test_a_write_past_the_transport_comes_after(self, run, kind):
        if kind == "tls":
            pytest.skip("clear text among records")

        async def main() -> None:
            async with opened(kind) as (transport, peer):
                sock = transport.get_extra_info("socket")
                transport.write(b"first, ")
                os.write(sock.fileno(), b"second")
                assert await off_loop(read_exactly, peer, 13) == b"first, second"

        run(main())


def test_a_look_at_the_socket_object_sends_nothing():
    """repr() is for logs: it must have no effect. (hoop only: nothing is held on asyncio.)"""
    import hoop

    async def main() -> None:
        async with opened("unix") as (transport, peer):
            sock = transport.get_extra_info("socket")
            transport.write(b"held")
            assert repr(sock).startswith("<asyncio.TransportSocket fd=")
            assert not seen(peer, 0)

    hoop.run(main())


def test_the_socket_object_in_another_thread(run):
    """Threads may look at it, while the loop runs. What the loop's callbacks write is the loop's to send."""

    async def main() -> None:
        async with opened("unix") as (transport, peer):
            sock = transport.get_extra_info("socket")
            answers = []
            thread = threading.Thread(target=lambda: answers.append(sock.fileno()))
            transport.write(b"x")
            thread.start()
            thread.join()
            assert answers == [sock.fileno()]
            assert await off_loop(read_exactly, peer, 1) == b"x"

    run(main())


# Other operations that hoop sees, on whatever they are done: nothing overtakes what was written before.


def big_write(transport: Any) -> None:
    transport.write(b"x" * 200_000)


OTHER_OPERATIONS = {
    "close": lambda transport: transport.close(),
    "abort": lambda transport: transport.abort(),
    "write_eof": lambda transport: transport.write_eof(),
    "set_protocol": lambda transport: transport.set_protocol(asyncio.Protocol()),
    "get_write_buffer_size": lambda transport: transport.get_write_buffer_size(),
    "a large write": big_write,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OTHER_OPERATIONS)
def test_operations_on_another_transport(run, kind, name):
    async def main() -> None:
        async with opened(kind) as (transport, peer), opened("unix") as (other, _):
            protocol = other.get_protocol()
            transport.write(b"before")
            OTHER_OPERATIONS[name](other)
            assert seen(peer)
            if name == "set_protocol":
                other.set_protocol(protocol)

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_datagram(run, kind):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with opened(kind) as (transport, peer):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
                receiver.bind((LOCALHOST, 0))
                endpoint, _ = await loop.create_datagram_endpoint(
                    asyncio.DatagramProtocol, remote_addr=receiver.getsockname()
                )
                transport.write(b"before")
                endpoint.sendto(b"after")
                assert seen(receiver)
                assert seen(peer, 0 if kind == "unix" else PATIENCE_S)
                endpoint.close()

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_what_sock_sendall_sends(run, kind):
    async def main() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        with near, far:
            async with opened(kind) as (transport, peer):
                transport.write(b"before")
                sending = asyncio.get_running_loop().sock_sendall(near, b"after")
                with pytest.raises(StopIteration):
                    sending.send(None)  # it is done at once: the callback has not ended
                assert seen(far)
                assert seen(peer, 0 if kind == "unix" else PATIENCE_S)

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipe(run, kind):
    """Pipes are not deferred, and what is written to one does not overtake what was written to a socket before."""

    async def main() -> None:
        reading, writing = os.pipe()
        protocol = Recorder()
        async with opened(kind) as (transport, peer):
            pipe, _ = await asyncio.get_running_loop().connect_write_pipe(lambda: protocol, os.fdopen(writing, "wb", 0))
            transport.write(b"before")
            pipe.write(b"after")
            assert seen(reading, 0)
            assert os.read(reading, 10) == b"after"
            assert seen(peer, 0 if kind == "unix" else PATIENCE_S)
            pipe.close()
            await protocol.until_lost()
            os.close(reading)

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_in_a_thread(run, kind):
    """The thread may ask the peer, which waits for what was written."""

    async def main() -> None:
        async with opened(kind) as (transport, peer):
            transport.write(b"question")
            arrived = threading.Event()
            received: list[bytes] = []
            future = asyncio.get_running_loop().run_in_executor(
                None, lambda: (received.append(peer.recv(100)), arrived.set())
            )
            assert arrived.wait(PATIENCE_S)
            await future
            assert received == [b"question"]

    run(main())


@pytest.mark.parametrize("which", ["the default one", "one of the program's own"])
def test_a_call_in_an_executor(run, which):
    """Both kinds, seen before the call is made at all."""
    held: list[bool] = []

    class Executor(concurrent.futures.ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            held.append(not seen(self.peer, 0))
            return super().submit(*args, **kwargs)

    async def main() -> None:
        async with opened("unix") as (transport, peer):
            executor = None if which == "the default one" else Executor(1)
            if executor is not None:
                executor.peer = peer
            transport.write(b"question")
            future = asyncio.get_running_loop().run_in_executor(executor, peer.recv, 100)
            assert held in ([], [False])
            assert await future == b"question"
            if executor is not None:
                executor.shutdown()

    run(main())


def test_a_job_of_the_pool():
    """(hoop only: asyncio has none.) Files and names go this way."""
    import hoop

    async def main() -> None:
        async with opened("unix") as (transport, peer):
            transport.write(b"before")
            future = asyncio.get_running_loop().pool.run(len, "four")
            assert seen(peer, 0)
            assert await future == 4

    hoop.run(main())


# Children


SIGNAL_READER = textwrap.dedent(
    """
    import os, signal, socket, sys
    source = int(sys.argv[1])
    os.set_blocking(source, False)
    def show(number, frame):
        try:
            data = os.read(source, 100)
        except BlockingIOError:
            data = b"nothing"
        os.write(1, b"at the signal: " + data)
        os._exit(0)
    signal.signal(signal.SIGTERM, show)
    os.write(1, b"ready")
    while True:
        signal.pause()
    """
)


class Child(asyncio.SubprocessProtocol):
    def __init__(self) -> None:
        self.output = b""
        self.ready = asyncio.get_running_loop().create_future()
        self.ended = asyncio.get_running_loop().create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.output += data
        if not self.ready.done():
            self.ready.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(None)


@pytest.mark.parametrize("method", ["send_signal", "terminate"])
@pytest.mark.parametrize("by", ["stdin", "socket"])
def test_a_signal_comes_after_what_the_child_was_sent(run, method, by):
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        async with opened("unix") as (transport, peer):
            source = 0 if by == "stdin" else peer.fileno()
            child, protocol = await loop.subprocess_exec(
                Child, sys.executable, "-c", SIGNAL_READER, str(source), pass_fds=[peer.fileno()]
            )
            await asyncio.wait_for(protocol.ready, DEADLINE_S)
            if by == "stdin":
                child.get_pipe_transport(0).write(b"last words")
            else:
                transport.write(b"last words")
            if method == "terminate":
                child.terminate()
            else:
                child.send_signal(signal.SIGTERM)
            await asyncio.wait_for(protocol.ended, DEADLINE_S)
            child.close()
            return protocol.output

    assert run(main()) == b"readyat the signal: last words"


def test_a_child_that_is_killed_was_sent_what_was_written(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with opened("unix") as (transport, peer):
            child, protocol = await loop.subprocess_exec(
                Child, sys.executable, "-c", "input()", stdin=subprocess.PIPE, stdout=None, stderr=None
            )
            transport.write(b"before")
            child.kill()
            assert seen(peer, 0)
            await asyncio.wait_for(protocol.ended, DEADLINE_S)
            child.close()

    run(main())


def test_closing_a_child_s_transport_kills_it_after_what_was_written(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with opened("unix") as (transport, peer):
            child, protocol = await loop.subprocess_exec(
                Child, sys.executable, "-c", "import time; time.sleep(60)", stdin=None, stdout=None, stderr=None
            )
            transport.write(b"before")
            child.close()
            assert seen(peer, 0)
            await asyncio.wait_for(protocol.ended, DEADLINE_S)

    run(main())


def test_a_child_that_is_started_finds_what_was_written(run):
    program = "import socket, sys; print(socket.socket(fileno=int(sys.argv[1])).recv(100, socket.MSG_DONTWAIT))"

    async def main() -> bytes:
        async with opened("unix") as (transport, peer):
            transport.write(b"before")
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, str(peer.fileno()), pass_fds=[peer.fileno()], stdout=subprocess.PIPE
            )
            output, _ = await process.communicate()
            return output

    assert run(main()).strip() == b"b'before'"


# fork(2) and the end of the process


def forked(child: Any) -> int:
    """fork(); child() runs in the child, which ends by os._exit() as a worker does. Waits for it; its status."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


FORK_WARNS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@FORK_WARNS
@pytest.mark.parametrize("kind", KINDS)
def test_fork_comes_after_what_was_written(run, kind):
    """The child finds it, and it is sent once."""

    async def main() -> None:
        async with opened(kind) as (transport, peer):
            transport.write(b"before")
            assert forked(lambda: os._exit(0 if seen(peer) else 2)) == 0
            transport.write(b", after")
            await asyncio.sleep(0)
            transport.close()
            assert await off_loop(read_to_end, peer) == b"before, after"

    run(main())


@FORK_WARNS
@pytest.mark.parametrize("kind", KINDS)
def test_a_forked_child_writes_and_ends(run, kind):
    """os._exit() calls no hook: in the child of a fork nothing is deferred. (uvloop#631)"""

    async def main() -> None:
        async with opened(kind) as (transport, peer):
            assert forked(lambda: transport.write(b"last words")) == 0
            assert await off_loop(read_exactly, peer, 10) == b"last words"

    run(main())


ENDINGS = {
    "sys.exit": "sys.exit(0)",
    "KeyboardInterrupt": "signal.raise_signal(signal.SIGINT)",
    "at-exit hooks": "atexit._run_exitfuncs(); os._exit(0)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_process_ends_inside_a_callback(loop_name, ending):
    program = f"""
import asyncio, atexit, os, signal, socket, sys
if sys.argv[1] == "hoop":
    import hoop
loop = hoop.Loop() if sys.argv[1] == "hoop" else asyncio.SelectorEventLoop()
peer = socket.socket(fileno=int(sys.argv[2]))

async def connect():
    return (await loop.create_connection(asyncio.Protocol, sock=peer))[0]

def callback():
    transport.write(b"last words")
    {ENDINGS[ending]}

transport = loop.run_until_complete(connect())
signal.signal(signal.SIGINT, signal.default_int_handler)
loop.call_soon(callback)
loop.run_forever()
"""
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(DEADLINE_S)
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-c", program, loop_name, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stderr=subprocess.DEVNULL,
            )
        assert read_to_end(ours) == b"last words"
        child.wait(DEADLINE_S)


# Time: a callback that writes and computes by turns is seen to progress.


@pytest.mark.parametrize("kind", KINDS)
class TestTime:
    def test_a_write_that_finds_bytes_held_for_long_sends(self, run, kind):
        async def main() -> None:
            async with opened(kind) as (transport, peer):
                transport.write(b"first, ")
                let_time_pass()
                transport.write(b"second")
                assert seen(peer)
                assert await off_loop(read_exactly, peer, 13) == b"first, second"

        run(main())

    def test_so_does_a_write_to_another_transport(self, run, kind):
        async def main() -> None:
            async with opened(kind) as (transport, peer), opened("unix") as (other, other_peer):
                transport.write(b"first")
                let_time_pass()
                other.write(b"second")
                assert seen(peer)
                assert seen(other_peer, 0)

        run(main())

    def test_progress(self, run, kind):
        """What was written in one round can be read in the next one at the latest."""

        async def main() -> None:
            async with opened(kind) as (transport, peer):
                transport.write(b"round 0")
                for number in range(1, 5):
                    let_time_pass()
                    transport.write(b"round %d" % number)
                    assert seen(peer)
                    peer.recv(7)

        run(main())

    def test_at_the_start_of_a_long_turn_too(self, run, kind):
        """Others have held the loop before: that the bytes are young does not hold them for longer."""

        async def main() -> None:
            async with opened(kind) as (transport, peer):
                loop = asyncio.get_running_loop()
                done = loop.create_future()

                def write() -> None:
                    transport.write(b"first, ")
                    let_time_pass()
                    transport.write(b"second")
                    done.set_result(seen(peer))

                for _ in range(5):
                    loop.call_soon(let_time_pass)
                loop.call_soon(write)
                assert await done

        run(main())
