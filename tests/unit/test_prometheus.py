"""hoop.prometheus: the text, the collector, and what is counted."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hoop
import pytest
from hoop.figures import BOUNDS, FIGURES, OF_CLUSTERS, OF_PERIODS, Sources
from hoop.prometheus import text_of
from interpreter import run_script
from stepping import one_turn

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def loop() -> Iterator[Any]:
    loop = hoop.Loop(poll_every_turn=True)
    yield loop
    loop.close()


def series(text: str) -> Series:
    """By prometheus_client's parser, which raises for what is none."""
    parser = pytest.importorskip("prometheus_client.parser")
    found: Series = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def value(found: Series, name: str, /, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


async def spike(seconds: float, turns: int) -> None:
    """Hold the loop, and then let it turn."""
    time.sleep(seconds)
    for _ in range(turns):
        await asyncio.sleep(0)


def test_trap_o8_the_text_is_what_a_parser_reads(loop):
    name = 'a "quoted" \\ name\nof two lines'
    text = hoop.prometheus.render(loop, agents={name: hoop.Agent()})
    types = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len({name for name, _ in types}) == len(types) == len(re.findall("^# HELP ", text, re.MULTILINE))
    for metric, kind in types:
        assert (kind == "counter") == metric.endswith("_total")
        assert not metric.endswith("_count")
    assert text.endswith("\n")
    found = series(text)
    assert value(found, "hoop_client_connections", pool_name=name, state="idle") == 0
    assert value(found, "hoop_eventloop_time_seconds_total", state="active") >= 0


def test_the_histogram_adds_up(loop):
    hoop.prometheus.render(loop)  # which begins to count
    loop.run_until_complete(spike(0.03, 5))
    found = series(hoop.prometheus.render(loop))
    within = [value(found, "hoop_eventloop_delay_seconds_bucket", le=repr(bound)) for bound in BOUNDS]
    count = value(found, "hoop_eventloop_delay_seconds_bucket", le="+Inf")
    assert [*within, count] == sorted([*within, count])
    assert count == value(found, "hoop_eventloop_delay_seconds_count") >= 5
    assert within[BOUNDS.index(0.025)] < count
    assert value(found, "hoop_eventloop_delay_seconds_sum") >= 0.03


def test_trap_o4_a_spike_between_two_collections_is_seen(loop):
    """Whatever came after it: in the buckets, which only grow."""
    hoop.prometheus.render(loop)
    loop.run_until_complete(spike(0.06, 50))
    found = series(hoop.prometheus.render(loop))
    longer = value(found, "hoop_eventloop_delay_seconds_count")
    longer -= value(found, "hoop_eventloop_delay_seconds_bucket", le="0.05")
    assert longer >= 1


def test_busy_time_is_told_while_the_loop_never_sleeps(loop):
    """A loop that always has something to do adds its time up at each look, not when it falls asleep at last."""
    sources = Sources(loop)
    seen = []

    def busy() -> None:
        time.sleep(0.002)
        seen.append(sources.reading().busy_ns)
        if len(seen) < 5:
            loop.call_soon(busy)
        else:
            loop.stop()

    loop.call_soon(busy)
    loop.run_forever()
    assert seen == sorted(set(seen)) and seen[-1] >= 6_000_000
    loop.call_soon(loop.reset_metrics)
    one_turn(loop)
    assert sources.reading().busy_ns >= seen[-1]


def test_a_collector_is_asked_in_another_thread(loop):
    """While the loop runs, and while it is blocked: the answer says for how long it has been."""
    core = pytest.importorskip("prometheus_client.core")
    registry = core.CollectorRegistry()
    agent = hoop.Agent(max_total_sockets=3)
    registry.register(hoop.prometheus.Collector(loop, agents={"peer": agent}))
    collected: list[dict[str, Any]] = []

    def collect() -> None:
        collected.append({metric.name: metric for metric in registry.collect()})

    def block() -> None:
        time.sleep(0.02)
        other = threading.Thread(target=collect)
        other.start()
        other.join(60)

    loop.call_soon(block)
    one_turn(loop)
    (metrics,) = collected
    assert metrics["hoop_eventloop_hold_seconds"].samples[0].value >= 0.02
    assert metrics["hoop_eventloop_turns"].type == "counter"
    assert metrics["hoop_client_connection_max"].samples[0].value == 3
    exposition = pytest.importorskip("prometheus_client.exposition")
    names = {name for name, _ in series(exposition.generate_latest(registry).decode())}
    assert {name for name, _ in series(hoop.prometheus.render(loop, agents={"peer": agent}))} == names


def test_pools_are_told_once_there_are_any(loop):
    async def main() -> str:
        await loop.pool.run(int)
        return hoop.prometheus.render(worker_pools={"cpu": hoop.WorkerPool()})

    assert "hoop_pool" not in hoop.prometheus.render(loop).replace("hoop_pool_job_in_flight", "")
    found = series(loop.run_until_complete(main()))
    assert value(found, "hoop_pool_job_ended_total", outcome="done") >= 1
    assert value(found, "hoop_worker_pool_workers", name="cpu", state="running") == 0


def test_trap_o10_a_source_that_fails_leaves_the_others(loop, caplog):
    broken: Any = SimpleNamespace(stats=lambda: 1 // 0)
    for _ in range(2):
        found = series(hoop.prometheus.render(loop, agents={"fine": hoop.Agent(), "broken": broken}))
        assert value(found, "hoop_client_connection_created_total", pool_name="fine") == 0
    sources = Sources(loop, {"broken": broken})
    caplog.clear()
    assert len(sources.samples()) == len(sources.samples()) > 0
    (record,) = caplog.records
    assert record.getMessage().startswith("no metrics of agent broken: ZeroDivisionError")


def test_a_name_that_can_be_no_label_is_refused(loop):
    with pytest.raises(TypeError, match="a name in agents must be a str, not 1"):
        hoop.prometheus.render(loop, agents={1: None})


def test_what_has_no_metrics_is_refused():
    plain = asyncio.SelectorEventLoop()
    with pytest.raises(TypeError, match="hoop loop"):
        hoop.prometheus.render(plain)
    plain.close()
    with pytest.raises(RuntimeError):
        hoop.prometheus.render()


@pytest.mark.once
def test_a_child_tells_nothing_of_its_parents_loop():
    program = """
import logging, os
import hoop
from hoop.figures import Sources

loop = hoop.Loop()
sources = Sources(loop)
assert sources.samples()
logging.disable()
child = os.fork()
if child == 0:
    os._exit(len(sources.samples()))
print(os.waitpid(child, 0)[1])
"""
    assert run_script(program)[:2] == (0, "0")


def test_the_page_lists_every_name():
    rows = re.findall(r"^\| `(hoop[\w.]+)` \| (\S+) \| (\w+), (\S+) \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    assert rows == [
        (
            figure.name,
            "-" if figure in OF_PERIODS else f"`{figure.prometheus_name}`",
            {"sum": "gauge"}.get(figure.kind, figure.kind),
            figure.unit.strip("{}"),
            ", ".join(f"`{label}`" for label in figure.labels),
        )
        for figure in FIGURES
    ]


def test_names_are_not_used_twice():
    names = [figure.prometheus_name for figure in FIGURES]
    assert len(set(names)) == len(names)
    assert {figure.name.split(".")[1] for figure in OF_CLUSTERS} == {"server", "cluster"}
    assert text_of([]) == ""
