"""What audit hooks (sys.addaudithook) are told: the same of a program on asyncio and on hoop, and of hoop.fs as of os.

A hook stays for the rest of the process, so each program runs in one of its own, which prints the events that it saw.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conformance.peers import DEADLINE_S

BEGINNING = """
import asyncio, json, os, socket, subprocess, sys

events = []
WATCHED = ("socket.", "subprocess.", "os.", "open", "shutil.")

def shown(value):
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, str)) else type(value).__name__

def hook(event, arguments):
    if recording and event.startswith(WATCHED):
        events.append([event, shown(arguments)])

recording = False
sys.addaudithook(hook)
import hoop
factory = hoop.new_event_loop if sys.argv[1] == "hoop" else asyncio.SelectorEventLoop
"""

ENDING = """
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
print(json.dumps(events))
"""

DATAGRAMS = """
async def main():
    global recording
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    connected, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=transport.get_extra_info("sockname"))
    recording = True
    transport.sendto(b"one", ("127.0.0.1", 9))
    transport.sendto(b"two", ("127.0.0.1", 9))
    transport.sendto(b"three", ("127.0.0.1", "9"))
    connected.sendto(b"four")
    recording = False
    transport.close()
    connected.close()
"""

NAMES = """
async def main():
    global recording
    loop = asyncio.get_running_loop()
    recording = True
    await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    await loop.getaddrinfo("localhost", "80", family=socket.AF_INET)
    await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST)
    recording = False
"""

CONNECTIONS = """
async def main():
    global recording
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    recording = True
    transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, b"data")
    recording = False
    for event in events:
        event[1] = [0 if isinstance(one, int) else one for one in map(without_ports, event[1])]
    sock.close()
    transport.close()
    server.close()

def without_ports(value):
    return value[:1] if isinstance(value, list) else value
"""

CHILDREN = """
async def main():
    global recording
    recording = True
    child = await asyncio.create_subprocess_exec("true", env={"PATH": os.environ["PATH"]})
    await child.wait()
    child = await asyncio.create_subprocess_shell("true", env={"PATH": os.environ["PATH"]})
    await child.wait()
    recording = False
    events[:] = [event for event in events if event[0] in ("subprocess.Popen", "os.posix_spawn")]
"""


def events_of(program: str, loop_name: str, folder: Path, *arguments: str) -> list[Any]:
    child = subprocess.run(
        [sys.executable, "-c", BEGINNING + program + ENDING, loop_name, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        timeout=2 * DEADLINE_S,
        check=True,
    )
    events: list[Any] = json.loads(child.stdout)
    return events


@pytest.mark.parametrize("program", [DATAGRAMS, NAMES, CONNECTIONS, CHILDREN], ids=["udp", "names", "tcp", "children"])
def test_a_program_tells_the_same_on_both(program: str, tmp_path: Path) -> None:
    """But for files that Python itself opens: modules, and lines of a traceback."""
    theirs, ours = (
        [event for event in events_of(program, name, tmp_path) if event[0] != "open"] for name in ("asyncio", "hoop")
    )
    assert theirs
    assert ours == theirs


# Each with the functions of the standard library that do the same.
FILES = {
    "read_file": ("await hoop.fs.read_file(b'there')", "open(b'there', 'rb').close()"),
    "write_file": ("await hoop.fs.write_file('new', b'data')", "open('new', 'wb').close()"),
    "write_file, exclusive": ("await hoop.fs.write_file('new', b'', exclusive=True)", "open('new', 'xb').close()"),
    "append_file": ("await hoop.fs.append_file('there', b'data')", "open('there', 'ab').close()"),
    "open": ("await (await hoop.fs.open('there', 'rb')).close()", "open('there', 'rb').close()"),
    "copy_file": ("await hoop.fs.copy_file('there', 'new')", "open('there', 'rb').close(); open('new', 'wb').close()"),
    "truncate": ("await hoop.fs.truncate('there', 2)", "os.truncate('there', 2)"),
    "listdir": ("await hoop.fs.listdir('folder')", "os.listdir('folder')"),
    "scandir": ("await hoop.fs.scandir('folder')", "list(os.scandir('folder'))"),
    "mkdir": ("await hoop.fs.mkdir('new', 0o700)", "os.mkdir('new', 0o700)"),
    "makedirs": ("await hoop.fs.makedirs('new', 0o700)", "os.makedirs('new', 0o700)"),
    "remove": ("await hoop.fs.remove('there')", "os.remove('there')"),
    "rmdir": ("await hoop.fs.rmdir('folder')", "os.rmdir('folder')"),
    "rename": ("await hoop.fs.rename('there', 'new')", "os.rename('there', 'new')"),
    "link": ("await hoop.fs.link('there', 'new')", "os.link('there', 'new', follow_symlinks=False)"),
    "symlink": ("await hoop.fs.symlink('there', 'new')", "os.symlink('there', 'new')"),
    "chmod": ("await hoop.fs.chmod('there', 0o600)", "os.chmod('there', 0o600)"),
    "chown": ("await hoop.fs.chown('there', -1, -1)", "os.chown('there', -1, -1)"),
    "utime": ("await hoop.fs.utime('there')", "os.utime('there')"),
    "utime, ns": ("await hoop.fs.utime('there', ns=(1, 2))", "os.utime('there', ns=(1, 2))"),
    "stat": ("await hoop.fs.stat('there')", "os.stat('there')"),
}
WITH_FILES = """
import shutil
import hoop.fs  # loaded on demand, which opens files too

async def main():
    global recording
    for ours, theirs in json.loads(sys.argv[2]):
        for code in (f"async def call(): {ours}", f"async def call(): {theirs}"):
            names = {"os": os, "hoop": hoop}
            exec(code, names)
            shutil.rmtree("place", ignore_errors=True)
            os.makedirs("place/folder")
            os.chdir("place")
            open("there", "w").close()
            recording = True
            await names["call"]()
            recording = False
            os.chdir("..")
            events.append(None)
"""


@pytest.fixture(scope="module")
def told_of_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """What is told of each operation by hoop.fs and by os."""
    events = events_of(WITH_FILES, "hoop", tmp_path_factory.mktemp("files"), json.dumps(list(FILES.values())))
    told: list[list[Any]] = [[]]
    for event in events:
        if event is None:
            told.append([])
        else:
            told[-1].append(event)
    return dict(zip(FILES, zip(told[::2], told[1::2], strict=False), strict=True))


@pytest.mark.parametrize("operation", FILES)
def test_files_tell_what_os_tells(told_of_files: dict[str, tuple[Any, Any]], operation: str) -> None:
    ours, theirs = told_of_files[operation]
    assert ours == theirs
    assert ours or operation == "stat"


REFUSING = """
import errno

class Refused(Exception):
    pass

def refuse(event, arguments):
    if recording and event in ("open", "socket.sendto"):
        raise Refused(event)

sys.addaudithook(refuse)

async def main():
    global recording
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    refused = []
    recording = True
    try:
        await hoop.fs.read_file("there")
    except Refused as error:
        refused.append(str(error))
    try:
        transport.sendto(b"data", ("127.0.0.1", 9))
    except Refused as error:
        refused.append(str(error))
    recording = False
    transport.close()
    events[:] = refused
"""


def test_a_hook_that_raises_forbids(tmp_path: Path) -> None:
    """The caller gets the exception, and nothing is opened or sent."""
    (tmp_path / "there").write_text("text")
    assert events_of(REFUSING, "hoop", tmp_path) == ["open", "socket.sendto"]
