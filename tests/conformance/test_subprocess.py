"""Child processes. Traps 37 and 38 of the list of other loops' mistakes are named where they are tested.

HOOP_CHILDREN sets how many short children are run in a row (default 150).
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peers import DEADLINE_S, open_descriptors, pattern, soon, turns

PIPE, DEVNULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT
CHILDREN = int(os.environ.get("HOOP_CHILDREN", "150"))


async def python(source: str, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
    """A child that runs Python source (without site, which is faster)."""
    return await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", source, *arguments, **options)


async def output_of(source: str, *arguments: str, **options: Any) -> bytes:
    child = await python(source, *arguments, stdout=PIPE, **options)
    out, _ = await soon(child.communicate())
    assert child.returncode == 0
    return out


class Watching(asyncio.SubprocessProtocol):
    """Notes every callback."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.data = {1: bytearray(), 2: bytearray()}
        self.transport: Any = None
        self.lost = asyncio.get_running_loop().create_future()
        self.exited = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.calls.append(("connection_made",))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.data[fd] += data

    def pipe_connection_lost(self, fd: int, exc: BaseException | None) -> None:
        self.calls.append(("pipe_connection_lost", fd, exc))

    def process_exited(self) -> None:
        self.calls.append(("process_exited",))
        self.exited.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append(("connection_lost", exc))
        self.lost.set_result(None)


@pytest.fixture
def not_by_thread(loop_name: str) -> None:
    """For tests of what comes between a child's end and the loop's knowledge of it."""
    if loop_name == "asyncio" and sys.version_info < (3, 12):
        pytest.skip("this asyncio waits in a thread, which is as fast as the test")


# Running


def test_communicate(run: Any) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        data = pattern(1_000_000)
        assert await soon(child.communicate(data)) == (data, None)
        assert child.returncode == 0 and child.pid > 0

    run(main())


def test_shell(run: Any) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_shell("echo out; echo err >&2; exit 3", stdout=PIPE, stderr=PIPE)
        assert await soon(child.communicate()) == (b"out\n", b"err\n")
        assert child.returncode == 3

    run(main())


def test_stderr_into_stdout(run: Any) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_shell("echo a; echo b >&2", stdout=PIPE, stderr=STDOUT)
        assert await soon(child.communicate()) == (b"a\nb\n", None)

    run(main())


def test_without_pipes(run: Any) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("true", stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        assert child.stdin is None and child.stdout is None and child.stderr is None
        assert await soon(child.wait()) == 0
        assert await soon(child.wait()) == 0

    run(main())


def test_callbacks_in_order(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(Watching, "sh", "-c", "cat; echo bad >&2; exit 7")
        assert isinstance(transport, asyncio.SubprocessTransport)
        assert transport.get_pid() > 0 and transport.get_returncode() is None
        stdin = transport.get_pipe_transport(0)
        stdin.write(b"through")
        stdin.write_eof()
        await soon(protocol.lost)
        assert transport.get_returncode() == 7
        assert protocol.data == {1: b"through", 2: b"bad\n"}
        assert protocol.calls[0] == ("connection_made",) and protocol.calls[-1] == ("connection_lost", None)
        assert sorted(protocol.calls[1:-1], key=str) == [
            ("pipe_connection_lost", 0, None),
            ("pipe_connection_lost", 1, None),
            ("pipe_connection_lost", 2, None),
            ("process_exited",),
        ]
        transport.close()

    run(main())


def test_subprocess_shell_of_the_loop(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_shell(Watching, "printf %s $0", stdin=None)
        await soon(protocol.lost)
        assert protocol.data[1] and transport.get_pipe_transport(0) is None
        transport.close()

    run(main())


def test_an_exit_by_signal(run: Any) -> None:
    async def main() -> None:
        for send, expected in (
            (lambda child: child.kill(), -signal.SIGKILL),
            (lambda child: child.terminate(), -signal.SIGTERM),
            (lambda child: child.send_signal(signal.SIGHUP), -signal.SIGHUP),
        ):
            # Without a pipe: wait() does not wait for pipes, and until the last has closed kill() is silently in vain.
            child = await asyncio.create_subprocess_exec("sleep", "60")
            send(child)
            assert await soon(child.wait()) == expected
            with pytest.raises(ProcessLookupError):
                child.kill()

    run(main())


def test_the_last_output_comes_before_the_end(run: Any) -> None:
    """Trap 38: no race between exit and last output."""

    async def main() -> None:
        for _ in range(20):
            child = await asyncio.create_subprocess_shell("head -c 60000 /dev/zero; exit 1", stdout=PIPE)
            out, _ = await soon(child.communicate())
            assert len(out) == 60000 and child.returncode == 1

    run(main())


def test_output_of_a_child_that_was_killed(run: Any) -> None:
    async def main() -> None:
        child = await python(
            "import os, signal\nos.write(1, b'x' * 50000)\nos.kill(os.getpid(), signal.SIGKILL)", stdout=PIPE
        )
        out, _ = await soon(child.communicate())
        assert len(out) == 50000 and child.returncode == -signal.SIGKILL

    run(main())


# The child's side


def test_standard_streams_can_be_opened(run: Any) -> None:
    """Trap 38: they are pipes, not sockets."""

    async def main() -> None:
        child = await asyncio.create_subprocess_shell("cat /dev/stdin > /dev/stdout", stdin=PIPE, stdout=PIPE)
        assert await soon(child.communicate(b"by name")) == (b"by name", None)
        modes = "import os, stat; print(*[stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in range(3)])"
        child = await python(modes, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        assert await soon(child.communicate()) == (b"True True True\n", b"")

    run(main())


@pytest.mark.parametrize("stdin", [PIPE, DEVNULL])
@pytest.mark.parametrize(
    "wrong",
    [
        {"stdout": object()},
        {"stderr": object()},
        {"user": "of no such name"},
        {"group": object()},
        {"pipesize": "wide"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_argument_leaves_no_descriptor(run, loop_name, stdin, wrong):
    """stdin is a pipe, and made before Popen looks at the others."""

    async def main() -> None:
        before = open_descriptors()
        with pytest.raises((AttributeError, KeyError, TypeError)):
            await python("pass", **{"stdin": stdin, "stdout": PIPE, **wrong})
        after = open_descriptors()
        if loop_name == "asyncio" and after > before:
            for number in after - before:
                os.close(number)
            pytest.xfail("std: Popen forgets the pipe, up to 3.11.4")
        assert after == before

    run(main())


@pytest.mark.skipif(not hasattr(fcntl, "F_GETPIPE_SZ"), reason="pipes have one size here")
def test_pipesize(run: Any) -> None:
    async def main() -> None:
        code = "import fcntl; print([fcntl.fcntl(n, fcntl.F_GETPIPE_SZ) for n in range(3)])"
        child = await python(code, stdin=PIPE, stdout=PIPE, stderr=STDOUT, pipesize=4096)
        out, _ = await soon(child.communicate())
        assert out == b"[4096, 4096, 4096]\n"

    run(main())


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")
def test_standard_output_by_proc(run: Any) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_shell("echo there > /proc/self/fd/1", stdout=PIPE)
        assert await soon(child.communicate()) == (b"there\n", None)

    run(main())


def test_nothing_is_inherited(run: Any) -> None:
    """Trap 7."""
    code = "import os; print(sorted(fd for fd in range(3, 200) if os.path.exists(f'/dev/fd/{fd}')))"
    command = [sys.executable, "-S", "-c", code]
    expected = subprocess.run(command, close_fds=False, stdout=PIPE, timeout=DEADLINE_S, check=True).stdout

    async def main() -> None:
        first = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        assert await output_of(code, close_fds=False) == expected
        first.stdin.close()
        assert await soon(first.wait()) == 0

    run(main())


def test_options_of_popen(run: Any, tmp_path: Any) -> None:
    """Trap 38: cwd, env, pass_fds, preexec_fn, start_new_session."""

    async def main() -> None:
        assert os.fsdecode(await output_of("import os; os.write(1, os.fsencode(os.getcwd()))", cwd=tmp_path)) == str(
            tmp_path.resolve()
        )
        environment = {**os.environ, "HOOP_GIVEN": "yes"}
        assert await output_of("import os; print(os.environ['HOOP_GIVEN'])", env=environment) == b"yes\n"
        reading, writing = os.pipe()
        code = "import os, sys; os.write(int(sys.argv[1]), b'passed')"
        await output_of(code, str(writing), pass_fds=[writing])
        os.close(writing)
        assert os.read(reading, 100) == b"passed"
        os.close(reading)
        code = "import os; print(os.getsid(0) == os.getpid())"
        assert await output_of(code, start_new_session=True) == b"True\n"
        niceness = await output_of("import os; print(os.nice(0))", preexec_fn=lambda: os.nice(1))
        assert niceness == b"%d\n" % (os.nice(0) + 1)

    run(main())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_failing_preexec_fn(run: Any) -> None:
    async def main() -> None:
        def fail() -> None:
            raise ValueError

        before = open_descriptors()
        with pytest.raises(subprocess.SubprocessError):
            await asyncio.create_subprocess_exec("true", stdout=PIPE, preexec_fn=fail)
        gc.collect()
        assert not open_descriptors() - before

    run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_cannot_be_started(run: Any) -> None:
    """Trap 38: NUL in argv. Nothing is left behind."""

    async def main() -> None:
        before = open_descriptors()
        with pytest.raises(ValueError, match="null"):
            await asyncio.create_subprocess_exec("echo", "a\0b", stdout=PIPE)
        with pytest.raises(ValueError, match="null"):
            await asyncio.create_subprocess_exec(b"echo\0", stdout=PIPE)
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("/no/such/program", stdin=PIPE, stdout=PIPE)
        with pytest.raises(PermissionError):
            await asyncio.create_subprocess_exec("/", stdin=PIPE)
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("true", cwd="/no/such/folder", stdin=PIPE)
        gc.collect()
        await turns()
        assert not open_descriptors() - before

    run(main())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"universal_newlines": True}, "universal_newlines must be False"),
        ({"bufsize": 4096}, "bufsize must be 0"),
        ({"text": True}, "text must be False"),
        ({"encoding": "utf-8"}, "encoding must be None"),
        ({"errors": "strict"}, "errors must be None"),
    ],
)
def test_text_and_buffers_are_refused(run: Any, options: dict[str, Any], message: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match=message):
            await loop.subprocess_exec(Watching, "true", **options)
        with pytest.raises(ValueError, match=message):
            await loop.subprocess_shell(Watching, "true", **options)

    run(main())


def test_shell_must_fit_the_method(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="shell must be False"):
            await loop.subprocess_exec(Watching, "true", shell=True)
        with pytest.raises(ValueError, match="shell must be True"):
            await loop.subprocess_shell(Watching, "true", shell=False)
        with pytest.raises(ValueError, match="cmd must be a string"):
            await loop.subprocess_shell(Watching, ["true"])
        transport, protocol = await loop.subprocess_exec(
            Watching, "true", text=False, encoding=None, errors=None, bufsize=0, shell=False, universal_newlines=False
        )
        await soon(protocol.lost)
        transport.close()

    run(main())


# Standard input of the dead


def test_a_dead_child_s_stdin_raises_nothing(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(Watching, "true", stdout=None, stderr=None)
        stdin = transport.get_pipe_transport(0)
        await soon(protocol.lost)
        for _ in range(3):
            stdin.write(b"to nobody")
        stdin.write_eof()
        stdin.set_write_buffer_limits(high=10)
        stdin.close()
        assert stdin.is_closing()
        transport.close()

    run(main())


def test_communicate_with_a_child_that_does_not_listen(run: Any) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("true", stdin=PIPE, stdout=PIPE)
        assert await soon(child.communicate(bytes(1_000_000))) == (b"", None)
        assert child.returncode == 0

    run(main())


def test_drain_of_a_child_that_reads_slowly(run: Any) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("wc", "-c", stdin=PIPE, stdout=PIPE)
        for _ in range(50):
            child.stdin.write(bytes(50_000))
            await soon(child.stdin.drain())
        child.stdin.close()
        assert (await soon(child.stdout.read())).strip() == b"2500000"
        await soon(child.stdin.wait_closed())
        assert await soon(child.wait()) == 0

    run(main())


# Ending early


def test_closing_kills(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = open_descriptors()
        transport, protocol = await loop.subprocess_exec(Watching, "cat")
        transport.close()
        transport.close()
        assert transport.is_closing()
        await soon(protocol.lost)
        assert transport.get_returncode() == -signal.SIGKILL
        await turns()
        assert not open_descriptors() - before

    run(main())


def test_closing_at_the_end_of_a_child(run: Any, loop_name: str, caplog: pytest.LogCaptureFixture) -> None:
    """close() polls the child, and so may learn of its end before the loop does: the status is still the child's."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        transport, protocol = await loop.subprocess_exec(
            Watching, "sh", "-c", "cat; exit 5", stdin=reading, stdout=None
        )
        os.close(reading)
        os.close(writing)
        os.waitid(os.P_PID, transport.get_pid(), os.WEXITED | os.WNOWAIT)
        transport.close()
        await soon(protocol.lost)
        assert transport.get_returncode() == 5
        assert not caplog.records

    if not hasattr(os, "waitid"):
        pytest.skip("no waitid here")
    if loop_name == "asyncio":
        pytest.xfail("std: finds no child any more and reports 255")
    run(main())


def test_cancelled_starts_leave_nothing(run: Any) -> None:
    async def main() -> None:
        before = open_descriptors()
        for number in range(10):
            task = asyncio.ensure_future(asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            task.cancel()
            try:
                child = await soon(task)
            except asyncio.CancelledError:
                continue
            child.kill()
            await soon(child.wait())
        gc.collect()
        await turns()
        assert not open_descriptors() - before

    run(main())


@pytest.mark.usefixtures("not_by_thread")
@pytest.mark.skipif(not hasattr(os, "waitid"), reason="no waitid here")
def test_trap_38_a_number_is_not_reused_before_the_loop_knows_of_the_end(run: Any) -> None:
    """A dead child stays a zombie, which takes signals for its number, until the loop has told its transport."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        transport, protocol = await loop.subprocess_exec(Watching, "cat", stdin=reading, stdout=None, stderr=None)
        os.close(reading)
        os.close(writing)  # from here on the child ends
        pid = transport.get_pid()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert transport.get_returncode() is None
        await soon(protocol.exited)
        assert transport.get_returncode() == 0
        with pytest.raises(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # reaped: the number may be a stranger's now
        for signal_it in (transport.kill, transport.terminate, lambda: transport.send_signal(signal.SIGHUP)):
            with pytest.raises(ProcessLookupError):
                signal_it()
        await soon(protocol.lost)
        transport.close()

    run(main())


@pytest.mark.usefixtures("not_by_thread")
def test_somebody_else_took_the_status(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        reading, writing = os.pipe()
        child = await asyncio.create_subprocess_exec("cat", stdin=reading)
        os.close(reading)
        os.close(writing)
        os.waitpid(child.pid, 0)  # before the loop looks
        with caplog.at_level(logging.WARNING, "asyncio"):
            assert await soon(child.wait()) == 255
        assert "exit status already read" in caplog.text

    run(main())


# Signals and threads


def test_trap_37_sigchld_is_the_users(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen = asyncio.Event()
        loop.add_signal_handler(signal.SIGCHLD, seen.set)
        child = await asyncio.create_subprocess_exec("true")
        assert await soon(child.wait()) == 0
        await soon(seen.wait())
        assert loop.remove_signal_handler(signal.SIGCHLD)

    before = signal.getsignal(signal.SIGCHLD)
    run(main())
    assert signal.getsignal(signal.SIGCHLD) == before


def test_from_another_thread(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """No child watcher has to be attached to the main thread."""
    results: list[Any] = []

    async def main() -> None:
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        results.append(await soon(child.communicate(b"threaded")))
        results.append(child.returncode)

    def work() -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(DEADLINE_S)
    assert results == [(b"threaded", None), 0]


def test_without_pidfds(run: Any, loop_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old kernel or a sandbox: a thread waits."""

    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(38, "Function not implemented")

    async def main() -> None:
        for _ in range(10):
            child = await asyncio.create_subprocess_shell("cat; exit 4", stdin=PIPE, stdout=PIPE)
            assert await soon(child.communicate(b"by thread")) == (b"by thread", None)
            assert child.returncode == 4
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE)
        child.kill()
        assert await soon(child.wait()) == -signal.SIGKILL

    if loop_name == "hoop":  # asyncio chooses its watcher once, for the process
        monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    run(main())


@pytest.mark.skipif(not hasattr(os, "waitid") or sys.platform == "darwin", reason="no waitid to rely on here")
def test_trap_38_a_waiting_thread_leaves_the_child_to_the_loop(
    run: Any, loop_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dead child's number stays taken until the loop knows of the end (hoop; asyncio from 3.14.10 on)."""
    if loop_name == "asyncio":
        pytest.skip("asyncio chooses its watcher once, for the process")

    async def main() -> None:
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE)
        (waiting,) = (thread for thread in threading.enumerate() if thread.name == f"hoop-wait-{child.pid}")
        child.kill()
        waiting.join(DEADLINE_S)
        assert not waiting.is_alive() and child.returncode is None
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)  # ChildProcessError if it were reaped
        child.kill()
        assert await soon(child.wait()) == -signal.SIGKILL

    monkeypatch.delattr(os, "pidfd_open", raising=False)
    run(main())


@pytest.fixture
def choose_watcher() -> Iterator[Callable[[asyncio.AbstractEventLoop | None], None]]:
    """Makes a FastChildWatcher, attached to a loop or not, the one that asyncio's policy has until the test ends."""
    if sys.version_info >= (3, 14):
        pytest.skip("Python 3.14 has no child watchers")

    def choose(loop: asyncio.AbstractEventLoop | None) -> None:
        watcher = asyncio.FastChildWatcher()
        watcher.attach_loop(loop)
        asyncio.set_child_watcher(watcher)

    yield choose
    asyncio.set_child_watcher(None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:A loop is being detached:RuntimeWarning")
def test_a_child_watcher_that_the_program_chose(run: Any, choose_watcher: Callable[..., None]) -> None:
    """It reaps every child of the process, so each exit status has to come from it."""

    async def main() -> None:
        choose_watcher(asyncio.get_running_loop())
        children = [await asyncio.create_subprocess_shell(f"exit {number}") for number in range(20)]
        assert await soon(asyncio.gather(*(child.wait() for child in children))) == list(range(20))

    run(main())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_watcher_without_a_loop(run: Any, choose_watcher: Callable[..., None]) -> None:
    async def main() -> None:
        choose_watcher(None)
        with pytest.raises(RuntimeError, match="not activated"):
            await asyncio.create_subprocess_shell("exit 1")

    run(main())


# Many


def test_many_at_once(run: Any) -> None:
    async def main() -> None:
        before = open_descriptors()

        async def one(number: int) -> None:
            child = await asyncio.create_subprocess_shell(f"cat; exit {number}", stdin=PIPE, stdout=PIPE)
            assert await child.communicate(b"%d" % number) == (b"%d" % number, None)
            assert child.returncode == number

        await soon(asyncio.gather(*(one(number) for number in range(30))))
        await turns()
        assert not open_descriptors() - before

    run(main())


def test_short_children_in_a_row(run: Any) -> None:
    """Trap 38: no exit is lost, no descriptor and no thread is left."""

    async def main() -> None:
        before, threads = open_descriptors(), threading.active_count()
        for number in range(CHILDREN):
            child = await asyncio.create_subprocess_exec("sh", "-c", f"exit {number % 100}", stdout=PIPE)
            if number % 2:
                assert await soon(child.stdout.read()) == b""
            assert await soon(child.wait()) == number % 100
        gc.collect()
        await turns()
        assert not open_descriptors() - before and threading.active_count() <= threads + 1

    run(main(), deadline_s=60 + CHILDREN / 10)
