"""hoop.otel: instruments of a loop, by OpenTelemetry's API alone."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hoop
import pytest
from hoop.figures import OF_AGENTS, OF_LOOPS, OF_PERIODS
from interpreter import run_script

SOURCES = Path(hoop.__file__).parent
Points = dict[str, dict[tuple[tuple[str, Any], ...], float]]


@pytest.fixture
def loop() -> Iterator[Any]:
    loop = hoop.Loop(poll_every_turn=True)
    yield loop
    loop.close()


class Rig:
    """A meter provider whose reader is asked, and what that has found."""

    def __init__(self) -> None:
        metrics = pytest.importorskip("opentelemetry.sdk.metrics")
        self.reader = metrics.export.InMemoryMetricReader()
        self.provider = metrics.MeterProvider([self.reader], shutdown_on_exit=False)

    def collect(self) -> Points:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points}
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


async def hold(seconds: float) -> None:
    time.sleep(seconds)
    for _ in range(20):
        await asyncio.sleep(0)


def test_names_and_attributes(loop):
    rig = Rig()
    hoop.otel.instrument(rig.provider, loop, agents={"peer": hoop.Agent(max_total_sockets=7)})
    loop.run_until_complete(hold(0))
    points = rig.collect()
    histograms = {figure.name for figure in OF_LOOPS if figure.kind == "histogram"}
    names = {figure.name for figure in (*OF_LOOPS, *OF_PERIODS, *OF_AGENTS)} - histograms
    assert set(points) == names
    assert set(points["hoop.eventloop.time"]) == {
        (("hoop.eventloop.state", "active"),),
        (("hoop.eventloop.state", "idle"),),
    }
    peer = ("hoop.client.connection.pool.name", "peer")
    assert points["hoop.client.connection.max"] == {(peer,): 7}
    assert points["hoop.client.connection.count"][peer, ("hoop.client.connection.state", "used")] == 0


def test_trap_o4_delays_are_of_the_time_since_the_last_collection(loop):
    """A spike in it is seen, whatever came after; in the next time it is over."""
    rig = Rig()
    hoop.otel.instrument(rig.provider, loop)
    loop.run_until_complete(hold(0.05))
    points = rig.collect()
    (longest,) = points["hoop.eventloop.delay.max"].values()
    assert longest >= 0.05
    ordered = [points[f"hoop.eventloop.delay.{part}"][()] for part in ("min", "p50", "p90", "p99", "max")]
    assert ordered == sorted(ordered)
    assert 0 < points["hoop.eventloop.utilization"][()] <= 1
    before = points["hoop.eventloop.time"]
    points = rig.collect()
    assert "hoop.eventloop.delay.max" not in points
    assert points["hoop.eventloop.utilization"][()] == 0
    assert points["hoop.eventloop.time"] == before


def test_it_is_read_while_the_loop_is_blocked(loop):
    rig = Rig()
    hoop.otel.instrument(rig.provider, loop)
    found: list[Points] = []

    def block() -> None:
        time.sleep(0.02)
        reader = threading.Thread(target=lambda: found.append(rig.collect()))
        reader.start()
        reader.join(60)
        loop.stop()

    loop.call_soon(block)
    loop.run_forever()
    assert found[0]["hoop.eventloop.hold"][()] >= 0.02


def test_trap_o10_what_raises_does_not_end_the_export(loop, caplog):
    rig = Rig()
    broken: Any = SimpleNamespace(stats=lambda: 1 // 0)
    hoop.otel.instrument(rig.provider, loop, agents={"broken": broken, "fine": hoop.Agent()})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            points = rig.collect()
            assert points["hoop.eventloop.turns"][()] >= 0
            assert list(points["hoop.client.connection.created"]) == [(("hoop.client.connection.pool.name", "fine"),)]
    (record,) = caplog.records
    assert record.getMessage().startswith("no metrics of agent broken: ZeroDivisionError")


@pytest.mark.once
def test_trap_o7_a_child_exports_nothing_of_its_parents_loop():
    """Trap O7, too: what tells workers apart is their slot."""
    pytest.importorskip("opentelemetry.sdk.metrics")
    program = """
import os
import hoop
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
loop = hoop.Loop()
hoop.otel.instrument(MeterProvider([reader], shutdown_on_exit=False), loop)
assert reader.get_metrics_data() is not None
child = os.fork()
if child == 0:
    os._exit(0 if reader.get_metrics_data() is None else 1)
print(os.waitpid(child, 0)[1])
"""
    status, output, errors = run_script(program)
    assert (status, output) == (0, "0"), errors
    assert "made before fork" in errors


def test_trap_o7_service_instance_ids_differ_by_slot(loop, monkeypatch):
    from hoop.cluster import worker_process

    seen = []
    for number in (0, 1):
        worker = SimpleNamespace(id=number, role=None, generation=3, _is_ready=True)
        monkeypatch.setattr(worker_process, "current", worker)
        seen.append(hoop.otel.resource_attributes()["service.instance.id"])
    assert seen == [f"{socket.gethostname()}-0", f"{socket.gethostname()}-1"]
    rig = Rig()
    hoop.otel.instrument(rig.provider, loop)
    points = rig.collect()
    assert points["hoop.cluster.worker.count"] == {(("hoop.cluster.state", "serving"),): 1}
    assert points["hoop.cluster.worker.generation"] == {(): 3}


@pytest.mark.once
def test_trap_o9_without_opentelemetry_nothing_is_imported():
    program = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("opentelemetry", "prometheus_client"):
            print("asked for", name)
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import hoop, hoop.cluster.cluster
loop = hoop.Loop()
hoop.prometheus.Collector(loop)
hoop.otel.resource_attributes()
try:
    hoop.otel.instrument(loop=loop)
except ImportError as error:
    print(error)
"""
    status, output, errors = run_script(program)
    assert (status, output.splitlines()[-1]) == (0, "hoop.otel needs opentelemetry-api: pip install 'hoop[otel]'"), (
        errors
    )
    assert len(output.splitlines()) == 2


@pytest.mark.once
def test_trap_o9_the_sdk_is_never_imported():
    pytest.importorskip("opentelemetry.metrics")
    program = "import sys, hoop; hoop.otel.instrument(loop=hoop.Loop())\n"
    program += "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    status, output, errors = run_script(program)
    assert (status, output) == (0, "[]"), errors
    sources = "".join([path.read_text() for path in SOURCES.rglob("*.py")])
    assert re.findall(r"opentelemetry\.sdk", sources) == []
