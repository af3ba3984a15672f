"""asyncpg against a real PostgreSQL, which is a child process of the tests: UNIX socket, TCP, and TLS on TCP."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import pwd
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import trustme
from free_ports import free_port
from server_process import ServerProcess

Run = Callable[..., Any]
Payload = Callable[[int], bytes]

ATTEMPTS = 5
ROWS = 50_000
LARGE = 8 * 1024 * 1024
SETTINGS = {  # nothing here has to survive a power failure
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "ssl": "on",
    "ssl_cert_file": "certificate.pem",
    "ssl_key_file": "key.pem",
}


def unprivileged_user() -> str | None:
    """Whom to be: PostgreSQL refuses to run as root, and Debian's package makes a user for it."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Cluster:
    """A new database cluster in a directory of its own, where its UNIX socket is too: such a path has to be short."""

    def __init__(self, folder_of_programs: Path) -> None:
        self.programs = folder_of_programs
        self.user = unprivileged_user()
        self.directory = Path(tempfile.mkdtemp(prefix="hoop-pg-"))
        self.data = self.directory / "data"
        self.authority = trustme.CA()
        if self.user is not None:
            shutil.chown(self.directory, self.user)
        options = ["--username=tester", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command = [self.programs / "initdb", f"--pgdata={self.data}", *options]
        subprocess.run(command, user=self.user, cwd=self.directory, check=True, stdout=subprocess.DEVNULL)
        leaf = self.authority.issue_cert("localhost", "127.0.0.1")
        self.add_file("certificate.pem", b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        self.add_file("key.pem", leaf.private_key_pem.bytes())

    def add_file(self, name: str, content: bytes) -> None:
        path = self.data / name
        path.write_bytes(content)
        path.chmod(0o600)
        if self.user is not None:
            shutil.chown(path, self.user)

    def start(self, port: int) -> ServerProcess:
        settings = {**SETTINGS, "port": str(port), "unix_socket_directories": str(self.directory)}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [self.programs / "postgres", "-D", self.data, *words]
        return ServerProcess(command, user=self.user, cwd=self.directory)

    def ways(self, port: int) -> dict[str, dict[str, Any]]:
        """What asyncpg.connect() has to be told for each way to the server."""
        trusting = ssl.create_default_context()
        self.authority.configure_trust(trusting)
        return {
            "unix": {"host": str(self.directory), "port": port},
            "tcp": {"host": "127.0.0.1", "port": port, "ssl": False},
            "tls": {"host": "localhost", "port": port, "ssl": trusting},
        }


@pytest.fixture(scope="module")
def ways(program: Callable[..., Path]) -> Iterator[dict[str, dict[str, Any]]]:
    cluster = Cluster(program("postgres", debian_package="postgresql").parent)
    try:
        for _ in range(ATTEMPTS):
            port = free_port()
            with cluster.start(port) as server:
                if server.find("database system is ready to accept connections"):
                    yield cluster.ways(port)
                    return
        pytest.fail("PostgreSQL did not start:\n" + server.text)
    finally:
        shutil.rmtree(cluster.directory)


class Database:
    """How the tests reach the server: by one way, which is the fixture's parameter."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = {**options, "user": "tester", "database": "postgres", "timeout": 20}

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(**self.options)
        try:
            yield connection
        finally:
            await connection.close()

    def pool(self, **options: Any) -> asyncpg.Pool:
        return asyncpg.create_pool(**self.options, **options)

    async def wait_for_waiting(self, query: str) -> None:
        """Return when exactly this query waits for a lock."""
        async with self.connect() as observer:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE query = $1 AND wait_event_type = 'Lock'"
            while await observer.fetchval(waiting, query) == 0:
                pass


@pytest.fixture(params=["unix", "tcp", "tls"])
def database(request: pytest.FixtureRequest, ways: dict[str, dict[str, Any]]) -> Database:
    return Database(ways[request.param])


@pytest.fixture
def local(ways: dict[str, dict[str, Any]]) -> Database:
    """The UNIX socket, for what does not depend on the way."""
    return Database(ways["unix"])


def test_the_way_is_the_one_asked_for(run: Run, ways: dict[str, dict[str, Any]]) -> None:
    async def seen_by_the_server(way: str) -> tuple[bool, bool]:
        async with Database(ways[way]).connect() as connection:
            over_tcp = await connection.fetchval("SELECT inet_client_addr() IS NOT NULL")
            encrypted = await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            return over_tcp, encrypted

    async def main() -> None:
        assert await seen_by_the_server("unix") == (False, False)
        assert await seen_by_the_server("tcp") == (True, False)
        assert await seen_by_the_server("tls") == (True, True)

    run(main())


def test_unknown_certificate_is_refused(run: Run, ways: dict[str, dict[str, Any]]) -> None:
    async def main() -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncpg.connect(**{**Database(ways["tls"]).options, "ssl": ssl.create_default_context()})

    run(main())


def test_queries_and_transactions(run: Run, database: Database) -> None:
    async def main() -> None:
        async with database.connect() as connection:
            await connection.execute("CREATE TEMP TABLE items (id int PRIMARY KEY, name text, at timestamptz)")
            rows = [(number, f"größe {number}") for number in range(1000)]
            await connection.executemany("INSERT INTO items VALUES ($1, $2, now())", rows)
            found = await connection.fetch("SELECT id, name FROM items ORDER BY id")
            assert [tuple(row) for row in found] == rows
            statement = await connection.prepare("SELECT name FROM items WHERE id = $1")
            for number in range(200):
                assert await statement.fetchval(number) == f"größe {number}"
            with pytest.raises(asyncpg.UniqueViolationError):
                async with connection.transaction():
                    await connection.execute("DELETE FROM items WHERE id > 10")
                    await connection.execute("INSERT INTO items VALUES (1, 'again', now())")
            assert await connection.fetchval("SELECT count(*) FROM items") == 1000
            async with connection.transaction():
                cursor = connection.cursor("SELECT id FROM items ORDER BY id", prefetch=50)
                assert [row["id"] async for row in cursor] == list(range(1000))

    run(main())


def test_large_values(run: Run, database: Database, payload: Payload) -> None:
    value = payload(LARGE)
    checksum = hashlib.sha256(value).digest()

    async def main() -> None:
        async with database.connect() as connection:
            assert await connection.fetchval("SELECT sha256($1::bytea)", value) == checksum
            await connection.execute("CREATE TEMP TABLE blobs (value bytea)")
            await connection.execute("INSERT INTO blobs VALUES ($1)", value)
            assert hashlib.sha256(await connection.fetchval("SELECT value FROM blobs")).digest() == checksum

    run(main())


def test_copy_both_ways(run: Run, database: Database) -> None:
    """COPY FROM and COPY TO of some MB, as records and as text in pieces that do not end where lines end."""
    text = "".join(f"{number}\tname {number}\n" for number in range(ROWS)).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(text), 10_007):
            yield text[start : start + 10_007]

    async def main() -> None:
        async with database.connect() as connection:
            await connection.execute("CREATE TEMP TABLE copied (id int, name text)")
            records = ((number, f"name {number}") for number in range(ROWS))
            assert await connection.copy_records_to_table("copied", records=records) == f"COPY {ROWS}"
            written = io.BytesIO()
            await connection.copy_from_query("SELECT * FROM copied ORDER BY id", output=written)
            assert written.getvalue() == text
            assert await connection.copy_to_table("copied", source=pieces()) == f"COPY {ROWS}"
            count = "SELECT count(*) FROM (SELECT id FROM copied GROUP BY id, name HAVING count(*) = 2) AS twice"
            assert await connection.fetchval(count) == ROWS

    run(main())


def test_copy_from_a_source_that_fails(run: Run, database: Database) -> None:
    """The COPY is undone, and the connection goes on."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"1\n" * 10_000
        raise LookupError("on purpose")

    async def main() -> None:
        async with database.connect() as connection:
            await connection.execute("CREATE TEMP TABLE copied (id int)")
            with pytest.raises(LookupError):
                await connection.copy_to_table("copied", source=broken())
            assert await connection.fetchval("SELECT count(*) FROM copied") == 0

    run(main())


def test_listen_and_notify(run: Run, database: Database) -> None:
    count = 500

    async def main() -> None:
        received: list[str] = []
        complete = asyncio.Event()

        def heard(connection: Any, sender: int, channel: str, message: str) -> None:
            received.append(message)
            if len(received) == count:
                complete.set()

        async with database.connect() as listener, database.connect() as speaker:
            await listener.add_listener("news", heard)
            for number in range(count):
                await speaker.execute("SELECT pg_notify('news', $1)", str(number))
            await complete.wait()
            await listener.remove_listener("news", heard)
            await speaker.execute("NOTIFY news, 'nobody listens'")
            assert await listener.fetchval("SELECT 1") == 1
        assert received == [str(number) for number in range(count)]

    run(main())


def test_cancelled_query(run: Run, database: Database) -> None:
    """The server is told to stop the query, over a connection of its own, and the cancelled one can be used again."""
    query = "SELECT pg_advisory_lock(3)"

    async def main() -> None:
        async with database.connect() as owner, database.connect() as connection:
            await owner.execute(query)
            waiting = asyncio.ensure_future(connection.execute(query))
            await database.wait_for_waiting(query)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await connection.fetchval("SELECT 42") == 42
            with pytest.raises(asyncio.TimeoutError):
                await connection.execute(query, timeout=0.05)
            assert await connection.fetchval("SELECT 43") == 43
            await owner.execute("SELECT pg_advisory_unlock(3)")
            assert await connection.fetchval("SELECT pg_try_advisory_lock(3)") is True

    run(main())


def test_connection_that_the_server_ends(run: Run, database: Database) -> None:
    query = "SELECT pg_advisory_lock(4)"

    async def main() -> None:
        async with database.connect() as owner:
            await owner.execute(query)
            victim = await asyncpg.connect(**database.options)
            waiting = asyncio.ensure_future(victim.execute(query))
            await database.wait_for_waiting(query)
            assert await owner.fetchval("SELECT pg_terminate_backend($1)", victim.get_server_pid())
            with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
                await waiting
            await victim.close()

    run(main())


def test_pool(run: Run, database: Database) -> None:
    """Forty tasks share eight connections: no ninth is made, and each task has its own answers and transactions."""
    tasks, rounds, limit = 40, 10, 8

    async def main() -> None:
        async with database.pool(min_size=2, max_size=limit) as pool:

            async def work(number: int) -> set[int]:
                backends = set()
                for turn in range(rounds):
                    async with pool.acquire() as connection, connection.transaction():
                        value = number * rounds + turn
                        assert await connection.fetchval("SELECT $1::int", value) == value
                        backends.add(connection.get_server_pid())
                return backends

            backends = set().union(*await asyncio.gather(*(work(number) for number in range(tasks))))
            assert 1 < len(backends) <= limit

    run(main())


def test_pool_survives_cancelled_tasks(run: Run, local: Database) -> None:
    query = "SELECT pg_advisory_lock(5)"

    async def main() -> None:
        async with local.pool(min_size=1, max_size=2) as pool, local.connect() as owner:
            await owner.execute(query)
            waiting = [asyncio.ensure_future(pool.execute(query)) for _ in range(6)]
            await local.wait_for_waiting(query)
            for task in waiting:
                task.cancel()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
            assert await asyncio.gather(*(pool.fetchval("SELECT 1") for _ in range(6))) == [1] * 6

    run(main())
