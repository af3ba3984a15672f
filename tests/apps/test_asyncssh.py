"""asyncssh: server and client on the loop under test, with SFTP, tunnels, and subprocesses behind the server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

Run = Callable[..., Any]
Payload = Callable[[int], bytes]

LARGE = 6 * 1024 * 1024


async def run_command(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """What a login shell does: the command's standard streams are the channel's."""
    assert process.command is not None
    child = await asyncio.create_subprocess_shell(
        process.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    await process.stdout.drain()
    await process.stderr.drain()
    process.exit(await child.wait())
    await process.wait_closed()


class Server(asyncssh.SSHServer):
    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return True


class Service:
    """An SSH server on a port of its own, which lets one user in by key and shows one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.user_key = asyncssh.generate_private_key("ssh-ed25519")
        self.port = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        acceptor = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=Server,
            server_host_keys=[self.host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(self.user_key.export_public_key().decode()),
            process_factory=run_command,
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(self.folder).encode()),
            encoding=None,
        )
        self.port = acceptor.get_port()
        try:
            yield
        finally:
            acceptor.close()
            await acceptor.wait_closed()

    def connection(self, **options: Any) -> Any:
        known = asyncssh.import_known_hosts(f"[127.0.0.1]:{self.port} {self.host_key.export_public_key().decode()}")
        expected = {"username": "tester", "client_keys": [self.user_key], "known_hosts": known, "config": []}
        return asyncssh.connect("127.0.0.1", self.port, **{**expected, **options})


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_sftp_both_ways(run: Run, service: Service, payload: Payload, tmp_path: Path) -> None:
    body = payload(LARGE)
    (tmp_path / "sent").write_bytes(body)
    (tmp_path / "folder").mkdir()

    async def main() -> None:
        async with service.serving(), service.connection() as connection, connection.start_sftp_client() as sftp:
            await sftp.put(str(tmp_path / "sent"), "folder/stored")
            assert (await sftp.stat("folder/stored")).size == LARGE
            await sftp.get("folder/stored", str(tmp_path / "received"))
            received = hashlib.sha256((tmp_path / "received").read_bytes())
            assert received.digest() == hashlib.sha256(body).digest()
            async with sftp.open("folder/stored", "rb") as file:
                await file.seek(LARGE - 5)
                assert await file.read() == body[-5:]
            await sftp.rename("folder/stored", "folder/renamed")
            assert {name for name in await sftp.listdir("folder") if not name.startswith(".")} == {"renamed"}
            with pytest.raises(asyncssh.SFTPNoSuchFile):
                await sftp.open("folder/absent", "rb")

    run(main())


def test_many_files_at_once(run: Run, service: Service, payload: Payload, tmp_path: Path) -> None:
    bodies = {f"file-{number}": payload(20_000 * number) for number in range(30)}

    async def main() -> None:
        async with service.serving(), service.connection() as connection, connection.start_sftp_client() as sftp:

            async def there_and_back(name: str, body: bytes) -> None:
                async with sftp.open(name, "wb") as file:
                    await file.write(body)
                async with sftp.open(name, "rb") as file:
                    assert await file.read() == body

            await asyncio.gather(*(there_and_back(name, body) for name, body in bodies.items()))

    run(main())
    assert {name: (tmp_path / name).read_bytes() for name in bodies} == bodies


def test_subprocess_through_the_channel(run: Run, service: Service, payload: Payload) -> None:
    """Input, output, errors and exit status of a real process; some MB pass through it and back."""
    body = payload(LARGE // 2)

    async def main() -> None:
        async with service.serving(), service.connection() as connection:
            result = await connection.run("cat", input=body, encoding=None)
            assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(body).digest()
            assert result.exit_status == 0
            program = "import sys; print(sys.stdin.read()[::-1]); print('warning', file=sys.stderr); sys.exit(3)"
            result = await connection.run(f'{sys.executable} -c "{program}"', input="olleh")
            assert (result.stdout, result.stderr, result.exit_status) == ("hello\n", "warning\n", 3)
            results = await asyncio.gather(*(connection.run(f"echo {number}") for number in range(8)))
            assert [result.stdout for result in results] == [f"{number}\n" for number in range(8)]

    run(main())


def test_conversation_with_a_process(run: Run, service: Service) -> None:
    async def main() -> None:
        async with service.serving(), service.connection() as connection:
            async with connection.create_process("while read line; do echo got $line; done") as process:
                for number in range(50):
                    process.stdin.write(f"{number}\n")
                    assert await process.stdout.readline() == f"got {number}\n"
                process.stdin.write_eof()
                assert await process.stdout.read() == ""
                assert (await process.wait()).exit_status == 0

    run(main())


def test_tunnels(run: Run, service: Service, payload: Payload) -> None:
    """A local port and a UNIX socket that are carried through the connection to an echo server."""
    body = payload(1_000_000)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(body)
        writer.write_eof()
        received = await reader.read()
        writer.close()
        await writer.wait_closed()
        return received

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        path = str(service.folder / "socket")
        async with server, service.serving(), service.connection() as connection:
            async with connection.forward_local_port("127.0.0.1", 0, "127.0.0.1", port) as listener:
                streams = await asyncio.open_connection("127.0.0.1", listener.get_port())
                assert await exchange(*streams) == body
            async with connection.forward_local_path_to_port(path, "127.0.0.1", port):
                assert await exchange(*await asyncio.open_unix_connection(path)) == body

    run(main())


def test_strangers(run: Run, service: Service) -> None:
    """A user with another key is refused; a server with another key is not talked to."""

    async def main() -> None:
        async with service.serving():
            with pytest.raises(asyncssh.PermissionDenied):
                await service.connection(client_keys=[asyncssh.generate_private_key("ssh-ed25519")])
            with pytest.raises(asyncssh.HostKeyNotVerifiable):
                await service.connection(known_hosts=([], [], []))
            async with service.connection() as connection:
                assert (await connection.run("true")).exit_status == 0

    run(main())
