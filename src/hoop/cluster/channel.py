"""Messages between master and worker, over a socket pair: each a length and JSON, with bytes behind it if it has any.

Both directions are bounded: a message has a largest size, and what the other side does not read makes send() refuse
instead of growing. The end of the stream is how one side learns that the other is gone. No pickle: a worker that was
taken over cannot run code in the master.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

HEAD = struct.Struct("!II")  # sizes of the JSON and of the bytes
LARGEST = 1 << 20  # bytes of one message, both parts
MOST_UNSENT = 4 * LARGEST
READ_SIZE = 1 << 16
READS = 16  # for one event: the loop has other things to do

Message = dict[str, Any]


Rest = tuple[bytes, Sequence[bytes]]  # what has come of a message that is not complete; what is left to be sent


class ChannelFull(Exception):
    """The other side reads too slowly; the message was not taken."""


class Channel:
    """One end. on_message(message, data) for each message; on_end() once, when the other side is gone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_message: Callable[[Message, bytes], object],
        on_end: Callable[[], object],
        rest: Rest = (b"", ()),
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._socket = sock
        self._on_message = on_message
        self._on_end = on_end
        unread, unsent = rest
        self._unread = bytearray(unread)
        self._unsent: deque[memoryview] = deque(memoryview(frame) for frame in unsent)
        self._unsent_size = sum(map(len, self._unsent))
        self.is_open: bool = True
        loop.add_reader(sock, self._on_readable)
        if self._unsent:
            loop.add_writer(sock, self._on_writable)

    @property
    def rest(self) -> Rest:
        """What another channel of this socket has to be given, to go on."""
        return bytes(self._unread), [bytes(frame) for frame in self._unsent]

    @property
    def unsent(self) -> int:
        """Messages taken by send() that the kernel has not taken, perhaps in part."""
        return len(self._unsent)

    def send(self, message: Message, data: bytes = b"") -> None:
        """ChannelFull when too much waits already, ConnectionError when the other side is gone, ValueError for a
        message that is too large, TypeError for one that is not JSON."""
        text = json.dumps(message, separators=(",", ":")).encode()
        if len(text) + len(data) > LARGEST:
            raise ValueError(f"a message of {len(text) + len(data)} bytes is larger than {LARGEST}")
        if not self.is_open:
            raise ConnectionError("the other side of the channel is gone")
        if self._unsent_size > MOST_UNSENT:
            raise ChannelFull("the other side of the channel does not read")
        frame = HEAD.pack(len(text), len(data)) + text + data
        self._unsent.append(memoryview(frame))
        self._unsent_size += len(frame)
        if len(self._unsent) == 1:
            self._send_unsent()
            if self._unsent:
                self._loop.add_writer(self._socket, self._on_writable)

    def flush(self, timeout: float) -> int:
        """Before the process ends: wait until the kernel has taken all, but no longer than that many seconds. Returns
        how many messages are lost."""
        deadline = time.monotonic() + timeout
        while self._unsent and self.is_open:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._socket.settimeout(left)
            try:
                self._send_unsent()
            except TimeoutError:
                break
        return len(self._unsent)

    def read_rest(self) -> None:
        """The other process has ended: deliver what it had sent, then close."""
        while self.is_open and self._read():
            pass
        self.close()

    def close(self) -> None:
        """Lose what is unsent, see no more messages, and no on_end(). Idempotent."""
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    # ---- reading ----------------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        for _ in range(READS):
            if not self.is_open or not self._read():
                return

    def _read(self) -> bool:
        """Read once. Returns whether there may be more."""
        try:
            data = self._socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._end()
            return False
        self._unread += data
        self._deliver()
        return True

    def _deliver(self) -> None:
        start = 0
        unread = self._unread
        while self.is_open and len(unread) - start >= HEAD.size:
            json_size, data_size = HEAD.unpack_from(unread, start)
            body = start + HEAD.size
            end = body + json_size + data_size
            if json_size + data_size > LARGEST:
                self._end()  # not one of ours
                return
            if len(unread) < end:
                break
            try:
                message = json.loads(unread[body : body + json_size])
            except ValueError:
                self._end()
                return
            attached = bytes(unread[body + json_size : end])
            start = end
            try:
                self._on_message(message, attached)
            except Exception as error:  # the user's; later messages must not suffer
                self._loop.call_exception_handler({"message": "a handler of messages failed", "exception": error})
        del unread[:start]

    def _end(self) -> None:
        if self.is_open:
            self.close()
            self._on_end()

    # ---- writing ----------------------------------------------------------------------------------------------------

    def _on_writable(self) -> None:
        self._send_unsent()
        if not self._unsent and self.is_open:
            self._loop.remove_writer(self._socket)

    def _send_unsent(self) -> None:
        while self._unsent and self.is_open:
            first = self._unsent[0]
            try:
                sent = self._socket.send(first)
            except (BlockingIOError, InterruptedError):
                return None
            except (BrokenPipeError, ConnectionError):
                return self._on_broken()
            self._unsent_size -= sent
            if sent < len(first):
                self._unsent[0] = first[sent:]
            else:
                self._unsent.popleft()
        return None

    def _on_broken(self) -> None:
        """The other side is gone, and its last messages may still wait here: reading them finds the end."""
        self._loop.remove_writer(self._socket)
