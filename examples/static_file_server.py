"""A static file server: HTTP/1.1 with keep-alive, GET and HEAD, over hoop's streams and hoop.fs.

    python examples/static_file_server.py FOLDER [PORT]

Small files that the page cache holds are read on the loop's own thread, all else on the pool; large ones are sent piece
by piece, as fast as the peer takes them, so memory stays bounded. A peer that is silent for a while is disconnected.
"""

import asyncio
import contextlib
import email.utils
import http
import mimetypes
import stat
import sys
import urllib.parse
from pathlib import Path

import hoop

WHOLE = 256 * 1024  # bytes: a file up to this size is read in one go
PIECE = 256 * 1024
LIMITS = hoop.Limits(idle_timeout=30.0, max_connections=10_000)


class Refused(Exception):
    """Answered with a status instead of a file."""


class FileServer:
    """Serves what is below a folder; links are followed, hidden files are not shown."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def serve(self, reader: hoop.StreamReader, writer: hoop.StreamWriter) -> None:
        """One connection, until either side wants no more."""
        try:
            keeps_alive = True
            while keeps_alive:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                keeps_alive = "connection: close" not in head.lower()
                try:
                    method, target = self.parse(head)
                    await self.send_file(writer, self.path_of(target), with_body=method == "GET")
                except Refused as refusal:
                    self.send_head(writer, http.HTTPStatus(refusal.args[0]), 0)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the peer has gone, or does not speak HTTP
        finally:
            writer.close()

    def parse(self, head: str) -> tuple[str, str]:
        """Method and target of a request."""
        words = head.partition("\r\n")[0].split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise Refused(400)
        if words[0] not in ("GET", "HEAD"):
            raise Refused(405)
        return words[0], words[1]

    def path_of(self, target: str) -> Path:
        """The file that a target names; never one outside of the folder."""
        names = [name for name in urllib.parse.unquote(urllib.parse.urlsplit(target).path).split("/") if name]
        if any(name.startswith(".") or "\0" in name for name in names):
            raise Refused(404)
        return self.folder.joinpath(*names)

    async def send_file(self, writer: hoop.StreamWriter, path: Path, *, with_body: bool) -> None:
        """A file, or the index of a folder."""
        try:
            status = await hoop.fs.stat(path)
            if stat.S_ISDIR(status.st_mode):
                path = path / "index.html"
                status = await hoop.fs.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise Refused(404)
            if not with_body:
                self.send_head(writer, http.HTTPStatus.OK, status.st_size, path, status.st_mtime)
            elif status.st_size <= WHOLE:
                content = await hoop.fs.read_file(path)
                self.send_head(writer, http.HTTPStatus.OK, len(content), path, status.st_mtime)
                writer.write(content)
            else:
                await self.send_pieces(writer, path, status.st_size, status.st_mtime)
        except PermissionError:
            raise Refused(403) from None
        except OSError as error:
            raise (error if isinstance(error, ConnectionError) else Refused(404)) from None

    async def send_pieces(self, writer: hoop.StreamWriter, path: Path, size: int, modified: float) -> None:
        """A large file."""
        async with hoop.fs.open(path, "rb", buffering=0) as file:
            self.send_head(writer, http.HTTPStatus.OK, size, path, modified)
            while size > 0:
                piece = await file.read(min(PIECE, size))
                if not piece:
                    raise ConnectionAbortedError("the file has shrunk: the length that was promised cannot be kept")
                writer.write(piece)
                await writer.drain()
                size -= len(piece)

    def send_head(
        self,
        writer: hoop.StreamWriter,
        status: http.HTTPStatus,
        size: int,
        path: Path | None = None,
        modified: float = 0,
    ) -> None:
        """Status and headers."""
        lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Content-Length: {size}"]
        if path is not None:
            lines.append(f"Content-Type: {mimetypes.guess_type(path.name)[0] or 'application/octet-stream'}")
            lines.append(f"Last-Modified: {email.utils.formatdate(modified, usegmt=True)}")
        if status is http.HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append("Allow: GET, HEAD")
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))


async def main(folder: Path, port: int) -> None:
    """Serve until interrupted."""
    mimetypes.init()  # reads files: before there is anyone to wait
    server = await hoop.start_server(FileServer(folder).serve, "127.0.0.1", port, limits=LIMITS)
    print(f"serving {folder} on http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        hoop.run(main(Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 8000))
