"""hoop_worker and what speaks to it: messages in pieces, memory beside them, functions that are named once."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import socket
from collections.abc import Iterator

import hoop_worker
import pytest
from hoop.workers import process_worker
from hoop.workers.process_worker import new_memory, pack_call
from hoop_worker import GROWTH, TASK, Aside, function_of, head_of, receive


@contextlib.contextmanager
def aside() -> Iterator[Aside]:
    memory = Aside(new_memory("test"))
    if memory.fd < 0:
        pytest.skip("no memory without a name here")
    try:
        yield memory
    finally:
        memory.unmap()
        os.close(memory.fd)


class Pieces:
    """A socket whose bytes come a few at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data = data
        self.size = size

    def recv(self, size: int) -> bytes:
        piece, self.data = self.data[: min(self.size, size)], self.data[min(self.size, size) :]
        return piece

    def recv_into(self, view: memoryview) -> int:
        piece = self.recv(len(view))
        view[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("size", [1, 3, 12, 13, 14, 100, 1 << 20])
@pytest.mark.parametrize("large", [0, 2])
def test_messages_are_whole_however_they_come(size: int, large: int) -> None:
    pickled = pickle.dumps("x" * 500)
    message = head_of(TASK, pickled, [memoryview(b"123")] * large) + pickled
    kind, found, sizes = receive(Pieces(message, size))  # type: ignore[arg-type]
    assert (kind, bytes(found), sizes) == (TASK, pickled, [3] * large)
    for cut in (0, 5, 20, len(message) - 1):
        with pytest.raises(EOFError, match="the pool is gone"):
            receive(Pieces(message[:cut], size))  # type: ignore[arg-type]


def test_memory_grows_and_both_sides_see_it() -> None:
    with aside() as writer:
        reader = Aside(os.dup(writer.fd))
        try:
            for sizes in ([10], [GROWTH, 1], [3], [GROWTH * 2, 5, GROWTH]):
                buffers = [bytes([number]) * size for number, size in enumerate(sizes, 1)]
                writer.write(buffers)
                assert list(reader.read(sizes)) == buffers
            assert writer.size % GROWTH == 0 and writer.size == reader.size >= GROWTH * 3 + 5
            with pytest.raises(EOFError, match="has not written so much"):
                list(reader.read([GROWTH * 100]))
            with pytest.raises(OSError, match=r".*"):
                os.ftruncate(writer.fd, 0)  # sealed: who reads meets no SIGBUS
        finally:
            reader.unmap()
            os.close(reader.fd)


def test_functions_are_named_once_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_worker, "pickled_functions", {})
    monkeypatch.setattr(hoop_worker, "functions", {})
    nowhere = Aside(-1)
    for _ in range(2):
        pickled, buffers = pack_call((math.gcd, (12, 18), {}), nowhere)
        by_name, named, arguments, keywords = pickle.loads(pickled)
        assert by_name and buffers == [] and function_of(named)(*arguments, **keywords) == 6
    assert len(process_worker.pickled_functions) == len(hoop_worker.functions) == 1
    for call in (([].append, (1,), {}), (dict, (), {}), (b"no function", (), {})):  # these may change, or have no name
        assert pickle.loads(pack_call(call, nowhere)[0])[0] is False  # type: ignore[arg-type]
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pack_call((lambda: None, (), {}), nowhere)
    for number in range(hoop_worker.MOST_FUNCTIONS * 2):
        hoop_worker.functions[b"%d" % number] = int
    function_of(pickle.dumps(math.lcm, 5))
    assert len(hoop_worker.functions) == 1


def test_a_socket_that_ends_in_the_middle_is_the_end_of_the_worker() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"\x03\0\0")
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            receive(ours)
