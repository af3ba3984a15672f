"""Objects whose __init__() never ran, and objects in wrong places: exceptions, never a crash (uvloop#645's kind)."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hoop
import pytest
from conformance.tls_peers import NAME, client_context, server_context
from handle_events import until

PROGRAM = Path(__file__).with_name("uninitialised.py")
LONGEST_S = 120


@pytest.fixture
def loop_name() -> str:
    return "hoop"


def test_whatever_is_called_on_an_object_that_was_not_initialised_raises(tmp_path: Path) -> None:
    """In a program of its own: a crash is told by its last step."""
    log = tmp_path / "log"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(log)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, (log.read_text().splitlines()[-1], done.stderr)
    classes, made, calls = map(int, done.stdout.split())
    assert classes > 60
    assert made > 80
    assert calls > 50_000


@pytest.fixture
def objects(loop: Any) -> dict[str, Any]:
    """One of each kind that a loop hands out."""
    made: dict[str, Any] = {"loop": loop, "pool": loop.pool}
    made["handle"] = loop.call_soon(int)
    made["timer handle"] = loop.call_later(60, int)
    made["posted handle"] = loop.call_soon_threadsafe(int)
    made["immediate"] = loop.set_immediate(int)
    made["timer"] = loop.set_timeout(int, 60)
    accepted: list[Any] = []
    made["server"] = loop.listen_tcp(accepted.append, ssl=server_context())
    made["tls socket"] = loop.connect_tcp(*made["server"].address, ssl=client_context(), server_hostname=NAME)
    plain = loop.listen_tcp(accepted.append)
    made["socket"] = loop.connect_tcp(*plain.address)
    loop.run_until_complete(until(lambda: len(accepted) == 2 and made["socket"].transport is not None))
    loop.run_until_complete(until(lambda: made["tls socket"].transport is not None))
    made["udp socket"] = loop.bind_udp(None)
    for name in ("socket", "tls socket", "udp socket"):
        made[f"{name}'s transport"] = made[name].transport
    return made


KINDS = ["handle", "timer handle", "posted handle", "immediate", "timer", "loop", "pool", "socket", "tls socket"]
KINDS += ["udp socket", "socket's transport", "tls socket's transport", "udp socket's transport"]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda one: one.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_loop_hands_out_cannot_be_copied(objects: Any, kind: str, duplicate: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"pickl|__reduce__|made by an event loop only"):
        duplicate(objects[kind])


@pytest.mark.parametrize("make", [lambda kind: kind(), lambda kind: kind.__new__(kind)], ids=["call", "__new__"])
def test_a_tls_transport_is_made_by_loops_only(objects: dict[str, Any], make: Callable[[type], Any]) -> None:
    with pytest.raises(TypeError, match="TlsTransport objects are made by an event loop only"):
        make(type(objects["tls socket's transport"]))


class ForgetfulSocket(hoop.Socket):
    def __init__(self, *arguments: Any) -> None:
        """It forgets super().__init__()."""


class ForgetfulUdpSocket(hoop.UdpSocket):
    def __init__(self, *arguments: Any) -> None:
        """It forgets super().__init__()."""


SOCKET_CALLS: dict[str, Callable[[Any], object]] = {
    "write": lambda handle: handle.write(b"data"),
    "destroy": lambda handle: handle.destroy(),
    "pause": lambda handle: handle.pause(),
    "resume": lambda handle: handle.resume(),
    "on_data": lambda handle: setattr(handle, "on_data", print),
    "set_timeout": lambda handle: handle.set_timeout(1),
    "set_keepalive": lambda handle: handle.set_keepalive(),
    "set_nodelay": lambda handle: handle.set_nodelay(),
    "connection_made": lambda handle: handle.connection_made(object()),
    "connection_lost": lambda handle: handle.connection_lost(None),
}


@pytest.mark.parametrize("call", SOCKET_CALLS.values(), ids=SOCKET_CALLS)
def test_a_socket_that_forgot_its_init_says_so(call: Callable[[Any], object]) -> None:
    with pytest.raises(RuntimeError, match=r"Socket.__init__\(\) was not called"):
        call(ForgetfulSocket())


UDP_CALLS: dict[str, Callable[[Any], object]] = {
    "send": lambda handle: handle.send(b"data"),
    "close": lambda handle: handle.close(),
    "destroy": lambda handle: handle.destroy(),
    "pause": lambda handle: handle.pause(),
    "resume": lambda handle: handle.resume(),
    "set_broadcast": lambda handle: handle.set_broadcast(),
    "ref": lambda handle: handle.ref(),
    "unref": lambda handle: handle.unref(),
    "has_ref": lambda handle: handle.has_ref(),
    "is_closed": lambda handle: handle.is_closed,
    "local_address": lambda handle: handle.local_address,
    "remote_address": lambda handle: handle.remote_address,
}


@pytest.mark.parametrize("call", UDP_CALLS.values(), ids=UDP_CALLS)
def test_a_udp_socket_that_forgot_its_init_says_so(call: Callable[[Any], object]) -> None:
    with pytest.raises(RuntimeError, match=r"UdpSocket.__init__\(\) was not called"):
        call(ForgetfulUdpSocket())


@pytest.mark.parametrize("not_a_loop", [None, object(), asyncio, "loop"])
def test_sockets_take_loops_only(not_a_loop: Any) -> None:
    with pytest.raises(TypeError, match=r"loop|Reactor|None"):
        hoop.Socket(not_a_loop)
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(TypeError, match=r"loop|Loop|None"):
        hoop.UdpSocket(not_a_loop, sock, None)


def test_sockets_are_initialised_once(objects: dict[str, Any], loop: Any) -> None:
    with pytest.raises(RuntimeError, match="once"):
        objects["socket"].__init__(loop)
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(RuntimeError, match="once"):
        objects["udp socket"].__init__(loop, sock, None)


async def as_protocol_of_a_pipe(make: Callable[[], Any]) -> None:
    reading, writing = os.pipe()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(make, open(reading, "rb", 0))
    os.close(writing)


async def as_protocol_of_a_datagram_endpoint(make: Callable[[], Any]) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(make, local_addr=("127.0.0.1", 0))
    transport.close()


async def as_protocol_of_a_child(make: Callable[[], Any]) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.subprocess_exec(make, sys.executable, "-c", "")
    transport.close()


WRONG_PLACES = [as_protocol_of_a_pipe, as_protocol_of_a_datagram_endpoint, as_protocol_of_a_child]


@pytest.mark.parametrize("place", WRONG_PLACES, ids=lambda place: place.__name__)
def test_a_socket_as_the_protocol_of_what_is_no_stream(loop: Any, place: Callable[..., Any]) -> None:
    problems: list[Any] = []
    loop.set_debug(False)  # whose log asks the pipe, closed by then, for its number
    loop.set_exception_handler(lambda _, context: problems.append(context.get("exception")))
    loop.run_until_complete(place(lambda: hoop.Socket(loop)))
    loop.run_until_complete(asyncio.sleep(0))
    assert "a Socket is the protocol of a stream connection" in str(problems[0])
    assert isinstance(problems[0], TypeError)


@pytest.mark.parametrize("transport", [None, object(), asyncio.Transport(), 1])
def test_a_socket_takes_no_foreign_transport(loop: Any, transport: Any) -> None:
    with pytest.raises(TypeError, match="a Socket is the protocol of a stream connection"):
        hoop.Socket(loop).connection_made(transport)
