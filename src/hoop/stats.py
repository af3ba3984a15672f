"""hoop's statistics, as plain values: frozen dataclasses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, dataclass_transform


class DataclassFields:
    """Makes a Value a dataclass to dataclasses.asdict(), replace() and the like, when they first ask."""

    def __get__(self, value: object, kind: Any) -> dict[str, Any]:
        from dataclasses import make_dataclass

        made: Any = make_dataclass(kind.__name__, kind.__annotations__.items(), frozen=True, kw_only=True)
        fields: dict[str, Any] = made.__dataclass_fields__
        kind.__dataclass_fields__ = fields  # lookups find this first from now on
        return fields


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Value:
    """A frozen dataclass: made of keywords, equal by fields, immutable. Not made by dataclasses, which compiles a set
    of methods for each class: that would take about a quarter as long as everything else that the first loop loads.
    """

    if TYPE_CHECKING:  # else it would be a field
        __dataclass_fields__: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        cls.__dataclass_fields__ = DataclassFields()  # type: ignore[assignment]

    def __init__(self, **fields: Any) -> None:
        names = type(self).__annotations__
        if fields.keys() != names.keys():
            raise TypeError(f"{type(self).__name__} takes the keywords {', '.join(names)}, not {', '.join(fields)}")
        vars(self).update({name: fields[name] for name in names})

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join([f'{name}={field!r}' for name, field in vars(self).items()])})"

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __replace__(self, /, **changes: Any) -> Any:
        return type(self)(**{**vars(self), **changes})


class Durations(Value):
    """How long something took, each time that it happened. Percentiles are at most 1/32 too high, never too low."""

    count: int
    mean_ns: int
    p50_ns: int
    p99_ns: int
    max_ns: int


class PoolStats(Value):
    """The state of a pool at one moment, and what it has done since it was made."""

    size: int
    """The most threads that it starts, not counting up to two more for name lookups (docs/pool.md)."""
    threads: int
    """Threads that it has started."""
    idle: int
    """Threads that wait for jobs."""
    queued: int
    """Jobs that wait for threads."""
    running: int
    dns_queued: int
    """Of the queued ones, name lookups."""
    dns_running: int
    done: int
    """Jobs that ran to their end, also those that raised and those whose result the caller no longer wanted."""
    cancelled: int
    """Jobs that were cancelled before they ran."""
    refused: int
    """Jobs that found the queue full."""
    wake_ups: int
    """How often the pool woke a sleeping thread."""
    wait: Durations
    """From the submission of a job to its beginning."""
    run: Durations
    """From start to end of a job."""


class CachedReadStats(Value):
    """How many small cached files hoop.fs has read on the loop's own thread, and why not the others."""

    enabled: bool
    """Whether hoop.fs tries: not if the user has switched it off, or the system has refused."""
    refusal: str | None
    """The call that the system has refused, and its error."""
    hits: int
    """Files read without a thread."""
    misses: dict[str, int]
    """Files read in the pool instead, by reason (docs/files.md)."""


class Metrics(Value):
    """What a loop has done since it was made, or since reset_metrics()."""

    turns: int
    callbacks: int
    """Callbacks run, of every kind: ready ones, timers, immediates, microtasks."""
    events: int
    """Descriptors found ready and passed to their watchers."""
    polls: int
    """Turns that looked for events."""
    sleeps: int
    """Polls that blocked."""
    busy_ns: int
    """Time that the loop was running and not asleep."""
    idle_ns: int
    """Time asleep in the poller, waiting for something to do."""
    lag: Durations
    """From one look for work to the next, without sleep: work that became ready in between waited at most so long."""
    timer_lateness: Durations
    """For each turn with due timers: how far past its deadline the most overdue one was."""
    ready: int
    """Callbacks that wait for the next turn."""
    timers: int
    """Pending timers."""
    unreferenced_timers: int
    """Of those, the ones that run() does not wait for."""
    jobs_in_flight: int
    """Jobs that a pool has, or whose results have not come back yet."""
    watchers: dict[str, int]
    """Watched descriptors, by the kind of their watcher."""
    pool: PoolStats | None
    """The loop's pool; None while it has none."""

    @property
    def utilization(self) -> float:
        """The busy share of the running time, from 0 to 1. (Node: performance.eventLoopUtilization)"""
        total_ns = self.busy_ns + self.idle_ns
        return self.busy_ns / total_ns if total_ns > 0 else 0.0


class AgentStats(Value):
    """The connections of an Agent at one moment, and what has happened to them since it was made."""

    free: int
    lent: int
    connecting: int
    """Attempts under way."""
    waiting: int
    """Calls of acquire() that wait."""
    hosts: int
    """Keys with connections, attempts or waiters."""
    used_new: int
    """Leases of a connection that was never lent before."""
    reused: int
    """Leases of a connection that was lent before."""
    created: int
    failures: int
    """Attempts that failed."""
    timeouts: int
    """Calls of acquire() that waited for too long."""
    dead: int
    """Free connections that the peer ended, that broke, or that failed the check."""
    expired: int
    """Free connections that keep_alive or max_age ended."""
    closed: int


class WorkerPoolStats(Value):
    """A WorkerPool at one moment, and what has happened to its tasks and workers since it was made."""

    starting: int
    """Workers that are not ready yet."""
    idle: int
    running: int
    """Workers that have a task."""
    queued: int
    """Tasks that wait for a worker."""
    done: int
    failed: int
    """Tasks that raised, ran for too long, or whose worker died."""
    cancelled: int
    timeouts: int
    refused: int
    """Tasks that found the queue full."""
    deaths: int
    """Workers that ended when they should not."""
    started: int
    """Workers that were started."""


class ServerStats(Value):
    """The counts of a server since it was made; hoop.Limits says what the limits mean."""

    accepted: int
    """Connections that the server has accepted and kept."""
    active: int
    """Those of them that are open."""
    refused_full: int
    """Connections closed on arrival: max_connections were open."""
    refused_per_host: int
    """Connections closed on arrival: max_connections_per_host were open."""
    pauses: int
    """How often the server stopped accepting until there was room (when_full="wait")."""
    idle_timeouts: int
    """Connections ended by a limit: idle_timeout;"""
    first_byte_timeouts: int
    """first_byte_timeout;"""
    header_timeouts: int
    """header_timeout;"""
    write_buffer_overflows: int
    """max_write_buffer."""
    refused_untrusted: int
    """Connections closed on arrival: their source is none of the networks that hoop.ProxyProtocol trusts."""
    invalid_proxy_headers: int
    """Connections closed for what they began with: no PROXY header, or one that breaks the rules."""
    proxy_header_timeouts: int
    """Connections closed because their PROXY header did not come in time."""


class BoardReading(Value):
    """What a loop has last written on its place of a hoop.core.board.Board; counters are of all loops of its process.

    lag, a hoop.core.board.Lags, has the times from one look for work to the next, as Metrics.lag has them.
    """

    pid: int
    """The process whose loop was attached; 0: none yet."""
    is_running: bool
    """Whether the loop runs: it is inside run_forever() or the like."""
    busy_since: float | None
    """When the turn began that has not ended, or, if the loop does not run, since when not: on the clock of
    time.monotonic(). None: the loop is asleep."""
    turns: int
    callbacks: int
    events: int
    polls: int
    sleeps: int
    busy_ns: int
    idle_ns: int
    accepts: int
    """Connections accepted by all servers of the loop."""
    connections: int
    """Those of them that are open."""
    requests: int
    """As many as the application has counted."""
    jobs: int
    """Jobs that a pool has, or whose results have not come back yet."""
    lag: Any
    is_torn: bool
    """The writer stands still, or has died, in the middle of writing: counters are of its last look or of the one
    before."""

    @property
    def utilization(self) -> float:
        """The busy share of the running time, from 0 to 1, up to the last look: without the sleep that it is in."""
        total_ns = self.busy_ns + self.idle_ns
        return self.busy_ns / total_ns if total_ns > 0 else 0.0
