"""What type checkers see: mypy --strict and stubtest find no fault with the package, and users get exact types."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import hoop
import pytest

pytestmark = pytest.mark.once  # what mypy and stubtest say does not depend on the back end, and little on Python

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src"
PUBLIC_MODULES = ["compress", "crypto", "dns", "fs", "limits", "monitor", "policy", "stats"]

# Checked line by line: after `# is:` stands the type that mypy reveals, after `# error:` the error that it reports.
USER_PROGRAM = '''
import asyncio
import socket
import ssl

import hoop


class Echo(asyncio.Protocol):
    """A user's protocol."""


async def answer() -> int:
    return 42


def tick(number: int, text: str) -> None:
    """A user's callback."""


reveal_type(hoop.run(answer()))  # is: int
reveal_type(hoop.new_event_loop)  # is: def () -> hoop.loop.Loop
reveal_type(hoop.EventLoopPolicy().new_event_loop())  # is: hoop.loop.Loop
reveal_type(hoop.install)  # is: def ()
reveal_type(hoop.__version__)  # is: str
hoop.no_such_name  # error: attr-defined

loop = hoop.Loop(poller="poll", poll_every_turn=True)
abstract: asyncio.AbstractEventLoop = loop
reveal_type(loop.next_tick(tick, 1, "a"))  # is: asyncio.events.Handle
reveal_type(loop.queue_microtask(tick, 1, "a"))  # is: asyncio.events.Handle
reveal_type(loop.set_immediate(tick, 1, "a"))  # is: hoop.core.handle.Immediate
reveal_type(loop.set_timeout(tick, 0.5, 1, "a"))  # is: hoop.core.timer.Timer
reveal_type(loop.set_timeout(print))  # is: hoop.core.timer.Timer
reveal_type(loop.set_interval(tick, 0.5, 1, "a").unref())  # is: hoop.core.timer.Timer
loop.set_interval(print)  # error: call-arg
loop.set_timeout(tick, 0.5, "1", "a")  # error: arg-type
reveal_type(loop.call_soon(tick, 1, "a"))  # is: asyncio.events.Handle
reveal_type(loop.call_later(0.5, tick, 1, "a"))  # is: hoop.core.handle.TimerHandle
reveal_type(loop.call_later(0.5, tick, 1, "a").unref().has_ref())  # is: bool
loop.next_tick(tick, "1", "a")  # error: arg-type
loop.call_soon(tick, 1)  # error: arg-type
hoop.Loop(pollers="poll")  # error: call-arg
reveal_type(loop.run_until_complete(answer()))  # is: int
reveal_type(loop.create_task(answer()))  # is: _asyncio.Task[int]
reveal_type(loop.run_in_executor(None, len, "abc"))  # is: _asyncio.Future[int]
reveal_type(loop.slow_callback_duration)  # is: float
reveal_type(hoop.Loop(pool_size=8).pool)  # is: hoop.jobs.pool.Pool
reveal_type(loop.pool.run(len, "abc"))  # is: _asyncio.Future[int]
loop.pool.run(len, 5)  # error: arg-type
reveal_type(loop.pool.stats().wait.p99_ns)  # is: int
with hoop.Pool(2, queue_limit=10) as pool:
    reveal_type(hoop.Loop(pool=pool))  # is: hoop.loop.Loop

with asyncio.Runner(loop_factory=hoop.new_event_loop) as runner:
    reveal_type(runner.run(answer()))  # is: int


async def work() -> None:
    reveal_type((await hoop.dns.lookup("localhost", 80))[0].port)  # is: int
    reveal_type((await hoop.dns.reverse(("127.0.0.1", 80))).host)  # is: str
    reveal_type(await hoop.crypto.scrypt(b"password", salt=b"salt", n=2, r=1, p=1))  # is: bytes
    reveal_type(await hoop.crypto.digest("sha256", bytearray()))  # is: bytes
    reveal_type(await hoop.compress.compress(b"", "zstd"))  # is: bytes
    await hoop.compress.decompress(b"", "zip")  # error: arg-type
    await hoop.crypto.pbkdf2_hmac("sha256", "text", b"salt", 1)  # error: arg-type


async def network(sock: socket.socket) -> None:
    transport, protocol = await loop.create_connection(Echo, "localhost", 80)
    reveal_type(transport)  # is: asyncio.transports.Transport
    reveal_type(protocol)  # is: user_program.Echo
    server = await loop.create_server(Echo, "localhost", 80)
    reveal_type(server)  # is: hoop.loop_methods.servers.Server
    reveal_type(await loop.sock_recv(sock, 10))  # is: bytes
    await loop.sock_sendall(sock, "text")  # error: arg-type


async def upgrade(writer: hoop.StreamWriter, context: ssl.SSLContext) -> None:
    await writer.start_tls(context, ssl_shutdown_timeout=5)  # asyncio's takes that from Python 3.12 on
    await writer.start_tls(context, ssl_shutdown_timeout="5")  # error: arg-type


def chat(sock: hoop.Socket) -> None:
    reveal_type(sock.write(b"x"))  # is: bool
    reveal_type(sock.bytes_read)  # is: int
    sock.bytes_read = 5  # error: misc
    sock.write("text")  # error: arg-type
    sock.on_data = lambda one, data: reveal_type(data)  # is: bytes
    sock.set_timeout(5, lambda one: reveal_type(one))  # is: hoop.handles.socket.Socket


limits = hoop.Limits(idle_timeout=60, when_full="wait")
hoop.Limits(60)  # error: call-arg
hoop.Limits(when_full="drop")  # error: arg-type
handle_server = loop.listen_tcp(chat, "127.0.0.1", 0, limits=limits)
reveal_type(handle_server)  # is: hoop.loop_methods.socket_handles.SocketServer
reveal_type(handle_server.stats().refused_full)  # is: int
reveal_type(loop.connect_tcp("localhost", 80))  # is: hoop.handles.socket.Socket
loop.listen_tcp(tick)  # error: arg-type
reveal_type(loop.bind_udp(None).send(b"x", ("127.0.0.1", 9)))  # is: bool


async def files() -> None:
    reveal_type(await hoop.fs.read_file("x"))  # is: bytes
    reveal_type(await hoop.fs.read_file(b"x", encoding="utf-8"))  # is: str
    reveal_type((await hoop.fs.stat(0)).st_size)  # is: int
    reveal_type(await hoop.fs.scandir(b"x"))  # is: list[hoop.files.file_jobs.DirEntry[bytes]]
    await hoop.fs.read_file(0)  # error: call-overload
    async with hoop.fs.open("x") as text:
        reveal_type(text)  # is: hoop.files.file_object.TextFile
        async for line in text:
            reveal_type(line)  # is: str
        await text.write(b"x")  # error: arg-type
    reveal_type(await hoop.fs.open("x", "wb"))  # is: hoop.files.file_object.BinaryFile
    reveal_type(await hoop.fs.open("x", "wb", buffering=0))  # is: hoop.files.file_object.RawFile
    async with hoop.fs.TemporaryDirectory() as folder:
        reveal_type(folder)  # is: str
    async for found in hoop.fs.walk("x"):
        reveal_type(found)  # is: tuple[str, list[str], list[str]]
'''

EXPECTED = re.compile(r"(?<=  # )(is|error): .*")
MYPY_LINE = re.compile(r'user_program\.py:(\d+): (?:note: Revealed type is "(.*)"|error: .*\[([\w-]+)])')


def need_mypy() -> None:
    if importlib.util.find_spec("mypy") is None:
        if os.environ.get("CI"):
            pytest.fail("mypy is not installed (CI is set, so this is not skipped)")
        pytest.skip("mypy is not installed")


def output_of(command: list[str], cwd: Path) -> tuple[int, str]:
    """Exit status, and what the command prints."""
    environment = {**os.environ, "MYPYPATH": str(SOURCES), "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")}
    finished = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return finished.returncode, finished.stdout


def revealed(program: str, folder: Path) -> dict[int, str]:
    """What mypy says about each line: `is: TYPE` for a reveal_type(), `error: CODE` for an error."""
    need_mypy()
    path = folder / "user_program.py"
    path.write_text(program)
    said: dict[int, str] = {}
    _, output = output_of([sys.executable, "-m", "mypy", "--strict", path.name], folder)
    for line in output.splitlines():
        if found := MYPY_LINE.fullmatch(line):
            said[int(found[1])] = f"is: {found[2]}" if found[2] is not None else f"error: {found[3]}"
    return said


def test_mypy_and_stubtest_find_no_fault() -> None:
    """On every Python that the suite runs on: what a stub inherits from typeshed's asyncio differs between versions."""
    need_mypy()
    status, output = output_of(["make", "check-types", f"PYTHON={sys.executable}"], ROOT)
    assert status == 0, output


def test_a_users_program_gets_exact_types(tmp_path: Path) -> None:
    lines = USER_PROGRAM.splitlines()
    expected = {number: found[0] for number, line in enumerate(lines, 1) if (found := EXPECTED.search(line))}
    assert revealed(USER_PROGRAM, tmp_path) == expected


def public_names(module: types.ModuleType) -> list[str]:
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")]


def test_every_public_name_has_a_type(tmp_path: Path) -> None:
    names = [f"hoop.{name}" for name in public_names(hoop)]
    for area in PUBLIC_MODULES:
        names += [f"hoop.{area}.{name}" for name in public_names(importlib.import_module(f"hoop.{area}"))]
    imports = "".join(f"import hoop.{area}\n" for area in PUBLIC_MODULES)
    said = revealed(imports + "".join(f"reveal_type({name})\n" for name in names), tmp_path)
    types_of = {name: said.get(number, "nothing") for number, name in enumerate(names, len(PUBLIC_MODULES) + 1)}
    untyped = {name: said for name, said in types_of.items() if said == "is: Any" or not said.startswith("is: ")}
    assert untyped == {}


@pytest.mark.parametrize("name", ["StreamReader", "StreamReaderProtocol", "StreamWriter"])
def test_compiled_streams_have_the_public_methods_of_asyncios(name: str) -> None:
    """Their stubs say that they have no more, and stubtest does not look at what a compiled class inherits."""

    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(getattr(hoop, name)) == public(getattr(asyncio, name))
