"""add_reader, add_writer and their removal: callbacks on descriptors that belong to the user."""

from __future__ import annotations

import asyncio
import contextvars
import os
import select
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conformance.peers import (
    DEADLINE_S,
    MOST_IDLE_TURNS,
    HandlerLog,
    Recorder,
    connected,
    context_keys,
    idle_turns,
    reset,
    tcp_pair,
    turns,
)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    with left, right:
        yield left, right


def refuses_regular_files(loop_name: str) -> bool:
    """epoll refuses to watch them; poll and kqueue find them always ready."""
    return hasattr(select, "epoll") and not (loop_name == "hoop" and os.environ.get("HOOP_POLLER") == "poll")


class Calls(list):
    """A callback that notes its arguments, and can be waited for."""

    def __init__(self, then: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self._then = then
        self._called = asyncio.Event()

    def __call__(self, *arguments: Any) -> None:
        self.append(arguments)
        self._called.set()
        if self._then is not None:
            self._then(*arguments)

    async def wait(self, times: int = 1) -> None:
        while len(self) < times:
            self._called.clear()
            await asyncio.wait_for(self._called.wait(), DEADLINE_S)


# Registering and removing


def test_reader_is_called_with_its_arguments_while_data_is_unread(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = Calls()
        assert loop.add_reader(pair[0], calls, 1, "two") is None
        await turns()
        assert calls == []
        pair[1].send(b"x")
        await calls.wait(times=3)  # level-triggered: nobody has read the byte
        assert set(calls) == {(1, "two")}
        pair[0].recv(1)
        count = len(calls)
        await turns()
        assert len(calls) <= count + 1  # one more may have been on its way
        assert loop.remove_reader(pair[0]) is True

    run(main())


def test_writer_is_called_while_the_descriptor_is_writable(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = Calls()
        loop.add_writer(pair[0].fileno(), calls, "now")
        await calls.wait(times=3)
        assert loop.remove_writer(pair[0].fileno()) is True
        count = len(calls)
        await turns()
        assert len(calls) == count

    run(main())


@pytest.mark.parametrize("added_as", ["number", "object"])
@pytest.mark.parametrize("removed_as", ["number", "object"])
def test_number_and_object_name_the_same_registration(run: Any, pair: Pair, added_as: str, removed_as: str) -> None:
    def named(sock: socket.socket, how: str) -> Any:
        return sock if how == "object" else sock.fileno()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = Calls()
        loop.add_reader(named(pair[0], added_as), calls)
        loop.add_writer(named(pair[0], removed_as), Calls())
        pair[1].send(b"x")
        await calls.wait()
        assert loop.remove_writer(named(pair[0], added_as)) is True
        assert loop.remove_reader(named(pair[0], removed_as)) is True
        assert loop.remove_reader(named(pair[0], added_as)) is False

    run(main())


def test_any_object_with_fileno_will_do(run: Any, pair: Pair) -> None:
    class Wrapper:
        def fileno(self) -> int:
            return pair[0].fileno()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = Calls()
        wrapper = Wrapper()
        loop.add_reader(wrapper, calls)
        pair[1].send(b"x")
        await calls.wait()
        assert loop.remove_reader(wrapper) is True

    run(main())


def test_adding_again_replaces_the_callback(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        first, second, third = Calls(), Calls(), Calls()
        loop.add_reader(pair[0], first)
        loop.add_reader(pair[0], second)
        pair[1].send(b"x")
        await second.wait()
        loop.add_reader(pair[0], third)
        count = len(second)
        await third.wait()
        assert first == [] and len(second) == count
        assert loop.remove_reader(pair[0]) is True
        assert loop.remove_reader(pair[0]) is False

        loop.add_writer(pair[0], first)
        loop.add_writer(pair[0], second)
        await second.wait(times=count + 1)
        assert first == []
        loop.remove_writer(pair[0])

    run(main())


def test_removing_what_is_not_there_returns_false(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert loop.remove_reader(pair[0]) is False
        assert loop.remove_writer(pair[0]) is False
        loop.add_reader(pair[0], Calls())
        assert loop.remove_writer(pair[0]) is False
        assert loop.remove_reader(pair[0]) is True
        loop.add_writer(pair[0], Calls())
        assert loop.remove_reader(pair[0]) is False
        assert loop.remove_writer(pair[0]) is True

    run(main())


def test_both_directions_of_one_descriptor_are_independent(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        readable, writable = Calls(), Calls()
        loop.add_reader(pair[0], readable)
        loop.add_writer(pair[0], writable)
        await writable.wait(times=2)
        assert readable == []
        pair[1].send(b"x")
        await readable.wait()
        loop.remove_writer(pair[0])
        count = len(writable)
        await readable.wait(times=len(readable) + 2)
        assert len(writable) == count
        loop.add_writer(pair[0], writable)
        loop.remove_reader(pair[0])
        count = len(readable)
        await writable.wait(times=len(writable) + 2)
        assert len(readable) == count
        loop.remove_writer(pair[0])

    run(main())


def test_reader_can_be_added_before_the_loop_runs(loop: Any, pair: Pair) -> None:
    loop.add_reader(pair[0], loop.stop)
    pair[1].send(b"x")
    watchdog = loop.call_later(DEADLINE_S, pytest.fail, "the reader was not called")
    loop.run_forever()
    watchdog.cancel()
    assert loop.remove_reader(pair[0]) is True


def test_callback_runs_in_the_context_of_its_registration(run: Any, pair: Pair) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = Calls()
        variable.set("at registration")
        loop.add_reader(pair[0], lambda: calls(variable.get()))
        variable.set("later")
        pair[1].send(b"x")
        await calls.wait()
        loop.remove_reader(pair[0])
        assert calls[0] == ("at registration",)

    run(main())


def test_pipe_ends(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        readable, writable = Calls(), Calls()
        loop.add_reader(reading, readable)
        loop.add_writer(writing, writable)
        await writable.wait()
        assert readable == []
        assert loop.remove_writer(writing) is True
        os.close(writing)
        await readable.wait()  # end of file is readable
        assert os.read(reading, 1) == b""
        assert loop.remove_reader(reading) is True
        os.close(reading)

    run(main())


def test_writer_of_a_pipe_learns_that_the_reader_is_gone(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writing, bytes(65536))
        writable = Calls()
        loop.add_writer(writing, writable)
        await turns()
        assert writable == []
        os.close(reading)
        await writable.wait()
        loop.remove_writer(writing)
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"x")
        os.close(writing)

    run(main())


def test_hundreds_of_descriptors(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pairs = [socket.socketpair() for _ in range(300)]
        calls = Calls()

        def readable(index: int) -> None:
            loop.remove_reader(pairs[index][0])
            calls(index)

        for index, (left, _) in enumerate(pairs):
            loop.add_reader(left, readable, index)
        for _, right in pairs:
            right.send(b"x")
        await calls.wait(times=300)
        assert sorted(calls) == [(index,) for index in range(300)]
        for left, right in pairs:
            left.close()
            right.close()

    run(main())


# From inside callbacks


def test_removing_the_other_reader_from_a_callback_prevents_its_call(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pairs = [socket.socketpair() for _ in range(2)]
        calls = Calls()

        def readable(own: int) -> None:
            calls(own)
            for left, _ in pairs:
                loop.remove_reader(left)

        for index, (left, _) in enumerate(pairs):
            loop.add_reader(left, readable, index)
        for _, right in pairs:
            right.send(b"x")
        await calls.wait()
        await turns()
        assert len(calls) == 1
        for left, right in pairs:
            left.close()
            right.close()

    run(main())


def test_reader_may_remove_the_writer_of_its_descriptor_and_itself(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        writable = Calls()

        def read() -> None:
            assert loop.remove_writer(pair[0]) is True
            assert loop.remove_reader(pair[0]) is True

        readable = Calls(then=read)
        pair[1].send(b"x")
        loop.add_reader(pair[0], readable)
        loop.add_writer(pair[0], writable)
        await readable.wait()
        await turns()
        assert len(readable) == 1
        assert writable == []  # the reader's turn comes first

    run(main())


def test_reader_may_replace_itself(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        second = Calls(then=lambda: loop.remove_reader(pair[0]))
        first = Calls(then=lambda: loop.add_reader(pair[0], second))
        loop.add_reader(pair[0], first)
        pair[1].send(b"x")
        await second.wait()
        await turns()
        assert len(first) == len(second) == 1

    run(main())


def test_reader_may_close_its_descriptor(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def read() -> None:
            loop.remove_reader(pair[0])
            pair[0].close()

        readable = Calls(then=read)
        loop.add_reader(pair[0], readable)
        pair[1].send(b"x")
        await readable.wait()
        await turns()
        assert len(readable) == 1

    run(main())


def test_callback_that_raises_is_reported_and_called_again(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        log = HandlerLog(loop)
        error = ValueError("on purpose")

        def read() -> None:
            if len(readable) == 1:
                raise error

        readable = Calls(then=read)
        loop.add_reader(pair[0], readable)
        pair[1].send(b"x")
        await readable.wait(times=3)
        loop.remove_reader(pair[0])
        assert len(log) == 1
        assert log[0]["exception"] is error
        assert context_keys(log[0]) == {"message", "exception", "handle"}
        assert log[0]["message"].startswith("Exception in callback ")
        assert isinstance(log[0]["handle"], asyncio.Handle)

    run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_trap_30_exit_exceptions_leave_run_forever(loop: Any, pair: Pair, error: type[BaseException]) -> None:
    def read() -> None:
        loop.remove_reader(pair[0])
        raise error

    loop.add_reader(pair[0], read)
    pair[1].send(b"x")
    with pytest.raises(error):
        loop.run_forever()
    loop.call_soon(loop.stop)  # the loop is as good as before
    loop.run_forever()


def test_callback_that_is_no_callable(run: Any, loop_name: str, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        log = HandlerLog(loop)
        if loop_name == "hoop":  # std takes it, and fails when it comes to the call
            with pytest.raises(TypeError, match="None"):
                loop.add_reader(pair[0], None)
            return
        loop.add_reader(pair[0], None)
        pair[1].send(b"x")
        context = await log.first()
        loop.remove_reader(pair[0])
        assert isinstance(context["exception"], TypeError)

    run(main())


# Bad arguments


class NoNumber:
    def fileno(self) -> str:
        return "three"


class Negative:
    def fileno(self) -> int:
        return -1


@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
@pytest.mark.parametrize("fd", [-1, -5, 1.5, None, "3", b"3", NoNumber(), Negative(), object()], ids=repr)
def test_what_is_no_descriptor_is_a_value_error(loop: Any, method: str, fd: Any) -> None:
    arguments = [fd, print] if method.startswith("add") else [fd]
    with pytest.raises(ValueError, match="Invalid file"):
        getattr(loop, method)(*arguments)


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_numbers_without_a_descriptor(loop: Any, method: str) -> None:
    sock = socket.socket()
    number = sock.fileno()
    sock.close()
    with pytest.raises(ValueError, match="Invalid file descriptor"):
        getattr(loop, method)(sock, print)
    with pytest.raises(OSError, match="Bad file descriptor"):
        getattr(loop, method)(number, print)
    with pytest.raises(OSError, match="Bad file descriptor"):
        getattr(loop, method)(2**31 - 1, print)
    for far_too_large in (2**31, 2**70):
        with pytest.raises(OverflowError):
            getattr(loop, method)(far_too_large, print)
    remove = loop.remove_reader if method == "add_reader" else loop.remove_writer
    assert remove(number) is False
    assert remove(2**31 - 1) is False
    assert remove(2**31) is remove(2**70) is False


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_missing_arguments_are_type_errors(loop: Any, method: str) -> None:
    with pytest.raises(TypeError):
        getattr(loop, method)()
    with pytest.raises(TypeError):
        getattr(loop, method)(0)


def test_closed_loop(loop: Any, pair: Pair) -> None:
    loop.add_reader(pair[0], print)
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_reader(pair[0], print)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_writer(pair[0], print)
    assert loop.remove_reader(pair[0]) is False
    assert loop.remove_writer(pair[0]) is False


def test_descriptor_of_a_transport_is_refused(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        transport, peer = await connected(protocol)
        sock = transport.get_extra_info("socket")
        for fd in (sock, sock.fileno()):
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.add_reader(fd, print)
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.add_writer(fd, print)
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.remove_reader(fd)
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.remove_writer(fd)
        peer.send(b"still here")
        await protocol.until_received(10)
        transport.close()
        await protocol.until_lost()
        peer.close()

    run(main())


def test_trap_3_refused_registration_is_not_remembered(loop_name: str, loop: Any) -> None:
    if not refuses_regular_files(loop_name):
        pytest.skip("this back end watches regular files")
    left, right = socket.socketpair()
    with tempfile.TemporaryFile() as file:
        for _ in range(2):
            with pytest.raises(PermissionError):
                loop.add_reader(file, print)
            with pytest.raises(PermissionError):
                loop.add_writer(file.fileno(), print)
        assert loop.remove_reader(file) is False
        assert loop.remove_writer(file.fileno()) is False
        number = file.fileno()
    with left, right:
        os.dup2(left.fileno(), number)  # the number now names something that can be watched
        loop.add_reader(number, loop.stop)
        right.send(b"x")
        watchdog = loop.call_later(DEADLINE_S, pytest.fail, "the reader was not called")
        loop.run_forever()
        watchdog.cancel()
        assert loop.remove_reader(number) is True
        os.close(number)


# Descriptors that the user closes, and peers that vanish


@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_trap_2_number_reused_by_another_socket(run: Any, loop_name: str, direction: str) -> None:
    if loop_name == "asyncio":
        pytest.xfail("std: selectors takes the number for already registered and never tells epoll")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        add, remove = getattr(loop, f"add_{direction}"), getattr(loop, f"remove_{direction}")
        left, right = socket.socketpair()
        number = left.fileno()
        add(number, Calls())
        await turns()
        left.close()  # without remove: the kernel forgets, the loop has not been told
        right.close()
        left, right = socket.socketpair()
        assert left.fileno() == number
        calls = Calls()
        add(number, calls)
        right.send(b"x")
        await calls.wait()
        assert remove(number) is True
        left.close()
        right.close()

    run(main())


def test_trap_2_number_reused_by_a_transport(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.xfail("std: selectors takes the number for already registered and never tells epoll")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = tcp_pair()
        number = os.dup(0)
        loop_side, other_side = socket.socketpair()
        os.dup2(loop_side.fileno(), number)
        stale = Calls()
        loop.add_reader(number, stale)
        await turns()
        os.close(number)
        reused = socket.socket(fileno=os.dup(ours.fileno()))
        assert reused.fileno() == number
        ours.close()
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=reused)
        peer.send(b"for the transport")
        assert await protocol.until_received(17) == b"for the transport"
        transport.close()
        await protocol.until_lost()
        assert stale == []
        for sock in (peer, loop_side, other_side):
            sock.close()

    run(main())


def test_trap_2_closed_without_removal_then_removed(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        number = pair[0].fileno()
        loop.add_reader(number, Calls())
        await turns()
        pair[0].close()
        await turns()
        assert loop.remove_reader(number) is True
        assert loop.remove_reader(number) is False

    run(main())


def test_closed_file_object_can_still_be_removed(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(pair[0], Calls())
        await turns()
        pair[0].close()  # its fileno() is -1 from now on
        assert loop.remove_reader(pair[0]) is True

    run(main())


def test_trap_2_closed_while_a_duplicate_lives_does_not_spin(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.xfail("std: epoll reports the registration for ever, and the number can no longer be removed")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        duplicate = os.dup(left.fileno())
        calls = Calls()
        loop.add_reader(left.fileno(), calls)
        number = left.fileno()
        left.close()
        assert loop.remove_reader(number) is True
        right.send(b"x")  # readable through the duplicate, under a number that is gone
        await turns()
        count = len(calls)
        assert await idle_turns() <= MOST_IDLE_TURNS
        assert len(calls) == count == 0
        os.close(duplicate)
        right.close()

    run(main())


@pytest.mark.parametrize("departure", ["closes", "resets"])
def test_trap_47_no_interest_and_the_peer_is_gone(run: Any, departure: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = tcp_pair()
        readable, writable = Calls(), Calls()
        loop.add_reader(ours, readable)
        loop.add_writer(ours, writable)
        await writable.wait()
        loop.remove_writer(ours)
        loop.remove_reader(ours)
        count = len(writable)
        if departure == "resets":
            peer.send(b"unread")
            reset(peer)
        else:
            peer.close()
        assert await idle_turns() <= MOST_IDLE_TURNS
        assert readable == [] and len(writable) == count
        ours.close()

    run(main())


@pytest.mark.parametrize("departure", ["closes", "resets"])
def test_trap_47_reading_paused_and_the_peer_is_gone(run: Any, departure: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        transport.pause_reading()
        await turns()
        if departure == "resets":
            peer.send(b"unread")
            reset(peer)
        else:
            peer.close()
        assert await idle_turns() <= MOST_IDLE_TURNS
        assert protocol.names == ["connection_made"]
        transport.resume_reading()
        reason = await protocol.until_lost()
        assert isinstance(reason, ConnectionResetError) if departure == "resets" else reason is None

    run(main())


def test_watching_an_idle_descriptor_costs_nothing(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        readable = Calls()
        loop.add_reader(pair[0], readable)
        assert await idle_turns() <= MOST_IDLE_TURNS
        assert readable == []
        loop.remove_reader(pair[0])

    run(main())
