"""A loop leaves alone what belongs to the whole process, also while it runs, and whatever runs on it.

docs/architecture.md has the table of these things and says which tests go into one of them.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import locale
import logging
import os
import resource
import signal
import sys
import threading
import warnings
from typing import Any

import hoop.loop  # noqa: F401  # its first import leaves something behind: a function to be called at exit
import pytest
from conformance.peers import LOCALHOST, Recorder, address_of, closed, soon
from interpreter import run_script


def masks_and_timers() -> tuple[Any, ...]:
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    timers = [
        signal.getitimer(which)[0] > 0 for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    ]
    wakeup_fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_fd)
    return (handlers, timers, wakeup_fd, signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def limits() -> dict[str, tuple[int, int]]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def umask() -> int:
    mask = os.umask(0o77)
    os.umask(mask)
    return mask


def logging_setup() -> list[Any]:
    loggers = [logging.getLogger(), logging.getLogger("asyncio")]
    return [(logger.level, list(logger.handlers), logger.disabled, logger.propagate) for logger in loggers]


def whole_process() -> dict[str, Any]:
    """All but the hooks that a run takes for its time."""
    return {
        "signals": masks_and_timers(),
        "limits": limits(),
        "umask": umask(),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "locale": locale.setlocale(locale.LC_ALL),
        "affinity": os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "tracing": (sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile()),
        "hooks": (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook),
        "limits of Python": (sys.getswitchinterval(), sys.getrecursionlimit(), threading.stack_size()),
        "collector": (gc.isenabled(), gc.get_threshold(), list(gc.callbacks), gc.get_debug()),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "logging": logging_setup(),
        "current loop": asyncio.get_event_loop_policy(),
        "exit hooks": atexit._ncallbacks(),
    }


def hooks_of_runs() -> tuple[Any, ...]:
    return (sys.get_asyncgen_hooks(), sys.get_coroutine_origin_tracking_depth(), asyncio._get_running_loop())


async def use_every_part(tmp_path: Any) -> None:
    """Connections, datagrams, children, threads, names."""
    loop = asyncio.get_running_loop()
    protocol = Recorder()
    server = await loop.create_server(lambda: protocol, LOCALHOST, 0)
    transport, _ = await loop.create_connection(Recorder, *address_of(server))
    transport.write(b"x")
    await protocol.until_received(1)
    transport.close()
    await protocol.until_lost()
    server.close()
    await closed(server)
    datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(LOCALHOST, 0))
    datagrams.close()
    child = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", "print(1)", stdout=-1)
    assert await soon(child.communicate()) == (b"1\n", None)
    assert await loop.run_in_executor(None, len, "abc") == 3
    assert await loop.getaddrinfo("localhost", 80)
    if loop.__class__.__module__.startswith("hoop"):
        import hoop

        await hoop.fs.write_file(tmp_path / "file", b"bytes")
        assert await hoop.fs.read_file(tmp_path / "file") == b"bytes"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("debug", [False, True])
def test_a_run_leaves_the_process_as_it_was(loop_factory: Any, tmp_path: Any, debug: bool) -> None:
    before, hooks = whole_process(), hooks_of_runs()
    during: list[dict[str, Any]] = []

    async def main() -> None:
        await use_every_part(tmp_path)
        during.append(whole_process())

    loop = loop_factory()
    loop.set_debug(debug)
    try:
        loop.run_until_complete(main())
        assert whole_process() == before and hooks_of_runs() == hooks
    finally:
        loop.close()
    assert whole_process() == before and hooks_of_runs() == hooks
    for name, value in during[0].items():
        assert value == before[name], name


def test_a_run_in_debug_mode_takes_origins_for_its_time(loop: Any) -> None:
    """Also when it is switched on and off while the loop runs."""
    depths: list[int] = []
    before = sys.get_coroutine_origin_tracking_depth()

    async def main() -> None:
        for enabled in (True, False, True):
            loop.set_debug(enabled)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            depths.append(sys.get_coroutine_origin_tracking_depth())

    loop.run_until_complete(main())
    assert depths[0] > before and depths[1] == before and depths[2] == depths[0]
    assert sys.get_coroutine_origin_tracking_depth() == before


def test_hooks_are_made_once(loop_factory: Any) -> None:
    """Not for each loop, pool or run."""
    loop = loop_factory()
    loop.run_until_complete(loop.run_in_executor(None, len, ""))
    loop.close()
    count = atexit._ncallbacks(), len(threading._threading_atexits)  # type: ignore[attr-defined]
    for _ in range(3):
        loop = loop_factory()
        loop.run_until_complete(loop.run_in_executor(None, len, ""))
        loop.close()
    assert (atexit._ncallbacks(), len(threading._threading_atexits)) == count  # type: ignore[attr-defined]


def test_sockets_raise_no_sigpipe(loop_name: str) -> None:
    """For who has not left SIGPIPE ignored, as Python does."""
    if loop_name == "asyncio":
        pytest.skip("asyncio: the socket module sends so that SIGPIPE comes")
    code, output, errors = run_script(
        """
import asyncio, signal, socket
import hoop
signal.signal(signal.SIGPIPE, signal.SIG_DFL)

class Lost(asyncio.Protocol):
    def connection_lost(self, error):
        lost.set_result(error)

async def main():
    global lost
    for kind in (socket.AF_INET, socket.AF_UNIX):
        lost = asyncio.get_running_loop().create_future()
        ours, peer = socket.socketpair(socket.AF_UNIX) if kind == socket.AF_UNIX else pair()
        transport, _ = await asyncio.get_running_loop().create_connection(Lost, sock=ours)
        transport.pause_reading()
        peer.close()
        while not lost.done():
            transport.write(b"x")
            await asyncio.sleep(0)
        print(type(await lost).__name__)
        print(signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL)

def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]

hoop.run(main())
"""
    )
    words = output.split()
    assert code == 0 and words[1::2] == ["True", "True"], errors
    assert set(words[::2]) <= {"BrokenPipeError", "ConnectionResetError"}
