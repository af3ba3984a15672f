"""State machines: each has a drawing, one function that moves it, and no other way from state to state.

A drawing stands in the docstring of its module. A line of it is states and arrows, `A, B --why--> C --why--> D`; the
states are those of the enum in the .pxd.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hoop
import pytest
from conformance.peers import Recorder, turns
from unit.tls_walks import WALKS as TLS_WALKS

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "hoop"
ARROW = re.compile(r"((?:[A-Z_]+, )*[A-Z_]+) --[^\n]+?--> (?=([A-Z_]+))")
Arrow = tuple[str, str]


class Machine(NamedTuple):
    module: str  # of the drawing and of enter(), without suffix
    prefix: str  # of the states' names
    movers: tuple[str, ...]  # other modules that call enter()
    birth: str  # the state of an object that was not begun


MACHINES = [  # the last has no walks: its states do not show
    Machine("net/transport", "TRANSPORT_", (), "CLOSED"),
    Machine("handles/socket", "SOCKET_", (), "UNMADE"),
    Machine("tls/tls_connection", "TLS_", ("tls/session", "tls/tls_reading", "tls/tls_writing"), "HANDSHAKE"),
]


def source_of(name: str, suffix: str = ".pyx") -> str:
    return (PACKAGE / name).with_suffix(suffix).read_text()


def states_of(machine: Machine) -> list[str]:
    """In the order in which they may follow one another."""
    enum = re.search(r"cdef enum \w*State:\n((?:    [^\n]*\n)+)", source_of(machine.module, ".pxd"))
    assert enum is not None
    return re.findall(rf"^    {machine.prefix}(\w+)", enum[1], re.MULTILINE)


def drawn_arrows(machine: Machine) -> set[Arrow]:
    docstring = source_of(machine.module).split('"""')[1]
    found = ARROW.findall(docstring)
    return {(before, after) for several, after in found for before in several.split(", ")}


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.module)
def test_the_drawing_has_every_state_and_never_leads_back(machine: Machine) -> None:
    order = states_of(machine)
    arrows = drawn_arrows(machine)
    assert {state for arrow in arrows for state in arrow} == set(order)
    back = {(before, after) for before, after in arrows if order.index(before) >= order.index(after)}
    assert {before for before, _ in back} <= {machine.birth}


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.module)
def test_one_function_moves_it_to_the_states_that_the_drawing_has(machine: Machine) -> None:
    texts = [source_of(name) for name in (machine.module, *machine.movers)]
    assert sum(len(re.findall(r"\.state = ", text)) for text in texts) == 1
    entered = {state for text in texts for state in re.findall(rf"\.enter\({machine.prefix}(\w+)\)", text)}
    assert entered == {after for _, after in drawn_arrows(machine)}


# ---- the arrows, walked ------------------------------------------------------------------------------------------


def transport_state(transport: Any) -> str:
    if transport._sock is None:
        return "CLOSED"
    if transport._conn_lost:
        return "LOST"
    return "CLOSING" if transport.is_closing() else "OPEN"


class Watching(Recorder):
    """Notes the state that connection_lost() finds."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append(transport_state(self.transport))
        super().connection_lost(exc)


async def begun(seen: list[str]) -> tuple[Any, socket.socket]:
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    transport: Any
    transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: Watching(seen), sock=ours)
    kind = type(transport)
    seen.append(transport_state(kind.__new__(kind)))
    seen.append(transport_state(transport))
    return transport, peer


async def until_closed(transport: Any, seen: list[str]) -> None:
    while transport_state(transport) != "CLOSED":
        await turns(1)
    seen.append("CLOSED")


async def delivered_then_closed(seen: list[str]) -> None:
    transport, peer = await begun(seen)
    transport.write(bytes(1_000_000))
    transport.close()
    seen.append(transport_state(transport))
    while transport_state(transport) == "CLOSING":
        with contextlib.suppress(BlockingIOError):
            peer.recv(100_000)
        await turns(1)
    await until_closed(transport, seen)
    peer.close()


async def aborted(seen: list[str]) -> None:
    transport, peer = await begun(seen)
    transport.abort()
    await until_closed(transport, seen)
    peer.close()


async def aborted_while_closing(seen: list[str]) -> None:
    transport, peer = await begun(seen)
    transport.write(bytes(1_000_000))
    transport.close()
    seen.append(transport_state(transport))
    transport.abort()
    await until_closed(transport, seen)
    peer.close()


def socket_states(handle: Any, seen: list[str]) -> None:
    """Note the states that callbacks find."""
    handle.on_connect = lambda handle: seen.append("OPEN")
    handle.on_close = lambda handle: seen.append("CLOSED")


async def unmade(seen: list[str]) -> None:
    handle: Any = hoop.Socket.__new__(hoop.Socket)
    with pytest.raises(RuntimeError, match="__init__"):
        handle.pause()
    seen.append("UNMADE")


async def connected_then_destroyed(seen: list[str]) -> None:
    await unmade(seen)
    loop: Any = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        handle = loop.connect_tcp(*listener.getsockname())
        assert handle.is_connecting
        seen.append("CONNECTING")
        socket_states(handle, seen)
        while seen[-1] != "OPEN":
            await turns(1)
        handle.destroy()
        while seen[-1] != "CLOSED":
            await turns(1)


async def given_up(seen: list[str]) -> None:
    loop: Any = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        handle = loop.connect_tcp(*listener.getsockname())
        seen.append("CONNECTING")
        socket_states(handle, seen)
        handle.destroy()
        assert not handle.is_connecting and handle.transport is None
        seen.append("GIVEN_UP")
        while seen[-1] != "CLOSED":
            await turns(1)


Walk = Callable[[list[str]], Awaitable[None]]
WALKS: dict[str, list[Walk]] = {
    "net/transport": [delivered_then_closed, aborted, aborted_while_closing],
    "handles/socket": [connected_then_destroyed, given_up],
    "tls/tls_connection": TLS_WALKS,
}


def walked(walks: list[Walk]) -> Iterator[Arrow]:
    for walk in walks:
        seen: list[str] = []
        hoop.run(walk(seen))  # type: ignore[arg-type]
        yield from itertools.pairwise(seen)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.module)
def test_each_arrow_of_the_drawing_is_walked_and_no_other(machine: Machine) -> None:
    assert set(walked(WALKS[machine.module])) == drawn_arrows(machine)
