"""A start of a child that fails half-way leaves neither the child nor its pipes, whatever failed. (libuv: uv_spawn)

asyncio's own class keeps both when it cannot make the task that connects the pipes, so these are about hoop alone.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import threading
import warnings
from typing import Any

import hoop
import hoop.loop_methods.processes
import pytest


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/dev/fd"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The children that were started, each with its returncode once it was waited for."""
    children: list[Any] = []

    class Recorded(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            children.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    return children


def start_on(loop: hoop.Loop, *arguments: Any) -> Any:
    """Take the first step of subprocess_exec, on which everything is refused or not."""
    coroutine = loop.subprocess_exec(asyncio.SubprocessProtocol, "cat", *arguments)
    try:
        return coroutine.send(None)
    finally:
        coroutine.close()


def test_on_a_closed_loop_no_child_is_started(started: list[Any]) -> None:
    loop = hoop.Loop()
    loop.close()
    before = descriptors()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        start_on(loop)
    assert descriptors() == before
    assert started == []


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_task_factory_that_fails(started: list[Any]) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    before = descriptors()
    loop = hoop.Loop()
    loop.set_task_factory(refuse)
    with pytest.raises(ZeroDivisionError):
        start_on(loop)
    loop.close()
    assert descriptors() == before
    assert [child.returncode for child in started] == [-signal.SIGKILL]


def test_nothing_can_wait_for_the_end(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor for a pidfd, and no thread instead of it."""

    def no_descriptor(*_: Any) -> Any:
        raise OSError(24, "Too many open files")

    def no_thread(_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pidfd_open", no_descriptor, raising=False)
            patch.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)

    before = descriptors()
    hoop.run(main())
    assert descriptors() == before
    assert [child.returncode for child in started] == [-signal.SIGKILL]


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="without pidfds there is no watch")
def test_a_refused_watch_is_replaced_by_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC of fs.epoll.max_user_watches."""

    def refused(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    async def main() -> int:
        with monkeypatch.context() as patch:
            patch.setattr(hoop.loop_methods.processes.PidWatch, "start", refused)
            process = await asyncio.create_subprocess_exec("true")
        return await process.wait()

    before = descriptors()
    assert hoop.run(main()) == 0
    assert descriptors() == before


def test_a_start_that_is_abandoned_ends_the_child(started: list[Any]) -> None:
    """Closing the coroutine must not make it await: "coroutine ignored GeneratorExit" is what asyncio says there."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        class Told(asyncio.SubprocessProtocol):
            def process_exited(self) -> None:
                ended.set_result(None)

        start = loop.subprocess_exec(Told, "cat")
        start.send(None)
        start.close()
        await ended
        code: int = started[0].returncode
        return code

    assert hoop.run(main()) == -signal.SIGKILL


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_start_whose_loop_is_closed_before_the_pipes_are_connected_leaves_none(
    started: list[Any], is_closed: bool
) -> None:
    """subprocess keeps the Popen object of a child that nobody has waited for, and with it the pipes."""
    loop = hoop.Loop()

    def begin() -> None:
        start = loop.subprocess_exec(asyncio.SubprocessProtocol, "cat")
        start.send(None)
        if is_closed:
            start.close()
        loop.stop()

    loop.set_exception_handler(lambda *_: None)  # of tasks that are destroyed; to log it would keep them
    loop.call_soon(begin)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop.run_forever()
        loop.close()
        gc.collect()
    process = started[0]
    assert process.stdin.closed and process.stdout.closed and process.stderr.closed
    assert process.wait() == -signal.SIGKILL


def test_connecting_that_is_abandoned_awaits_nothing() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        connecting = loop.create_connection(
            asyncio.Protocol, *server.sockets[0].getsockname(), happy_eyeballs_delay=0.25, interleave=1
        )
        connecting.send(None)
        connecting.close()
        server.close()

    hoop.run(main())
