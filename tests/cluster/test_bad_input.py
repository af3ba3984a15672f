"""What a user gets wrong with `hoop serve`: one clear line, an exit status that is not 0, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from clusters import IS_SANITIZED, PATIENCE_S, Cluster

MODULES = {
    "app": "async def app(scope, receive, send):\n    assert scope['type'] == 'http'\n",
    "raising": "def connect():\n    raise LookupError('no settings')\n\nconnect()\n",
    "broken": "def f(:\n",
    "starting": "async def app(scope, receive, send):\n    await receive()\n    raise LookupError('no database')\n",
    "hanging": (
        "import asyncio\nasync def app(scope, receive, send):\n    await receive()\n    await asyncio.Event().wait()\n"
    ),
    "blocking": "import time\ntime.sleep(600)\n",
    "dying": "import os\nos._exit(9)\n",
    "number": "app = 5\n",
    "silent": "import asyncio\nasync def main():\n    await asyncio.Event().wait()\n",
    "failing_factory": "def make():\n    raise LookupError('no settings')\n",
}
USAGE, FAILED = 2, 1


@dataclass(frozen=True)
class Mistake:
    words: str
    line: str  # part of the last line that is not a traceback
    status: int = FAILED
    detail: str | None = None  # part of the traceback


# {port}: one that another program has; {folder}: the current directory.
MISTAKES = {
    "no such module": Mistake("nothing:app", "error: worker 0 failed: target 'nothing:app': no module named 'nothing'"),
    "no such attribute": Mistake("app:ap", "module 'app' has no attribute 'ap'; did you mean 'app'?"),
    "no attribute": Mistake("app", "target 'app' names no attribute: write MODULE:ATTRIBUTE, as in app:app", USAGE),
    "a path": Mistake("app.py:app", "'app.py:app' is a path: write a module's name, as in app:app", USAGE),
    "no target": Mistake("", "the following arguments are required: TARGET", USAGE),
    "no application": Mistake("number:app", "5 is no application: an ASGI application, an aiohttp.web.Application,"),
    "server for others": Mistake("app:app --server aiohttp", "server aiohttp serves an aiohttp.web.Application, not"),
    "no such server": Mistake("app:app --server apache", "invalid choice: 'apache'", USAGE),
    "raises at import": Mistake(
        "raising:app", "importing 'raising' failed: LookupError: no settings (raising.py, line 2)", detail="in connect"
    ),
    "no Python": Mistake("broken:app", "importing 'broken' failed: SyntaxError: invalid syntax", detail="def f(:"),
    "raises in its lifespan": Mistake(
        "starting:app",
        "the application failed to start: LookupError: no database (starting.py, line 3)",
        detail="starting.py",
    ),
    "hangs in its lifespan": Mistake(
        f"hanging:app --start-timeout {12 if IS_SANITIZED else 4}",  # imports the server meanwhile
        "its lifespan was not through after ",
        detail="await asyncio.Event().wait()",
    ),
    "hangs at import": Mistake("blocking:app --start-timeout 0.5", "worker 0 was not ready within 0.5 s"),
    "never ready": Mistake("silent:main --start-timeout 0.5", "worker 0 was not ready within 0.5 s"),
    "dies at import": Mistake("dying:app", "worker 0 exited with status 9"),
    "factory raises": Mistake(
        "failing_factory:make --factory", "the factory failed: LookupError: no settings", detail="in make"
    ),
    "port taken": Mistake("app:app -b 127.0.0.1:{port}", "cannot listen on tcp://127.0.0.1:{port}: Address already in"),
    "port taken, reuseport": Mistake("app:app -b 127.0.0.1:{port} --balance reuseport", "Address already in use"),
    "no address": Mistake("app:app -b here", "bind 'here' is no HOST:PORT", USAGE),
    "no port": Mistake("app:app -b 127.0.0.1:http", "bind '127.0.0.1:http'", USAGE),
    "another's address": Mistake("app:app -b 192.0.2.1:80", "cannot listen on tcp://192.0.2.1:80: "),
    "unknown scheme": Mistake("app:app -b http://127.0.0.1:8000", "unknown scheme 'http'", USAGE),
    "no directory": Mistake("app:app -b unix:missing/app.sock", "cannot listen on unix:missing/app.sock: No such file"),
    "not a socket": Mistake("app:app -b unix:app.py", "something else than a socket has that name"),
    "unknown owner": Mistake("app:app -b unix:app.sock?owner=nobody-has-this-name", "cannot listen on unix:app.sock: "),
    "same twice": Mistake("app:app -b 127.0.0.1:8000 -b 127.0.0.1:8000", "bind names an address twice", USAGE),
    "no workers": Mistake("app:app -w 0", "workers must be between 1 and 2147483647, not 0", USAGE),
    "fewer": Mistake("app:app -w -3", "workers must be between 1 and 2147483647, not -3", USAGE),
    "some workers": Mistake("app:app -w some", "'some' is neither a number nor auto", USAGE),
    "no certificate": Mistake(
        "app:app --ssl-certfile missing.pem", "cannot load the certificate (missing.pem): No such"
    ),
    "bad certificate": Mistake("app:app --ssl-certfile app.py", "cannot load the certificate (app.py): "),
    "key alone": Mistake("app:app --ssl-keyfile app.py", "keyfile needs certfile", USAGE),
    "no control socket": Mistake("app:app --control missing/c.sock", "no control socket in missing: No such file"),
    "no time": Mistake("app:app --drain-timeout soon", "'soon' is no number of seconds", USAGE),
    "negative time": Mistake("app:app --drain-delay=-1", "'-1' is no number of seconds", USAGE),
    "no size": Mistake("app:app --max-rss much", "'much' is no size, such as 512M", USAGE),
    "no network": Mistake("app:app --proxy-protocol here", "here", USAGE),
    "unknown option": Mistake("app:app --fast", "unrecognized arguments: --fast", USAGE),
    "limit": Mistake(
        "app:app --limit-max-connections 0", "max_connections must be between 1 and 2147483647, not 0", USAGE
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    runtime = tmp_path / "runtime"
    runtime.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    return tmp_path


def serve(folder: Path, words: list[str]) -> Cluster:
    return Cluster(f"import sys\nfrom hoop.command.main import main\nsys.exit(main({['serve', *words]!r}))", folder)


def check(running: Cluster, mistake: Mistake, line: str) -> None:
    """The line, the status, no process: Cluster.wait() sees that no one holds the log open."""
    try:
        status = running.wait()
    finally:
        running.close()
    told = "\n".join(running.lines)
    assert status == mistake.status, told
    (found,) = [one for one in running.lines if "error: " in one]
    assert line in found, told
    if mistake.detail is None:
        assert "Traceback" not in told
    else:
        assert mistake.detail in told.partition(found)[2], told


def files_in(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(folder: Path, name: str) -> None:
    if name not in ("port taken", "port taken, reuseport"):
        pytest.importorskip("uvicorn")
    mistake = MISTAKES[name]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = mistake.words.format(port=port).split()
        if "-b" not in words:
            words += ["-b", "127.0.0.1:0", "-b", f"unix:{folder}/own.sock"]
        if "-w" not in words:
            words += ["-w", "1"]
        (folder / "runtime" / "hoop").mkdir(0o700)
        before = files_in(folder)
        check(serve(folder, words), mistake, mistake.line.format(port=port))
        assert files_in(folder) == before


def test_socket_in_a_directory_without_permission(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(0o500)
    words = ["app:app", "-w", "1", "-b", f"unix:{closed}/app.sock", "--control", "none"]
    program = f"import sys\nfrom hoop.command.main import main\nsys.exit(main({['serve', *words]!r}))"
    if os.getuid() == 0:  # without the right of root to write anywhere
        setpriv = shutil.which("setpriv") or pytest.skip("needs a user other than root, or setpriv")
        drop = [setpriv, "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
        program = f"import os, sys\nos.execv({setpriv!r}, [*{drop!r}, sys.executable, '-u', '-c', {program!r}])"
    check(Cluster(program, folder), Mistake("", ""), f"cannot listen on unix:{closed}/app.sock: Permission denied")
    assert list(closed.iterdir()) == []


def test_trap_c21_second_cluster_on_one_address(folder: Path) -> None:
    """Also where the kernel would let both listen: the control socket is the same."""
    pytest.importorskip("aiohttp")
    source = "from aiohttp import web\napp = web.Application()\n"
    (folder / "web.py").write_text(source)
    words = ["web:app", "-w", "1", "--balance", "reuseport", "-b"]
    first = serve(folder, [*words, "127.0.0.1:0"])
    try:
        address = first.expect(r"serving on tcp://(\S+?),? ")[1]
        second = serve(folder, [*words, address])
        check(second, Mistake("", ""), "")
        other = f"127.0.0.2:{address.rpartition(':')[2]}"
        (control,) = (folder / "runtime" / "hoop").iterdir()
        third = serve(folder, [*words, other, "--control", str(control)])
        check(third, Mistake("", ""), f"another cluster is running: its control socket is {control}")
        assert control.is_socket()
        assert first.stop() == 0
    finally:
        first.close()


def test_ctl_without_a_command_or_a_cluster(folder: Path) -> None:
    for words, status in ((["ctl"], USAGE), (["ctl", "scale", "x"], USAGE), (["ctl", "dance"], USAGE),
                          (["ctl", "--control", "./none", "status"], 4)):  # fmt: skip
        command = [sys.executable, "-m", "hoop", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == status
        assert len(done.stderr.splitlines()) == 1 and done.stdout == ""
