"""What hoop tells systems that collect metrics: each figure once, for hoop.prometheus and hoop.otel.

A figure has a name in OpenTelemetry's style; what others call it follows from that (Figure.prometheus_name). Sources
turn what loops, pools and agents count into samples. They may be asked in any thread.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from hoop.core.board import Board, Lags, place_of
from hoop.jobs.pool import loop_pool_if_made
from hoop.stats import BoardReading

if TYPE_CHECKING:
    from hoop.agent.agent import Agent
    from hoop.workers.pool import WorkerPool

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("hoop.metrics")


class Figure(NamedTuple):
    """kind: "counter" never falls; "sum" may be added up over processes, "gauge" may not; "histogram" has buckets."""

    name: str
    kind: str
    unit: str  # UCUM, as OpenTelemetry writes it
    help: str
    labels: tuple[str, ...] = ()
    namespace: str = ""  # of the labels as attributes: the first two parts of the name, if nothing is said

    @property
    def prometheus_name(self) -> str:
        name = self.name
        if name.endswith(".count"):  # which Prometheus keeps for histograms
            name = f"{name.removesuffix('.count')}s"
        unit = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        return name.replace(".", "_") + unit + ("_total" if self.kind == "counter" else "")

    def attribute(self, label: str) -> str:
        """The label's name among OpenTelemetry's attributes."""
        return f"{self.namespace or '.'.join(self.name.split('.')[:2])}.{label.replace('_', '.')}"


class Buckets(NamedTuple):
    """A histogram, added up: how many were at most as long as each of BOUNDS, how many there were, their sum."""

    within: tuple[int, ...]
    total: int
    sum_s: float


class Sample(NamedTuple):
    figure: Figure
    labels: Mapping[str, str]
    value: float | Buckets


# Seconds. A lag that is up to 1/32 shorter than a bound may be counted as longer.
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# ---- a loop ---------------------------------------------------------------------------------------------------------

TIME = Figure("hoop.eventloop.time", "counter", "s", "Time that the loop was busy, and asleep.", ("state",))
DELAY = Figure(
    "hoop.eventloop.delay", "histogram", "s", "From one look for work to the next: what became ready waited so long."
)
HOLD = Figure("hoop.eventloop.hold", "gauge", "s", "How long the turn under way has held the loop; 0 while it sleeps.")
TURNS = Figure("hoop.eventloop.turns", "counter", "{turn}", "Turns of the loop.")
CALLBACKS = Figure("hoop.eventloop.callbacks", "counter", "{callback}", "Callbacks run, of every kind.")
EVENTS = Figure("hoop.eventloop.events", "counter", "{event}", "Descriptors found ready.")
SLEEPS = Figure("hoop.eventloop.sleeps", "counter", "{sleep}", "Looks for events that blocked.")
CONNECTIONS = Figure("hoop.server.connection.count", "sum", "{connection}", "Open connections of all servers.")
ACCEPTED = Figure("hoop.server.connection.accepted", "counter", "{connection}", "Connections that servers accepted.")
IN_FLIGHT = Figure(
    "hoop.pool.job.in_flight", "sum", "{job}", "Jobs in thread pools, up to the return of their results."
)

# For OpenTelemetry, whose API has no histogram that is observed: gauges of the time since the last collection.
UTILIZATION = Figure(
    "hoop.eventloop.utilization", "gauge", "1", "The busy share of the time since the last collection."
)
PERCENTILES: dict[str, float] = {"min": 0, "p50": 50, "p90": 90, "p99": 99, "max": 100}
DELAYS = {
    part: Figure(f"{DELAY.name}.{part}", "gauge", "s", f"{part} of the delays since the last collection.")
    for part in ("min", "max", "mean", "p50", "p90", "p99")
}

# ---- pools, agents --------------------------------------------------------------------------------------------------

THREADS = Figure("hoop.pool.thread.count", "sum", "{thread}", "Threads of the loop's pool.", ("state",))
JOBS = Figure("hoop.pool.job.count", "sum", "{job}", "Jobs that wait for a thread, and that run.", ("state",))
JOBS_ENDED = Figure("hoop.pool.job.ended", "counter", "{job}", "Jobs that ran, or never will.", ("outcome",))

CLIENT = "hoop.client.connection"
CLIENT_COUNT = Figure(
    f"{CLIENT}.count", "sum", "{connection}", "Connections of an agent.", ("pool_name", "state"), CLIENT
)
CLIENT_MAX = Figure(f"{CLIENT}.max", "sum", "{connection}", "The most that it may have.", ("pool_name",), CLIENT)
CLIENT_IDLE_MAX = Figure(
    f"{CLIENT}.idle.max", "sum", "{connection}", "The most that it keeps free for one host.", ("pool_name",), CLIENT
)
CLIENT_PENDING = Figure(
    f"{CLIENT}.pending_requests", "sum", "{request}", "Calls of acquire() that wait.", ("pool_name",), CLIENT
)
CLIENT_TIMEOUTS = Figure(
    f"{CLIENT}.timeouts", "counter", "{timeout}", "Calls of acquire() that waited for too long.", ("pool_name",), CLIENT
)
CLIENT_CREATED = Figure(f"{CLIENT}.created", "counter", "{connection}", "Connections made.", ("pool_name",), CLIENT)
CLIENT_FAILURES = Figure(f"{CLIENT}.failures", "counter", "{attempt}", "Attempts that failed.", ("pool_name",), CLIENT)
CLIENT_LEASES = Figure(
    f"{CLIENT}.leases", "counter", "{lease}", "Connections lent, new or again.", ("pool_name", "kind"), CLIENT
)
CLIENT_ENDED = Figure(
    f"{CLIENT}.ended", "counter", "{connection}", "Free ones found dead, or too old.", ("pool_name", "reason"), CLIENT
)

WORKERS = "hoop.worker_pool"
POOL_WORKERS = Figure(f"{WORKERS}.worker.count", "sum", "{worker}", "Workers of a WorkerPool.", ("name", "state"))
POOL_DEATHS = Figure(f"{WORKERS}.worker.deaths", "counter", "{worker}", "Ended when they should not.", ("name",))
POOL_QUEUED = Figure(f"{WORKERS}.task.queued", "sum", "{task}", "Tasks that wait for a worker.", ("name",))
POOL_ENDED = Figure(f"{WORKERS}.task.ended", "counter", "{task}", "Tasks that ran, or never will.", ("name", "outcome"))

# ---- a cluster ------------------------------------------------------------------------------------------------------

REQUESTS = Figure("hoop.server.requests", "counter", "{request}", "Requests that the application began to answer.")
WORKER_COUNT = Figure("hoop.cluster.worker.count", "sum", "{worker}", "Processes of workers.", ("state",))
WANTED = Figure("hoop.cluster.worker.wanted", "sum", "{worker}", "Workers that the cluster is to have.")
RESTARTS = Figure("hoop.cluster.worker.restarts", "counter", "{worker}", "Ended and replaced, by reason.", ("reason",))
GENERATION = Figure("hoop.cluster.worker.generation", "gauge", "1", "Reloads before the newest worker was made.")
MEMORY = Figure("hoop.cluster.worker.memory", "sum", "By", "Resident memory.")
RELOADS = Figure("hoop.cluster.reloads", "counter", "{reload}", "Reloads that have ended.", ("outcome",))

OF_LOOPS = (TIME, DELAY, HOLD, TURNS, CALLBACKS, EVENTS, SLEEPS, CONNECTIONS, ACCEPTED, IN_FLIGHT)
OF_POOLS = (THREADS, JOBS, JOBS_ENDED)
OF_AGENTS = (
    *(CLIENT_COUNT, CLIENT_MAX, CLIENT_IDLE_MAX, CLIENT_PENDING, CLIENT_TIMEOUTS, CLIENT_CREATED, CLIENT_FAILURES),
    *(CLIENT_LEASES, CLIENT_ENDED),
)
OF_WORKER_POOLS = (POOL_WORKERS, POOL_DEATHS, POOL_QUEUED, POOL_ENDED)
OF_PERIODS = (UTILIZATION, *DELAYS.values())  # hoop.otel alone
OF_CLUSTERS = (REQUESTS, WORKER_COUNT, WANTED, RESTARTS, GENERATION, MEMORY, RELOADS)
FIGURES = (*OF_LOOPS, *OF_PERIODS, *OF_POOLS, *OF_AGENTS, *OF_WORKER_POOLS, *OF_CLUSTERS)

# ---- samples --------------------------------------------------------------------------------------------------------


def buckets_of(lags: Lags) -> Buckets:
    count = lags.count
    return Buckets(tuple([count - lags.longer_than(bound) for bound in BOUNDS]), count, lags.sum_ns / 1e9)


def counters_of(reading: BoardReading) -> Iterator[Sample]:
    """What never falls."""
    yield Sample(TIME, {"state": "active"}, reading.busy_ns / 1e9)
    yield Sample(TIME, {"state": "idle"}, reading.idle_ns / 1e9)
    yield Sample(DELAY, {}, buckets_of(reading.lag))
    yield Sample(TURNS, {}, reading.turns)
    yield Sample(CALLBACKS, {}, reading.callbacks)
    yield Sample(EVENTS, {}, reading.events)
    yield Sample(SLEEPS, {}, reading.sleeps)
    yield Sample(ACCEPTED, {}, reading.accepts)


def gauges_of(reading: BoardReading) -> Iterator[Sample]:
    """What is so now."""
    yield Sample(HOLD, {}, held_s(reading))
    yield Sample(CONNECTIONS, {}, reading.connections)
    yield Sample(IN_FLIGHT, {}, reading.jobs)


def held_s(reading: BoardReading) -> float:
    """For how long the loop has not looked for work."""
    if not reading.is_running or reading.busy_since is None:
        return 0.0
    return max(0.0, time.monotonic() - reading.busy_since)


def of_pool(loop: asyncio.AbstractEventLoop) -> Iterator[Sample]:
    pool = loop_pool_if_made(loop)
    if pool is None:
        return
    stats = pool.stats()
    yield Sample(THREADS, {"state": "idle"}, stats.idle)
    yield Sample(THREADS, {"state": "busy"}, stats.threads - stats.idle)
    yield Sample(JOBS, {"state": "queued"}, stats.queued)
    yield Sample(JOBS, {"state": "running"}, stats.running)
    for outcome in ("done", "cancelled", "refused"):
        yield Sample(JOBS_ENDED, {"outcome": outcome}, getattr(stats, outcome))


def of_agent(name: str, agent: Agent) -> Iterator[Sample]:
    stats = agent.stats()
    own = {"pool_name": name}
    yield Sample(CLIENT_COUNT, {**own, "state": "idle"}, stats.free)
    yield Sample(CLIENT_COUNT, {**own, "state": "used"}, stats.lent)
    yield Sample(CLIENT_COUNT, {**own, "state": "connecting"}, stats.connecting)
    if agent._max_total is not None:
        yield Sample(CLIENT_MAX, own, agent._max_total)
    yield Sample(CLIENT_IDLE_MAX, own, agent._max_free)
    yield Sample(CLIENT_PENDING, own, stats.waiting)
    yield Sample(CLIENT_TIMEOUTS, own, stats.timeouts)
    yield Sample(CLIENT_CREATED, own, stats.created)
    yield Sample(CLIENT_FAILURES, own, stats.failures)
    yield Sample(CLIENT_LEASES, {**own, "kind": "new"}, stats.used_new)
    yield Sample(CLIENT_LEASES, {**own, "kind": "reused"}, stats.reused)
    yield Sample(CLIENT_ENDED, {**own, "reason": "dead"}, stats.dead)
    yield Sample(CLIENT_ENDED, {**own, "reason": "expired"}, stats.expired)


def of_worker_pool(name: str, pool: WorkerPool) -> Iterator[Sample]:
    stats = pool.stats()
    own = {"name": name}
    for state in ("starting", "idle", "running"):
        yield Sample(POOL_WORKERS, {**own, "state": state}, getattr(stats, state))
    yield Sample(POOL_DEATHS, own, stats.deaths)
    yield Sample(POOL_QUEUED, own, stats.queued)
    for outcome in ("done", "failed", "cancelled", "refused"):
        yield Sample(POOL_ENDED, {**own, "outcome": outcome}, getattr(stats, outcome))


def named(argument: str, sources: Mapping[str, T] | None) -> Mapping[str, T]:
    """With names that can be labels."""
    for name in sources or {}:
        if not isinstance(name, str):
            raise TypeError(f"a name in {argument} must be a str, not {name!r}")
    return sources or {}


class Sources:
    """What one process has to tell: of a loop, and of what else it was given. Made in the loop's thread, or while the
    loop does not run.

    TypeError for a loop that is not hoop's, and for a name that is no str.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        agents: Mapping[str, Agent] | None = None,
        worker_pools: Mapping[str, WorkerPool] | None = None,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop() if loop is None else loop
        self._board, self._place = board_of(self.loop)
        self._agents = named("agents", agents)
        self._worker_pools = named("worker_pools", worker_pools)
        self._pid = os.getpid()
        self._told: set[str] = set()  # of what has failed: once

    def reading(self) -> BoardReading:
        return self._board.read(self._place)

    @property
    def is_inherited(self) -> bool:
        """Whether this is a child of the process that made it: all that it could tell is the parent's."""
        return self._pid != os.getpid()

    def samples(self) -> list[Sample]:
        """Of now. What fails is left out, and logged the first time: the others are still collected."""
        if self.is_inherited:
            self._tell("the loop", "made before fork(): make it in each process")
            return []
        found = self._guarded("the loop", lambda: of_reading(self.reading()))
        found += self._guarded("the loop's pool", lambda: of_pool(self.loop))
        for name, agent in list(self._agents.items()):
            found += self._guarded(f"agent {name}", functools.partial(of_agent, name, agent))
        for name, pool in list(self._worker_pools.items()):
            found += self._guarded(f"worker pool {name}", functools.partial(of_worker_pool, name, pool))
        return found

    def _guarded(self, name: str, source: Callable[[], Iterable[Sample]]) -> list[Sample]:
        try:
            return list(source())
        except Exception as error:
            self._tell(name, repr(error))
            return []

    def _tell(self, name: str, what: str) -> None:
        if name not in self._told:
            self._told.add(name)
            logger.warning("no metrics of %s: %s", name, what)


def of_reading(reading: BoardReading) -> Iterator[Sample]:
    yield from counters_of(reading)
    yield from gauges_of(reading)


def board_of(loop: Any) -> tuple[Board, int]:
    """TypeError with the reason for a loop that is not hoop's."""
    try:
        return place_of(loop)
    except TypeError:
        raise TypeError(f"a hoop loop has metrics, not {loop!r}") from None
