"""The objects whose methods the matrix calls, each in the states that it can be in, and what fits their parameters."""

from __future__ import annotations

import asyncio
from asyncio import base_events, selector_events, sslproto, unix_events
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from conformance.differences.calls import nothing
from conformance.differences.surroundings import Surroundings, settled
from conformance.peers import LOCALHOST, reset
from conformance.tls_peers import NAME, client_context, server_context

Make = Callable[[Surroundings], Awaitable[Any]]
Fits = dict[str, Callable[[], Any]]


class Here:
    """Where the makers of arguments find the surroundings of the call under way."""

    around: Surroundings


here = Here()


class Functions:
    """Those of the module that have counterparts in hoop."""

    open_connection = asyncio.open_connection
    open_unix_connection = asyncio.open_unix_connection
    start_server = asyncio.start_server
    start_unix_server = asyncio.start_unix_server
    new_event_loop = asyncio.new_event_loop


@dataclass
class Subject:
    """A kind of object, by asyncio's class of it (`model`), whose public methods are called."""

    name: str
    model: type
    states: dict[str, Make]
    fitting: dict[str, Fits] = field(default_factory=dict)
    # (method, label, positional, keywords) beside those that are made of the signature
    more: list[tuple[str, str, list[Any], dict[str, Any]]] = field(default_factory=list)
    unfit: dict[str, set[str]] = field(default_factory=dict)
    odd_in: tuple[str, ...] = ("open",)  # the states in which odd arguments are tried, too
    skipped: dict[str, str] = field(default_factory=dict)  # methods that are not called, and why
    is_class: bool = True  # False: the model's functions are no methods
    is_noting: bool = True  # whether what the protocol is told afterwards counts, too


def a(name: str, *arguments: Any) -> Callable[[], Any]:
    """A maker: what here.around.name(*arguments) gives."""
    return lambda: getattr(here.around, name)(*arguments)


def the(value: Any) -> Callable[[], Any]:
    return lambda: value


# ---- transports ---------------------------------------------------------------------------------------------------

STREAM_FITS: dict[str, Fits] = {
    "get_extra_info": {"name": the("peername")},
    "set_protocol": {"protocol": a("protocol")},
    "write": {"data": the(b"data")},
    "writelines": {"list_of_data": the([b"da", b"ta"])},
}
EXTRA_NAMES = (
    *("socket", "sockname", "sslcontext", "ssl_object", "peercert", "cipher", "compression", "pipe", "subprocess"),
    "nonsense",
)
MORE_EXTRA: list[tuple[str, str, list[Any], dict[str, Any]]] = [
    *(("get_extra_info", f"name={name!r}", [the(name)], {}) for name in EXTRA_NAMES),
    ("get_extra_info", "name='nonsense', default=1", [the("nonsense"), the(1)], {}),
]
MORE_STREAM = [
    *MORE_EXTRA,
    ("set_write_buffer_limits", "high=10", [], {"high": the(10)}),
    ("set_write_buffer_limits", "low=10", [], {"low": the(10)}),
    ("set_write_buffer_limits", "high=10, low=20", [the(10), the(20)], {}),
    ("set_write_buffer_limits", "high=0", [the(0)], {}),
    ("write", "data=memoryview", [lambda: memoryview(b"data")], {}),
    ("write", "data=b''", [the(b"")], {}),
    ("write", "data=memoryview of numbers", [lambda: memoryview(b"datadata").cast("I")], {}),
    ("write", "data=every second byte", [lambda: memoryview(b"datadata")[::2]], {}),
    ("writelines", "list_of_data=[]", [the([])], {}),
    ("writelines", "list_of_data=[1]", [the([1])], {}),
    ("writelines", "list_of_data=[None]", [the([None])], {}),
    ("writelines", "list_of_data=['text']", [the(["text"])], {}),
    ("writelines", "list_of_data=(bytes, 1)", [the((b"data", 1))], {}),
    ("writelines", "list_of_data=generator", [lambda: (part for part in (b"da", b"ta"))], {}),
]


async def stream_open(around: Surroundings) -> Any:
    ours, around.peer = around.silent_pair()
    transport, around.main = await around.loop.create_connection(around.protocol, sock=ours)
    return transport


def then(make: Make, *names: str) -> Make:
    """The state after these methods, called without arguments."""

    async def made(around: Surroundings) -> Any:
        thing = await make(around)
        await settled()
        for name in names:
            getattr(thing, name)()
        return thing

    return made


def then_settled(make: Make, *names: str) -> Make:
    """As then(), once the loop has gone on."""

    async def made(around: Surroundings) -> Any:
        thing = await then(make, *names)(around)
        await settled()
        return thing

    return made


def dropping(make: Make, method: str = "write") -> Make:
    """The state after close() and so many writes that the next one is warned of."""

    async def made(around: Surroundings) -> Any:
        thing = await make(around)
        await settled()
        thing.abort()
        for _ in range(5):
            getattr(thing, method)(b"dropped")
        return thing

    return made


async def stream_reset(around: Surroundings) -> Any:
    transport = await stream_open(around)
    reset(around.peer)
    await around.main.is_lost.wait()
    return transport


async def stream_congested(around: Surroundings) -> Any:
    transport = await stream_open(around)
    while transport.get_write_buffer_size() == 0:
        transport.write(bytes(1 << 20))
    return transport


def stream_states(make: Make) -> dict[str, Make]:
    return {
        "open": make,
        "paused": then(make, "pause_reading"),
        "closed": then_settled(make, "close"),
        "closing": then(make, "close"),
        "aborted": then(make, "abort"),
    }


async def unix_open(around: Surroundings) -> Any:
    ours, around.peer = around.unix_pair()
    return (await around.loop.create_unix_connection(around.protocol, sock=ours))[0]


async def tls_open(around: Surroundings) -> Any:
    """Both ends on the same loop; the other one is silent."""
    server = await around.loop.create_server(asyncio.Protocol, LOCALHOST, 0, ssl=server_context())
    around.owned(server)
    transport, _ = await around.loop.create_connection(
        around.protocol, *server.sockets[0].getsockname(), ssl=client_context(), server_hostname=NAME
    )
    return transport


async def tls_closed(around: Surroundings) -> Any:
    transport = await tls_open(around)
    protocol = transport.get_protocol()
    transport.close()
    await protocol.is_lost.wait()
    return transport


async def read_pipe_open(around: Surroundings) -> Any:
    reading, around.peer = around.pipe()
    return (await around.loop.connect_read_pipe(around.protocol, reading))[0]


async def write_pipe_open(around: Surroundings) -> Any:
    around.peer, writing = around.pipe()
    return (await around.loop.connect_write_pipe(around.protocol, writing))[0]


async def write_pipe_left(around: Surroundings) -> Any:
    transport = await write_pipe_open(around)
    protocol = transport.get_protocol()
    around.peer.close()
    await protocol.is_lost.wait()
    return transport


async def datagram_open(around: Surroundings) -> Any:
    return (await around.loop.create_datagram_endpoint(around.datagram_protocol, local_addr=(LOCALHOST, 0)))[0]


async def datagram_connected(around: Surroundings) -> Any:
    remote = around.udp().getsockname()
    return (await around.loop.create_datagram_endpoint(around.datagram_protocol, remote_addr=remote))[0]


async def child_running(around: Surroundings) -> Any:
    transport, _ = await around.loop.subprocess_exec(around.process_protocol, "cat")
    around._stack.callback(killed, transport)
    return transport


def killed(transport: Any) -> None:
    process = getattr(transport, "_proc", None)
    if process is not None and process.returncode is None:
        process.kill()
        process.wait()


async def child_ended(around: Surroundings) -> Any:
    transport, protocol = await around.loop.subprocess_exec(around.process_protocol, "true")
    await protocol.is_lost.wait()
    return transport


async def child_closed(around: Surroundings) -> Any:
    transport = await child_running(around)
    transport.close()
    return transport


# ---- servers ------------------------------------------------------------------------------------------------------


async def server_serving(around: Surroundings) -> Any:
    return around.owned(await around.loop.create_server(around.protocol, LOCALHOST, 0))


async def server_waiting(around: Surroundings) -> Any:
    return around.owned(await around.loop.create_server(around.protocol, LOCALHOST, 0, start_serving=False))


# ---- handles ------------------------------------------------------------------------------------------------------


async def handle_ready(around: Surroundings) -> Any:
    return around.loop.call_soon(nothing, 1)


async def handle_threadsafe(around: Surroundings) -> Any:
    return around.loop.call_soon_threadsafe(nothing, 1)


async def timer_pending(around: Surroundings) -> Any:
    timer = around.loop.call_later(3600, nothing, 1)
    around._stack.callback(timer.cancel)
    return timer


async def timer_done(around: Surroundings) -> Any:
    timer = around.loop.call_later(0, nothing, 1)
    await settled()
    return timer


# ---- streams ------------------------------------------------------------------------------------------------------


async def reader_of(around: Surroundings) -> Any:
    reader = around.streams.StreamReader(limit=64, loop=around.loop)
    reader.feed_data(b"one\ntwo\nthree")
    return reader


async def reader_at_end(around: Surroundings) -> Any:
    reader = await reader_of(around)
    reader.feed_eof()
    return reader


async def reader_failed(around: Surroundings) -> Any:
    reader = await reader_of(around)
    reader.set_exception(ValueError("of the test"))
    return reader


async def writer_open(around: Surroundings) -> Any:
    ours, around.peer = around.silent_pair()
    reader = around.streams.StreamReader(loop=around.loop)
    protocol = around.streams.StreamReaderProtocol(reader, loop=around.loop)
    transport, _ = await around.loop.create_connection(lambda: protocol, sock=ours)
    return around.streams.StreamWriter(transport, protocol, reader, around.loop)


async def module_of(around: Surroundings) -> Any:
    return asyncio if around.streams is asyncio else __import__("hoop")


SUBJECTS: list[Subject] = [
    Subject(
        "module",
        Functions,
        {"imported": module_of},
        {
            "open_connection": {"host": the(LOCALHOST), "port": a("port")},
            "open_unix_connection": {"path": a("unix_listener_path")},
            "start_server": {"client_connected_cb": the(nothing), "host": the(LOCALHOST), "port": the(0)},
            "start_unix_server": {"client_connected_cb": the(nothing), "path": a("path")},
        },
        [
            ("open_connection", "nothing", [], {}),
            ("open_connection", "limit=-1", [the(LOCALHOST), a("port")], {"limit": the(-1)}),
            ("start_server", "nothing but a callback", [the(nothing)], {}),
        ],
        unfit={"host": {"a text", "bytes", "a bytearray", "an empty text"}, "path": {"a text", "bytes"}},
        odd_in=("imported",),
        is_class=False,
    ),
    Subject(
        "TCP transport",
        selector_events._SelectorSocketTransport,
        {
            **stream_states(stream_open),
            "after write_eof": then(stream_open, "write_eof"),
            "congested": stream_congested,
            "dropping": dropping(stream_open),
            "reset": stream_reset,
        },
        STREAM_FITS,
        MORE_STREAM,
        odd_in=("open", "closed"),
    ),
    Subject(
        "UNIX transport",
        selector_events._SelectorSocketTransport,
        {"open": unix_open, "closed": then_settled(unix_open, "close")},
        STREAM_FITS,
        MORE_STREAM,
        odd_in=(),
    ),
    Subject(
        "TLS transport",
        sslproto._SSLProtocolTransport,
        {**stream_states(tls_open), "closed": tls_closed, "dropping": dropping(tls_open)},
        STREAM_FITS,
        MORE_STREAM,
        odd_in=("open",),
    ),
    Subject(
        "read pipe transport",
        unix_events._UnixReadPipeTransport,
        {
            "open": read_pipe_open,
            "paused": then(read_pipe_open, "pause_reading"),
            "closing": then(read_pipe_open, "close"),
            "closed": then_settled(read_pipe_open, "close"),
        },
        STREAM_FITS,
        MORE_EXTRA,
    ),
    Subject(
        "write pipe transport",
        unix_events._UnixWritePipeTransport,
        {
            "open": write_pipe_open,
            "closing": then(write_pipe_open, "close"),
            "closed": then_settled(write_pipe_open, "close"),
            "left by its reader": write_pipe_left,
            "dropping": dropping(write_pipe_open),
        },
        STREAM_FITS,
        MORE_STREAM,
    ),
    Subject(
        "datagram transport",
        selector_events._SelectorDatagramTransport,
        {
            "open": datagram_open,
            "connected": datagram_connected,
            "closing": then(datagram_open, "close"),
            "closed": then_settled(datagram_open, "close"),
            "connected and closed": then_settled(datagram_connected, "close"),
            "connected and dropping": dropping(datagram_connected, "sendto"),
        },
        {
            **STREAM_FITS,
            "sendto": {"data": the(b"data"), "addr": lambda: here.around.udp().getsockname()},
        },
        [
            *MORE_EXTRA,
            ("sendto", "data", [the(b"data")], {}),
            ("sendto", "data=b''", [the(b""), lambda: here.around.udp().getsockname()], {}),
            ("sendto", "data too long", [the(bytes(70000)), lambda: here.around.udp().getsockname()], {}),
            ("sendto", "addr=port 0", [the(b"data"), the((LOCALHOST, 0))], {}),
            ("sendto", "addr=port 70000", [the(b"data"), the((LOCALHOST, 70000))], {}),
            ("sendto", "addr=port as text", [the(b"data"), the((LOCALHOST, "80"))], {}),
            ("sendto", "addr=host as bytes", [the(b"data"), the((LOCALHOST.encode(), 9))], {}),
            ("sendto", "addr=of IPv6", [the(b"data"), the(("::1", 9, 0, 0))], {}),
            ("sendto", "addr=three parts", [the(b"data"), the((LOCALHOST, 9, 9))], {}),
        ],
        odd_in=("open", "connected"),
    ),
    Subject(
        "subprocess transport",
        unix_events._UnixSubprocessTransport
        if hasattr(unix_events, "_UnixSubprocessTransport")
        else asyncio.SubprocessTransport,
        {"running": child_running, "ended": child_ended, "closed": child_closed},
        {
            **STREAM_FITS,
            "get_pipe_transport": {"fd": the(1)},
            "send_signal": {"signal": the(0)},
        },
        [
            *MORE_EXTRA,
            *(("get_pipe_transport", f"fd={number}", [the(number)], {}) for number in (0, 2, 3)),
        ],
        unfit={"signal": {"True"}},
        odd_in=("running",),
        is_noting=False,  # when a child's news come is the kernel's business
    ),
    Subject(
        "server",
        base_events.Server,
        {
            "serving": server_serving,
            "not started": server_waiting,
            "closed": then(server_serving, "close"),
        },
        odd_in=("serving",),
        skipped={
            "serve_forever": "it waits for its cancellation: see test_tcp_server_lifetime.py",
            "wait_closed": "it waits for a close(): see there",
        },
    ),
    Subject(
        "handle",
        asyncio.Handle,
        {"ready": handle_ready, "of another thread": handle_threadsafe, "cancelled": then(handle_ready, "cancel")},
        odd_in=("ready",),
    ),
    Subject(
        "timer handle",
        asyncio.TimerHandle,
        {"pending": timer_pending, "done": timer_done, "cancelled": then(timer_pending, "cancel")},
        odd_in=("pending",),
    ),
    Subject(
        "StreamReader",
        asyncio.StreamReader,
        {"with data": reader_of, "at its end": reader_at_end, "failed": reader_failed},
        {
            "feed_data": {"data": the(b"data")},
            "set_exception": {"exc": lambda: ValueError("of the test")},
            "set_transport": {"transport": lambda: asyncio.Transport()},
            "read": {"n": the(3)},
            "readexactly": {"n": the(3)},
            "readuntil": {"separator": the(b"w")},
        },
        [
            ("readexactly", "n=0", [the(0)], {}),
            ("readuntil", "separator=b'two'", [the(b"two")], {}),
            ("readuntil", "separator=tuple", [the((b"o", b"tw"))], {}),
            ("readuntil", "separator=(1,)", [the((1,))], {}),
            ("feed_data", "data=b''", [the(b"")], {}),
        ],
        unfit={
            "n": {"-1", "2**70"},
            "separator": {"bytes", "a bytearray"},
        },
        odd_in=("with data", "at its end"),
    ),
    Subject(
        "StreamWriter",
        asyncio.StreamWriter,
        {"open": writer_open, "closed": then_settled(writer_open, "close")},
        {
            **STREAM_FITS,
            "writelines": {"data": the([b"da", b"ta"])},
            "start_tls": {"sslcontext": the(None)},
        },
        [entry for entry in MORE_STREAM if entry[0] in ("get_extra_info", "write")],
        odd_in=("open", "closed"),
        skipped={"wait_closed": "it waits for a close()"},
    ),
]
