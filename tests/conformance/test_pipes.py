"""connect_read_pipe and connect_write_pipe. Traps are named by their number in the list of other loops' mistakes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import os
import pty
import socket
import tempfile
import tty
from collections.abc import Iterator
from typing import Any

import pytest
from peers import (
    DEADLINE_S,
    MOST_IDLE_TURNS,
    HandlerLog,
    Recorder,
    context_keys,
    idle_turns,
    off_loop,
    open_descriptors,
    pattern,
    read_to_end,
    soon,
    turns,
)

Pipe = tuple[io.FileIO, io.FileIO]


def pipe_files() -> Pipe:
    """Both ends as unbuffered files."""
    reading, writing = os.pipe()
    return open(reading, "rb", 0), open(writing, "wb", 0)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe. A transport closes the end that it is given; what is left is closed after the test."""
    ends = pipe_files()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            end.close()


async def reader_of(pipe: Any, **hooks: Any) -> tuple[Any, Recorder]:
    return await asyncio.get_running_loop().connect_read_pipe(lambda: Recorder(**hooks), pipe)


async def writer_to(pipe: Any, **hooks: Any) -> tuple[Any, Recorder]:
    return await asyncio.get_running_loop().connect_write_pipe(lambda: Recorder(**hooks), pipe)


def drained(pipe: io.FileIO) -> bytes:
    """Blocking: everything up to the end of the pipe."""
    os.set_blocking(pipe.fileno(), True)
    return b"".join(iter(lambda: pipe.read(65536), b""))


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Master and slave of a pseudo-terminal that changes no byte."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    try:
        yield master, slave
    finally:
        for fd in (master, slave):
            with contextlib.suppress(OSError):
                os.close(fd)


# Reading


@pytest.mark.usefixtures("can_pause_anywhere")
def test_read_data_then_end(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        reading, writing = pipe
        transport, protocol = await reader_of(reading)
        assert transport.is_reading() and not transport.is_closing()
        writing.write(b"one")
        assert await protocol.until_received(3) == b"one"
        writing.close()
        assert await protocol.until_lost() is None
        assert protocol.names == ["connection_made", "data_received", "eof_received", "connection_lost"]
        assert transport.is_closing() and not transport.is_reading()
        await turns()
        assert reading.closed

    run(main())


def test_eof_received_cannot_keep_a_pipe_open(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        reading, writing = pipe
        _, protocol = await reader_of(reading, eof_received=lambda protocol: True)
        writing.close()
        assert await protocol.until_lost() is None

    run(main())


def test_read_much(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        reading, writing = pipe
        _, protocol = await reader_of(reading)
        data = pattern(3_000_000)

        def feed() -> None:
            with writing:
                view = memoryview(data)
                while view:
                    view = view[writing.write(view) :]

        await off_loop(feed)
        assert await protocol.until_lost() is None
        assert protocol.data == data

    run(main())


@pytest.mark.usefixtures("can_pause_anywhere")
def test_pause_and_resume_reading(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        reading, writing = pipe
        transport, protocol = await reader_of(reading)
        with writing:
            transport.pause_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            writing.write(b"later")
            await turns()
            assert protocol.data == b""
            transport.resume_reading()
            transport.resume_reading()
            assert await protocol.until_received(5) == b"later"
        await protocol.until_lost()
        transport.pause_reading()
        transport.resume_reading()

    run(main())


@pytest.mark.usefixtures("can_pause_anywhere")
def test_pause_reading_in_connection_made(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        reading, writing = pipe
        with writing:
            writing.write(b"early")
            transport, protocol = await reader_of(
                reading, connection_made=lambda protocol, transport: transport.pause_reading()
            )
            await turns()
            assert protocol.data == b""
            transport.resume_reading()
            await protocol.until_received(5)
        await protocol.until_lost()

    run(main())


def test_closing_a_reader(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        reading, writing = pipe
        transport, protocol = await reader_of(reading)
        with writing:
            transport.close()
            transport.close()
            assert transport.is_closing() and protocol.count("connection_lost") == 0
            assert await protocol.until_lost() is None
            await turns()
            assert reading.closed and protocol.count("eof_received") == 0
            with pytest.raises(BrokenPipeError):
                writing.write(b"nobody")

    run(main())


def test_a_failing_data_received_is_reported_and_the_pipe_goes_on(run: Any, pipe: Pipe) -> None:
    """Trap 16, as asyncio has it for pipes."""

    async def main() -> None:
        problems = HandlerLog(asyncio.get_running_loop())
        reading, writing = pipe

        def fail_once(protocol: Recorder, data: bytes) -> None:
            if len(protocol.data) == 3:
                raise ValueError("no thanks")

        _, protocol = await reader_of(reading, data_received=fail_once)
        with writing:
            writing.write(b"one")
            context = await problems.first()
            assert isinstance(context["exception"], ValueError)
            assert context_keys(context) == {"message", "exception", "handle"}
            writing.write(b"two")
            await protocol.until_received(6)
        assert await protocol.until_lost() is None
        assert len(problems) == 1

    run(main())


def test_what_a_reader_tells(run: Any, pipe: Pipe) -> None:
    """Trap 18."""

    async def main() -> None:
        reading, writing = pipe
        with writing:
            transport, protocol = await reader_of(reading)
            assert transport.get_extra_info("pipe") is reading
            assert transport.get_extra_info("socket") is None
            assert transport.get_extra_info("nothing", 7) == 7
            assert isinstance(transport, asyncio.ReadTransport)
            assert transport.get_protocol() is protocol
            assert "fd=" in repr(transport)
            other = Recorder()
            transport.set_protocol(other)
            writing.write(b"x")
            await other.until_received(1)
        await other.until_lost()

    run(main())


# Writing


def test_write_then_close(run: Any, pipe: Pipe) -> None:
    """Trap 9."""

    async def main() -> None:
        reading, writing = pipe
        transport, protocol = await writer_to(writing)
        data = pattern(2_000_000)
        transport.write(b"")
        transport.write(data[:10])
        transport.writelines([data[10:20], bytearray(data[20:1000]), memoryview(data)[1000:]])
        transport.close()
        assert transport.is_closing()
        transport.write(b"dropped")
        assert await off_loop(drained, reading) == data
        assert await protocol.until_lost() is None
        await turns()
        assert writing.closed

    run(main())


def test_write_eof_closes(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        reading, writing = pipe
        transport, protocol = await writer_to(writing)
        assert transport.can_write_eof()
        transport.write(b"all")
        transport.write_eof()
        transport.write_eof()
        transport.write(b"dropped")
        assert await off_loop(drained, reading) == b"all"
        assert await protocol.until_lost() is None
        assert protocol.names == ["connection_made", "connection_lost"]

    run(main())


def test_a_buffer_may_change_after_write(run: Any, pipe: Pipe) -> None:
    """Trap 10."""

    async def main() -> None:
        reading, writing = pipe
        transport, _ = await writer_to(writing)
        transport.write(pattern(200_000))
        data = bytearray(b"x" * 100_000)
        transport.write(data)
        data[:] = bytes(len(data))
        transport.close()
        assert await off_loop(drained, reading) == pattern(200_000) + b"x" * 100_000

    run(main())


def test_writing_is_paused_and_resumed(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        reading, writing = pipe
        transport, protocol = await writer_to(writing)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.write(bytes(400_000))
        assert protocol.count("pause_writing") == 1
        assert transport.get_write_buffer_size() > 1000
        os.set_blocking(reading.fileno(), False)
        taken = 0
        while protocol.count("resume_writing") == 0:
            taken += len(reading.read(65536) or b"")
            await turns()
        assert transport.get_write_buffer_size() <= 250
        transport.close()
        taken += len(await off_loop(drained, reading))
        assert taken == 400_000
        await protocol.until_lost()
        assert protocol.names == ["connection_made", "pause_writing", "resume_writing", "connection_lost"]

    run(main())


def test_abort_drops_what_the_kernel_has_not(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        reading, writing = pipe
        transport, protocol = await writer_to(writing)
        transport.write(pattern(400_000))
        transport.abort()
        assert await protocol.until_lost() is None
        taken = await off_loop(drained, reading)
        assert 0 < len(taken) < 400_000 and taken == pattern(400_000)[: len(taken)]

    run(main())


def test_the_reader_leaves_while_nothing_is_written(run: Any, pipe: Pipe) -> None:
    """Trap 15: without a write."""

    async def main() -> None:
        reading, writing = pipe
        _, protocol = await writer_to(writing)
        reading.close()
        assert await protocol.until_lost() is None
        await turns()
        assert writing.closed

    run(main())


def test_the_reader_leaves_with_bytes_unread(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        reading, writing = pipe
        transport, protocol = await writer_to(writing)
        transport.write(bytes(400_000))
        assert transport.get_write_buffer_size() > 0
        reading.close()
        assert isinstance(await protocol.until_lost(), BrokenPipeError)

    run(main())


def test_the_reader_leaves_before_a_write(run: Any, pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    """Trap 14: writes to a lost pipe are dropped, with one kind of warning after five."""

    async def main() -> None:
        reading, writing = pipe
        transport, protocol = await writer_to(writing)
        reading.close()
        transport.write(b"to nobody")
        assert isinstance(await protocol.until_lost(), (BrokenPipeError, type(None)))
        with caplog.at_level(logging.WARNING, "asyncio"):
            for _ in range(8):
                transport.write(b"to nobody")
            transport.write_eof()
            transport.close()
        assert {record.getMessage() for record in caplog.records} == {
            "pipe closed by peer or os.write(pipe, data) raised exception."
        }

    run(main())


def test_a_dead_reader_does_not_spin_the_loop(run: Any, pipe: Pipe) -> None:
    """Trap 47."""

    async def main() -> None:
        reading, writing = pipe
        transport, protocol = await writer_to(writing)
        reading.close()
        await protocol.until_lost()
        assert await idle_turns() <= MOST_IDLE_TURNS
        assert transport.is_closing()

    run(main())


def test_a_full_pipe_does_not_spin_the_loop(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        _, writing = pipe
        transport, protocol = await writer_to(writing)
        transport.write(bytes(400_000))
        assert await idle_turns() <= MOST_IDLE_TURNS
        transport.abort()
        await protocol.until_lost()

    run(main())


def test_what_a_writer_tells(run: Any, pipe: Pipe) -> None:
    """Trap 18."""

    async def main() -> None:
        _, writing = pipe
        transport, protocol = await writer_to(writing)
        assert transport.get_extra_info("pipe") is writing
        assert isinstance(transport, asyncio.WriteTransport)
        assert transport.get_protocol() is protocol
        assert transport.get_write_buffer_size() == 0
        assert "fd=" in repr(transport)
        transport.close()
        await protocol.until_lost()

    run(main())


# Other things than pipes


@pytest.mark.parametrize("connect", ["connect_read_pipe", "connect_write_pipe"])
def test_trap_4_a_regular_file_is_refused(run: Any, connect: str) -> None:
    """Trap 4, and it is closed by nobody but its owner (trap 1)."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryFile() as file:
            gc.collect()  # what earlier tests have left
            before = open_descriptors()
            with pytest.raises(ValueError, match=r"[Pp]ipe transport is"):
                await getattr(loop, connect)(Recorder, file)
            gc.collect()
            assert not file.closed and open_descriptors() == before
            file.write(b"still mine")
            file.flush()
        await turns()

    run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # std: repr of a half-made transport
def test_a_closed_file_is_refused(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        for end in pipe:
            end.close()
        for end in pipe:
            with pytest.raises(ValueError, match="closed"):
                await reader_of(end)
            with pytest.raises(ValueError, match="closed"):
                await writer_to(end)

    run(main())


def test_sockets(run: Any) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        peer.settimeout(DEADLINE_S)
        transport, protocol = await writer_to(ours)
        transport.write(b"by socket")
        transport.close()
        assert await off_loop(read_to_end, peer) == b"by socket"
        await protocol.until_lost()
        peer.close()

        ours, peer = socket.socketpair()
        transport, protocol = await reader_of(ours)
        peer.sendall(b"and back")
        await protocol.until_received(8)
        peer.close()
        assert await protocol.until_lost() is None
        await turns()
        assert ours.fileno() == -1

    run(main())


def test_a_terminal(run: Any) -> None:
    async def main() -> None:
        with terminal() as (master, slave):
            writer, written = await writer_to(open(os.dup(slave), "wb", 0))
            reader, read = await reader_of(open(os.dup(slave), "rb", 0))
            writer.write(b"out")
            assert await off_loop(os.read, master, 100) == b"out"
            os.write(master, b"in")
            assert await read.until_received(2) == b"in"
            writer.close()
            reader.close()
            await written.until_lost()
            await read.until_lost()

    run(main())


def test_both_ways_over_one_terminal(run: Any) -> None:
    """One number, read by one transport and written by another."""

    async def main() -> None:
        before = open_descriptors()
        with terminal() as (master, slave):
            file = open(os.dup(slave), "r+b", 0)
            reader, read = await reader_of(file)
            writer, written = await writer_to(file)
            writer.write(b"out")
            assert await off_loop(os.read, master, 100) == b"out"
            os.write(master, b"in")
            assert await read.until_received(2) == b"in"
            writer.close()
            reader.close()
            await written.until_lost()
            await read.until_lost()
            await turns()
        assert open_descriptors() == before

    run(main())


def test_a_terminal_whose_other_end_is_gone(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Linux says EIO there: that is an end, not a problem."""

    async def main() -> None:
        problems = HandlerLog(asyncio.get_running_loop())
        with terminal() as (master, slave):
            _, protocol = await reader_of(open(os.dup(master), "rb", 0))
            os.close(slave)
            error = await protocol.until_lost()
            assert error is None or isinstance(error, OSError)
        assert not problems

    run(main())


def test_dev_null_ends_at_once(run: Any, loop_name: str) -> None:
    """What a daemon has as its standard input. epoll cannot watch it."""

    async def main() -> None:
        _, protocol = await reader_of(open("/dev/null", "rb", 0))
        assert await protocol.until_lost() is None
        assert protocol.names == ["connection_made", "eof_received", "connection_lost"]

    if loop_name == "asyncio":
        pytest.xfail("std: add_reader fails in a callback, and nothing ever comes")
    run(main())


def test_writing_to_dev_null(run: Any) -> None:
    async def main() -> None:
        transport, protocol = await writer_to(open("/dev/null", "wb", 0))
        for _ in range(10):
            transport.write(bytes(100_000))
        transport.close()
        assert await protocol.until_lost() is None

    run(main())


# Lifetime


@pytest.mark.parametrize("is_reader", [True, False])
def test_trap_1_a_cancelled_connect_closes_once(run: Any, pipe: Pipe, is_reader: bool) -> None:
    async def main() -> None:
        reading, writing = pipe
        ours, theirs = (reading, writing) if is_reader else (writing, reading)
        task = asyncio.ensure_future(reader_of(ours) if is_reader else writer_to(ours))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await turns()
        assert ours.closed
        with theirs, tempfile.TemporaryFile() as reuser:  # has the number now
            gc.collect()
            await turns()
            os.fstat(reuser.fileno())

    run(main())


@pytest.mark.parametrize("is_reader", [True, False])
def test_a_failing_factory_leaves_the_pipe_alone(run: Any, pipe: Pipe, is_reader: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reading, writing = pipe

        def broken() -> Recorder:
            raise ZeroDivisionError

        with reading, writing:
            with pytest.raises(ZeroDivisionError):
                if is_reader:
                    await loop.connect_read_pipe(broken, reading)
                else:
                    await loop.connect_write_pipe(broken, writing)
            assert not reading.closed and not writing.closed

    run(main())


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")  # asyncio leaves it to the collector
@pytest.mark.parametrize("is_reader", [True, False])
def test_a_factory_that_returns_nothing(run: Any, pipe: Pipe, is_reader: bool) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        log = HandlerLog(loop)
        connect = loop.connect_read_pipe if is_reader else loop.connect_write_pipe
        with pytest.raises(AttributeError, match="connection_made"):
            await connect(lambda: None, pipe[0 if is_reader else 1])
        await turns()
        gc.collect()
        assert list(log) == []

    run(main())


def test_many_pipes_leave_nothing(run: Any) -> None:
    async def main() -> None:
        before = open_descriptors()
        for number in range(100):
            reading, writing = pipe_files()
            _, read = await reader_of(reading)
            writer, written = await writer_to(writing)
            writer.write(b"%d" % number)
            writer.close()
            await read.until_lost()
            await written.until_lost()
            assert read.data == b"%d" % number
        await turns()
        assert open_descriptors() == before

    run(main())


def test_an_abandoned_transport_warns_and_closes(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        reading, writing = pipe
        with writing:
            transport, protocol = await reader_of(reading)
            transport.pause_reading()
            await turns()
            with pytest.warns(ResourceWarning, match="unclosed transport"):
                protocol.calls.clear()
                protocol.transport = None
                del transport
                del protocol
                gc.collect()
                assert reading.closed

    run(main())


def test_streams_over_pipes(run: Any, pipe: Pipe) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reading, writing = pipe
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), reading)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, writing)
        writer = asyncio.StreamWriter(transport, protocol, None, loop)

        async def feed() -> None:
            for number in range(2000):
                writer.write(b"line %d\n" % number)
                await writer.drain()
            writer.close()

        task = asyncio.ensure_future(feed())
        lines = [line async for line in reader]
        assert lines == [b"line %d\n" % number for number in range(2000)]
        await soon(task)

    run(main())
