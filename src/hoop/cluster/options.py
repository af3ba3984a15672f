"""hoop.cluster.Options: all that a cluster is told, checked before a process is made."""

from __future__ import annotations

import dataclasses
import math
import os
import ssl as ssl_module
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from hoop.cluster.binds import Bind, TcpBind, parse_bind
from hoop.cluster.roles import Role, check_roles, check_target
from hoop.core.checks import check_count, check_seconds
from hoop.core.processors import usable_processors
from hoop.drain import Drain
from hoop.limits import Limits
from hoop.proxy_protocol import ProxyProtocol

CHOICES: dict[str, tuple[str, ...]] = {
    "kind": ("processes", "threads"),
    "server": ("auto", "uvicorn", "hypercorn", "aiohttp", "protocol", "main"),
    "balance": ("shared", "reuseport", "port_per_worker"),
    "log_format": ("auto", "text", "json"),
}

OF_PROCESSES = (
    *("preload", "reload_on_change", "blocked_timeout", "abort_after", "kill_after", "max_requests", "max_accepts"),
    *("max_rss", "max_lifetime", "jitter", "parallel", "control", "roles"),
)  # what only processes can do: be killed, replaced, made of a process

DEFAULT_BIND = "127.0.0.1:8000"
MOST_WORKERS = 1024
CGROUP = Path("/sys/fs/cgroup")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of a cluster. ValueError or TypeError, which name the setting, for what makes no sense.

    target: what each worker runs: an import string ("package.module:attribute") or the object itself. An import string
        is imported in the workers only, so that a reload finds new code.
    kind: "processes", or "threads" of one process, for a Python without a GIL: see docs/threads.md. What only processes
        can do is refused then: preload, reload_on_change, blocked_timeout, abort_after, kill_after, max_requests,
        max_accepts, max_rss, max_lifetime, jitter, parallel, control, roles.
    state: worker.state of all workers, which are threads; None: a new types.SimpleNamespace.
    factory: the target is a function without parameters that returns the application.
    server: who serves it; "auto" tells by the kind of the application.
    workers: how many; "auto" is WEB_CONCURRENCY, else what the container lets this process use (workers_auto()).
    bind: addresses to listen on (see hoop.cluster.binds): none for the sockets of the service manager if it has given
        any, else 127.0.0.1:8000.
    backlog: length of the kernel's queue of each listening socket.
    balance: "shared": all workers accept from one socket; "reuseport": the kernel spreads connections over a socket for
        each worker; "port_per_worker": worker 0 has the port of each bind, worker 1 the next one, and so on.
    preload: import the target once for each generation, in a process from which the workers are forked.
    reload_on_change: reload when a file changes that a worker has imported: for development.
    drain: how a worker ends. shutdown_timeout: seconds for what the application does after that.
    start_timeout: seconds until a new worker must be ready.
    blocked_timeout: seconds that one callback may hold a worker's loop until the worker is replaced; None: no limit.
    abort_after, kill_after: seconds from there to SIGABRT, and from SIGABRT to SIGKILL.
    max_requests, max_accepts, max_rss, max_lifetime: when a worker is replaced by a fresh one: requests answered,
        connections accepted, bytes of resident memory, seconds. jitter: the share by which each worker's limit differs
        at random.
    parallel: how many workers may be reloaded or recycled at a time.
    limits, proxy_protocol: loop.server_defaults of the workers.
    ssl, or certfile and keyfile (keyfile_password): TLS, with one context that all workers share. A reload reads the
        files again.
    control: path of the control socket; None: one in the runtime directory; False: none.
    health_bind: where the master answers /livez and /readyz; min_ready: workers that must be ready for the latter
        (default: one).
    metrics_bind: where the master answers /metrics, for Prometheus; may be the same address.
    roles: names and what hoop.cluster.Role has for them: processes beside the workers, that serve nothing.
    access_log: whether each request makes a line of log, where the server can do that.
    log_format: "text", "json", or "auto": text on a terminal and elsewhere too.
    app_dir: where imports look first; None: the current directory. env: environment variables of the workers.
    """

    target: str | Callable[..., Any]
    kind: Literal["processes", "threads"] = "processes"
    state: Any = dataclasses.field(default=None, repr=False)
    factory: bool = False
    server: Literal["auto", "uvicorn", "hypercorn", "aiohttp", "protocol", "main"] = "auto"
    workers: int | Literal["auto"] = "auto"
    bind: tuple[str, ...] = ()
    backlog: int = 2048
    balance: Literal["shared", "reuseport", "port_per_worker"] = "shared"
    preload: bool = False
    reload_on_change: bool = False
    drain: Drain = dataclasses.field(default_factory=Drain)
    shutdown_timeout: float = 5.0
    start_timeout: float = 60.0
    blocked_timeout: float | None = 30.0
    abort_after: float = 1.0
    kill_after: float = 2.0
    max_requests: int | None = None
    max_accepts: int | None = None
    max_rss: int | None = None
    max_lifetime: float | None = None
    jitter: float = 0.1
    parallel: int = 1
    limits: Limits | None = None
    proxy_protocol: ProxyProtocol | None = None
    ssl: ssl_module.SSLContext | None = None
    certfile: str | None = None
    keyfile: str | None = None
    keyfile_password: str | None = dataclasses.field(default=None, repr=False)
    control: str | Literal[False] | None = None
    health_bind: str | None = None
    min_ready: int | None = None
    metrics_bind: str | None = None
    roles: Mapping[str, Role] | None = None
    access_log: bool = False
    log_format: Literal["auto", "text", "json"] = "auto"
    app_dir: str | None = None
    env: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.bind, str):
            object.__setattr__(self, "bind", (self.bind,))
        object.__setattr__(self, "bind", tuple(self.bind))
        check_target("target", "a callable", self.target)
        self._check_numbers()
        self._check_choices()
        self._check_kind()
        self._check_addresses()
        self._check_tls()
        check_roles(self.roles)

    # ---- what follows from the settings -----------------------------------------------------------------------------

    def worker_count(self) -> int:
        """How many workers to start. ValueError for a WEB_CONCURRENCY that is no number."""
        if self.workers != "auto":
            return self.workers
        text = os.environ.get("WEB_CONCURRENCY", "")
        if not text:
            return workers_auto()
        if not text.isdecimal() or not 0 < int(text) <= MOST_WORKERS:
            raise ValueError(f"WEB_CONCURRENCY={text!r} is no number from 1 to {MOST_WORKERS}")
        return int(text)

    def binds(self) -> list[Bind]:
        """The addresses, read."""
        return [parse_bind(text) for text in self.bind or (DEFAULT_BIND,)]

    def ssl_context(self) -> ssl_module.SSLContext | None:
        """The context for a generation of workers, made before they are forked: a session that one worker has begun
        resumes on another. OSError (ssl.SSLError is one) for files that do not load, with their names."""
        if self.certfile is None:
            return self.ssl
        context = ssl_module.create_default_context(ssl_module.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certfile, self.keyfile, self.keyfile_password)
        except OSError as error:
            names = self.certfile if self.keyfile is None else f"{self.certfile}, {self.keyfile}"
            reason = error.strerror or str(error)
            raise OSError(error.errno, f"cannot load the certificate ({names}): {reason}") from error
        return context

    def end_timeout(self) -> float | None:
        """Seconds from the wish that a worker drains to its SIGKILL; None: never."""
        if self.drain.timeout is None:
            return None
        return self.drain.delay + self.drain.timeout + ABORT_S + self.shutdown_timeout

    # ---- checks -----------------------------------------------------------------------------------------------------

    def _check_numbers(self) -> None:
        if self.workers != "auto":
            check_bounded("workers", self.workers, MOST_WORKERS)
        for name in ("backlog", "parallel"):
            check_bounded(name, getattr(self, name), 0x7FFFFFFF)
        for name in ("max_requests", "max_accepts", "min_ready"):
            check_count(name, getattr(self, name))
        if self.min_ready is not None and self.workers != "auto" and self.min_ready > self.workers:
            raise ValueError(f"min_ready {self.min_ready} is more than the {self.workers} workers")
        if self.max_rss is not None and (type(self.max_rss) is not int or self.max_rss <= 0):
            raise ValueError(f"max_rss must be a number of bytes, not {self.max_rss!r}")
        for name in ("start_timeout", "abort_after", "kill_after", "shutdown_timeout"):
            if getattr(self, name) is None:
                raise TypeError(f"{name} must be a number of seconds, not None")
            check_seconds(name, getattr(self, name))
        for name in ("blocked_timeout", "max_lifetime"):
            check_seconds(name, getattr(self, name))
        if not isinstance(self.jitter, (int, float)) or not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be a share from 0 to below 1, not {self.jitter!r}")

    def _check_choices(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name, kind in (("drain", Drain), ("limits", Limits), ("proxy_protocol", ProxyProtocol)):
            value = getattr(self, name)
            if not isinstance(value, kind) and (value is not None or name == "drain"):
                raise TypeError(f"{name} must be a hoop.{kind.__name__}, not {value!r}")
        if self.control is not None and self.control is not False and not isinstance(self.control, str):
            raise TypeError(f"control must be a path, None or False, not {self.control!r}")

    def _check_kind(self) -> None:
        if self.kind == "processes":
            if self.state is not None:
                raise ValueError('state is shared by threads, kind="threads": processes share no objects')
            return
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in OF_PROCESSES:
            value = getattr(self, name)
            if value != defaults[name] and value not in (None, False):
                raise ValueError(f'{name} is for processes: kind="threads" cannot have {name}={value!r}')

    def _check_addresses(self) -> None:
        binds = self.binds()
        if len(set(map(str, binds))) < len(binds):
            raise ValueError(f"bind names an address twice: {', '.join(map(str, binds))}")
        for bind in binds:
            if self.balance != "shared" and not isinstance(bind, TcpBind):
                raise ValueError(f"balance {self.balance!r} is for TCP, and {bind} is not")
            if self.balance == "port_per_worker" and isinstance(bind, TcpBind) and self.workers != "auto":
                bind.of_slot(self.workers - 1)
        for text in (self.health_bind, self.metrics_bind):
            if text is not None:
                parse_bind(text)

    def _check_tls(self) -> None:
        if self.ssl is not None and not isinstance(self.ssl, ssl_module.SSLContext):
            raise TypeError(f"ssl must be an ssl.SSLContext, not {self.ssl!r}")
        if self.ssl is not None and self.certfile is not None:
            raise ValueError("ssl and certfile cannot both be given")
        if self.certfile is None and (self.keyfile is not None or self.keyfile_password is not None):
            raise ValueError("keyfile needs certfile")


ABORT_S = 2.0  # what a drain takes to abort what its timeout has closed


def check_bounded(name: str, value: object, most: int) -> None:
    """TypeError or ValueError unless value is a whole number from 1 to most."""
    if value is None:
        raise TypeError(f"{name} must be a whole number, not None")
    check_count(name, value)
    if isinstance(value, int) and value > most:
        raise ValueError(f"{name} must be at most {most}, not {value!r}")


def workers_auto() -> int:
    """The CPUs that this process may really use: its affinity, and the quota of its cgroups, rounded up."""
    cpus = usable_processors()
    quota = cpu_quota() if sys.platform == "linux" else None
    return min(cpus if quota is None else max(1, min(cpus, math.ceil(quota))), MOST_WORKERS)


def cpu_quota(root: Path = CGROUP, own: Path = Path("/proc/self/cgroup")) -> float | None:
    """CPUs by the quota of this process's cgroup and those above it, version 1 or 2; None: unlimited."""
    quotas = [quota for folder in cgroup_folders(root, own) if (quota := quota_in(folder)) is not None]
    return min(quotas, default=None)


def cgroup_folders(root: Path, own: Path) -> list[Path]:
    """Where quotas may stand: in a container the root is the container's own cgroup, whatever /proc calls it."""
    folders = [root, root / "cpu"]
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers in ("", "cpu", "cpu,cpuacct", "cpuacct,cpu"):
            base = root / "cpu" if controllers else root
            path = base / name.lstrip("/")
            while path != base and base in path.parents:
                folders.append(path)
                path = path.parent
    return folders


def quota_in(folder: Path) -> float | None:
    """What cpu.max (version 2) or cpu.cfs_quota_us (version 1) of one cgroup allows."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None  # "max", or -1
    return int(quota) / int(period)
