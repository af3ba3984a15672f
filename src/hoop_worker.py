"""What runs in a worker process of hoop.WorkerPool. It imports no hoop, so that a worker starts fast and small.

A worker has one socket to the pool. The pool sends a task, the worker its outcome, one at a time: no queue is shared,
so none can be left locked by the dead. Large buffers lie beside the messages, in memory that both processes map.

    message:  kind (1 byte), size of the pickle (8), number of buffers (4), then for each: size (8), then the pickle
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import socket
import struct
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

HEAD = struct.Struct("!BQI")
SIZE = struct.Struct("!Q")
SET_UP, READY, TASK, RESULT, LAST_RESULT, ERROR, LAST_ERROR = range(1, 8)
FIRST_READ = 64 * 1024
GROWTH = 1 << 20  # what is mapped grows in such steps
LARGE = 256 * 1024  # bytes of a buffer that is worth a place in shared memory


MOST_FUNCTIONS = 256  # that are remembered, on either side
SMALL = frozenset({type(None), bool, int, float, str})  # they have no buffers


functions: dict[bytes, Any] = {}


class Aside:
    """Memory for the large buffers of one direction: the sender writes, the receiver copies out.

    Both map it, since that copies three times as fast as pread(2) and pwrite(2). It is sealed against shrinking and its
    pages are there before they are used, so neither side meets a SIGBUS.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd  # -1: there is none, and all goes through the socket
        self.map: mmap.mmap | None = None

    @property
    def size(self) -> int:
        """Bytes that are mapped."""
        return 0 if self.map is None else len(self.map)

    def mapped(self, size: int) -> mmap.mmap:
        """The memory, of at least so many bytes. OSError if there is not so much."""
        if self.map is None or len(self.map) < size:
            self.unmap()
            self.map = mmap.mmap(self.fd, os.fstat(self.fd).st_size)
        return self.map

    def unmap(self) -> None:
        """Idempotent."""
        if self.map is not None:
            self.map.close()
            self.map = None

    def write(self, buffers: list[Any]) -> None:
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        size = sum([len(view) for view in views])
        if os.fstat(self.fd).st_size < size:
            os.posix_fallocate(self.fd, 0, -size // GROWTH * -GROWTH)
        memory = self.mapped(size)
        offset = 0
        for view in views:
            memory[offset : offset + len(view)] = view
            offset += len(view)

    def read(self, sizes: list[int]) -> Iterator[bytes]:
        size = sum(sizes)
        if os.fstat(self.fd).st_size < size:
            raise EOFError("the other process has not written so much")
        memory = self.mapped(size)
        offset = 0
        for size in sizes:
            yield memory[offset : offset + size]
            offset += size


class LargeBytes:
    """Stands for bytes in a pickle, and becomes bytes again: pickle would copy them into its own stream."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return bytes_again, (pickle.PickleBuffer(self.data),)


def bytes_again(data: Any) -> bytes:
    return data if type(data) is bytes else bytes(data)


def pack(value: Any, aside: Aside) -> tuple[bytes, list[Any]]:
    """A pickle, and the buffers that belong beside it. What pickle raises if the value does not pickle."""
    if aside.fd < 0 or type(value) in SMALL:
        return pickle.dumps(value, 5), []
    buffers: list[Any] = []

    def keep_inside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        buffers.append(raw)
        return False

    return pickle.dumps(value, 5, buffer_callback=keep_inside), buffers


def head_of(kind: int, pickled: bytes, buffers: list[Any]) -> bytes:
    head = HEAD.pack(kind, len(pickled), len(buffers))
    return head + b"".join([SIZE.pack(buffer.nbytes) for buffer in buffers]) if buffers else head


def unpack(pickled: Any, sizes: list[int], aside: Aside) -> Any:
    return pickle.loads(pickled, buffers=aside.read(sizes)) if sizes else pickle.loads(pickled)


def receive(sock: socket.socket) -> tuple[int, Any, list[int]]:
    """One message: its kind, its pickle, the sizes of its buffers. EOFError if the pool is gone.

    Nothing can follow it, since the pool sends one thing at a time: so it is what comes until it is whole, mostly in
    one system call."""
    data: Any = sock.recv(FIRST_READ)
    if len(data) < HEAD.size:
        data = more(sock, data, HEAD.size)
    kind, size, count = HEAD.unpack_from(data)
    start = HEAD.size + SIZE.size * count
    if len(data) < start + size:
        data = more(sock, data, start + size)
    sizes = [SIZE.unpack_from(data, HEAD.size + SIZE.size * index)[0] for index in range(count)] if count else []
    return kind, memoryview(data)[start:], sizes


def more(sock: socket.socket, data: Any, size: int) -> bytearray:
    """The message's beginning, read on until so many bytes of it are there."""
    if not data:
        raise EOFError("the pool is gone")
    whole = bytearray(max(size, len(data)))
    whole[: len(data)] = data
    have, view = len(data), memoryview(whole)
    while have < size:
        got = sock.recv_into(view[have:])
        if not got:
            raise EOFError("the pool is gone")
        have += got
    return whole


def function_of(pickled: bytes) -> Any:
    """A function that the pool names by a pickle of its own: it is looked up once."""
    function = functions.get(pickled)
    if function is None:
        if len(functions) >= MOST_FUNCTIONS:
            functions.clear()
        function = functions[pickled] = pickle.loads(pickled)
    return function


def run_task(pickled: Any, sizes: list[int], tasks: Aside, results: Aside) -> tuple[bool, bytes, list[Any]]:
    """(whether it returned, pickle, buffers). What goes wrong anywhere is the task's error, and only its own."""
    try:
        by_name, function, arguments, keywords = unpack(pickled, sizes, tasks)
        if by_name:
            function = function_of(function)
        value = function(*arguments, **keywords)
        if type(value) is bytes and len(value) >= LARGE and results.fd >= 0:
            value = LargeBytes(value)
        return True, *pack(value, results)
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            error = RuntimeError(f"the task raised {error!r}").with_traceback(error.__traceback__)
        text = "".join(traceback.format_exception(error))
        try:
            pickled_error = pickle.dumps((error, text), 5)
            pickle.loads(pickled_error)  # an exception whose __init__ wants other arguments fails here
        except Exception:
            pickled_error = pickle.dumps((RuntimeError(f"{type(error).__qualname__}: {error}"), text), 5)
        return False, pickled_error, []


def run_pickled(pickled: bytes) -> tuple[bool, bytes]:
    """In a subinterpreter: one task, whose message has no buffers beside it."""
    nothing = Aside(-1)
    is_result, answer, _ = run_task(pickled, [], nothing, nothing)
    return is_result, answer


def watch(life_fd: int) -> None:
    """End the process when the pool's is gone, also in the middle of a task: no one writes to this pipe, but its other
    end is closed then."""
    os.read(life_fd, 1)
    os._exit(1)


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no /proc
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def set_up(sock: socket.socket) -> dict[str, Any]:
    """Make the process what the pool wants, as multiprocessing's own spawned children are made."""
    _, pickled, _ = receive(sock)
    options: dict[str, Any] = pickle.loads(pickled)
    if options["nice"]:
        os.nice(options["nice"])
    from multiprocessing import process, spawn

    process.current_process()._inheriting = True  # type: ignore[attr-defined]
    try:
        spawn.prepare(options["preparation"])
    finally:
        del process.current_process()._inheriting  # type: ignore[attr-defined]
    function: Callable[..., object] | None
    function, arguments = pickle.loads(options["initializer"])
    if function is not None:
        function(*arguments)
    return options


def send(sock: socket.socket, kind: int, pickled: bytes, buffers: list[Any], aside: Aside) -> None:
    if buffers:
        aside.write(buffers)
    sock.sendall(head_of(kind, pickled, buffers) + pickled)


def serve(sock: socket.socket, tasks: Aside, results: Aside) -> None:
    try:
        options = set_up(sock)
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        send(sock, ERROR, pickle.dumps((RuntimeError(f"a worker could not start: {error!r}"), text), 5), [], results)
        return
    send(sock, READY, b"", [], results)
    most_tasks, most_memory = options["max_tasks"], options["max_memory"]
    done = 0
    while True:
        _, pickled, sizes = receive(sock)
        is_result, answer, buffers = run_task(pickled, sizes, tasks, results)
        del pickled
        done += 1
        is_last = done == most_tasks or (
            most_memory is not None and resident_bytes() - tasks.size - results.size > most_memory
        )
        kind = (LAST_RESULT if is_last else RESULT) if is_result else (LAST_ERROR if is_last else ERROR)
        send(sock, kind, answer, buffers, results)
        del answer, buffers
        if is_last:
            return


def main(fd: int, life_fd: int, task_fd: int, result_fd: int) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches every process of a terminal; the pool ends its workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=watch, args=(life_fd,), daemon=True).start()
    with socket.socket(fileno=fd) as sock, contextlib.suppress(EOFError, ConnectionError):  # the pool wants no more
        serve(sock, Aside(task_fd), Aside(result_fd))
