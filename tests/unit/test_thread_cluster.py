"""hoop.cluster with kind="threads": messages, state, health, metrics, failures; and what is refused.

As test_run_threads.py, most of it runs on a Python with a GIL, too.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hoop
import pytest
from hoop.cluster import threads as cluster_threads
from hoop.cluster.cluster import Cluster
from hoop.cluster.master import ClusterError
from hoop.cluster.options import OF_PROCESSES
from hoop.command.main import make_parser
from hoop.command.serve import settings_of
from hoop.stats import BoardReading

HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")
DEADLINE_S = 30.0


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    if HAS_GIL:
        monkeypatch.setattr(cluster_threads, "check_build", lambda what: None)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def cluster_of(main: Callable[..., Any], **settings: Any) -> Cluster:
    return Cluster(main, **{"kind": "threads", "workers": 2, "bind": "127.0.0.1:0", **settings})


def get(address: Any, path: str = "/") -> str:
    with socket.create_connection(address, timeout=DEADLINE_S) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        with client.makefile("rb") as answer:
            return answer.read().decode()


async def serve(worker: Any) -> None:
    worker.ready()
    await asyncio.get_running_loop().create_future()


# Between the main thread and its workers.


@pytest.mark.usefixtures("anywhere")
def test_messages_are_objects_and_go_both_ways() -> None:
    told: list[Any] = []
    threads: set[int] = set()

    async def main(worker: Any) -> None:
        worker.on_message = lambda message: worker.send((worker.id, message))
        worker.ready()
        await asyncio.get_running_loop().create_future()

    def on_start() -> None:
        assert [worker.slot for worker in cluster.workers] == [0, 1]
        cluster.broadcast(question)

    def on_message(worker: Any, message: Any) -> None:
        threads.add(threading.get_ident())
        told.append((worker.slot, *message))
        if len(told) == 2:
            cluster.stop()

    question = object()
    ended: list[tuple[int, str]] = []
    cluster = cluster_of(main)
    cluster.on_start, cluster.on_message = on_start, on_message
    cluster.on_exit = lambda worker, how: ended.append((worker.slot, how))
    assert cluster.run() == 0
    assert sorted(told) == [(0, 0, question), (1, 1, question)]
    assert threads == {threading.get_ident()}
    assert sorted(ended) == [(0, "ended"), (1, "ended")]


@pytest.mark.usefixtures("anywhere")
def test_the_state_is_one_object_for_all() -> None:
    seen: list[Any] = []

    async def main(worker: Any) -> None:
        seen.append(worker.state)
        await serve(worker)

    state = {"cache": 1}
    cluster = cluster_of(main, state=state)
    cluster.on_start = lambda: cluster.stop()
    cluster.run()
    assert [one is state for one in seen] == [True, True]


@pytest.mark.usefixtures("anywhere")
def test_the_main_thread_is_the_master_in_its_callbacks() -> None:
    def on_start() -> None:
        with pytest.raises(hoop.cluster.NoWorker):
            _ = hoop.cluster.worker
        for wish in (cluster.reload, lambda: cluster.scale(3)):
            with pytest.raises(RuntimeError, match="is for processes"):
                wish()
        cluster.stop()

    cluster = cluster_of(serve)
    cluster.on_start = on_start
    assert cluster.run() == 0


# The end.


@pytest.mark.usefixtures("anywhere")
def test_a_worker_that_fails_ends_the_cluster() -> None:
    async def main(worker: Any) -> None:
        worker.ready()
        if worker.id == 1:
            raise LookupError("on purpose")
        await asyncio.get_running_loop().create_future()

    with pytest.raises(ClusterError, match=r"worker 1 failed: LookupError: on purpose \(test_thread_") as raised:
        cluster_of(main).run()
    assert raised.value.status == 1
    assert "LookupError" in str(raised.value.detail)


@pytest.mark.usefixtures("anywhere")
def test_a_worker_that_ends_by_itself_ends_the_cluster() -> None:
    async def main(worker: Any) -> None:
        worker.ready()
        if worker.id == 0:
            await asyncio.get_running_loop().create_future()

    with pytest.raises(ClusterError, match="worker 1 ended by itself"):
        cluster_of(main).run()


@pytest.mark.usefixtures("anywhere")
def test_a_worker_that_is_not_ready_in_time_ends_the_cluster() -> None:
    async def main(worker: Any) -> None:
        if worker.id == 0:
            worker.ready()
        await asyncio.get_running_loop().create_future()

    with pytest.raises(ClusterError, match=r"worker 1 was not ready within 0\.05 s"):
        cluster_of(main, start_timeout=0.05, workers=2, drain=hoop.Drain(timeout=None)).run()


@pytest.mark.usefixtures("anywhere")
def test_a_target_that_cannot_be_loaded_is_told_before_a_thread_is_made() -> None:
    with pytest.raises(ClusterError, match="no module named 'no_such_module'"):
        cluster_of("no_such_module:app").run()


# What operators ask.


@pytest.mark.usefixtures("anywhere")
def test_health_and_metrics_are_answered_by_the_main_thread(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hoop.cluster")
    pages: list[str] = []

    def ask(cluster: Cluster) -> None:
        found = re.search(r"health and metrics at http://(\S+):(\d+)", caplog.text)
        assert found
        pages.extend(get((found[1], int(found[2])), path) for path in ("/livez", "/readyz", "/metrics"))

    async def main(worker: Any) -> None:
        worker.count_request()
        await serve(worker)

    def on_start() -> None:
        async def look() -> None:
            try:
                await asyncio.to_thread(ask, cluster)
            finally:
                cluster.stop()

        looking.append(asyncio.get_running_loop().create_task(look()))

    looking: list[asyncio.Task[None]] = []
    cluster = cluster_of(main, health_bind="127.0.0.1:0", metrics_bind="127.0.0.1:0")
    cluster.on_start = on_start
    cluster.run()
    looking[0].result()
    live, ready, metrics = pages
    assert "alive" in live
    assert "200 OK" in ready
    assert "2 of 2 workers are ready" in ready
    for line in ('hoop_server_requests_total{slot="1"} 1', 'hoop_cluster_workers{state="serving"} 2'):
        assert line in metrics


@pytest.mark.usefixtures("anywhere")
def test_each_loop_has_a_place_on_the_board() -> None:
    async def main(worker: Any) -> BoardReading:
        reading: BoardReading = worker.post.read()
        return reading

    assert [reading.is_running for reading in hoop.run_threads(main, 2)] == [True, True]


# ASGI.


@pytest.mark.usefixtures("anywhere")
def test_uvicorn_serves_on_each_loop(caplog: pytest.LogCaptureFixture) -> None:
    """One application for all, with a lifespan for each loop."""
    pytest.importorskip("uvicorn")
    caplog.set_level("INFO", "hoop.cluster")
    events: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while scope["type"] == "lifespan":
            kind = (await receive())["type"]
            events.append(kind.removeprefix("lifespan."))
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
        body = f"by {hoop.cluster.worker.id}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def on_start() -> None:
        async def look() -> None:
            try:
                found = re.search(r"serving on tcp://(\S+):(\d+)", caplog.text)
                assert found
                answers.append(await asyncio.to_thread(get, (found[1], int(found[2]))))
            finally:
                cluster.stop()

        looking.append(asyncio.get_running_loop().create_task(look()))

    answers: list[str] = []
    looking: list[asyncio.Task[None]] = []
    cluster = cluster_of(application)
    cluster.on_start = on_start
    assert cluster.run() == 0
    looking[0].result()
    assert re.search(r"200 OK(?s:.*)by [01]\b", answers[0])
    assert sorted(events) == ["shutdown", "shutdown", "startup", "startup"]


# Refusals.

WANTED = {
    "preload": True,
    "reload_on_change": True,
    "blocked_timeout": 3.0,
    "abort_after": 3.0,
    "kill_after": 3.0,
    "max_requests": 3,
    "max_accepts": 3,
    "max_rss": 3,
    "max_lifetime": 3.0,
    "jitter": 0.5,
    "parallel": 2,
    "control": "/x",
    "roles": {"clock": hoop.cluster.Role("app:clock")},
}


def test_all_that_needs_processes_is_tried() -> None:
    assert set(WANTED) == set(OF_PROCESSES)


@pytest.mark.parametrize("name", OF_PROCESSES)
def test_what_needs_processes_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=rf'^{name} is for processes: kind="threads" cannot have {name}='):
        hoop.cluster.Options(target="app:app", kind="threads", **{name: WANTED[name]})


def test_settings_that_ask_for_nothing_are_taken() -> None:
    hoop.cluster.Options(target="app:app", kind="threads", control=False, blocked_timeout=None, preload=False)


def test_unknown_kinds_and_a_state_of_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="kind must be one of processes, threads, not 'fibres'"):
        hoop.cluster.Options(target="app:app", kind="fibres")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="state is shared by threads"):
        hoop.cluster.Options(target="app:app", state={})


@pytest.mark.skipif(not HAS_GIL, reason="this Python has no GIL, so that nothing is refused")
def test_a_build_with_a_gil_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r'kind="threads".*has it.*kind="processes"'):
        cluster_of(serve).run()


# The GIL, switched on by an extension.

NEWS = "The global interpreter lock (GIL) has been enabled to load module 'some_extension', which has not declared ..."


@pytest.mark.usefixtures("anywhere")
def test_who_has_switched_the_gil_on_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    source = f"import asyncio, warnings, hoop\nwarnings.warn({NEWS!r}, RuntimeWarning)\nasync def main(worker): pass\n"
    (tmp_path / "app_that_warns.py").write_text(source)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.warns(RuntimeWarning, match="some_extension"), pytest.raises(ClusterError, match="ended by itself"):
        cluster_of("app_that_warns:main", app_dir=str(tmp_path)).run()
    del sys.modules["app_that_warns"]
    assert "the extension module some_extension has switched it on. The loops take turns" in caplog.text


# The command line.


def test_threads_on_the_command_line() -> None:
    arguments = make_parser().parse_args(["serve", "app:app", "--threads", "3"])
    assert settings_of(arguments) == {"target": "app:app", "kind": "threads", "workers": 3}
    arguments = make_parser().parse_args(["serve", "app:app", "--threads", "3", "--workers", "2"])
    with pytest.raises(ValueError, match="--threads and --workers"):
        settings_of(arguments)


@pytest.mark.skipif(not HAS_GIL, reason="this Python has no GIL, so that nothing is refused")
def test_the_command_refuses_threads_where_there_is_a_gil(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = make_parser().parse_args(["serve", "app:app", "--threads", "2"])
    with pytest.raises(SystemExit) as raised:
        arguments.run(arguments)
    assert raised.value.code == 2
    assert "--threads: threads run in parallel only in a Python without a GIL" in capsys.readouterr().err
