"""The interpreter's end empties modules before the last finalizers run: they must not call a module's attribute.

Twisted and pytest-asyncio leave loops to that moment; asyncio keeps warnings.warn as a default argument for it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

# A program that has made something of hoop's and leaves it to finalizers that find every module of hoop's emptied, as
# the interpreter does it: all names are None. What they could not do goes to sys.unraisablehook; what they left open is
# still in /dev/fd.
LEFT_TO_FINALIZERS = """
import asyncio, gc, os, signal, sys, warnings, weakref
import hoop

problems = []
sys.unraisablehook = lambda told: problems.append((told.object, told.exc_value))
warnings.simplefilter("ignore")

def numbers():
    found = os.listdir("/dev/fd")
    return {{number for number in found if os.path.exists("/dev/fd/" + number)}}

async def make(loop):
    {made}

before = numbers()
loop = hoop.Loop()
gone = weakref.ref(loop)
kept = [loop.run_until_complete(make(loop))]
if {closes}:
    loop.close()

for name, module in list(sys.modules.items()):
    if name == "hoop" or name.startswith("hoop."):
        for key in list(vars(module)):
            if key != "__builtins__":
                setattr(module, key, None)
kept.clear()
del loop
gc.collect()
gc.collect()
print(problems, file=sys.stderr)
print(sorted(numbers() - before), file=sys.stderr)
print(len(problems), len(numbers() - before), gone() is None)
"""

MADE = {
    "a loop": "return None",
    "a server and a connection": """
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    return server, await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())""",
    "streams": """
    server = await hoop.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    return server, await hoop.open_connection(*server.sockets[0].getsockname())""",
    "coroutines of streams": """
    server = await hoop.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    reader, writer = await hoop.open_connection(*server.sockets[0].getsockname())
    return server, reader, writer, reader.read(), writer.drain()""",
    "a datagram endpoint": 'return await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))',
    "a pipe": """
    reading, writing = os.pipe()
    os.close(writing)
    return await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(reading, "rb", 0))""",
    "a child": 'return await loop.subprocess_exec(asyncio.SubprocessProtocol, sys.executable, "-c", "input()")',
    "an asynchronous generator": """
    async def numbers():
        yield 1
    generator = numbers()
    await anext(generator)
    return generator""",
    "futures": """
    failed = loop.create_future()
    failed.set_exception(ValueError())
    loop.set_exception_handler(lambda loop, context: None)
    return failed, loop.create_future()""",
    "a signal handler": "return loop.add_signal_handler(signal.SIGUSR1, print)",
    "a default executor": "return await loop.run_in_executor(None, len, 'a')",
    "a pool and a cached file": "return await hoop.fs.read_file('/etc/hosts'), await hoop.fs.read_file('/etc/hosts')",
    "a handle of each kind": """
    server = loop.listen_tcp(lambda sock: None, "127.0.0.1", 0)
    connection = loop.connect_tcp("127.0.0.1", server.address[1])
    return server, connection, loop.set_interval(print, 1), hoop.Pool()""",
    "an attempt to connect": """
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    attempt = loop.create_connection(
        asyncio.Protocol, *server.sockets[0].getsockname(), happy_eyeballs_delay=0.25
    )
    attempt.send(None)  # it waits, and goes no further
    return server, attempt""",
    "watched sockets": """
    import socket
    one, two = socket.socketpair()
    loop.add_reader(one, print)
    two.setblocking(False)
    return one, two, loop.create_task(loop.sock_recv(two, 1)), await asyncio.sleep(0)""",
}


def outcome(made: str, closes: bool) -> tuple[list[str], str]:
    program = LEFT_TO_FINALIZERS.format(made=made.strip(), closes=closes)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize("kind", MADE)
def test_finalizers_need_no_name_of_their_modules(kind: str) -> None:
    words, errors = outcome(MADE[kind], closes=False)
    assert words == ["0", "0", "True"], errors  # problems, descriptors left open, whether the loop is gone


@pytest.mark.parametrize("kind", MADE)
def test_finalizers_after_close_need_no_name_of_their_modules(kind: str) -> None:
    words, errors = outcome(MADE[kind], closes=True)
    assert words == ["0", "0", "True"], errors
