"""Memory for each idle connection: just opened, after one small echo, and after a transfer in bulk."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.build import TLS_FILE
from bench.loops import LOOPS
from bench.measure import Cores, usage_of
from bench.processes import START_LIMIT_S, Child, ChildFailed, running
from bench.progress import Display
from bench.report import NOT_MEASURED, render_table

WARM_UP = 64  # connections that come first: what a server allocates once is not counted
SMALL, BULK = 1024, 256 * 1024  # bytes echoed
SETTLE_S = 0.3
LIMIT_S = 120.0  # for one step of all connections
KIB = 1024

SERVERS = {
    "protocol_echo": "asyncio.Protocol",
    "streams_echo": "asyncio's streams, a task that reads",
    "own_streams_echo": "streams; hoop with its own compiled ones",
    "tls_echo": "asyncio.Protocol over TLS 1.3",
}
STAGES = {"opened": "opened", "echoed": f"after {SMALL // KIB} KiB", "bulk": f"after {BULK // KIB} KiB"}


@dataclass(frozen=True)
class Options:
    """How many connections to hold in all."""

    connections: int = 2000

    @property
    def first(self) -> int:
        """Those that come first."""
        return min(WARM_UP, self.connections // 2)


def measure(server: str, loop: str, options: Options, cores: Cores) -> dict[str, Any]:
    """Bytes for each connection at each stage; a "failure" if it could not be completed."""
    outcome: dict[str, Any] = {"server": server, "loop": loop, "version": LOOPS[loop].version(), "failure": None}
    command = [sys.executable, "-m", f"bench.servers.{server}", "--loop", loop]
    try:
        with running(command, cores.server) as child:
            port = int(child.read_json(START_LIMIT_S)["port"])
            outcome |= _stages(child, port, server == "tls_echo", options, cores)
    except (ChildFailed, OSError) as failure:  # OSError: the usage of a server that is gone
        outcome["failure"] = str(failure)
    return outcome


def _stages(server: Child, port: int, is_tls: bool, options: Options, cores: Cores) -> dict[str, Any]:
    added = options.connections - options.first
    found: dict[str, Any] = {"connections": options.connections}
    # The first stay open: else what a loop keeps of closed ones would hide as much of the growth.
    with running(_client(port, options.first, is_tls), cores.client) as first:
        _step(first, None)
        _step(first, SMALL)
        before = _resident(server)
        with running(_client(port, added, is_tls), cores.client) as client:
            for stage, size in (("opened", None), ("echoed", SMALL), ("bulk", BULK)):
                _step(client, size)
                found[stage] = (_resident(server) - before) / added
            client.write_line("quit")
        first.write_line("quit")
    return found


def _client(port: int, connections: int, is_tls: bool) -> list[str]:
    command = [sys.executable, "-m", "bench.idle_client", "--port", str(port), "--connections", str(connections)]
    return [*command, "--tls"] if is_tls else command


def _step(client: Child, size: int | None) -> None:
    if size is not None:
        client.write_line(f"echo {size}")
    client.read_json(LIMIT_S)


def _resident(server: Child) -> int:
    time.sleep(SETTLE_S)
    return usage_of(server.pid).rss_bytes


def measure_all(
    loops: Sequence[str], options: Options, cores: Cores, display: Display, servers: Sequence[str] = tuple(SERVERS)
) -> list[dict[str, Any]]:
    """Every one of the servers on every loop that has something to show there."""
    outcomes = []
    for server in servers:
        title = SERVERS[server]
        if server == "tls_echo" and not TLS_FILE.exists():
            continue
        for loop in loops:
            if LOOPS[loop].servers is None or server in LOOPS[loop].servers:
                text = f"memory of {options.connections:,} idle connections, {title}: {loop}"
                display.show([text], summary=text)
                outcomes.append(measure(server, loop, options, cores))
    return outcomes


def table(outcomes: Sequence[Mapping[str, Any]]) -> list[str]:
    """One table for each server."""
    lines = ["memory of an idle connection in KiB, without the kernel's buffers"]
    for server, title in SERVERS.items():
        rows = [_row(outcome) for outcome in outcomes if outcome["server"] == server]
        lines += [f"  {title}", *(f"    {line}" for line in render_table(["loop", *STAGES.values()], rows))]
        if not rows:
            lines.append(f"    {NOT_MEASURED}")
    return [*lines, ""]


def _row(outcome: Mapping[str, Any]) -> list[str]:
    if outcome["failure"]:
        return [outcome["loop"], f"failed: {outcome['failure']}"]
    return [outcome["loop"], *(f"{outcome[stage] / KIB:.2f}" for stage in STAGES)]
