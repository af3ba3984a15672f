"""Where a cluster listens: sockets that the master keeps, whatever becomes of the workers."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import sys
import threading
from pathlib import Path

import pytest
import trustme
from clusters import LINES_APP, Client, address_in, ask, cluster, refuses, started, until, workers_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_several_addresses(tmp_path: Path) -> None:
    with cluster(tmp_path, bind=("127.0.0.1:0", "unix:one.sock", "unix:@hoop-" + tmp_path.name)) as running:
        texts = running.expect("serving on (.*) with 2 workers")[1].split(", ")
        assert len(texts) == 3
        (tmp_path / "app.py").unlink()
        os.chdir(tmp_path)
        assert [ask(address_in(text)).split()[3] for text in texts] == ["1"] * 3
        assert running.stop() == 0
        assert all(refuses(address_in(text)) for text in texts)


# ---- UNIX sockets ----------------------------------------------------------------------------------------------------


def test_trap_c20_the_file_of_a_unix_socket_is_the_masters(tmp_path: Path) -> None:
    """Workers come and go, and it stays; the end removes it. Workers serve by create_unix_server, which removes files
    where it has made them."""
    path = tmp_path / "app.sock"
    source = LINES_APP.replace("hoop.start_server(", "hoop.start_unix_server(")
    with cluster(tmp_path, source, bind=f"unix:{path}?mode=0620") as running:
        running.serving()
        assert stat.S_IMODE(path.stat().st_mode) == 0o620
        identity = path.stat().st_ino
        os.kill(int(ask(str(path)).split()[0]), signal.SIGKILL)
        running.expect("ready")
        running.send(signal.SIGHUP)
        running.expect("reloaded")
        until(lambda: "\n".join(running.lines).count("exited with status 0") == 2 or not running._read(0.1))
        assert path.stat().st_ino == identity and ask(str(path))
        assert running.stop() == 0
    assert not path.exists()


def test_trap_c20_a_stale_file_gives_way_and_a_live_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with cluster(tmp_path, bind=f"unix:{path}") as running:
        running.serving()
        with cluster(tmp_path, bind=f"unix:{path}") as second:
            assert second.wait() == 1
            assert f"cannot listen on unix:{path}: a server listens there" in second.lines[-1]
        assert ask(str(path))
        assert running.stop() == 0


def test_trap_c20_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with cluster(tmp_path, bind=f"unix:{path}") as running:
        assert running.wait() == 1
        assert "something else than a socket" in running.lines[-1]
    assert path.read_text() == "data"


def test_trap_c20_a_socket_of_the_service_manager_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "given.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen()
        (tmp_path / "app.py").write_text(LINES_APP)
        program = (
            f"import os\nos.dup2({given.fileno()}, 3)\nos.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
            "import hoop.cluster\nhoop.cluster.run('app:main', workers=2, control=False)"
        )
        with started(program, tmp_path, pass_fds=[given.fileno()]) as running:
            assert running.serving() == str(path)
            workers_of(str(path), 2)
            assert running.stop() == 0
    assert path.exists()


# ---- one socket for each worker --------------------------------------------------------------------------------------


def test_port_per_worker(tmp_path: Path) -> None:
    """A worker's port is its slot's, also after a restart."""
    with cluster(tmp_path, balance="port_per_worker") as running:
        texts = running.expect("serving on (.*) with 2 workers")[1].split(", ")
        addresses = [address_in(text) for text in texts]
        assert [ask(address).split()[1] for address in addresses] == ["0", "1"]
        os.kill(int(ask(addresses[1]).split()[0]), signal.SIGKILL)
        assert ask(addresses[1]).split()[1] == "1"  # it waits in the queue for the next worker
        assert running.stop() == 0


def test_trap_c01_reuseport_keeps_the_queue_of_a_worker_that_dies(tmp_path: Path) -> None:
    """Its socket is the master's: those that wait are served by the slot's next worker."""
    with cluster(tmp_path, balance="reuseport") as running:
        address = running.serving()
        pids = workers_of(address, 2)
        os.kill(pids[0], signal.SIGSTOP)
        clients = [Client(address) for _ in range(40)]
        for client in clients:
            client.send("who")
        os.kill(pids[0], signal.SIGKILL)
        slots = [client.answer().split()[1] for client in clients]
        assert set(slots) == {"0", "1"}
        for client in clients:
            client.close()
        assert running.stop() == 0


def test_reuseport_follows_the_size(tmp_path: Path) -> None:
    with cluster(tmp_path, balance="reuseport", workers=1) as running:
        address = running.serving()
        running.send(signal.SIGTTIN)
        running.expect("worker 1: ready")
        workers_of(address, 2)
        running.send(signal.SIGTTOU)
        running.expect("worker 1: process .* exited with status 0")
        assert {ask(address).split()[1] for _ in range(20)} == {"0"}
        assert running.stop() == 0


@pytest.mark.parametrize("balance", ["shared", "reuseport", "port_per_worker"])
def test_trap_c21_a_second_master_on_a_port_fails_loudly(tmp_path: Path, balance: str) -> None:
    with cluster(tmp_path, balance=balance) as running:
        address = running.serving()
        with cluster(tmp_path, bind=f"127.0.0.1:{address[1]}", balance=balance) as second:
            assert second.wait() == 1
            assert f"cannot listen on tcp://127.0.0.1:{address[1]}: Address already in use" in second.lines[-1]
        assert running.stop() == 0


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"bind": "unix:/nowhere/at/all.sock"}, "cannot listen on unix:/nowhere/at/all.sock: No such file"),
        ({"bind": f"unix:/tmp/{'x' * 120}"}, "the path is too long for a socket"),
        ({"bind": "203.0.113.1:80"}, "cannot listen on tcp://203.0.113.1:80: Cannot assign requested address"),
        ({"bind": "unix:app.sock?owner=nobody-of-that-name"}, "no such user: 'nobody-of-that-name'"),
        ({"bind": "fd://77"}, "cannot listen on fd://77: Bad file descriptor"),
        ({"certfile": "nowhere.pem"}, "cannot load the certificate .nowhere.pem.: No such file or directory"),
        ({"certfile": "app.py"}, "cannot load the certificate .app.py.: "),
    ],
    ids=["directory", "length", "address", "owner", "fd", "certificate", "no-certificate"],
)
def test_what_cannot_be_had_is_one_line(tmp_path: Path, settings: dict[str, str], reason: str) -> None:
    with cluster(tmp_path, **settings) as running:
        assert running.wait() == 1
        assert len(running.lines) == 1, running.lines
        running.expect(reason)
    assert {path.name for path in tmp_path.iterdir()} == {"app.py"}


# ---- TLS -------------------------------------------------------------------------------------------------------------


def test_trap_c22_a_tls_session_goes_on_with_another_worker(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    source = LINES_APP.replace("sock=sock", "sock=sock, ssl=worker.ssl")
    with cluster(tmp_path, source, workers=3, certfile="server.pem") as running:
        address = running.serving()
        context = ssl.create_default_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # its session is there with the handshake
        authority.configure_trust(context)
        session = None
        slots = set()
        reused = 0
        for _ in range(200):
            plain = socket.create_connection(address, 10)
            with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as client:
                client.sendall(b"who\n")
                slots.add(client.recv(100).split()[1])
                assert session is None or client.session_reused
                reused += client.session_reused
                session = session or client.session
            if len(slots) == 3:
                break
        assert slots == {b"0", b"1", b"2"} and reused >= 2
        assert running.stop() == 0


def test_trap_c01_the_queue_is_emptied_before_the_end(tmp_path: Path) -> None:
    """Clients that wait while the only worker is busy are answered, though the cluster stops meanwhile."""
    with cluster(tmp_path, workers=1) as running:
        address = running.serving()
        busy = Client(address)
        busy.send("block 0.3")
        clients = [Client(address) for _ in range(20)]
        for client in clients:
            client.send("who")
        stopping = threading.Thread(target=running.send, args=(signal.SIGTERM,))
        stopping.start()
        assert all(client.answer() for client in clients)
        for client in [busy, *clients]:
            client.close()
        stopping.join()
        assert running.wait() == 0
