"""/metrics: all workers, as the master sees them, whatever they do or have become."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest
from clusters import LINES_APP, Address, Client, ask, cluster, until
from metrics_soak import BIND, COUNT, Soak, metrics_of, page, scrape, soak, total

METRICS = {"metrics_bind": BIND}
WHO = "run import hoop; answer = hoop.otel.resource_attributes()['service.instance.id']"
TURNS = re.compile(r"^hoop_eventloop_(?:turns|sleeps)_total.*$", re.MULTILINE)


def instances_of(address: Address) -> dict[str, str]:
    """What each of two workers is to OpenTelemetry, by slot."""
    found: dict[str, str] = {}

    def ask_one() -> bool:
        with Client(address) as client:
            found[client.ask("who").split()[1]] = client.ask(WHO)
        return len(found) == 2

    until(ask_one)
    return found


def test_trap_o3_a_scrape_wakes_no_worker_and_waits_for_none(tmp_path: Path) -> None:
    """Traps O5 and O7, too: labels and OpenTelemetry's instances are slots, so restarts make no new ones."""
    with cluster(tmp_path, blocked_timeout=None, **METRICS) as running:
        metrics = metrics_of(running)
        address = running.serving()
        assert instances_of(address) == {slot: f"{socket.gethostname()}-{slot}" for slot in "01"}
        until(lambda: total(scrape(metrics), "hoop_server_connections") == 0)
        until(lambda: TURNS.findall(page(metrics)) == TURNS.findall(page(metrics)))
        before = page(metrics)
        for _ in range(20):
            after = page(metrics)
        assert TURNS.findall(after) == TURNS.findall(before) and len(TURNS.findall(after)) == 4
        assert set(re.findall(r'slot="(.*?)"', after)) == {"0", "1"}
        assert "pid" not in after
        with Client(address) as client:
            slot = client.ask("who").split()[1]
            client.send("block 300")
            until(lambda: scrape(metrics)[f'hoop_eventloop_hold_seconds{{slot="{slot}"}}'] > 0.05)
            assert scrape(metrics)[f'hoop_server_connections{{slot="{slot}"}}'] == 1


def test_trap_o1_counters_outlive_workers_and_masters(tmp_path: Path) -> None:
    """Each is monotone, and in the end they are what a client has counted."""
    with cluster(tmp_path, **METRICS) as running:
        course = soak(running, [Soak.kill, Soak.reload, Soak.upgrade, Soak.kill])
        assert total(course.last, "hoop_cluster_worker_restarts_total") >= 4
        assert course.last['hoop_cluster_worker_restarts_total{reason="reload"}'] >= 2
        assert course.answered > 0
        assert running.stop() == 0


def test_trap_o2_gauges_go_with_their_worker(tmp_path: Path) -> None:
    """And trap O5: the next worker in the slot goes on with its counters."""
    source = LINES_APP.replace("async def main(worker):", "async def main(worker):\n    open('gate').close()")
    os.mkfifo(tmp_path / "gate")
    with cluster(tmp_path, source, workers=1, **METRICS) as running:
        metrics = metrics_of(running)
        (tmp_path / "gate").write_bytes(b"")
        address = running.serving()
        with Client(address) as client:
            pid = int(client.ask("who").split()[0])
            ask(address, COUNT)
            until(lambda: scrape(metrics)['hoop_server_connections{slot="0"}'] == 1)
            os.kill(pid, signal.SIGKILL)
            running.expect("was killed by SIGKILL")
            found = scrape(metrics)  # the next one waits at the gate
            assert found.get('hoop_server_connections{slot="0"}', 0) == 0
            assert found['hoop_server_requests_total{slot="0"}'] == 1
        (tmp_path / "gate").write_bytes(b"")
        running.expect("ready after")
        ask(address, COUNT)
        found = scrape(metrics)
        assert found['hoop_server_requests_total{slot="0"}'] == 2
        assert found['hoop_cluster_worker_restarts_total{reason="died"}'] == 1
        assert running.stop() == 0


def test_one_address_for_health_and_metrics(tmp_path: Path) -> None:
    parse = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families
    path = tmp_path / "looked-at"
    bind = f"unix:{path}"
    with cluster(tmp_path, workers=1, metrics_bind=bind, health_bind=bind) as running:
        running.expect("health and metrics at ")
        running.serving()
        families = list(parse(page(str(path))))
        assert len({family.name for family in families}) == len(families) > 10
        with Client(str(path)) as client:
            client.socket.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            assert client.socket.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        assert running.stop() == 0
        assert not path.exists()
