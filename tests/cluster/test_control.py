"""hoop.cluster.control: where the control socket is, who may have it, what is asked and answered over it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hoop
import pytest
from hoop.cluster import control
from hoop.cluster.control import ControlClient, ControlServer, Refused, find_control, open_control, runtime_folder

DEADLINE_S = 60.0


# Where it is.


def test_runtime_folder_is_for_this_user_alone(tmp_path: Path) -> None:
    folder = runtime_folder({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert folder == tmp_path / "hoop"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert runtime_folder({"XDG_RUNTIME_DIR": str(tmp_path)}) == folder
    folder.chmod(0o770)
    with pytest.raises(OSError, match="is not a directory of this user alone"):
        runtime_folder({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_runtime_folder_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(0o700)
    (tmp_path / "hoop").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="is not a directory of this user alone"):
        runtime_folder({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_runtime_folder_without_a_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(control.os.path, "isdir", lambda path: False)
    assert runtime_folder({}) == tmp_path / f"hoop-{os.getuid()}"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("tcp://127.0.0.1:8000", "127.0.0.1-8000.sock"),
        ("tcp://[::1]:8000", "1-8000.sock"),
        ("unix:/run/app.sock", "unix-run-app.sock.sock"),
    ],
)
def test_default_path_is_named_by_the_address(tmp_path: Path, address: str, name: str) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert control.default_path([address, "tcp://0.0.0.0:1"], environment) == tmp_path / "hoop" / name


def test_long_addresses_make_short_names(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    one, other = (control.default_path([f"unix:/{'x' * 100}{end}"], environment) for end in "ab")
    assert one != other
    assert max(len(one.name), len(other.name)) <= control.LONGEST_NAME + len(control.SUFFIX)


def test_trap_c21_second_master_fails_and_a_stale_file_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with open_control(path) as first:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(OSError, match=rf"another cluster is running: its control socket is {path}"):
            open_control(path)
        assert control.is_alive(path)
        assert first.fileno() >= 0
    assert path.is_socket() and not control.is_alive(path)
    open_control(path).close()


def test_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no control socket in .*missing: No such file or directory"):
        open_control(tmp_path / "missing" / "control.sock")


def test_something_else_in_its_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(OSError, match="control"):
        open_control(path)
    assert path.read_text() == "precious"


def test_the_only_cluster_is_found(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with pytest.raises(LookupError, match="no cluster of yours is running"):
        find_control(None, environment)
    folder = runtime_folder(environment)
    with open_control(folder / "one.sock"):
        open_control(folder / "stale.sock").close()
        assert find_control(None, environment) == folder / "one.sock"
        with open_control(folder / "two.sock"):
            with pytest.raises(LookupError, match="choose by --control one of one, two"):
                find_control(None, environment)
            assert find_control("two", environment) == folder / "two.sock"
            assert find_control("./two", environment) == Path("two")
            assert find_control(None, {**environment, "HOOP_CONTROL": "one"}) == folder / "one.sock"


# What is asked and answered.


class Failed(Exception):
    detail = "Traceback: here"


class Master:
    """Commands without a cluster."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.listeners: list[Callable[[Any], None]] = []

    def status(self) -> dict[str, Any]:
        return {"pid": 1, "workers": []}

    async def reload(self) -> None:
        await asyncio.sleep(0)
        raise Failed("reload failed")

    async def upgrade(self) -> None:
        self.calls.append("upgrade")

    def scale(self, workers: int) -> None:
        if workers < 1:
            raise ValueError("workers must be positive")
        self.calls.append(workers)

    def stop(self) -> None:
        self.calls.append("stop")

    def subscribe(self, listener: Callable[[Any], None]) -> Callable[[], object]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)


@contextlib.asynccontextmanager
async def controlled(path: Path) -> Any:
    master = Master()
    server = ControlServer(open_control(path), master)
    await server.start(asyncio.get_running_loop())
    try:
        yield master, server
    finally:
        server.close()


def with_client(tmp_path: Path, use: Callable[[ControlClient, Master], Any]) -> Any:
    """What use() returns: it runs in a thread, the master's loop beside it."""
    path = tmp_path / "control.sock"

    async def main() -> Any:
        async with controlled(path) as (master, _):

            def connected() -> Any:
                with ControlClient(path) as client:
                    return use(client, master)

            return await asyncio.wait_for(asyncio.to_thread(connected), DEADLINE_S)

    return hoop.run(main())


def test_commands_are_carried_out(tmp_path: Path) -> None:
    def use(client: ControlClient, master: Master) -> None:
        assert client.ask("status") == {"pid": 1, "workers": []}
        assert client.ask("scale", workers=3) is None
        assert client.ask("upgrade") is None
        assert client.ask("stop") is None
        assert master.calls == [3, "upgrade", "stop"]

    with_client(tmp_path, use)


def test_what_fails_is_told_with_its_traceback(tmp_path: Path) -> None:
    def use(client: ControlClient, master: Master) -> None:
        with pytest.raises(Refused, match="reload failed") as refused:
            client.ask("reload")
        assert refused.value.detail == "Traceback: here"
        with pytest.raises(Refused, match="workers must be positive"):
            client.ask("scale", workers=0)
        for arguments in ({"workers": "3"}, {}):
            with pytest.raises(Refused, match="unknown command"):
                client.ask("scale", **arguments)
        with pytest.raises(Refused, match="unknown command"):
            client.ask("dance")
        assert client.ask("status")["pid"] == 1

    with_client(tmp_path, use)


def raw_lines(path: Path, data: bytes) -> Iterator[bytes]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE_S)
        sock.connect(str(path))
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as answers, contextlib.suppress(ConnectionError):
            yield from answers


@pytest.mark.parametrize("data", [b"nonsense\n", b"[]\n", b"\xff\n", b"{}\n"], ids=repr)
def test_nonsense_is_answered(tmp_path: Path, data: bytes) -> None:
    async def main() -> list[bytes]:
        async with controlled(tmp_path / "s"):
            return await asyncio.to_thread(lambda: list(raw_lines(tmp_path / "s", data)))

    (answer,) = hoop.run(main())
    assert b'"ok": false' in answer


def test_requests_without_end_are_cut(tmp_path: Path) -> None:
    async def main() -> list[bytes]:
        async with controlled(tmp_path / "s"):
            return await asyncio.to_thread(lambda: list(raw_lines(tmp_path / "s", b"x" * (1 << 17))))

    with contextlib.suppress(ConnectionError):
        assert hoop.run(main()) == []


def test_messages_come_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def main() -> list[Any]:
        async with controlled(path) as (master, server):
            came = asyncio.Event()
            loop = asyncio.get_running_loop()

            def follow() -> list[Any]:
                with ControlClient(path) as client:
                    client.ask("messages")
                    lines = client.lines()
                    loop.call_soon_threadsafe(came.set)
                    return list(lines)

            following = asyncio.ensure_future(asyncio.to_thread(follow))
            await came.wait()
            for listener in master.listeners:
                listener({"worker": 1, "message": "hello"})
            server.close()
            lines = await asyncio.wait_for(following, DEADLINE_S)
            assert master.listeners == []
            return lines

    assert hoop.run(main()) == [{"worker": 1, "message": "hello"}]


def test_client_that_does_not_read_loses_messages_not_the_master(tmp_path: Path) -> None:
    path = tmp_path / "s"
    message = {"message": "x" * 10_000}

    async def main() -> tuple[int, int]:
        async with controlled(path) as (master, server):
            with ControlClient(path) as client:
                await asyncio.to_thread(client.ask, "messages")
                (listener,) = master.listeners
                for _ in range(1000):
                    listener(message)
                (connection,) = server.connections
                await asyncio.to_thread(lambda: [next(client.lines()) for _ in range(50)])
                return connection._dropped, connection._transport.get_write_buffer_size()

    dropped, unsent = hoop.run(main())
    assert dropped > 0
    assert unsent <= control.MOST_UNSENT + 20_000


def test_no_cluster_at_the_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"no cluster answers at {tmp_path}/s: No such file or directory"):
        ControlClient(tmp_path / "s")
