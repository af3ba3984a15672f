"""A server of lines whose workers have metrics of their own, each on a port of its slot; the cluster's beside them.

    pip install prometheus_client
    python examples/worker_metrics.py [PORT [FIRST_METRICS_PORT]]
    $ curl -s http://127.0.0.1:9500/metrics                          # of worker 0; 9501: of worker 1
    $ curl -s http://127.0.0.1:9502/metrics                          # of the cluster, by its master

The targets of Prometheus are 9500 to 9502. During a reload the worker of before has the port until it drains; the next
one of its slot takes it then.
"""

import asyncio
import sys
from pathlib import Path

import hoop.cluster
import prometheus_client

WORKERS = 2
REGISTRY = prometheus_client.CollectorRegistry()  # its own: this file is imported again, in processes forked of its own
LINES = prometheus_client.Counter("lines", "Lines answered.", registry=REGISTRY)


async def serve_metrics(port):
    while True:
        try:
            server, _ = prometheus_client.start_http_server(port, "127.0.0.1", REGISTRY)
            break
        except OSError:  # the worker that had the slot before has it still
            await asyncio.sleep(0.2)
    await hoop.draining()
    await asyncio.to_thread(server.shutdown)
    server.server_close()


async def answer(reader, writer):
    while line := await reader.readline():
        LINES.inc()
        writer.write(line)
        await writer.drain()
    writer.close()


async def main(worker):
    REGISTRY.register(hoop.prometheus.Collector())  # the loop's, beside the application's
    metrics = asyncio.create_task(serve_metrics(int(sys.argv[2] if len(sys.argv) > 2 else 9500) + worker.id))
    for sock in worker.sockets:
        await hoop.start_server(answer, sock=sock)
    worker.ready()
    await metrics
    await asyncio.Event().wait()  # until the drain is over


if __name__ == "__main__":
    hoop.cluster.run(
        "worker_metrics:main",
        app_dir=str(Path(__file__).parent),
        bind=f"127.0.0.1:{sys.argv[1] if len(sys.argv) > 1 else 8000}",
        workers=WORKERS,
        metrics_bind=f"127.0.0.1:{int(sys.argv[2] if len(sys.argv) > 2 else 9500) + WORKERS}",
    )
