"""Files to sockets: os.sendfile where the kernel can, reads and sends where it cannot."""

from __future__ import annotations

import asyncio
import io
import os
import socket
from typing import IO, Any

from hoop import sockops
from hoop.base_loop import BaseLoop

LARGEST_CALL = 1 << 30  # bytes for one sendfile(2): the kernel stops at 2 GiB anyhow
FALLBACK_BLOCK = 256 * 1024


class SendFile(BaseLoop, asyncio.AbstractEventLoop):
    """sock_sendfile."""

    async def sock_sendfile(
        self,
        sock: socket.socket,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = None,
    ) -> int:
        """Send count bytes of file (None: all) from offset to sock; the number of bytes sent.

        The file's position is set behind what was sent, also after an error. With fallback=False,
        asyncio.SendfileNotAvailableError where os.sendfile cannot do it. ValueError or TypeError for bad arguments.
        """
        check_sendfile(self, sock, file, offset, count)
        sent = 0
        try:
            number = file.fileno()
            os.fstat(number)
        except (AttributeError, io.UnsupportedOperation, OSError) as error:
            if fallback is False:
                raise asyncio.SendfileNotAvailableError("not a regular file") from error
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
                if moved == 0:
                    break
                sent += moved
            return sent
        finally:
            if sent > 0:
                os.lseek(number, offset + sent, os.SEEK_SET)

    async def _send_by_reading(self, sock: socket.socket, file: IO[bytes], offset: int, count: int | None) -> int:
        if offset:
            file.seek(offset)
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
            if sent > 0 and hasattr(file, "seek"):
                file.seek(offset + sent)


def check_sendfile(loop: BaseLoop, sock: Any, file: Any, offset: Any, count: Any) -> None:
    """As asyncio checks the arguments of sock_sendfile."""
    if loop.get_debug() and sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")
    if "b" not in getattr(file, "mode", "b"):
        raise ValueError("file should be opened in binary mode")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError("only SOCK_STREAM type sockets are supported")
    if count is not None:
        if not isinstance(count, int):
            raise TypeError(f"count must be a positive integer (got {count!r})")
        if count <= 0:
            raise ValueError(f"count must be a positive integer (got {count!r})")
    if not isinstance(offset, int):
        raise TypeError(f"offset must be a non-negative integer (got {offset!r})")
    if offset < 0:
        raise ValueError(f"offset must be a non-negative integer (got {offset!r})")
