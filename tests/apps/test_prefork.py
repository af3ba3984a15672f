"""uvicorn and gunicorn as their users start them: processes that share a listener, and SIGTERM in the middle of load.

The servers are processes of their own on the loop under test; their clients run on that loop in this process.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server_process import ServerProcess, wait_for_listener

Run = Callable[..., object]

WORKERS = 2
ASKING = 32  # connections at once
MEASURED = 600  # requests whose share is reported
MOST = 6_000  # requests after which every worker must have served some
BEFORE_SIGNAL = 400  # answers, then SIGTERM

APPLICATION = """\
import asyncio
import os

started = []


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        with open(f"{os.path.dirname(__file__)}/started-{os.getpid()}", "w") as file:
            print(*started, file=file)
        await send({"type": "lifespan.shutdown.complete"})
        return
    name = scope["path"].removeprefix("/")
    started.append(name)
    for _ in range(len(started) % 7):
        await asyncio.sleep(0.001)
    loop = type(asyncio.get_running_loop())
    body = f"{name} {os.getpid()} {loop.__module__}.{loop.__qualname__} ".encode() + bytes(20_000)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body[:9_000], "more_body": True})
    await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": body[9_000:]})
"""
WORKER_CLASS = """\
from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):
    CONFIG_KWARGS = {{"loop": "{factory}", "http": "httptools"}}
"""


def uvicorn_command(folder: Path, factory: str, workers: int) -> list[str]:
    options = ["--app-dir", str(folder), "--loop", factory, "--http", "httptools", "--workers", str(workers)]
    command = [sys.executable, "-m", "uvicorn", *options, "--port", "0", "--no-use-colors", "--no-access-log"]
    return [*command, "served:application"]


def gunicorn_command(folder: Path, factory: str, workers: int) -> list[str]:
    (folder / "serving.py").write_text(WORKER_CLASS.format(factory=factory))
    options = ["--pythonpath", str(folder), "--worker-class", "serving.Worker", "--workers", str(workers)]
    command = [sys.executable, "-m", "gunicorn", *options, "--bind", "127.0.0.1:0", "--worker-tmp-dir", str(folder)]
    return [*command, "served:application"]


COMMANDS = {"uvicorn": uvicorn_command, "gunicorn": gunicorn_command}
LISTENING = r"(?:running on|Listening at:) http://127\.0\.0\.1:(\d+)"


@contextlib.contextmanager
def serving(server: str, folder: Path, loop_name: str, workers: int) -> Iterator[tuple[ServerProcess, int]]:
    """The server as a process, once all of its workers are up, and its port."""
    (folder / "served.py").write_text(APPLICATION)
    factory = {"asyncio": "asyncio:SelectorEventLoop"}.get(loop_name, f"{loop_name}:new_event_loop")
    command = COMMANDS[server](folder, factory, workers)
    with ServerProcess(command, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        (listening,) = process.wait_for(LISTENING)
        process.wait_for("Application startup complete", times=workers)
        wait_for_listener(int(listening[1]))
        yield process, int(listening[1])


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, *headers: str) -> list[str] | None:
    """Name, process and loop as the answer says; None if the connection ended before the answer began."""
    writer.write("\r\n".join([f"GET /{name} HTTP/1.1", "host: test", *headers, "", ""]).encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError) as error:
        assert not getattr(error, "partial", b""), f"half an answer: {error!r}"
        return None
    assert head.startswith(b"HTTP/1.1 200"), head
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    body = await reader.readexactly(int(length.split(b":")[1]))
    return body[:-20_000].decode().split()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def shares(port: int) -> tuple[collections.Counter[str], set[str], set[str]]:
    """Ask on a new connection each time, until every worker has served; the share of each, all of them, their loops."""
    share: collections.Counter[str] = collections.Counter()
    workers: set[str] = set()
    loops: set[str] = set()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = await ask(reader, writer, "share", "connection: close")
        await close(writer)
        assert answer is not None
        _, process, loop = answer
        workers.add(process)
        loops.add(loop)
        if share.total() < MEASURED:
            share[process] += 1

    for asked in range(0, MOST, ASKING):
        if asked >= MEASURED and len(workers) == WORKERS:
            break
        await asyncio.gather(*(one() for _ in range(ASKING)))
    return share, workers, loops


@pytest.mark.parametrize("server", COMMANDS)
def test_share_of_each_worker(
    run: Run,
    tmp_path: Path,
    server: str,
    loop_name: str,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    record_property: Callable[[str, object], None],
) -> None:
    """Every worker serves some of the connections; how many is reported, since it is the kernel that chooses."""
    with serving(server, tmp_path, loop_name, WORKERS) as (_, port):
        share, workers, loops = run(shares(port))
    with contextlib.closing(loop_factory()) as expected:
        assert loops == {f"{type(expected).__module__}.{type(expected).__qualname__}"}
    assert len(workers) == WORKERS
    told = " + ".join(str(count) for _, count in share.most_common())
    print(f"{server}, {loop_name}: {told} of {share.total()} requests")
    record_property("share", told)


@pytest.mark.parametrize(("server", "workers"), [("uvicorn", 1), ("uvicorn", WORKERS), ("gunicorn", WORKERS)])
def test_sigterm_loses_no_request(run: Run, tmp_path: Path, server: str, workers: int, loop_name: str) -> None:
    """Keep-alive connections ask without a pause when SIGTERM comes: what a handler has begun reaches its client whole.

    A request that meets the closing of an idle connection may stay unanswered (RFC 9112, 9.3.1 and 9.6): such a request
    must not have reached a handler.
    """
    answered: list[str] = []
    enough = asyncio.Event()

    async def client(number: int, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for turn in range(100_000):
            answer = await ask(reader, writer, f"{number}-{turn}")
            if answer is None:
                break
            assert answer[0] == f"{number}-{turn}"
            answered.append(answer[0])
            if len(answered) >= BEFORE_SIGNAL:
                enough.set()
        await close(writer)

    async def main(process: ServerProcess, port: int) -> None:
        clients = [asyncio.ensure_future(client(number, port)) for number in range(ASKING)]
        await enough.wait()
        process.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)

    with serving(server, tmp_path, loop_name, workers) as (process, port):
        run(main(process, port))
        assert process.stop() in (0, -signal.SIGTERM), process.text
    told = list(tmp_path.glob("started-*"))
    assert len(told) == workers, process.text
    started = [name for file in told for name in file.read_text().split()]
    assert len(started) >= BEFORE_SIGNAL
    assert sorted(started) == sorted(answered)
