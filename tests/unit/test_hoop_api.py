"""The public names of the package: run, new_event_loop, Loop, EventLoopPolicy, install; and what importing does."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator

import hoop
import pytest

HAS_POLICIES = sys.version_info < (3, 16)


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


def run_python(source: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    command = [sys.executable, *options, "-c", source]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def check_python(source: str, *options: str) -> None:
    done = run_python(source, *options)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


# run().


def test_run_returns_the_result_on_a_hoop_loop():
    async def main() -> tuple[bool, int]:
        return isinstance(asyncio.get_running_loop(), hoop.Loop), await answer()

    assert hoop.run(main()) == (True, 42)


def test_run_raises_the_exception_and_closes_the_loop():
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        hoop.run(main())
    assert loops[0].is_closed()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


@pytest.mark.parametrize("debug", [True, False])
def test_run_sets_debug(debug):
    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert hoop.run(main(), debug=debug) is debug


def test_run_takes_debug_by_keyword_only():
    coroutine = answer()
    with pytest.raises(TypeError):
        hoop.run(coroutine, True)
    coroutine.close()


def test_run_cleans_up():
    events: list[str] = []

    async def background() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            events.append("task cancelled")

    async def generate():
        try:
            yield 1
        finally:
            events.append("generator closed")

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(background())
        generator = generate()
        kept.append(generator)
        await generator.__anext__()
        await asyncio.to_thread(events.append, "thread ran")
        return task

    kept: list[object] = []
    task = hoop.run(main())
    assert task.cancelled()
    assert events == ["thread ran", "task cancelled", "generator closed"]


def test_run_inside_a_running_loop_is_refused(recwarn: pytest.WarningsRecorder):
    async def main() -> None:
        coroutine = answer()
        with pytest.raises(RuntimeError, match=r"hoop\.run\(\)"):
            hoop.run(coroutine)
        coroutine.close()

    hoop.run(main())
    assert [str(warning.message) for warning in recwarn if "never awaited" in str(warning.message)] == []


@pytest.mark.parametrize("wrong", [None, 1, answer], ids=repr)
def test_run_takes_coroutines_only(wrong):
    with pytest.raises((TypeError, ValueError)):
        hoop.run(wrong)


def test_run_can_be_called_again_and_in_threads():
    assert [hoop.run(answer()) for _ in range(20)] == [42] * 20
    assert asyncio.run(run_in_a_thread()) == 42


async def run_in_a_thread() -> int:
    return await asyncio.to_thread(lambda: hoop.run(answer()))


# Loops.


def test_new_event_loop_makes_a_loop():
    loop = hoop.new_event_loop()
    try:
        assert type(loop) is hoop.Loop and isinstance(loop, asyncio.AbstractEventLoop)
        assert not loop.is_running() and not loop.is_closed()
        assert loop.run_until_complete(answer()) == 42
    finally:
        loop.close()


def test_new_event_loop_does_not_become_the_current_loop():
    loop = hoop.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_asyncio_runners_take_the_factory():
    with asyncio.Runner(loop_factory=hoop.new_event_loop) as runner:
        assert runner.run(answer()) == 42
        assert type(runner.get_loop()) is hoop.Loop
    if sys.version_info >= (3, 12):
        assert asyncio.run(answer(), loop_factory=hoop.new_event_loop) == 42
    with asyncio.Runner(loop_factory=hoop.Loop) as runner:
        assert runner.run(answer()) == 42


@pytest.mark.parametrize("keywords", [{}, {"poll_every_turn": True}, {"poll_every_turn": False}, {"clock": None}])
def test_loop_options(keywords):
    loop = hoop.Loop(**keywords)
    try:
        assert loop.run_until_complete(answer()) == 42
    finally:
        loop.close()


def test_unknown_options_are_refused():
    for poller in (5, b"poll"):
        with pytest.raises(TypeError, match="poller"):
            hoop.Loop(poller=poller)
    with pytest.raises(TypeError):
        hoop.Loop(nonsense=1)
    with pytest.raises(TypeError):
        hoop.Loop(1)


def test_set_event_loop_accepts_a_hoop_loop():
    loop = hoop.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


# Policies.


@pytest.fixture
def policy_restored() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
        asyncio.set_event_loop_policy(None)


@pytest.mark.skipif(not HAS_POLICIES, reason="Python 3.16 removes event loop policies")
@pytest.mark.usefixtures("policy_restored")
class TestPolicies:
    def test_the_policy_makes_hoop_loops(self):
        policy = hoop.EventLoopPolicy()
        loop = policy.new_event_loop()
        try:
            assert type(loop) is hoop.Loop
            policy.set_event_loop(loop)
            assert policy.get_event_loop() is loop
            policy.set_event_loop(None)
        finally:
            loop.close()

    def test_the_policy_can_be_set(self):
        asyncio.set_event_loop_policy(hoop.EventLoopPolicy())
        loop = asyncio.new_event_loop()
        try:
            assert type(loop) is hoop.Loop
        finally:
            loop.close()

        async def main() -> type:
            return type(asyncio.get_running_loop())

        assert asyncio.run(main()) is hoop.Loop

    def test_install_sets_the_policy(self):
        hoop.install()
        assert isinstance(asyncio.get_event_loop_policy(), hoop.EventLoopPolicy)

        async def main() -> type:
            return type(asyncio.get_running_loop())

        assert asyncio.run(main()) is hoop.Loop

    def test_the_policy_is_one_class_and_an_asyncio_policy(self):
        assert hoop.EventLoopPolicy is hoop.EventLoopPolicy
        assert isinstance(hoop.EventLoopPolicy(), asyncio.AbstractEventLoopPolicy)


@pytest.mark.skipif(HAS_POLICIES, reason="this Python still has event loop policies")
def test_without_policies_the_names_are_absent():
    assert not hasattr(hoop, "EventLoopPolicy")
    with pytest.raises(AttributeError):
        _ = hoop.install


# Importing.


def test_importing_warns_of_nothing():
    check_python("import hoop; print('done')", "-W", "error")


def test_importing_does_not_touch_asyncio():
    check_python(
        """
import asyncio, gc, os, signal, threading
wakeup = signal.set_wakeup_fd(-1)
before = asyncio.new_event_loop
import hoop
assert asyncio.new_event_loop is before
loop = asyncio.new_event_loop()
assert not isinstance(loop, hoop.Loop)
loop.close()
assert signal.set_wakeup_fd(-1) == wakeup == -1
assert threading.active_count() == 1
print("done")
"""
    )


def test_every_public_name_exists():
    for name in hoop.__all__:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            assert hasattr(hoop, name), name
    assert {"Loop", "new_event_loop", "run"} <= set(hoop.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = hoop.no_such_name


def test_the_version_is_that_of_the_distribution():
    assert isinstance(hoop.__version__, str)
    try:
        installed = importlib.metadata.version("hoop")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("hoop runs from its source tree here")
    assert hoop.__version__ == installed


def test_on_windows_importing_names_the_alternative():
    done = run_python(
        """
import sys
sys.platform = "win32"
import importlib.util
try:
    import hoop
except ImportError as error:
    print("ImportError", error)
"""
    )
    assert done.stdout.startswith("ImportError") and "winloop" in done.stdout, done.stderr


def test_a_loop_that_another_thread_begins_to_close_while_it_is_begun() -> None:
    """Neither ends with a loop that sleeps on a poller that is closed: whoever comes second is refused."""
    made: list[hoop.Loop] = []
    maker = threading.Thread(target=lambda: made.append(hoop.Loop()))
    maker.start()
    maker.join()  # without a GIL another thread may close it only then
    loop = made[0]
    may_go_on = threading.Event()
    refusals: list[BaseException] = []
    close_threads = loop._close_threads

    def close_threads_late(*, may_wait: bool) -> None:
        close_threads(may_wait=may_wait)
        closing.set()
        assert may_go_on.wait(30)

    def close() -> None:
        try:
            loop.close()
        except RuntimeError as error:
            refusals.append(error)
        loop.call_soon_threadsafe(loop.stop)

    closing = threading.Event()
    loop._close_threads = close_threads_late  # type: ignore[method-assign]
    closer = threading.Thread(target=close)
    closer.start()
    assert closing.wait(30)
    loop.call_soon_threadsafe(may_go_on.set)
    loop.run_forever()
    closer.join()
    assert [str(refusal) for refusal in refusals] == ["Cannot close a running event loop"]
    loop.close()


def test_a_loop_is_not_closed_while_it_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = hoop.Loop()
    with monkeypatch.context() as patched:
        patched.setattr(loop, "_claim_signals", loop._close_reactor)
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.run_forever()
    assert not loop.is_running() and not loop.is_closed()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
