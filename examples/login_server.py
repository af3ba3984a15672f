"""A login server: lines over TCP, passwords kept as scrypt hashes that the loop's pool computes.

    python examples/login_server.py 8025
    $ nc localhost 8025
    register ada correct horse battery staple
    201 registered
    login ada correct horse battery staple
    200 welcome

Hashing a password takes tens of milliseconds, on purpose. Here that happens in threads, so the other connections do not
notice; a semaphore keeps a flood of logins from filling memory (scrypt takes 16 MiB each) and the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass, field

import hoop

SCRYPT = {"n": 2**14, "r": 8, "p": 1}
SALT_SIZE = 16  # bytes
LONGEST_LINE = 1024  # bytes
LIMITS = hoop.Limits(idle_timeout=30, first_byte_timeout=5, max_connections=10_000, max_connections_per_host=1000)


@dataclass
class Accounts:
    """Who may log in. A real server would keep this in a database."""

    hashes: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)  # name -> salt, hash
    turnstile: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(64))  # passwords under way

    async def hash(self, password: str, salt: bytes) -> bytes:
        async with self.turnstile:
            return await hoop.crypto.scrypt(password.encode(), salt=salt, **SCRYPT)

    async def register(self, name: str, password: str) -> bool:
        salt = await hoop.crypto.random_bytes(SALT_SIZE)
        made = await self.hash(password, salt)
        return self.hashes.setdefault(name, (salt, made)) == (salt, made)

    async def login(self, name: str, password: str) -> bool:
        salt, expected = self.hashes.get(name, (bytes(SALT_SIZE), b""))
        made = await self.hash(password, salt)  # for an unknown name too: the time taken must not tell
        return hoop.crypto.compare_digest(made, expected)


async def answer(accounts: Accounts, line: str) -> str:
    """The reply to one line."""
    verb, _, rest = line.partition(" ")
    name, _, password = rest.partition(" ")
    if verb not in ("register", "login") or not name or not password:
        return "400 say: register NAME PASSWORD, or: login NAME PASSWORD"
    if verb == "register":
        return "201 registered" if await accounts.register(name, password) else "409 that name is taken"
    return "200 welcome" if await accounts.login(name, password) else "401 no"


async def serve(accounts: Accounts, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, line by line. Limits and lost peers end it with an exception, which ends it here."""
    try:
        while line := await reader.readline():
            reply = await answer(accounts, line.decode("utf-8", "replace").strip())
            writer.write(reply.encode() + b"\n")
            await writer.drain()
    except (OSError, ValueError):  # ValueError: a line longer than LONGEST_LINE
        pass
    finally:
        writer.close()


async def main(port: int) -> None:
    accounts = Accounts()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(accounts, reader, writer)

    server = await hoop.start_server(on_connection, "localhost", port, limit=LONGEST_LINE, limits=LIMITS)
    print("listening on port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        hoop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8025))
