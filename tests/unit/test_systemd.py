"""hoop.systemd, beside a socket that stands for the manager's; D16 of docs/draining.md."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hoop.systemd import ListenSocket, Notifier, listen_sockets


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str]]:
    """What NOTIFY_SOCKET names, and the name."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = f"{folder}/notify" if request.param == "path" else f"@hoop-test-{os.getpid()}"
        sock.bind(name.replace("@", "\0"))
        sock.settimeout(20)
        yield sock, name


def test_d16_states_reach_the_manager_and_children_do_not_inherit_it(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    environment = {"NOTIFY_SOCKET": name, "HOME": "/"}
    notifier = Notifier(environment)
    assert environment == {"HOME": "/"}
    assert notifier.is_managed
    assert notifier.ready("serves 3 ports")
    assert sock.recv(1000) == b"READY=1\nSTATUS=serves 3 ports"
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert notifier.reloading()
    first, second = sock.recv(1000).split(b"\n")
    assert first == b"RELOADING=1"
    assert before <= int(second.removeprefix(b"MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert notifier.stopping()
    assert sock.recv(1000) == b"STOPPING=1"
    assert notifier.watchdog()
    assert sock.recv(1000) == b"WATCHDOG=1"
    notifier.close()
    notifier.close()
    assert not notifier.watchdog()


def test_without_a_manager_nothing_happens() -> None:
    notifier = Notifier({})
    assert not notifier.is_managed
    assert not notifier.ready()
    assert notifier.watchdog_interval is None


def test_manager_that_is_gone_is_an_error() -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "/nonexistent/notify"})
    with pytest.raises(FileNotFoundError):
        notifier.ready()
    notifier.close()


@pytest.mark.parametrize("address", ["notify", "@", "vsock:2:1234"])
def test_address_that_cannot_be_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="neither a path nor an abstract socket"):
        Notifier({"NOTIFY_SOCKET": address})


@pytest.mark.parametrize("text", ["READY", "STATUS=one\nREADY=1"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NAME=VALUE in one line"):
        Notifier({}).notify(text)


@pytest.mark.parametrize(
    ("pid", "interval"), [({}, 10.0), ({"WATCHDOG_PID": str(os.getpid())}, 10.0), ({"WATCHDOG_PID": "1"}, None)]
)
def test_d16_watchdog_is_fed_at_half_of_its_time(pid: dict[str, str], interval: float | None) -> None:
    environment = {"WATCHDOG_USEC": "20000000", **pid}
    assert Notifier(environment).watchdog_interval == interval
    assert environment == {}


@pytest.mark.parametrize("text", ["0", "soon", "-5"])
def test_time_of_the_watchdog_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no number of microseconds"):
        Notifier({"WATCHDOG_USEC": text})


# ---- socket activation: in a program of its own, whose descriptors from 3 on are the test's ------------------------

TAKER = """
import os
import sys

from hoop.systemd import listen_sockets

os.environ["LISTEN_PID"] = str(os.getpid() if os.environ["LISTEN_PID"] == "mine" else 1)
try:
    taken = listen_sockets()
except Exception as error:
    print(type(error).__name__, error)
    sys.exit()
for one in taken:
    print(one.name, one.socket.getsockname()[1], one.socket.get_inheritable(), one.socket.getblocking())
print(sorted(name for name in os.environ if name.startswith("LISTEN_")), len(listen_sockets()))
"""


def take(files: list[int], **variables: str) -> list[str]:
    """What the program says that has these files as descriptors 3, 4, ..."""
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    redirected = " ".join(f"{number}<&{fd}" for number, fd in enumerate(files, 3))
    # The shell moves them: descriptors of the test's that high do not collide with 3 and 4.
    command = ["bash", "-c", f'exec "$0" -c "$1" {redirected}', sys.executable, TAKER]
    done = subprocess.run(
        command, env=environment, pass_fds=files, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


@pytest.fixture
def files() -> Iterator[tuple[list[int], list[int]]]:
    """Two listening sockets on descriptors above 20, and their ports."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        high = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 20) for sock in (one, other)]
        yield high, [one.getsockname()[1], other.getsockname()[1]]
        for fd in high:
            os.close(fd)


def test_d16_sockets_are_taken_with_their_names_and_once(files: tuple[list[int], list[int]]) -> None:
    high, ports = files
    assert take(high, LISTEN_PID="mine", LISTEN_FDS="2", LISTEN_FDNAMES="web:admin") == [
        f"web {ports[0]} False False",
        f"admin {ports[1]} False False",
        "[] 0",
    ]


def test_sockets_without_names_are_unknown(files: tuple[list[int], list[int]]) -> None:
    high, ports = files
    assert take(high[:1], LISTEN_PID="mine", LISTEN_FDS="1") == [f"unknown {ports[0]} False False", "[] 0"]


def test_d16_sockets_of_another_process_are_left_alone(files: tuple[list[int], list[int]]) -> None:
    high, _ = files
    (left,) = take(high, LISTEN_PID="parent's", LISTEN_FDS="2", LISTEN_FDNAMES="web:admin")
    assert left == "['LISTEN_FDNAMES', 'LISTEN_FDS', 'LISTEN_PID'] 0"


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"LISTEN_FDS": "two"}, "ValueError LISTEN_FDS='two' is no number"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "web"}, "ValueError LISTEN_FDNAMES='web' has not a name for each of"),
        ({"LISTEN_FDS": "3"}, "OSError [Errno 9] Bad file descriptor"),
    ],
)
def test_variables_that_contradict_one_another(
    files: tuple[list[int], list[int]], variables: dict[str, str], text: str
) -> None:
    (said,) = take(files[0], LISTEN_PID="mine", **variables)
    assert said.startswith(text)


def test_file_that_is_no_socket_is_an_error(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        (said,) = take([file.fileno()], LISTEN_PID="mine", LISTEN_FDS="1")
    assert said == "OSError [Errno 88] descriptor 3 of LISTEN_FDS=1 is no socket"


def test_no_activation_gives_no_sockets() -> None:
    taken: list[ListenSocket] = listen_sockets({})
    assert taken == []
