"""What type checkers see: the package passes mypy --strict, users get exact types, and the stub matches the module."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import hoop
import pytest
from hoop.base_loop import BaseLoop

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src"
STUB = SOURCES / "hoop" / "base_loop.pyi"

# Checked line by line: after `# is:` stands the type that mypy reveals, after `# error:` the error that it reports.
USER_PROGRAM = '''
import asyncio
import socket

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
reveal_type(loop.set_immediate(tick, 1, "a"))  # is: hoop.handle.Immediate
reveal_type(loop.set_timeout(tick, 0.5, 1, "a"))  # is: hoop.native_timers.Timer
reveal_type(loop.set_timeout(print))  # is: hoop.native_timers.Timer
reveal_type(loop.set_interval(tick, 0.5, 1, "a").unref())  # is: hoop.native_timers.Timer
loop.set_interval(print)  # error: call-arg
loop.set_timeout(tick, 0.5, "1", "a")  # error: arg-type
reveal_type(loop.call_soon(tick, 1, "a"))  # is: asyncio.events.Handle
reveal_type(loop.call_later(0.5, tick, 1, "a"))  # is: hoop.handle.TimerHandle
reveal_type(loop.call_later(0.5, tick, 1, "a").unref().has_ref())  # is: bool
loop.next_tick(tick, "1", "a")  # error: arg-type
loop.call_soon(tick, 1)  # error: arg-type
hoop.Loop(pollers="poll")  # error: call-arg
reveal_type(loop.run_until_complete(answer()))  # is: int
reveal_type(loop.create_task(answer()))  # is: _asyncio.Task[int]
reveal_type(loop.run_in_executor(None, len, "abc"))  # is: _asyncio.Future[int]
reveal_type(loop.slow_callback_duration)  # is: float
reveal_type(hoop.Loop(pool_size=8).pool)  # is: hoop.pool.Pool
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
    reveal_type(server)  # is: hoop.server.Server
    reveal_type(await loop.sock_recv(sock, 10))  # is: bytes
    await loop.sock_sendall(sock, "text")  # error: arg-type


def chat(sock: hoop.Socket) -> None:
    reveal_type(sock.write(b"x"))  # is: bool
    reveal_type(sock.bytes_read)  # is: int
    sock.bytes_read = 5  # error: misc
    sock.write("text")  # error: arg-type
    sock.on_data = lambda one, data: reveal_type(data)  # is: bytes
    sock.set_timeout(5, lambda one: reveal_type(one))  # is: hoop.sockets.Socket


limits = hoop.Limits(idle_timeout=60, when_full="wait")
hoop.Limits(60)  # error: call-arg
hoop.Limits(when_full="drop")  # error: arg-type
handle_server = loop.listen_tcp(chat, "127.0.0.1", 0, limits=limits)
reveal_type(handle_server)  # is: hoop.socket_handles.SocketServer
reveal_type(handle_server.stats().refused_full)  # is: int
reveal_type(loop.connect_tcp("localhost", 80))  # is: hoop.sockets.Socket
loop.listen_tcp(tick)  # error: arg-type
reveal_type(loop.bind_udp(None).send(b"x", ("127.0.0.1", 9)))  # is: bool


async def files() -> None:
    reveal_type(await hoop.fs.read_file("x"))  # is: bytes
    reveal_type(await hoop.fs.read_file(b"x", encoding="utf-8"))  # is: str
    reveal_type((await hoop.fs.stat(0)).st_size)  # is: int
    reveal_type(await hoop.fs.scandir(b"x"))  # is: list[hoop.fs_jobs.DirEntry[bytes]]
    await hoop.fs.read_file(0)  # error: call-overload
    async with hoop.fs.open("x") as text:
        reveal_type(text)  # is: hoop.file_object.TextFile
        async for line in text:
            reveal_type(line)  # is: str
        await text.write(b"x")  # error: arg-type
    reveal_type(await hoop.fs.open("x", "wb"))  # is: hoop.file_object.BinaryFile
    reveal_type(await hoop.fs.open("x", "wb", buffering=0))  # is: hoop.file_object.RawFile
    async with hoop.fs.TemporaryDirectory() as folder:
        reveal_type(folder)  # is: str
    async for found in hoop.fs.walk("x"):
        reveal_type(found)  # is: tuple[str, list[str], list[str]]
'''

MYPY_LINE = re.compile(r'user_program\.py:(\d+): (?:note: Revealed type is "(.*)"|error: .*\[([\w-]+)])')


def run_mypy(*arguments: str, cwd: Path) -> str:
    """What mypy prints. Its exit status says no more than that."""
    if importlib.util.find_spec("mypy") is None:
        if os.environ.get("CI"):
            pytest.fail("mypy is not installed (CI is set, so this is not skipped)")
        pytest.skip("mypy is not installed")
    environment = {**os.environ, "MYPYPATH": str(SOURCES), "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")}
    finished = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return finished.stdout


def test_the_package_passes_mypy_strictly() -> None:
    assert run_mypy(cwd=ROOT).startswith("Success: no issues found")


def test_a_users_program_gets_exact_types(tmp_path: Path) -> None:
    program = tmp_path / "user_program.py"
    program.write_text(USER_PROGRAM)
    said: dict[int, str] = {}
    for line in run_mypy("--strict", program.name, cwd=tmp_path).splitlines():
        if found := MYPY_LINE.fullmatch(line):
            said[int(found[1])] = f"is: {found[2]}" if found[2] is not None else f"error: {found[3]}"
    lines = USER_PROGRAM.splitlines()
    assert said == {number: line.partition("  # ")[2] for number, line in enumerate(lines, 1) if "  # " in line}


def stub_class(path: Path = STUB, name: str = "BaseLoop") -> ast.ClassDef:
    module = ast.parse(path.read_text())
    return next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)


def stub_functions() -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {node.name: node for node in stub_class().body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_stub_names_what_the_compiled_class_has() -> None:
    attributes = {ast.unparse(node.target) for node in stub_class().body if isinstance(node, ast.AnnAssign)}
    pickling = {"__setstate__", "__reduce_cython__", "__setstate_cython__"}  # Cython's; they refuse
    compiled = set(dir(BaseLoop)) - set(dir(object)) - pickling - {"__pyx_vtable__"} | {"__init__"}
    assert attributes | stub_functions().keys() == compiled


@pytest.mark.parametrize("compiled", [hoop.Socket, hoop.UdpSocket], ids=lambda one: one.__name__)
def test_stubs_of_handles_name_what_the_classes_have(compiled: type) -> None:
    stub = stub_class(SOURCES / "hoop" / f"{compiled.__module__.rpartition('.')[2]}.pyi", compiled.__name__)
    stubbed = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)} - {"__init__"}
    stubbed |= {ast.unparse(node.target) for node in stub.body if isinstance(node, ast.AnnAssign)}
    private = {"_timed_out", "_set_keepalive", "_show_unread", "_take_unread"}  # called by the class itself
    assert stubbed == {name for name in vars(compiled) if not name.startswith("__")} - private


def test_the_stub_has_the_compiled_parameters() -> None:
    for name, function in stub_functions().items():
        is_property = any(ast.unparse(mark) == "property" for mark in function.decorator_list)
        if name == "__init__" or is_property:
            continue
        arguments = function.args
        stubbed = [argument.arg for argument in [*arguments.posonlyargs, *arguments.args]]
        stubbed += [f"*{arguments.vararg.arg}"] if arguments.vararg else []
        stubbed += [argument.arg for argument in arguments.kwonlyargs]
        stubbed += [arguments.kwarg.arg] if arguments.kwarg else []
        compiled = inspect.signature(getattr(BaseLoop, name)).parameters.values()
        assert stubbed == [f"*{one.name}" if one.kind is one.VAR_POSITIONAL else one.name for one in compiled], name
