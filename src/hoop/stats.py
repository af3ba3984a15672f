"""What hoop counts, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Durations:
    """How long something took, over all times that it happened. Percentiles are at most 1/32 too high, never too low."""

    count: int
    mean_ns: int
    p50_ns: int
    p99_ns: int
    max_ns: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The state of a pool at one moment, and what it has done since it was made."""

    size: int
    """The most threads that it starts, but for two that names may have besides (docs/pool.md)."""
    threads: int
    """Those that it has started."""
    idle: int
    """Threads that wait for jobs."""
    queued: int
    """Jobs that wait for threads."""
    running: int
    dns_queued: int
    """Of the queued ones, name lookups."""
    dns_running: int
    done: int
    """Jobs that ran to their end, also those that raised and those whose result nobody wanted any more."""
    cancelled: int
    """Jobs that were cancelled before they ran."""
    refused: int
    """Jobs that found the queue full."""
    wake_ups: int
    """Times that a sleeping thread was woken."""
    wait: Durations
    """From being submitted to being run."""
    run: Durations
    """From the beginning of a job to its end."""


@dataclass(frozen=True, slots=True)
class CachedReadStats:
    """How the reads of small cached files went that hoop.fs tries on the loop's own thread."""

    enabled: bool
    """Whether it is tried: not if it was switched off, or the system refused."""
    refusal: str | None
    """The call that the system refused, and how."""
    hits: int
    """Files that were read without a thread."""
    misses: dict[str, int]
    """Those that went to the pool, by reason (docs/files.md)."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a loop has done since it was made, or since reset_metrics()."""

    turns: int
    callbacks: int
    """Callbacks run, of every kind: ready ones, timers, immediates, microtasks."""
    events: int
    """Descriptors found ready and handed to whoever watches them."""
    polls: int
    """Turns that looked for events."""
    sleeps: int
    """Polls that blocked."""
    busy_ns: int
    """Time that the loop was running and not asleep."""
    idle_ns: int
    """Time asleep in the poller, waiting for something to do."""
    lag: Durations
    """From one look for work to the next, without sleep: what became ready in between waited that long at most."""
    timer_lateness: Durations
    """For each turn with due timers: how long past its deadline the one was that had waited longest."""
    ready: int
    """Callbacks that wait for the next turn."""
    timers: int
    """Timers that are pending."""
    unreferenced_timers: int
    """Of those, the ones that run() does not wait for."""
    jobs_in_flight: int
    """Given to a pool and not yet back."""
    watchers: dict[str, int]
    """Descriptors being watched, by the kind of their watcher."""
    pool: PoolStats | None
    """The loop's pool; None while it has none."""

    @property
    def utilization(self) -> float:
        """The busy share of the running time, from 0 to 1. (Node: performance.eventLoopUtilization)"""
        total_ns = self.busy_ns + self.idle_ns
        return self.busy_ns / total_ns if total_ns > 0 else 0.0
