"""hoop.inspect: one process that can be looked into."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import stat
from pathlib import Path
from typing import Any

import hoop
import hoop.inspect
import pytest
from hoop import watched
from hoop.cluster.control import ControlClient, find_control
from hoop.cluster.stacks import cpu_of
from hoop.core.board import Board
from interpreter import run_script

DEADLINE_S = 60


async def asked(path: Path, *commands: str) -> list[Any]:
    """Answers over one connection, of this very loop."""
    reader, writer = await hoop.open_unix_connection(str(path), limit=1 << 24)
    answers = []
    for command in commands:
        writer.write(command.encode() + b"\n")
        answers.append(json.loads(await asyncio.wait_for(reader.readline(), DEADLINE_S)))
    writer.close()
    await writer.wait_closed()
    return answers


async def result(path: Path, command: str) -> Any:
    (answer,) = await asked(path, json.dumps({"command": command}))
    assert answer["ok"], answer
    return answer["result"]


def test_status_of_a_process(tmp_path: Path) -> None:
    async def main() -> None:
        with hoop.inspect.serve(tmp_path / "app.sock") as inspector:
            assert stat.S_IMODE(inspector.path.stat().st_mode) == 0o600
            kept: list[Any] = []
            server = await hoop.start_server(lambda *streams: kept.append(streams), "127.0.0.1", 0)
            _, writer = await hoop.open_connection(*server.sockets[0].getsockname())
            while not (status := await result(inspector.path, "status"))["workers"][0]["connections"]:
                await asyncio.sleep(0)
            (worker,) = status["workers"]
            assert (status["kind"], status["pid"], status["hoop"]) == ("process", os.getpid(), hoop.__version__)
            assert worker["accepts"] == 1
            assert worker["tasks"] >= 1
            assert worker["cpu"] is None or worker["cpu"] >= 0
            writer.close()
            server.close()
        assert not inspector.path.exists()

    hoop.run(main())


def test_a_look_is_at_what_came_since_the_last_one(tmp_path: Path) -> None:
    async def main() -> None:
        with hoop.inspect.serve(tmp_path / "app.sock") as inspector:
            server = await hoop.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
            reader, _ = await hoop.open_connection(*server.sockets[0].getsockname())
            await reader.read()
            first, second = await asked(inspector.path, '{"command": "look"}', '{"command": "look"}')
            assert first["result"]["workers"][0]["accepts_per_s"] > 0
            assert second["result"]["workers"][0]["accepts_per_s"] == 0
            server.close()

    hoop.run(main())


def test_a_loop_that_writes_on_another_board_is_read_there(tmp_path: Path) -> None:
    """As a worker's does, once its master's board is attached: the figures of the one before would stand still."""
    board = Board(2)

    async def main() -> None:
        with hoop.inspect.serve(tmp_path / "app.sock") as inspector:
            board.attach(asyncio.get_running_loop(), 1)
            board.count_requests(1, 7)
            (worker,) = (await result(inspector.path, "status"))["workers"]
            assert worker["requests"] == 7
        assert board.read(1).pid == os.getpid()

    hoop.run(main())


def test_where_each_task_waits(tmp_path: Path) -> None:
    async def inner(gate: asyncio.Future[None]) -> None:
        await gate

    async def outer(gate: asyncio.Future[None]) -> None:
        await inner(gate)

    async def main() -> None:
        gate = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(outer(gate), name="the one")
        with hoop.inspect.serve(tmp_path / "app.sock") as inspector:
            (task,) = [one for one in await result(inspector.path, "tasks") if one["name"] == "the one"]
            names = [frame["function"].rpartition(".")[2] for frame in task["stack"]]
            assert names == ["outer", "inner"]
            assert "outer" in task["coroutine"] and "Future" in task["awaits"]
            assert all(frame["file"] == __file__ and frame["line"] > 0 for frame in task["stack"])
        gate.set_result(None)
        await waiting

    hoop.run(main())


def test_what_has_held_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with hoop.inspect.serve(tmp_path / "app.sock") as inspector:
            monkeypatch.setattr(watched, "report", None)
            (answer,) = await asked(inspector.path, '{"command": "blocked"}')
            assert "HOOP_MONITOR=50ms" in answer["error"]
            monkeypatch.setattr(watched, "report", lambda: {"blocks": 3})
            (worker,) = (await result(inspector.path, "blocked"))["workers"]
            assert (worker["pid"], worker["answers"], worker["found"]) == (os.getpid(), True, {"blocks": 3})

    hoop.run(main())


def test_bad_questions_are_answered(tmp_path: Path) -> None:
    async def main() -> None:
        with hoop.inspect.serve(tmp_path / "app.sock") as inspector:
            answers = await asked(inspector.path, "{", "[]", '{"command": "reload"}', '{"command": "status"}')
            assert [answer["ok"] for answer in answers] == [False, False, False, True]
            assert "a process without a cluster" in answers[2]["error"]
            reader, writer = await hoop.open_unix_connection(str(inspector.path))
            writer.write(b"x" * (1 << 20))  # no line
            assert await asyncio.wait_for(read_to_end(reader), DEADLINE_S) == b""
            writer.close()

    hoop.run(main())


async def read_to_end(reader: Any) -> bytes:
    try:
        data: bytes = await reader.read()
    except ConnectionResetError:
        return b""
    return data


def test_a_living_socket_is_an_error_and_a_stale_one_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    async def main() -> None:
        with hoop.inspect.serve(path) as inspector:
            with pytest.raises(OSError, match=f"another process answers at {path}"):
                hoop.inspect.serve(path)
            assert inspector.is_open and (await result(path, "status"))["pid"] == os.getpid()

    hoop.run(main())
    path.write_text("precious")
    with pytest.raises(OSError, match="another process answers at"):
        hoop.run(main())
    assert path.read_text() == "precious"
    with pytest.raises(OSError, match="no control socket in /nowhere"):
        hoop.run(serve_at(Path("/nowhere/app.sock")))


async def serve_at(path: Path) -> hoop.inspect.Inspector:
    return hoop.inspect.serve(path)


def test_it_ends_with_the_loop(tmp_path: Path) -> None:
    inspector = hoop.run(serve_at(tmp_path / "app.sock"))
    assert not inspector.is_open
    assert not inspector.path.exists()
    inspector.close()


def test_clients_of_a_closed_loop_are_closed(tmp_path: Path) -> None:
    loop = hoop.Loop()
    try:
        inspector = loop.run_until_complete(serve_at(tmp_path / "app.sock"))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(inspector.path))
            client.sendall(b'{"command": "status"}\n')
            while not select.select([client], [], [], 0)[0]:
                loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            client.settimeout(DEADLINE_S)
            while client.recv(1 << 16):
                pass
    finally:
        loop.close()
    assert not inspector.path.exists()


def test_a_file_that_is_anothers_by_now_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        with hoop.inspect.serve(tmp_path / "app.sock") as inspector:
            inspector.path.unlink()
            inspector.path.write_text("another's")

    hoop.run(main())
    assert (tmp_path / "app.sock").read_text() == "another's"


def test_it_keeps_no_loop_alive(tmp_path: Path) -> None:
    """Neither the socket, nor a client that stays."""
    loop = hoop.Loop()
    path = tmp_path / "app.sock"
    try:
        loop.run_until_complete(serve_at(path))
        with ControlClient(path) as client:
            client.socket.sendall(b'{"command": "status"}\n')
            loop.run()  # returns, perhaps before the answer
            while not select.select([client.socket], [], [], 0)[0]:
                loop.run_until_complete(asyncio.sleep(0))
            assert next(client.lines())["result"]["pid"] == os.getpid()
            loop.run()
    finally:
        loop.close()


def test_only_a_running_hoop_loop_is_looked_into(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        hoop.inspect.serve(tmp_path / "app.sock")
    with (
        asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner,
        pytest.raises(TypeError, match="hoop's loops"),
    ):
        runner.run(serve_at(tmp_path / "app.sock"))
    assert not (tmp_path / "app.sock").exists()


def test_a_child_of_fork_neither_answers_nor_removes(tmp_path: Path) -> None:
    async def main() -> None:
        with hoop.inspect.serve(tmp_path / "app.sock") as inspector:
            pid = os.fork()
            if pid == 0:
                status = 2
                try:
                    status = int(inspector.is_open)
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert (await result(inspector.path, "status"))["pid"] == os.getpid()

    hoop.run(main())


def test_the_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the commands look; and a second loop of the process does not mind the first."""
    program = """
import asyncio, os, hoop
from pathlib import Path
from hoop.cluster.control import find_control
async def main():
    await asyncio.sleep(0)
    return find_control(None)
for _ in range(2):
    path = hoop.run(main())
    print(path.name == f"pid-{os.getpid()}.sock", path.exists())
"""
    (tmp_path / "hoop").mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "hoop" / "pid-1.sock"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOOP_INSPECT", "1")
    status, output, errors = run_script(program)
    assert (status, output.split(), errors) == (0, ["True", "False"] * 2, "")
    assert list((tmp_path / "hoop").iterdir()) == []


def test_the_variable_stops_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOOP_INSPECT", f"{tmp_path}/none/%p.sock")
    hoop.run(asyncio.sleep(0))
    assert f"HOOP_INSPECT={tmp_path}/none/%p.sock: no control socket" in caplog.text


def test_a_cluster_is_found_before_a_process(tmp_path: Path) -> None:
    (tmp_path / "hoop").mkdir(0o700)
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    sockets = []
    for name in ("pid-1", "pid-2", "127.0.0.1-8000"):
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].bind(str(tmp_path / "hoop" / f"{name}.sock"))
        sockets[-1].listen()
        if name == "pid-1":
            assert find_control(None, environment).name == "pid-1.sock"
        if name == "pid-2":
            with pytest.raises(LookupError, match="several processes are running: choose by --control one of pid-1, "):
                find_control(None, environment)
    assert find_control(None, environment).name == "127.0.0.1-8000.sock"
    for sock in sockets:
        sock.close()


def test_processor_time_is_told_or_none() -> None:
    spent = cpu_of(os.getpid())
    assert spent is None or spent >= 0
    assert cpu_of(2**22 + 1) is None
