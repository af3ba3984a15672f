"""What `hoop doctor` knows of the machine and of the program: plain values, read once. What cannot be read is None."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import re
import select
import socket
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import hoop
from hoop.adapters.target import TargetError, find, server_for
from hoop.cluster.options import cpu_quota
from hoop.cluster.stacks import rss_of
from hoop.core.processors import has_gil, usable_processors

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
SYS_OPENAT2 = 437
SYS_IO_URING_SETUP = 425
IO_URING_FLAGS = 1 << 7 | 1 << 16  # SUBMIT_ALL and NO_SQARRAY, which is of Linux 6.6
RESOLVE_CACHED = 0x20  # Linux 5.12
EPOLLEXCLUSIVE = 1 << 28
UNLIMITED = 1 << 60  # bytes: cgroups of version 1 say so by a number near 2**63
GIL_WARNING = re.compile(r"to load module '([^']+)'")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be served, as it would be told to `hoop serve`."""

    target: str | None = None
    factory: bool = False
    workers: int | None = None  # None: a worker for each CPU
    backlog: int = 2048
    max_connections: int | None = None  # of each worker
    balance: str = "shared"


@dataclass(frozen=True, kw_only=True)
class Application:
    """What came of importing it."""

    target: str
    error: str | None = None
    detail: str | None = None  # the traceback
    server: str | None = None  # that would serve it
    has_server: bool = True  # that one is installed
    rss: int | None = None  # bytes of this process with it


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One field for each thing that a check asks about."""

    system: str = "Linux"
    kernel: tuple[int, int] | None = None
    python: tuple[int, int, int] = (3, 13, 0)
    implementation: str = "CPython"
    is_free_threaded: bool = False
    has_gil: bool = True
    gil_modules: tuple[str, ...] = ()  # extension modules that switched it on
    hoop: str = ""
    poller: str | None = None  # None: no loop could be made
    loop_error: str | None = None
    has_exclusive: bool | None = None
    has_pidfd: bool | None = None
    io_uring: str | None = None  # as openat2
    openat2: str | None = None  # how it was refused; "": it works; None: not asked
    somaxconn: int | None = None
    nofile_soft: int | None = None  # None: unlimited, or not known
    nofile_hard: int | None = None
    ports: tuple[int, int] | None = None
    migrates_requests: bool | None = None
    cpus: int = 1
    quota: float | None = None
    memory: int | None = None  # bytes: the limit of the cgroup, else what the machine has
    is_memory_limited: bool = False
    first_process: str | None = None
    is_container: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    notify_error: str | None = None
    localhost: tuple[str, ...] | None = None  # addresses; None: it has none
    nameservers: int | None = None
    tls_engine: str = "direct"
    tls_reason: str = ""
    application: Application | None = None

    def as_json(self) -> dict[str, Any]:
        """For programs; of the environment only what was asked about."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "application"}


VARIABLES = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "INVOCATION_ID"),  # of systemd
    *("WEB_CONCURRENCY", "HOOP_IO_URING"),
)


def read_machine(plan: Plan) -> Machine:
    """Look at everything, and import the target."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        application = None if plan.target is None else read_application(plan.target, factory=plan.factory)
    gil_modules = tuple(match[1] for one in told if (match := GIL_WARNING.search(str(one.message))))
    limits = read_limits()
    memory, is_limited = read_memory()
    migrates = read_number("sys/net/ipv4/tcp_migrate_req")
    engine, poller, loop_error = read_hoop()
    on_linux = sys.platform == "linux"
    return Machine(
        system=platform.system(),
        kernel=read_kernel(),
        python=sys.version_info[:3],
        implementation=platform.python_implementation(),
        is_free_threaded="free-threading" in sys.version,
        has_gil=has_gil(),
        gil_modules=gil_modules,
        hoop=hoop.__version__,
        poller=poller,
        loop_error=loop_error,
        has_exclusive=try_exclusive() if on_linux else None,
        has_pidfd=try_pidfd() if on_linux else None,
        io_uring=try_io_uring() if on_linux else None,
        openat2=try_openat2() if on_linux else None,
        somaxconn=read_number("sys/net/core/somaxconn"),
        nofile_soft=limits[0],
        nofile_hard=limits[1],
        ports=read_ports(),
        migrates_requests=None if migrates is None else migrates != 0,
        cpus=usable_processors(),
        quota=cpu_quota() if on_linux else None,
        memory=memory,
        is_memory_limited=is_limited,
        first_process=read_text("1/comm"),
        is_container=is_container(),
        environment={name: os.environ[name] for name in VARIABLES if name in os.environ},
        notify_error=try_notify(os.environ.get("NOTIFY_SOCKET", "")),
        localhost=read_localhost(),
        nameservers=read_nameservers(Path("/etc/resolv.conf")),
        tls_engine=engine[0],
        tls_reason=engine[1],
        application=application,
    )


# ---- the program ----------------------------------------------------------------------------------------------------


def read_application(target: str, *, factory: bool) -> Application:
    """Import it as a worker would. What it prints goes to standard error: the report is on standard output."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = find(target, os.getcwd())
            server = None if factory else server_for(found)  # to call the factory is for the workers
    except TargetError as error:
        return Application(target=target, error=str(error), detail=error.detail)
    has_server = server not in ("uvicorn", "hypercorn") or is_installed(server)
    return Application(target=target, server=server, has_server=has_server, rss=rss_of(os.getpid()))


def is_installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def read_hoop() -> tuple[tuple[str, str], str | None, str | None]:
    """The TLS engine and why; the poller, or why there is no loop."""
    try:
        engine = hoop.tls_engine()
        loop = hoop.Loop()
    except (OSError, ValueError, RuntimeError) as error:
        return ("", ""), None, str(error)
    name = loop.poller_name
    loop.close()
    return (engine.name, engine.reason), name, None


# ---- the system -----------------------------------------------------------------------------------------------------


def read_text(name: str) -> str | None:
    """A file of /proc, without the newline."""
    try:
        return (PROC / name).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def read_number(name: str) -> int | None:
    text = read_text(name)
    return int(text) if text is not None and text.isdecimal() else None


def read_kernel() -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return None if found is None else (int(found[1]), int(found[2]))


def read_limits() -> tuple[int | None, int | None]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return tuple(None if one == resource.RLIM_INFINITY else one for one in (soft, hard))  # type: ignore[return-value]


def read_ports() -> tuple[int, int] | None:
    numbers = (read_text("sys/net/ipv4/ip_local_port_range") or "").split()
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else None


def read_memory() -> tuple[int | None, bool]:
    """Bytes; and whether a cgroup limits them."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int((CGROUP / name).read_text())
            if limit < UNLIMITED:
                return limit, True
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), False
    return None, False


def is_container() -> bool:
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        return True
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST") or os.environ.get("container"))  # noqa: SIM112  systemd and podman set it


def try_exclusive() -> bool:
    """Whether one of many processes that wait for a socket is woken, and not all of them."""
    one, other = socket.socketpair()
    with one, other, select.epoll() as poller:
        try:
            poller.register(one, select.EPOLLIN | EPOLLEXCLUSIVE)
        except OSError:
            return False
    return True


def try_pidfd() -> bool:
    """In a sandbox the system may refuse what the kernel could."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError):
        return False
    return True


def try_io_uring() -> str:
    """By io_uring_setup(2) as a loop calls it: the error, or nothing."""
    parameters = (ctypes.c_uint32 * 30)(0, 0, IO_URING_FLAGS)  # struct io_uring_params
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(ctypes.c_long(SYS_IO_URING_SETUP), ctypes.c_long(1), ctypes.byref(parameters))
    if fd < 0:
        return os.strerror(ctypes.get_errno())
    os.close(fd)
    return ""


def try_openat2() -> str:
    """By openat2(AT_FDCWD, "/") as hoop.fs calls it: the error, or nothing."""
    how = (ctypes.c_uint64 * 3)(os.O_RDONLY | os.O_CLOEXEC, 0, RESOLVE_CACHED)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(ctypes.c_long(SYS_OPENAT2), ctypes.c_int(-100), b"/", ctypes.byref(how), ctypes.c_size_t(24))
    if fd < 0:
        error = ctypes.get_errno()
        return "" if error == errno.EAGAIN else os.strerror(error)  # EAGAIN: "/" is in no cache at the moment
    os.close(fd)
    return ""


def try_notify(address: str) -> str | None:
    """Whether the service manager's socket can be reached: it is only connected to."""
    if not address:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect("\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            return error.strerror or str(error)
    return None


def read_localhost() -> tuple[str, ...] | None:
    try:
        found = socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    except OSError:
        return None
    return tuple(dict.fromkeys(str(one[4][0]) for one in found))


def read_nameservers(path: Path) -> int | None:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return None
    return sum(line.split()[:1] == ["nameserver"] for line in lines)
