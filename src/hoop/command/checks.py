"""What `hoop doctor` finds wrong: a table of checks, each a pure function of what was read and of what is to be served.

A check answers with a Finding, or with text if all is well. None: it does not concern this machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from hoop.command.machine import Machine, Plan

ERROR, WARNING, OK = "error", "warning", "ok"

OLDEST_PYTHON = (3, 11)
OLDEST_KERNEL = (4, 5)
OWN_DESCRIPTORS = 64  # of a worker, beside its connections: loop, files, the application's
DEFAULT_NOFILE = 1024
FEW_PORTS = 16_000
KNOWN_NAMESERVERS = 3  # MAXNS of <resolv.h>
SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "busybox"})
MOST_OF_MEMORY = 0.9


@dataclass(frozen=True)
class Finding:
    """says: what is wrong. so: what comes of it. mend: the command, or the line of a file, that mends it."""

    level: str
    says: str
    so: str
    mend: str
    detail: str | None = None


@dataclass(frozen=True)
class Result:
    """What one check has found."""

    check: str
    level: str
    says: str
    so: str | None = None
    mend: str | None = None
    detail: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


Check = Callable[[Machine, Plan], "Finding | str | None"]


def examine(machine: Machine, plan: Plan) -> list[Result]:
    """Every check that concerns this machine, in the order of the table."""
    results = []
    for name, check in CHECKS.items():
        found = check(machine, plan)
        if isinstance(found, str):
            results.append(Result(name, OK, found))
        elif found is not None:
            results.append(Result(name, found.level, found.says, found.so, found.mend, found.detail))
    return results


def workers_of(machine: Machine, plan: Plan) -> int:
    """As many as `hoop serve` would start."""
    if plan.workers is not None:
        return plan.workers
    text = machine.environment.get("WEB_CONCURRENCY", "")
    return int(text) if text.isdecimal() and int(text) else usable_cpus(machine)


def usable_cpus(machine: Machine) -> int:
    return machine.cpus if machine.quota is None else max(1, min(machine.cpus, math.ceil(machine.quota)))


# ---- the program ----------------------------------------------------------------------------------------------------


def check_python(machine: Machine, plan: Plan) -> Finding | str:
    version = ".".join(map(str, machine.python))
    if machine.implementation != "CPython":
        return Finding(ERROR, f"this is {machine.implementation}", "hoop needs CPython's C API", "use CPython 3.13")
    if machine.python[:2] < OLDEST_PYTHON:
        return Finding(ERROR, f"Python {version} is too old", "hoop is not tested on it", "use Python 3.11 or newer")
    return f"Python {version}" + (", free-threaded" if machine.is_free_threaded else "")


def check_gil(machine: Machine, plan: Plan) -> Finding | str | None:
    if not machine.is_free_threaded:
        return None
    if not machine.has_gil:
        return "no GIL"
    by = f" by {', '.join(machine.gil_modules)}" if machine.gil_modules else ""
    return Finding(
        WARNING,
        f"the GIL was switched on{by}",
        "threads take turns, as in any other build, and each is slower than there",
        "use a version of that module for free-threaded Python, or, if you know it to be safe: PYTHON_GIL=0",
    )


def check_loop(machine: Machine, plan: Plan) -> Finding | str:
    if machine.poller is None:
        return Finding(
            ERROR,
            f"no loop can be made: {machine.loop_error}",
            "nothing runs on hoop here",
            "mend the HOOP_... variable that it names; ulimit -n 1024 if it is out of descriptors",
        )
    best = "epoll" if machine.system == "Linux" else "kqueue"
    if machine.poller != best:
        return Finding(
            WARNING,
            f"the loop waits by {machine.poller}",
            f"each wait costs time for every connection, which {best} does not",
            "unset HOOP_POLLER",
        )
    return f"hoop {machine.hoop} on {machine.poller}"


def check_tls(machine: Machine, plan: Plan) -> Finding | str | None:
    if machine.poller is None:
        return None
    if machine.tls_engine == "direct":
        return f"direct: {machine.tls_reason}"
    return Finding(
        WARNING,
        f"TLS takes the way through ssl.MemoryBIO: {machine.tls_reason}",
        "it works, and costs more processor time for each record",
        "unset HOOP_TLS_ENGINE, or use a Python whose ssl module hoop knows (docs/tls.md)",
    )


def check_application(machine: Machine, plan: Plan) -> Finding | str | None:
    found = machine.application
    if found is None:
        return None
    if found.error is not None:
        return Finding(
            ERROR,
            found.error,
            "no worker starts: `hoop serve` ends with this, and a reload keeps the old workers",
            f'python -c "import {found.target.partition(":")[0]}" shows it alone',
            found.detail,
        )
    if not found.has_server:
        return Finding(
            ERROR,
            f"{found.target} is to be served by {found.server}, which is not installed",
            "no worker starts",
            f"python -m pip install {found.server}",
        )
    return f"{found.target} is imported" + (f", for {found.server}" if found.server else "")


# ---- the kernel -----------------------------------------------------------------------------------------------------


def check_kernel(machine: Machine, plan: Plan) -> Finding | str | None:
    if machine.system != "Linux" or machine.kernel is None:
        return None
    version = ".".join(map(str, machine.kernel))
    if machine.kernel < OLDEST_KERNEL:
        return Finding(
            WARNING, f"Linux {version} is older than 4.5", "some of what follows it does not have", "use a newer kernel"
        )
    return f"Linux {version}"


def check_exclusive(machine: Machine, plan: Plan) -> Finding | str | None:
    if machine.has_exclusive is None:
        return None
    if not machine.has_exclusive:
        return Finding(
            WARNING,
            "EPOLLEXCLUSIVE is refused",
            "each new connection wakes every idle worker, and one of them gets it",
            "use Linux 4.5 or newer, outside of emulations such as gVisor; or: hoop serve --balance reuseport",
        )
    return "one connection wakes one worker (EPOLLEXCLUSIVE)"


def check_pidfd(machine: Machine, plan: Plan) -> Finding | str | None:
    if machine.has_pidfd is None:
        return None
    if not machine.has_pidfd:
        return Finding(
            WARNING,
            "pidfd_open(2) is refused",
            "ends of processes are heard by SIGCHLD, which a program can take away from hoop",
            "use Linux 5.3 or newer; in a container allow the call (docker run --security-opt seccomp=unconfined, or "
            "a newer Docker)",
        )
    return "processes are watched by descriptors (pidfd)"


def check_io_uring(machine: Machine, plan: Plan) -> Finding | str | None:
    """Nothing to warn of: many refuse it on purpose, and it is worth a few per cent."""
    if machine.io_uring is None:
        return None
    if machine.environment.get("HOOP_IO_URING") == "0":
        return "answers to many connections leave one by one (HOOP_IO_URING=0)"
    if machine.io_uring:
        return f"answers to many connections leave one by one (io_uring: {machine.io_uring})"
    return "answers to many connections leave by one system call (io_uring)"


def check_openat2(machine: Machine, plan: Plan) -> Finding | str | None:
    if machine.openat2 is None:
        return None
    if machine.openat2:
        return Finding(
            WARNING,
            f"openat2(2): {machine.openat2}",
            "hoop.fs reads small files by a thread even if the page cache holds them",
            "use Linux 5.12 or newer; in a container allow the call (docs/files.md)",
        )
    return "small cached files need no thread (openat2)"


def check_migration(machine: Machine, plan: Plan) -> Finding | str | None:
    if plan.balance != "reuseport" or machine.migrates_requests is None:
        return None
    if not machine.migrates_requests:
        return Finding(
            WARNING,
            "tcp_migrate_req is 0, and each worker is to have a socket of its own",
            "connections that wait in the queue of a worker that goes are reset",
            "sysctl -w net.ipv4.tcp_migrate_req=1, or: hoop serve --balance shared",
        )
    return "waiting connections go on to another worker (tcp_migrate_req)"


# ---- limits ---------------------------------------------------------------------------------------------------------


def check_backlog(machine: Machine, plan: Plan) -> Finding | str | None:
    if machine.somaxconn is None:
        return None
    if plan.backlog > machine.somaxconn:
        return Finding(
            WARNING,
            f"the kernel cuts the backlog of {plan.backlog} to {machine.somaxconn} (somaxconn)",
            "when so many connections wait, further ones are dropped, and their clients try again a second later",
            f"sysctl -w net.core.somaxconn={plan.backlog}",
        )
    return f"{plan.backlog} connections may wait (somaxconn {machine.somaxconn})"


def check_descriptors(machine: Machine, plan: Plan) -> Finding | str:
    soft = machine.nofile_soft
    if soft is None:
        return "no limit of open files"
    if plan.max_connections is None:
        if soft > DEFAULT_NOFILE:
            return f"{soft} open files for each worker"
        return Finding(
            WARNING,
            f"a process may have {soft} open files, and no limit of connections keeps a worker below that",
            f"with some {max(soft - OWN_DESCRIPTORS, 0)} connections a worker accepts no more, and opens no file",
            mend_nofile(machine, 65_536, "or: hoop serve --limit-max-connections N"),
        )
    needed = plan.max_connections + OWN_DESCRIPTORS
    if soft < needed:
        return Finding(
            ERROR,
            f"{plan.max_connections} connections need some {needed} open files, and a process may have {soft}",
            "the limit of connections is never reached: accept(2) fails before, and so does every open(2)",
            mend_nofile(machine, needed, f"or: hoop serve --limit-max-connections {max(soft - OWN_DESCRIPTORS, 1)}"),
        )
    return f"{plan.max_connections} connections fit into {soft} open files"


def mend_nofile(machine: Machine, needed: int, otherwise: str) -> str:
    hard = machine.nofile_hard
    if hard is None or hard >= needed:
        return f"ulimit -n {needed} (systemd: LimitNOFILE={needed}); {otherwise}"
    elsewhere = f"systemd: LimitNOFILE={needed}; docker run --ulimit nofile={needed}"
    return f"as root: ulimit -Hn {needed} ({elsewhere}); {otherwise}"


def check_ports(machine: Machine, plan: Plan) -> Finding | str | None:
    if machine.ports is None:
        return None
    first, last = machine.ports
    count = last - first + 1
    if count < FEW_PORTS:
        return Finding(
            WARNING,
            f"connections that this machine makes have {count} ports ({first} to {last})",
            "so many to one address and port, counting those of the last minute, and connect() fails: EADDRNOTAVAIL",
            'sysctl -w net.ipv4.ip_local_port_range="15000 60999"',
        )
    return f"{count} ports for connections to each peer"


def check_workers(machine: Machine, plan: Plan) -> Finding | str:
    workers, cpus = workers_of(machine, plan), usable_cpus(machine)
    of = "" if machine.quota is None else f" (a quota of {machine.quota:g} on {machine.cpus})"
    if workers > 2 * cpus:
        return Finding(
            WARNING,
            f"{workers} workers for {cpus} CPU{'s' * (cpus != 1)}{of}",
            "they take turns: each of them is late, and a quota stops all of them for the rest of its period",
            f"hoop serve --workers {cpus}, or --workers auto",
        )
    return f"{workers} worker{'s' * (workers != 1)} for {cpus} CPU{'s' * (cpus != 1)}{of}"


def check_memory(machine: Machine, plan: Plan) -> Finding | str | None:
    found = machine.application
    if machine.memory is None or found is None or found.rss is None:
        return None
    workers = workers_of(machine, plan)
    needed = workers * found.rss
    text = f"{workers} times {found.rss / 2**20:.0f} MiB"
    if needed > MOST_OF_MEMORY * machine.memory:
        fitting = max(int(MOST_OF_MEMORY * machine.memory / found.rss), 1)
        return Finding(
            WARNING,  # no more: some of these pages are shared
            f"{text}, before the first client, of {machine.memory / 2**20:.0f} MiB",
            "unless they share much of it, the kernel kills a worker, or the whole container, when memory ends",
            f"hoop serve --workers {fitting}, or --preload, by which workers share what is imported",
        )
    return f"{text} of {machine.memory / 2**20:.0f} MiB"


# ---- the surroundings -----------------------------------------------------------------------------------------------


def check_first_process(machine: Machine, plan: Plan) -> Finding | str | None:
    if not machine.is_container or machine.first_process is None:
        return None
    if machine.first_process in SHELLS:
        return Finding(
            WARNING,
            f"process 1 of this container is a shell ({machine.first_process})",
            "it passes SIGTERM on to nobody: after 10 s (docker stop) or 30 s (Kubernetes) all is killed, undrained",
            'begin the command with exec, or write it as a list: CMD ["hoop", "serve", "app:app"]',
        )
    return f"process 1 is {machine.first_process}"


def check_systemd(machine: Machine, plan: Plan) -> Finding | str | None:
    environment = machine.environment
    if "INVOCATION_ID" not in environment and "NOTIFY_SOCKET" not in environment:
        return None
    if "NOTIFY_SOCKET" not in environment:
        return Finding(
            WARNING,
            "systemd has started this, and is not told when it is ready",
            "units that need it start too early, and a reload or a start that fails looks like success",
            "in the unit: Type=notify, and NotifyAccess=main",
        )
    if machine.notify_error is not None:
        return Finding(
            ERROR,
            f"NOTIFY_SOCKET cannot be reached: {machine.notify_error}",
            "systemd waits for READY=1 until TimeoutStartSec, and then kills the service",
            "let the service see that path (BindPaths= where it has a root of its own), or: Type=simple",
        )
    watchdog = environment.get("WATCHDOG_USEC", "")
    return "systemd is told" + (
        f", and feeds its watchdog of {int(watchdog) / 1e6:g} s" if watchdog.isdecimal() else ""
    )


def check_resolver(machine: Machine, plan: Plan) -> Finding | str:
    if not machine.localhost:
        return Finding(
            WARNING,
            "localhost has no address",
            "what connects to localhost, or listens on it, fails",
            "echo '127.0.0.1 localhost' >> /etc/hosts",
        )
    if machine.nameservers == 0:
        return Finding(
            WARNING,
            "/etc/resolv.conf names no name server",
            "the resolver asks one on this machine; if there is none, each look-up of a name fails",
            "echo 'nameserver 192.0.2.1' >> /etc/resolv.conf, with the address of yours",
        )
    if machine.nameservers is not None and machine.nameservers > KNOWN_NAMESERVERS:
        return Finding(
            WARNING,
            f"/etc/resolv.conf names {machine.nameservers} name servers",
            "the system's resolver asks the first three and ignores the rest",
            "leave three in /etc/resolv.conf",
        )
    servers = "" if machine.nameservers is None else f", {machine.nameservers} name server(s)"
    return f"localhost is {', '.join(machine.localhost)}{servers}"


CHECKS: dict[str, Check] = {
    "python": check_python,
    "gil": check_gil,
    "loop": check_loop,
    "tls": check_tls,
    "application": check_application,
    "kernel": check_kernel,
    "accept": check_exclusive,
    "pidfd": check_pidfd,
    "io_uring": check_io_uring,
    "openat2": check_openat2,
    "migration": check_migration,
    "backlog": check_backlog,
    "descriptors": check_descriptors,
    "ports": check_ports,
    "workers": check_workers,
    "memory": check_memory,
    "process 1": check_first_process,
    "systemd": check_systemd,
    "resolver": check_resolver,
}
