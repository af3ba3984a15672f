"""Child processes: subprocess_exec, subprocess_shell, and how the loop notices their end.

asyncio's own BaseSubprocessTransport does the bookkeeping, on hoop's pipe transports. The standard streams are real
pipes, so the child can open /dev/stdin and /proc/self/fd/1.

Where the kernel has pidfd_open(2) the loop watches one such descriptor for each child: it becomes readable when that
very child ends, also if its number is in use again by then. Elsewhere a thread waits. Neither needs the main thread or
SIGCHLD, which stays the user's. The loop reaps a child only once it knows of its end, so the kernel cannot reuse its
number and a signal never reaches another process. Where the program gave asyncio a child watcher of its own choice (up
to Python 3.13), hoop asks that one instead: it may be one that reaps every child.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal as signal_module
import subprocess
import sys
import threading
import weakref
from asyncio import base_subprocess
from asyncio.log import logger
from collections.abc import Callable
from typing import Any, Self, TypeVar

from hoop.loop_methods.base_loop import BaseLoop

ProtocolT = TypeVar("ProtocolT", bound=asyncio.SubprocessProtocol)

STATUS_UNKNOWN = 255  # what asyncio reports when another part of the program has reaped the child


class Processes(BaseLoop, asyncio.AbstractEventLoop):
    """subprocess_exec, subprocess_shell."""

    async def subprocess_exec(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], ProtocolT],
        program: Any,
        *args: Any,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        **kwargs: Any,
    ) -> tuple[asyncio.SubprocessTransport, ProtocolT]:
        """Run program with args; (transport, protocol). Further keywords are those of subprocess.Popen.

        Raises OSError when the program cannot be started; ValueError for a NUL in an argument and for Popen's text mode
        (universal_newlines, text, encoding, errors), its buffering and shell=True.
        """
        check_bytes_mode(kwargs, shell=False)
        protocol = protocol_factory()
        return await self._run_child(
            f"execute program {program!r}", protocol, (program, *args), False, stdin, stdout, stderr, kwargs
        )

    async def subprocess_shell(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], ProtocolT],
        cmd: bytes | str,
        *,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        **kwargs: Any,
    ) -> tuple[asyncio.SubprocessTransport, ProtocolT]:
        """Run cmd by the shell; as subprocess_exec."""
        if not isinstance(cmd, (bytes, str)):
            raise ValueError("cmd must be a string")
        check_bytes_mode(kwargs, shell=True)
        protocol = protocol_factory()
        return await self._run_child(f"run shell command {cmd!r}", protocol, cmd, True, stdin, stdout, stderr, kwargs)

    async def _run_child(
        self,
        description: str,  # without the arguments: they may be long, or secret
        protocol: ProtocolT,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        options: dict[str, Any],
    ) -> tuple[asyncio.SubprocessTransport, ProtocolT]:
        if self.get_debug():
            logger.debug("%s stdin=%s stdout=%s stderr=%s", description, *map(stream_name, (stdin, stdout, stderr)))
        transport = await self._make_subprocess_transport(protocol, args, shell, stdin, stdout, stderr, 0, **options)
        if self.get_debug():
            logger.info("%s: %r", description, transport)
        return transport, protocol

    async def _make_subprocess_transport(
        self,
        protocol: asyncio.SubprocessProtocol,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> ChildTransport:
        """Start a child; returns once its pipes are connected. Cancelling the caller before that kills the child.

        RuntimeError if the program's own child watcher is not active.
        """
        watcher = chosen_watcher()
        with contextlib.nullcontext() if watcher is None else watcher:
            if watcher is not None and not watcher.is_active():
                raise RuntimeError("asyncio.get_child_watcher() is not activated, subprocess support is not installed.")
            waiter = self.create_future()
            transport = ChildTransport(
                self, protocol, args, shell, stdin, stdout, stderr, bufsize, waiter=waiter, extra=extra, **kwargs
            )
            try:
                if watcher is None:
                    watch_exit(self, transport)
                else:
                    watcher.add_child_handler(transport.get_pid(), tell_exit, self, transport)
            except BaseException:
                waiter.cancel()  # the caller will not wait for the pipes
                transport._undo_start()
                raise
            try:
                await waiter
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                transport.close()
                if not isinstance(error, GeneratorExit):  # a generator that is closed may await nothing more
                    await transport._wait()
                raise
        return transport


def check_bytes_mode(options: dict[str, Any], shell: bool) -> None:
    """Remove the keywords that Popen knows and a transport cannot honour. ValueError if the caller uses one."""
    if options.pop("universal_newlines", False):
        raise ValueError("universal_newlines must be False")
    if bool(options.pop("shell", shell)) != shell:
        raise ValueError(f"shell must be {shell}")
    if options.pop("bufsize", 0) != 0:
        raise ValueError("bufsize must be 0")
    if options.pop("text", None):
        raise ValueError("text must be False")
    for name in ("encoding", "errors"):
        if options.pop(name, None) is not None:
            raise ValueError(f"{name} must be None")


def stream_name(stream: Any) -> str:
    """A stream as the debug log shows it."""
    if stream is None:
        return "inherited"
    names = {subprocess.PIPE: "<pipe>", subprocess.DEVNULL: "<null>", subprocess.STDOUT: "<stdout>"}
    return names.get(stream, repr(stream)) if isinstance(stream, int) else repr(stream)


class ChildTransport(base_subprocess.BaseSubprocessTransport):
    """A child, its pipes, and its end. `_proc` is the Popen object, None once connection_lost has been called.

    It has what asyncio's own class has mended since Python 3.11, on every version (docs/asyncio_fixes.md).
    """

    _loop: Any  # None once connection_lost has been called
    _proc: Any = None
    _returncode: int | None
    _pipes: dict[int, Any]  # to the protocols that asyncio puts before the pipes; None until they are connected
    _pending_calls: Any  # calls that the protocol will get; None once the pipes are connected
    _end_waiters: set[asyncio.Future[int]]
    _is_referenced = True
    # A weak reference: the loop, or a thread, owns what waits for the end, which goes with the loop if that goes first.
    _exit_watch: Callable[[], PidWatch | ThreadWatch | None] = staticmethod(lambda: None)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As asyncio's; but a failure after the child's start (a task factory that raises) leaves nothing behind."""
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            self._undo_start()
            raise

    def __del__(self) -> None:
        try:
            super().__del__()
        finally:  # under -W error asyncio's own raises before it has closed anything
            self.close()
            self._close_unconnected()

    def _undo_start(self) -> None:
        process, self._closed = self._proc, True
        if process is None:
            return
        for file in (process.stdin, process.stdout, process.stderr):
            if file is not None:
                file.close()
        with contextlib.suppress(PermissionError):  # it runs as another user: we cannot kill it, so do not wait
            process.kill()
            process.wait()

    def _start(self, args: Any, shell: bool, stdin: Any, stdout: Any, stderr: Any, bufsize: int, **kwargs: Any) -> None:
        self._end_waiters = set()
        if self._loop.is_closed():
            raise RuntimeError("Event loop is closed")  # as the task that connects the pipes would say
        self._loop._flush_deferred()
        self._proc = start_child(args, (stdin, stdout, stderr), shell=shell, bufsize=bufsize, **kwargs)

    async def _connect_pipes(self, waiter: asyncio.Future[None] | None) -> None:
        await super()._connect_pipes(waiter)
        if self._pending_calls is None:
            return
        # Connecting failed, and waiter has the error. Close every pipe, connected or not.
        for connected in self._pipes.values():
            if connected is not None:
                connected.pipe.close()
        self._close_unconnected()

    def _close_unconnected(self) -> None:
        """Close the pipes that have no transport. Popen does not; subprocess keeps it until the child is reaped."""
        if self._proc is None:
            return
        for fd, file in enumerate((self._proc.stdin, self._proc.stdout, self._proc.stderr)):
            if file is not None and self._pipes.get(fd) is None:
                file.close()

    def _process_exited(self, returncode: int) -> None:
        super()._process_exited(returncode)
        for waiter in self._end_waiters:
            if not waiter.done():
                waiter.set_result(returncode)
        self._end_waiters.clear()

    async def _wait(self) -> int:
        """Return the return code as soon as the child has ended, even if its own children hold the pipes open
        (cpython#119710)."""
        if self._returncode is not None:
            return self._returncode
        waiter = self._loop.create_future()
        self._end_waiters.add(waiter)
        try:
            returncode: int = await waiter
            return returncode
        finally:
            self._end_waiters.discard(waiter)

    def close(self) -> None:
        """Close the pipes and kill the child if it runs."""
        pipes = self._pipes
        if self._loop is not None:
            if self._loop.is_closed():
                self._pipes = {}  # it has closed them, and takes no calls any more (cpython#114177)
            self._loop._flush_deferred()
        try:
            super().close()
        except PermissionError:
            pass  # the child runs as another user by now (cpython#112800)
        finally:
            self._pipes = pipes

    def send_signal(self, signal: int) -> None:
        """Send a signal; does nothing if the child has ended. ProcessLookupError once its connection is lost."""
        self._check_proc()
        if self._returncode is not None or self._proc.returncode is not None:
            return  # reaped: the number may be another process's
        self._loop._flush_deferred()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._proc.pid, signal)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal_module.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal_module.SIGKILL)

    def ref(self) -> Self:
        """Have loop.run() wait for the child and its pipes again, as it does by default. Returns self."""
        self._set_referenced(True)
        return self

    def unref(self) -> Self:
        """Let loop.run() return although the child runs and its pipes are open. Returns self. (Node: subprocess.unref,
        which leaves the pipes out)

        A single pipe has these methods too: get_pipe_transport(1).unref().
        """
        self._set_referenced(False)
        return self

    def has_ref(self) -> bool:
        """Whether loop.run() waits for the end of the child."""
        return self._is_referenced

    def _set_referenced(self, is_referenced: bool) -> None:
        self._is_referenced = is_referenced
        watch = self._exit_watch()
        if watch is not None:
            watch.set_referenced(is_referenced)
        for pipe in (connected.pipe for connected in self._pipes.values() if connected is not None):
            pipe.ref() if is_referenced else pipe.unref()


def start_child(args: Any, streams: tuple[Any, Any, Any], *, pipesize: int = -1, **options: Any) -> Any:
    """subprocess.Popen of args, with pipes of our own making: up to Python 3.11.4 Popen forgets those that it has made,
    and /dev/null, when a later argument is wrong or no descriptor is left.
    """
    given, kept = list(streams), [None, None, None]
    with contextlib.ExitStack() as childs, contextlib.ExitStack() as ours:
        for number, stream in enumerate(streams):
            if not isinstance(stream, int):
                continue
            if stream == subprocess.DEVNULL:
                given[number] = os.open(os.devnull, os.O_RDWR)
                childs.callback(os.close, given[number])
            elif stream == subprocess.PIPE:
                given[number], kept[number] = make_pipe(number, pipesize, childs, ours)
        stdin, stdout, stderr = given
        process = subprocess.Popen(args, stdin=stdin, stdout=stdout, stderr=stderr, **options)
        process.stdin, process.stdout, process.stderr = kept
        ours.pop_all()
    return process


def make_pipe(number: int, size: int, childs: contextlib.ExitStack, ours: contextlib.ExitStack) -> tuple[int, Any]:
    """The child's end of a pipe for its stream of this number, and our end, unbuffered; the two stacks close them."""
    reading, writing = os.pipe()
    child, our, mode = (reading, writing, "wb") if number == 0 else (writing, reading, "rb")
    childs.callback(os.close, child)
    try:
        file = ours.enter_context(open(our, mode, 0))  # noqa: SIM115
    except BaseException:
        os.close(our)
        raise
    if size > 0 and hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, size)
    return child, file


def watch_exit(loop: BaseLoop, transport: ChildTransport) -> None:
    """Have transport._process_exited(code) called when the child has ended."""
    watch: PidWatch | ThreadWatch = PidWatch(loop, transport)
    try:
        watch.start()
    except (AttributeError, OSError):
        # Not Linux; an old kernel, a sandbox, no descriptor left, or no room to watch one.
        watch = ThreadWatch(loop, transport)
        watch.start()
    transport._exit_watch = weakref.ref(watch)


class PidWatch:
    """The owner of a pidfd. The loop keeps it until the child has ended, or until the loop itself goes."""

    _fd = -1

    def __init__(self, loop: BaseLoop, transport: ChildTransport) -> None:
        self._loop = loop
        self._transport = transport

    def start(self) -> None:
        self._fd = os.pidfd_open(self._transport._proc.pid)
        BaseLoop.add_reader(self._loop, self._fd, self._ended)

    def set_referenced(self, is_referenced: bool) -> None:
        """Whether loop.run() waits for the end."""
        if self._fd >= 0 and not self._loop.is_closed():
            self._loop._reference_reader(self._fd, is_referenced)

    def _ended(self) -> None:
        BaseLoop.remove_reader(self._loop, self._fd)
        self._close()
        self._transport._process_exited(reap(self._transport._proc))

    def _close(self, _close_fd: Callable[[int], None] = os.close) -> None:  # kept: a finalizer may find `os` emptied
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _close_fd(fd)

    def __del__(self) -> None:
        self._close()


class ThreadWatch:
    """A thread that waits for one child. Where the system can wait for an end without reaping, the loop reaps the
    child, as with a pidfd."""

    def __init__(self, loop: BaseLoop, transport: ChildTransport) -> None:
        self._loop = loop
        self._transport = transport
        self._is_counted = False

    def start(self) -> None:
        name = f"hoop-wait-{self._transport._proc.pid}"
        threading.Thread(target=self._wait, name=name, daemon=True).start()
        self.set_referenced(True)  # not before: starting the thread may fail

    def set_referenced(self, is_referenced: bool) -> None:
        """Whether loop.run() waits for the end. In the loop's thread."""
        if is_referenced != self._is_counted and self._transport._returncode is None:
            self._is_counted = is_referenced
            if is_referenced:
                self._loop._ref()
            else:
                self._loop._unref()

    def _wait(self) -> None:
        process = self._transport._proc
        if not wait_without_reaping(process.pid):
            process.wait()  # safe beside a Popen.poll() in another thread: Popen keeps the status that either takes
        try:
            self._loop.call_soon_threadsafe(self._ended)
        except RuntimeError:
            process.wait()
            logger.warning("Loop %r that handles pid %r is closed", self._loop, self._transport.get_pid())

    def _ended(self) -> None:
        self.set_referenced(False)
        self._transport._process_exited(reap(self._transport._proc))


def reap(process: subprocess.Popen[bytes]) -> int:
    """Reap a child that has ended, and return its exit status."""
    if process.returncode is not None:  # Popen.poll() has reaped it
        return process.returncode
    try:
        _, status = os.waitpid(process.pid, 0)
    except ChildProcessError:
        logger.warning("child process pid %d exit status already read: will report returncode 255", process.pid)
        return STATUS_UNKNOWN
    return os.waitstatus_to_exitcode(status)


def wait_without_reaping(pid: int) -> bool:
    """Block until the child has ended; it stays a zombie. False where the system cannot do that."""
    if not hasattr(os, "waitid") or sys.platform == "darwin":  # macOS reports stopped children as well
        return False
    with contextlib.suppress(ChildProcessError):  # another part of the program has reaped it: reap() copes
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return True


# ---- asyncio's child watchers: deprecated in Python 3.12, gone in 3.14 -------------------------------------------


def chosen_watcher() -> Any:
    """Return the watcher that the program gave asyncio.set_child_watcher(); None if it gave none or a default one.

    asyncio's own defaults wait for one child each, as hoop does. A FastChildWatcher reaps every child of the process:
    beside it, a wait for one child may find the exit status gone.
    """
    if sys.version_info >= (3, 14):
        return None
    watcher = getattr(asyncio.get_event_loop_policy(), "_watcher", None)
    return None if type(watcher) in (asyncio.ThreadedChildWatcher, asyncio.PidfdChildWatcher) else watcher


def tell_exit(pid: int, code: int, loop: BaseLoop, transport: ChildTransport) -> None:
    """Called by a watcher, perhaps in another thread."""
    loop.call_soon_threadsafe(transport._process_exited, code)
