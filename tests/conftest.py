"""Fixtures of every test: the same body runs on asyncio's own loop and on hoop, so that "compatible" is measured."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from loop_factories import LoopFactory, loop_factory_named

# HOOP_TEST_LOOPS=asyncio,hoop,uvloop compares with uvloop, too; the suite itself is about the first two.
TESTED_LOOPS = os.environ.get("HOOP_TEST_LOOPS", "asyncio,hoop").split(",")
TLS_ENGINES = ["direct", "safe"]


def pytest_sessionstart() -> None:
    """In the background or under nohup(1) this process ignores signals that tests send, and so would its children."""
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)
    if sys.flags.dev_mode and not os.environ.get("PYTHONASYNCIODEBUG"):
        # Python's development mode is there for its checks of memory and files. It would switch on asyncio's debug
        # mode, too, of which the tests that are about it make loops of their own.
        asyncio.coroutines._is_debug_mode = lambda: False  # type: ignore[attr-defined]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "once: a long net of random faults; with HOOP_TEST_ONCE=0 it is left to the run on another Python or back end",
    )
    config.addinivalue_line(
        "markers", "each_tls_engine: on hoop the test runs with each engine of TLS, where `once` runs"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What has a loop runs on each loop, what is marked each_tls_engine on hoop with each engine."""
    is_each = metafunc.definition.get_closest_marker("each_tls_engine") is not None
    is_each = is_each and "HOOP_TLS_ENGINE" not in os.environ and os.environ.get("HOOP_TEST_ONCE") != "0"
    engines = TLS_ENGINES if is_each else [""]  # "": whichever is in use
    marks = metafunc.definition.iter_markers("parametrize")
    if any(mark.args[0] == "loop_name" for mark in marks):
        return  # it says itself on which
    if "loop_name" in metafunc.fixturenames:
        cases = [(name, engine) for name in TESTED_LOOPS for engine in (engines if name == "hoop" else [""])]
        ids = [f"{name}-{engine}" if engine else name for name, engine in cases]
        metafunc.parametrize("loop_name", cases, ids=ids, indirect=True)
    elif engines != [""]:
        metafunc.fixturenames.append("tls_engine")
        metafunc.parametrize("tls_engine", engines, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("HOOP_TEST_ONCE") == "0":
        skip = pytest.mark.skip(reason="long, and run once: on the main Python and the platform's own back end")
        for item in items:
            if item.get_closest_marker("once") is not None:
                item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Many tests collect garbage; keep the thousands of tests themselves out of each of those collections."""
    keep_out_of_collections()


@pytest.fixture(scope="module", autouse=True)
def former_modules() -> None:
    """And what earlier modules have left: reports, caches, all that was imported."""
    keep_out_of_collections()


def keep_out_of_collections() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture
def tls_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which engine of TLS hoop uses in a test that is marked each_tls_engine; child processes do, too."""
    monkeypatch.setenv("HOOP_TLS_ENGINE", request.param)
    return request.param


@pytest.fixture
def loop_name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name, engine = request.param
    assert isinstance(name, str)
    if engine:
        monkeypatch.setenv("HOOP_TLS_ENGINE", engine)
    return name


@pytest.fixture
def can_pause_anywhere(loop_name: str) -> None:
    """For tests that pause a pipe or an endpoint of datagrams, or a stream before it reads."""
    transport = asyncio.selector_events._SelectorTransport  # type: ignore[attr-defined]
    if loop_name == "asyncio" and "is_reading" not in vars(transport):
        pytest.xfail("std: only streams can pause, and not in connection_made; old releases of 3.11")


@pytest.fixture
def loop_factory(loop_name: str) -> LoopFactory:
    return loop_factory_named(loop_name)


@pytest.fixture
def loop(loop_factory: LoopFactory) -> Iterator[asyncio.AbstractEventLoop]:
    """An open loop that is not running; it is closed after the test."""
    loop = loop_factory()
    try:
        yield loop
    finally:
        if not loop.is_closed():
            loop.close()
        gc.collect()


@pytest.fixture
def run(loop_factory: LoopFactory) -> Callable[..., Any]:
    """`run(coroutine, debug=None)`: as asyncio.run, on the loop under test, with a deadline in case it hangs."""

    def run(main: Coroutine[Any, Any, Any], *, debug: bool | None = None, deadline_s: float = 60.0) -> Any:
        async def guarded() -> Any:
            return await asyncio.wait_for(main, deadline_s)

        with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
            return runner.run(guarded())

    return run


HANDLED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@pytest.fixture
def signal_dispositions() -> Iterator[None]:
    """Whatever a test does, the handlers and the wake-up descriptor of this process are put back."""
    saved = {number: signal.getsignal(number) for number in HANDLED}
    wakeup_fd = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in saved.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_fd)


@pytest.fixture
def wakeup_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets, the second of which is the wake-up descriptor of somebody who has one of his own."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        signal.set_wakeup_fd(right.fileno(), warn_on_full_buffer=False)
        yield left, right
        signal.set_wakeup_fd(-1)
