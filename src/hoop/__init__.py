"""hoop: an event loop for CPython with a C and Cython core.

Three ways to run a program on it:

    hoop.run(main())                                         # as asyncio.run
    asyncio.run(main(), loop_factory=hoop.new_event_loop)    # Python 3.12+
    uvicorn --loop hoop:new_event_loop app:app
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError(
        "hoop runs on Linux, macOS and the BSDs. On Windows use winloop or asyncio's own loop; depend on hoop with the "
        "marker: hoop; sys_platform != 'win32'"
    )

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from hoop import compress, crypto, dns, fs, monitor, otel, prometheus, proxy_protocol, systemd
    from hoop import limits as limits
    from hoop.agent.agent import Agent, AgentClosed
    from hoop.agent.lease import Lease
    from hoop.core.handle import Immediate
    from hoop.core.timer import Timer
    from hoop.drain import Drain, DrainReport
    from hoop.handles.socket import Socket
    from hoop.handles.udp_socket import UdpSocket
    from hoop.jobs.pool import Pool, PoolFull
    from hoop.limits import Limits
    from hoop.loop import Loop
    from hoop.loop_methods.servers import Server
    from hoop.loop_methods.socket_handles import SocketServer
    from hoop.net.proxy_header import ProxyHeader
    from hoop.net.proxy_ssl import ProxySsl
    from hoop.policy import EventLoopPolicy as EventLoopPolicy
    from hoop.policy import install as install
    from hoop.proxy_protocol import ProxyProtocol
    from hoop.server_defaults import ServerDefaults
    from hoop.stats import ServerStats
    from hoop.streams.reader import StreamReader
    from hoop.streams.stream_api import open_connection, open_unix_connection, start_server, start_unix_server
    from hoop.streams.writer import StreamReaderProtocol, StreamWriter
    from hoop.tls.engine_choice import tls_engine
    from hoop.workers.pool import WorkerPool
    from hoop.workers.process_worker import WorkerDied

T = TypeVar("T")

__version__ = "0.2.0"
__all__ = [
    "Agent",
    "AgentClosed",
    "Drain",
    "DrainReport",
    "Immediate",
    "Lease",
    "Limits",
    "Loop",
    "Pool",
    "PoolFull",
    "ProxyHeader",
    "ProxyProtocol",
    "ProxySsl",
    "Server",
    "ServerDefaults",
    "ServerStats",
    "Socket",
    "SocketServer",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "Timer",
    "UdpSocket",
    "WorkerDied",
    "WorkerPool",
    "__version__",
    "compress",
    "crypto",
    "dns",
    "draining",
    "fs",
    "is_draining",
    "monitor",
    "new_event_loop",
    "open_connection",
    "open_unix_connection",
    "otel",
    "prometheus",
    "proxy_protocol",
    "run",
    "run_threads",
    "start_server",
    "start_unix_server",
    "systemd",
    "tls_engine",
]


def new_event_loop() -> Loop:
    """A new, open loop."""
    import hoop

    loop = hoop.Loop()  # an attribute: __getattr__ loads it for the first loop
    if "HOOP_INSPECT" in os.environ:
        from importlib import import_module

        import_module("hoop.inspect").serve_when_running(loop)  # for those who want it
    return loop


@overload
def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None, drain: None = None) -> T: ...
@overload
def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None, drain: Drain) -> T | None: ...
def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None, drain: Drain | None = None) -> T | None:
    """As asyncio.run(main, debug=debug), on a hoop loop. RuntimeError if a loop is running in this thread.

    drain: have SIGTERM and SIGINT end the program gracefully. The first one drains every server of the loop, then
    cancels main; the call returns what main returns, None if it lets the cancellation pass. The second one aborts what
    is open and cancels main at once; then the call raises KeyboardInterrupt, or for SIGTERM SystemExit(143). ValueError
    outside of the main thread, which alone gets signals.
    """
    if asyncio.events._get_running_loop() is not None:
        # Runner.run() would say so, too, but then make coroutines for close() that no loop can run.
        raise RuntimeError("hoop.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        if drain is None:
            return runner.run(main)
        from hoop.drained_run import run_drained

        return run_drained(runner, main, drain)


def run_threads(
    main: Callable[..., Coroutine[Any, Any, Any]],
    threads: int,
    *,
    bind: str | Sequence[str] = (),
    backlog: int = 2048,
    state: Any = None,
    drain: Drain | None = None,
    limits: Limits | None = None,
    proxy_protocol: ProxyProtocol | None = None,
    debug: bool | None = None,
) -> list[Any]:
    """Run main(worker), or main(), in so many threads, each on a hoop loop of its own; what they return, in order.

    worker has id (0, 1, ...), state (the object that is given, for all of them; else a new types.SimpleNamespace) and
    sockets: listening ones on bind, addresses as hoop.cluster has them, for loop.create_server(sock=...) and its kin.
    All loops accept from the same queues, and a connection stays on the loop that has accepted it.

    SIGTERM and SIGINT drain all loops (hoop.Drain), then cancel the mains, whose result is None if they let it pass. A
    second one aborts what is open, and the call raises KeyboardInterrupt or SystemExit(143). A main that raises has the
    others drain and end, too; then the call raises an ExceptionGroup of all that was raised. limits, proxy_protocol:
    loop.server_defaults.

    RuntimeError on a Python with a GIL and in a running loop, ValueError outside of the main thread and for what makes
    no sense, OSError for an address that cannot be listened on.
    """
    from importlib import import_module

    results: list[Any] = import_module("hoop.cluster.threads").run_threads(
        main,
        threads,
        bind=bind,
        backlog=backlog,
        state=state,
        drain=drain,
        limits=limits,
        proxy_protocol=proxy_protocol,
        debug=debug,
    )
    return results


async def draining() -> None:
    """Wait until the running loop is told to drain: see Loop.draining."""
    loop: Any = asyncio.get_running_loop()
    await loop.draining()


def is_draining() -> bool:
    """Whether the running loop is on its way out: see Loop.is_draining. RuntimeError without a running loop."""
    loop: Any = asyncio.get_running_loop()
    draining: bool = loop.is_draining()
    return draining


# A program that imports hoop need not use it, so nothing is loaded before its first use. But the first name brings all
# names, and with Loop all that a loop's methods need: an import later on fails when we are out of descriptors and after
# chroot(2), and hangs in a child that another thread's fork(2) made in the middle of it.
MODULES_ON_DEMAND = frozenset(
    {
        *("cluster", "compress", "crypto", "dns", "fs", "inspect", "limits", "monitor", "otel"),
        *("prometheus", "proxy_protocol", "systemd"),
    }
)
NAMES_ON_DEMAND = {
    "Drain": "drain",
    "DrainReport": "drain",
    "Immediate": "core.handle",
    "Limits": "limits",
    "Loop": "loop",
    "Pool": "jobs.pool",
    "PoolFull": "jobs.pool",
    "ProxyHeader": "net.proxy_header",
    "ProxyProtocol": "proxy_protocol",
    "ProxySsl": "net.proxy_ssl",
    "Server": "loop_methods.servers",
    "ServerDefaults": "server_defaults",
    "ServerStats": "stats",
    "Socket": "handles.socket",
    "SocketServer": "loop_methods.socket_handles",
    "StreamReader": "streams.reader",
    "StreamReaderProtocol": "streams.writer",
    "StreamWriter": "streams.writer",
    "Timer": "core.timer",
    "UdpSocket": "handles.udp_socket",
    "open_connection": "streams.stream_api",
    "open_unix_connection": "streams.stream_api",
    "start_server": "streams.stream_api",
    "start_unix_server": "streams.stream_api",
    "tls_engine": "tls.engine_choice",
}
APART_ON_DEMAND = {  # each by itself: no loop needs them
    "Agent": "agent.agent",
    "AgentClosed": "agent.agent",
    "Lease": "agent.lease",
    "WorkerDied": "workers.process_worker",
    "WorkerPool": "workers.pool",
}
POLICY_ON_DEMAND: tuple[str, ...] = ()
if hasattr(asyncio.events, "_AbstractEventLoopPolicy") or hasattr(asyncio.events, "AbstractEventLoopPolicy"):
    POLICY_ON_DEMAND = ("EventLoopPolicy", "install")  # by themselves: importing a policy warns on 3.14
    __all__ += ["EventLoopPolicy", "install"]

if not TYPE_CHECKING:  # to a type checker they are names like the others, and no other exists

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in MODULES_ON_DEMAND:
            return import_module(f"{__name__}.{name}")
        wanted = NAMES_ON_DEMAND
        if name in POLICY_ON_DEMAND:
            wanted = dict.fromkeys(POLICY_ON_DEMAND, "policy")
        elif name in APART_ON_DEMAND:
            wanted = {name: APART_ON_DEMAND[name]}
        elif name not in NAMES_ON_DEMAND:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = {one: getattr(import_module(f"{__name__}.{module}"), one) for one, module in wanted.items()}
        globals().update(found)
        return found[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *APART_ON_DEMAND, *MODULES_ON_DEMAND, *NAMES_ON_DEMAND, *POLICY_ON_DEMAND})
