"""Applications are run as their users run them; every test here also checks that nothing was left behind.

A package or a program that is not installed skips the tests that need it, with the reason. Where the environment
variable CI is set it fails them: a suite that quietly tests nothing is worse than a red one. APPS=optional excuses the
packages, which a new Python may not have yet, but never the programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import glob
import importlib.util
import logging
import os
import random
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from missing import fail_or_skip

if TYPE_CHECKING:
    from certificates import Certificates
    from cluster_process import Cluster

# What each module imports beyond the standard library.
NEEDED_PACKAGES: dict[str, tuple[str, ...]] = {
    "test_aiohttp.py": ("aiohttp",),
    "test_aioquic.py": ("aioquic", "trustme"),
    "test_asyncpg.py": ("asyncpg", "trustme"),
    "test_asyncssh.py": ("asyncssh",),
    "test_balancers.py": ("uvicorn", "httptools"),
    "test_cluster_chat.py": ("redis",),
    "test_cluster_haproxy.py": ("uvicorn", "httptools"),
    "test_cluster_nginx.py": ("uvicorn", "httptools"),
    "test_cluster_pod.py": ("uvicorn", "httptools"),
    "test_cluster_systemd.py": ("uvicorn", "httptools"),
    "test_examples.py": ("uvicorn", "httptools", "httpx", "redis"),
    "test_grpc.py": ("grpc",),
    "test_hypercorn.py": ("hypercorn", "httpx", "h2", "trustme"),
    "test_nginx.py": ("aiohttp", "httpx", "h2", "trustme"),
    "test_prefork.py": ("uvicorn", "httptools", "gunicorn", "uvicorn_worker"),
    "test_recipes.py": ("aiohttp", "anyio", "gunicorn", "hypercorn", "pytest_asyncio", "uvicorn", "uvicorn_worker"),
    "test_redis.py": ("redis",),
    "test_tls_in_tls.py": ("aiohttp", "httpx", "trustme"),
    "test_uvicorn.py": ("uvicorn", "httptools", "httpx"),
    "test_websockets.py": ("websockets",),
}

Payload = Callable[[int], bytes]


# Where Debian and Homebrew keep programs that they do not put on PATH.
OTHER_FOLDERS = {"postgres": ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql@*/bin")}


class UnimportableModule(pytest.Module):
    """Stands for a test module whose packages are not installed; collecting it says which."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        names = ", ".join(absent_packages(self.path))
        optional = os.environ.get("APPS") == "optional"
        fail_or_skip(f"not installed: {names} (see tests/apps/requirements.txt)", excused=optional)


def absent_packages(path: Path) -> list[str]:
    return [name for name in NEEDED_PACKAGES.get(path.name, ()) if importlib.util.find_spec(name) is None]


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if absent_packages(module_path):
        return UnimportableModule.from_parent(parent, path=module_path)
    return None


def open_descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/dev/fd")}


@pytest.fixture(scope="session", autouse=True)
def lasting_descriptors() -> None:
    """uvloop's first run opens two descriptors for the life of the process; no test is to blame for them."""
    if "uvloop" in os.environ.get("HOOP_TEST_LOOPS", ""):
        import uvloop

        uvloop.run(asyncio.sleep(0))


@pytest.fixture(autouse=True)
def nothing_left_behind(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After the loop is closed no more descriptors are open than before, and its exception handler never spoke."""
    gc.collect()
    before = len(open_descriptors())
    yield
    gc.collect()
    spoken = [record for record in caplog.get_records("call") if record.name == "asyncio"]
    errors = [record.getMessage() for record in spoken if record.levelno >= logging.ERROR]
    assert not errors, f"the loop's exception handler was called: {errors}"
    after = len(open_descriptors())
    assert after <= before, f"{after - before} descriptors leaked"


@pytest.fixture(autouse=True)
def aiohttp_asks_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not aiodns, which the benchmark installs, aiohttp prefers, and whose descriptors outlive the loop."""
    if "aiohttp" in sys.modules:
        import aiohttp

        monkeypatch.setattr("aiohttp.connector.DefaultResolver", aiohttp.ThreadedResolver)


@pytest.fixture(scope="session")
def program() -> Callable[..., Path]:
    """`program(name, debian_package=...)`: the path of a program that tests start."""

    def program(name: str, *, debian_package: str) -> Path:
        others = [found for pattern in OTHER_FOLDERS.get(name, ()) for found in sorted(glob.glob(pattern))]
        path = shutil.which(name, path=os.pathsep.join([*others, os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"]))
        if path is None:
            fail_or_skip(f"{name} is not installed (Debian and Ubuntu: apt-get install {debian_package})")
        return Path(path)

    return program


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    from certificates import Certificates

    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """`cluster(options, ...)`: a cluster of hoop's in a folder of its own; it has to end in order."""
    from cluster_process import Cluster

    with contextlib.ExitStack() as running:
        clusters: list[Cluster] = []

        def start(options: str, **other: Any) -> Cluster:
            folder = tmp_path / f"cluster-{len(clusters)}"
            folder.mkdir()
            clusters.append(running.enter_context(Cluster(folder, options, **other)))
            return clusters[-1]

        yield start
        for made in clusters:
            assert made.stop() == 0, made.text
            assert "Traceback" not in made.text, made.text


@pytest.fixture
def payload() -> Payload:
    """`payload(size)`: incompressible bytes, the same in every run."""
    return lambda size: random.Random(size).randbytes(size)


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """Raise the soft limit on descriptors to 4,096 for one test, which is given the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield wanted
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
