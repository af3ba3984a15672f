"""hoop.cluster: many processes that serve on the same addresses, and a master that keeps them running.

    hoop.cluster.run("app:main", workers="auto", bind="0.0.0.0:8000")

blocks until the cluster has ended: SIGTERM and SIGINT drain it (twice: at once). In the application

    worker = hoop.cluster.worker

is the worker that the process is: its sockets, ready(), send(). See docs/serving.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hoop.cluster.channel import ChannelFull
    from hoop.cluster.cluster import Cluster
    from hoop.cluster.master import ClusterError
    from hoop.cluster.options import Options, workers_auto
    from hoop.cluster.roles import Role
    from hoop.cluster.worker_process import Worker

    worker: Worker

__all__ = ["ChannelFull", "Cluster", "ClusterError", "NoWorker", "Options", "Role", "Worker", "run", "workers_auto"]

MODULE_OF = {
    "ChannelFull": "channel",
    "Cluster": "cluster",
    "ClusterError": "master",
    "Options": "options",
    "Role": "roles",
    "Worker": "worker_process",
    "workers_auto": "options",
}


def run(target: str | Callable[..., Any], **settings: Any) -> None:
    """Serve target with worker processes until the cluster has ended; settings are those of Options.

    Returns after an orderly end. Exits the program with status 1, after one line of log, if the cluster cannot start,
    with 128 and the number of the signal when a second SIGTERM or SIGINT has cut it short. ValueError or TypeError for
    settings that make no sense, RuntimeError in a process that has threads or a running loop: it could not be forked.
    """
    cluster = import_module("hoop.cluster.cluster").Cluster(target, **settings)
    status = cluster.run_logged(goes_on=True)
    if status:
        sys.exit(status)


class NoWorker(RuntimeError, AttributeError):
    """hoop.cluster.worker was asked for in a process that is none. (Tools that look at all attributes find none.)"""


def __getattr__(name: str) -> Any:
    if name == "worker":
        current = import_module("hoop.cluster.worker_process").here()
        if current is None:
            raise NoWorker("hoop.cluster.worker is there in the workers of a cluster only: see hoop.cluster.run()")
        return current
    if name not in MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
