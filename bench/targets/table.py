"""The table of targets: what hoop must reach in each figure, by the server's CPU time where a row says nothing else.

`compared(r)` is at most r times the best peer, `compared(r, NAME)` the same of one contender, `itself(v)` the figure's
own value. Of a rate these are what it must at least be. A row that is not here is shown in the results, and not judged.
"""

from __future__ import annotations

from bench import latency
from bench.loops import C_SERVER
from bench.micro import BENCHMARKS
from bench.serving.figures import ALONE, CLUSTERED
from bench.targets.figures import NODE
from bench.targets.rows import Requirement, Row, compared, itself, row
from bench.targets.sizes import CELLS, SizeCell

UVLOOP = "uvloop"

SERVERS = (
    row("protocol-1k-10", compared(1.05, C_SERVER), compared(1.0), compared(0.7, NODE)),
    row("protocol-1k-200", compared(1.0), compared(1.08, C_SERVER)),
    row("protocol-64k-50", compared(1.0), compared(1 / 1.1, UVLOOP)),
    row("protocol-1k-10-depth16", compared(1.0)),
    row("buffered-1k-10", compared(1.0)),
    row("streams-1k-100", compared(0.8, UVLOOP)),
    row("own-streams-1k-100", compared(1 / 1.4, UVLOOP), compared(1.0)),
    row("lines-10", compared(0.8, UVLOOP)),
    row("pieces-10", compared(0.8, UVLOOP)),
    row("own-lines-10", compared(1 / 1.4, UVLOOP), compared(1.0)),
    row("own-pieces-10", compared(1 / 1.4, UVLOOP), compared(1.0)),
    row("sock-1k-10", compared(0.5, UVLOOP), compared(1.0)),
    row("sock-1k-100", compared(0.5, UVLOOP), compared(1.0)),
    row("busy-1k-10", compared(1.5, UVLOOP), metric="rate"),
    row("sendfile-1m-10", compared(1.0)),
    row("tls-1k-100", compared(0.95)),
    row("tls-64k-50", compared(1.0)),
    row("tls-handshake", compared(1.0)),
    row("tls-handshake", compared(1.0, "asyncio"), metric="rate"),
    row("udp-512-window32", compared(1 / 1.5, UVLOOP), compared(1.0)),
    row("connect", compared(0.95)),
    row("connect", compared(0.95, C_SERVER), metric="rate"),
    row(
        "uvicorn",
        compared(1.0),
        compared(1.15, NODE, before=(3, 14)),
        compared(1.0, NODE, since=(3, 14)),
        compared(1 / 1.55, UVLOOP, before=(3, 14)),
    ),
    row("aiohttp", compared(1.0)),
    row("fastapi-10k", compared(1.0)),
)

MICRO_REQUIRED: dict[str, tuple[Requirement, ...]] = {  # of every other one: the best peer's figure
    "call_soon_batch": (compared(0.8),),
    "sleep_zero": (compared(0.8),),
    "executor_one": (compared(0.5, UVLOOP), compared(1.0)),
    "executor_hundred": (itself(4000), compared(1.0)),
    "getaddrinfo_localhost": (compared(0.8, UVLOOP), compared(1.0)),
    "getaddrinfo_literal": (itself(2000), compared(1.0)),
    "getaddrinfo_literal_any_type": (itself(2000), compared(1.0)),
    "udp_ping_pong": (compared(0.7, UVLOOP), compared(1.0)),
}
MICRO_NOT_JUDGED = ("aiodns_localhost",)  # another way to look up a name
MICRO = tuple(
    row(f"micro/{name}", *MICRO_REQUIRED.get(name, (compared(1.0),)), metric="ns")
    for name in BENCHMARKS
    if name not in MICRO_NOT_JUDGED
)

FILES = (
    row("files/read-4k", itself(12), compared(1.0), metric="us", ours="fs on hoop"),
    row("files/read-4k", compared(0.5, "executor on uvloop"), metric="us", ours="fs-pool on hoop"),
)

MEMORY = (
    row("memory/protocol_echo", itself(0.36), compared(1.0), metric="kib"),
    row("memory/own_streams_echo", itself(1.6), compared(1.0), metric="kib"),
    row("memory/tls_echo", itself(14), compared(1.0), metric="kib"),
    row("memory/sleeping_task", compared(1.0), metric="kib"),
)

SCALING = (
    row("growth/timers", itself(1.2), metric="ns growth"),
    row("growth/tasks", itself(1.2), metric="ns growth"),
    row("growth/connections", itself(1.2), metric="cpu_us growth"),
    row("growth/connections", itself(1.1), metric="user_us growth"),
)

CLUSTER = (
    *(row(name, compared(1 / 0.98, ALONE)) for name in CLUSTERED),
    row("proxy-header/v1", itself(1000), metric="ns"),
    *(row(f"proxy-header/{name}", itself(300), metric="ns") for name in ("v2", "v2-tlvs")),
)

IMPORTS = (
    row("import", itself(12), metric="cpu_ms"),
    row("import", itself(2), metric="mb"),
    row("import", itself(12), metric="cpu_ms", ours="hoop:new_event_loop", title="import, and the first loop"),
    row("import", itself(2), metric="mb", ours="hoop:new_event_loop", title="import, and the first loop"),
)


TLS_IN_FRESH = "tls-1k-50/fresh"  # uvloop's TLS allocates 256 KiB for each read, which shows in a fresh process


def _size_row(cell: SizeCell) -> Row:
    required: tuple[Requirement, ...] = (compared(1.0),)
    if cell.name == TLS_IN_FRESH:
        required += (compared(1 / 2.9, UVLOOP),)
    if cell.has_limit:
        required += (compared(1.1, C_SERVER),)
    return row(cell.name, *required)


LATENCY = tuple(row(name, compared(1.0), metric="p99_us") for name in latency.all_names())

SIZES = tuple(_size_row(cell) for cell in CELLS)

ROWS: tuple[Row, ...] = (*SERVERS, *SIZES, *LATENCY, *MICRO, *FILES, *MEMORY, *SCALING, *CLUSTER, *IMPORTS)
