"""A rolling update as Kubernetes does it, without Kubernetes: a service that probes its pods sends requests to them.

Each pod is a cluster. A new one comes, is probed until it is ready, and an old one is ended: by SIGTERM while it still
gets requests, since the news spreads slowly (`Drain(delay=)`), or after a preStop hook has waited for that.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

import pytest
from cluster_process import LIMIT_S, Cluster, Load, answer_of, connection
from free_ports import free_ports
from server_process import STARTING_S

pytestmark = pytest.mark.once  # as all of tests/cluster

if sys.platform != "linux":
    pytest.skip("the clients' helpers are of Linux", allow_module_level=True)

Start = Callable[..., Cluster]

PERIOD_S = 0.1  # of the readiness probe
FAILURES = 2  # in a row, until a pod gets no more requests


class Pod:
    """A cluster with its port; how often its readiness has failed in a row."""

    def __init__(self, cluster: Start, delay: float) -> None:
        self.port = free_ports(1)
        course = f"hoop.Drain(delay={delay}, idle_grace=0.3, timeout=10)"
        self.process = cluster(f"workers=2, bind='127.0.0.1:{self.port}', drain={course}")
        self.failures = FAILURES
        self.is_terminating = False

    async def is_ready(self) -> bool:
        try:
            async with connection(self.port) as (reader, writer):
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n")
                status, _, _ = await answer_of(reader)
        except (OSError, EOFError):
            return False
        return status == 200


class Service:
    """Sends requests to the pods that are ready, in turn, as of its last look at them."""

    def __init__(self, pods: list[Pod]) -> None:
        self.pods = pods
        self.endpoints: list[Pod] = []
        self.looked = asyncio.Condition()
        self.turn = 0

    def port(self) -> int:
        """Where the next connection goes."""
        self.turn += 1
        return self.endpoints[self.turn % len(self.endpoints)].port

    async def look(self) -> None:
        """Probe every pod at each period, for ever."""
        while True:
            for pod in self.pods:
                pod.failures = 0 if await pod.is_ready() else pod.failures + 1
            endpoints = [pod for pod in self.pods if pod.failures < FAILURES and not pod.is_terminating]
            async with self.looked:
                self.endpoints = endpoints
                self.looked.notify_all()
            await asyncio.sleep(PERIOD_S)

    async def until(self, endpoints: list[Pod]) -> None:
        """Return once the service knows these pods and no other."""
        async with asyncio.timeout(LIMIT_S), self.looked:
            await self.looked.wait_for(lambda: self.endpoints == endpoints)


@pytest.mark.parametrize(("delay", "has_pre_stop"), [(1.0, False), (0.0, True)], ids=["delay", "preStop"])
def test_a_rolling_update_loses_no_request(cluster: Start, delay: float, has_pre_stop: bool) -> None:
    async def end(service: Service, pod: Pod, rest: list[Pod]) -> None:
        if has_pre_stop:
            pod.is_terminating = True  # it leaves the endpoints while the hook waits
            await service.until(rest)
            pod.process.send(signal.SIGTERM)
        else:
            pod.process.send(signal.SIGTERM)
            await service.until(rest)  # by its readiness alone
            assert pod.process.process.poll() is None, "it ended before the service knew"
        status = await asyncio.to_thread(pod.process.process.wait, STARTING_S)
        assert status == 0, pod.process.text

    async def main() -> None:
        pods = [Pod(cluster, delay)]
        service = Service(pods)
        looking = asyncio.ensure_future(service.look())
        await service.until(pods[:1])
        async with Load(service.port, 8) as kept, Load(service.port, 4, fresh=True) as opened:
            for number in range(2):
                pods.append(Pod(cluster, delay))
                await service.until(pods[number:])
                await opened.more(50)
                await end(service, pods[number], pods[number + 1 :])
                await kept.more(50)
                await opened.more(50)
        looking.cancel()
        assert not kept.errors and not opened.errors, (kept.errors, opened.errors)

    asyncio.run(main())
