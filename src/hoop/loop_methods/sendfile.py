"""Send files to sockets: by os.sendfile where the kernel can, else by reads and sends."""

from __future__ import annotations

import asyncio
import io
import os
import socket
from asyncio.constants import _SendfileMode as SendfileMode
from typing import IO, Any

from hoop.loop_methods.base_loop import BaseLoop
from hoop.net import sockops

LARGEST_CALL = 1 << 30  # bytes for one sendfile(2): the kernel stops at 2 GiB anyhow
FALLBACK_BLOCK = 256 * 1024
TRANSPORT_BLOCK = 64 * 1024  # a transport's default high-water mark


class SendFile(BaseLoop, asyncio.AbstractEventLoop):
    """sendfile and sock_sendfile."""

    async def sendfile(
        self,
        transport: asyncio.WriteTransport,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int:
        """Send count bytes of file (None: all) from offset over transport. Returns the number of bytes sent.

        Earlier writes go first; until the file is sent, write() raises RuntimeError, and reading is paused. Leaves the
        file's position behind the last byte sent, also after an error. Where os.sendfile cannot do it (TLS, files
        without a descriptor) it reads the file and writes it; with fallback=False it raises RuntimeError or
        asyncio.SendfileNotAvailableError. RuntimeError for a transport that is closing or cannot send files.
        """
        if transport.is_closing():
            raise RuntimeError("Transport is closing")
        mode = getattr(transport, "_sendfile_compatible", SendfileMode.UNSUPPORTED)
        if mode is SendfileMode.UNSUPPORTED:
            raise RuntimeError(f"sendfile is not supported for transport {transport!r}")
        check_range(file, offset, count)
        if mode is SendfileMode.TRY_NATIVE:
            try:
                return await self._send_by_kernel(transport, file, offset, count)
            except asyncio.SendfileNotAvailableError:
                if not fallback:
                    raise
        if not fallback:
            raise RuntimeError(f"fallback is disabled and native sendfile is not supported for transport {transport!r}")
        return await self._send_by_writing(transport, file, offset, count)

    async def _send_by_kernel(self, transport: Any, file: IO[bytes], offset: int, count: int | None) -> int:
        """Call os.sendfile on the transport's own descriptor, once each time the socket has room: others run too."""
        number, end = descriptor_and_size(file)
        was_reading = transport.is_reading()
        transport._lend()
        transport.pause_reading()
        sent = 0
        is_sendable = False
        is_full = transport.get_write_buffer_size() > 0
        try:
            while count is None or sent < count:
                if is_full:
                    waiter = self.create_future()
                    transport._when_writable(waiter)
                    await waiter
                size = LARGEST_CALL if count is None else min(LARGEST_CALL, count - sent)
                try:
                    moved = os.sendfile(transport._lent_descriptor(), number, offset + sent, size)
                except BlockingIOError:
                    is_full = True
                    continue
                except OSError as error:
                    if sent > 0 or isinstance(error, ConnectionError):
                        raise
                    raise asyncio.SendfileNotAvailableError("os.sendfile call failed") from error
                is_sendable = True
                if moved == 0:
                    break
                transport._note_file_sent()
                sent += moved
                is_full = offset + sent != end  # there, ask once more: the file may have grown
            return sent
        finally:
            transport._take_back()
            if was_reading:
                transport.resume_reading()
            if is_sendable:
                os.lseek(number, offset + sent, os.SEEK_SET)

    async def _send_by_writing(
        self, transport: asyncio.WriteTransport, file: IO[bytes], offset: int, count: int | None
    ) -> int:
        is_seekable = find_start(file, offset)
        sent = 0
        pacing = Pacing(self, transport)
        try:
            while count is None or sent < count:
                size = TRANSPORT_BLOCK if count is None else min(TRANSPORT_BLOCK, count - sent)
                data = await self.run_in_executor(None, file.read, size)
                if not data:
                    break
                await pacing.room()
                transport.write(data)
                sent += len(data)
            return sent
        finally:
            if is_seekable:
                file.seek(offset + sent)
            pacing.end()

    async def sock_sendfile(
        self,
        sock: socket.socket,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = None,
    ) -> int:
        """Send count bytes of file (None: all) from offset to sock. Returns the number of bytes sent.

        Leaves the file's position behind the last byte sent, also after an error. With fallback=False,
        asyncio.SendfileNotAvailableError where os.sendfile cannot do it. ValueError or TypeError for bad arguments.
        """
        check_sendfile(self, sock, file, offset, count)
        sent = 0
        is_sendable = False
        try:
            number, _ = descriptor_and_size(file)
        except asyncio.SendfileNotAvailableError:
            if fallback is False:
                raise
            return await self._send_by_reading(sock, file, offset, count)
        try:
            while count is None or sent < count:
                size = LARGEST_CALL if count is None else min(LARGEST_CALL, count - sent)
                try:
                    moved = await sockops.sock_call(
                        self, sock, True, os.sendfile, sock.fileno(), number, offset + sent, size
                    )
                except OSError as error:
                    if sent > 0 or isinstance(error, ConnectionError):
                        raise
                    if fallback is False:
                        raise asyncio.SendfileNotAvailableError("os.sendfile call failed") from error
                    return await self._send_by_reading(sock, file, offset, count)
                is_sendable = True
                if moved == 0:
                    break
                sent += moved
            return sent
        finally:
            if is_sendable:
                os.lseek(number, offset + sent, os.SEEK_SET)

    async def _send_by_reading(self, sock: socket.socket, file: IO[bytes], offset: int, count: int | None) -> int:
        is_seekable = find_start(file, offset)
        sent = 0
        try:
            while count is None or sent < count:
                size = FALLBACK_BLOCK if count is None else min(FALLBACK_BLOCK, count - sent)
                data = await self.run_in_executor(None, file.read, size)
                if not data:
                    break
                await self.sock_sendall(sock, data)
                sent += len(data)
            return sent
        finally:
            if is_seekable:
                file.seek(offset + sent)


class Pacing(asyncio.Protocol):
    """A protocol in place of the transport's own while a file is written to it: takes pause_writing, reads nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: Any) -> None:
        self._loop = loop
        self._transport = transport
        self._protocol = transport.get_protocol()
        self._was_reading = transport.is_reading()
        self._was_paused = transport._protocol_paused
        self._room: asyncio.Future[None] | None = loop.create_future() if self._was_paused else None
        self._cause: Exception | None = None  # why the connection was lost
        transport.pause_reading()
        transport.set_protocol(self)

    async def room(self) -> None:
        """Wait until the transport takes more. ConnectionError once it is closing."""
        if self._room is not None:
            await self._room
        if self._transport.is_closing():
            raise self._cause or ConnectionError("Connection closed by peer")

    def end(self) -> None:
        """Give the transport back to its protocol, and tell that if writing is paused or resumed since."""
        self._transport.set_protocol(self._protocol)
        if self._was_reading:
            self._transport.resume_reading()
        is_paused, self._room = self._room is not None, None
        if is_paused != self._was_paused and not self._transport.is_closing():
            if is_paused:
                self._protocol.pause_writing()
            else:
                self._protocol.resume_writing()

    def pause_writing(self) -> None:
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cause = exc
        self.resume_writing()  # a writer in room() then finds the transport closing
        self._protocol.connection_lost(exc)


def descriptor_and_size(file: Any) -> tuple[int, int]:
    """Return the descriptor of a file that the kernel can read, and how many bytes it has. SendfileNotAvailableError,
    asyncio's, if it has none."""
    try:
        number: int = file.fileno()
        return number, os.fstat(number).st_size
    except (AttributeError, io.UnsupportedOperation, OSError) as error:
        raise asyncio.SendfileNotAvailableError("not a regular file") from error


def find_start(file: Any, offset: int) -> bool:
    """Seek to offset, counted from the file's beginning. Returns whether the file can seek."""
    is_seekable = hasattr(file, "seek") and (not hasattr(file, "seekable") or file.seekable())
    if offset or is_seekable:
        file.seek(offset)
    return is_seekable


def check_sendfile(loop: BaseLoop, sock: Any, file: Any, offset: Any, count: Any) -> None:
    """Check the arguments of sock_sendfile as asyncio does."""
    if loop.get_debug() and sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")
    check_range(file, offset, count)
    if sock.type != socket.SOCK_STREAM:
        raise ValueError("only SOCK_STREAM type sockets are supported")


def check_range(file: Any, offset: Any, count: Any) -> None:
    """Check which part of a file to send as asyncio does."""
    if "b" not in getattr(file, "mode", "b"):
        raise ValueError("file should be opened in binary mode")
    if count is not None:
        if not isinstance(count, int):
            raise TypeError(f"count must be a positive integer (got {count!r})")
        if count <= 0:
            raise ValueError(f"count must be a positive integer (got {count!r})")
    if not isinstance(offset, int):
        raise TypeError(f"offset must be a non-negative integer (got {offset!r})")
    if offset < 0:
        raise ValueError(f"offset must be a non-negative integer (got {offset!r})")
