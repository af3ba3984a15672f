"""System calls that fail: each that hoop makes, with each error of its man page; and kernels that lack some of them.

tests/faults/refused has the programs, one for each part of hoop, and what is expected of each; refusals.c is the shim
that refuses. The suite runs a sample of the cases, in an order that a seed gives. All of them, by hand:

    HOOP_REFUSED_SECONDS=3600 HOOP_REFUSED_CALLS=20 HOOP_REFUSED_SEED=1 pytest tests/faults/test_refused_calls.py
"""

from __future__ import annotations

import errno
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
from preloaded import built_shim, run_module_under

SEED = os.environ.get("HOOP_REFUSED_SEED", "1")
SECONDS = float(os.environ.get("HOOP_REFUSED_SECONDS", "30"))
CALLS = os.environ.get("HOOP_REFUSED_CALLS", "2")
DEADLINE_S = SECONDS + 200.0

pytestmark = [pytest.mark.once, pytest.mark.timeout(2 * DEADLINE_S)]

SINCE_2020 = ("pidfd_open", "epoll_pwait2", "openat2")  # Linux 5.3, 5.11, 5.6
OLD_KERNELS = {
    "Linux 3.10": (errno.ENOSYS, (*SINCE_2020, "io_uring_setup", "preadv2", "statx", "copy_file_range")),
    "a strict sandbox": (errno.EPERM, (*SINCE_2020, "io_uring_setup", "preadv2", "statx", "eventfd", "timerfd_create")),
    "a small kernel": (errno.ENOSYS, ("recvmmsg", "sendmmsg", "eventfd", "timerfd_create", "epoll_pwait2")),
}
# What the suite asks of them: whole modules, in which hoop's half must pass.
SUITES = (
    *("conformance/test_subprocess.py", "conformance/test_timers.py", "conformance/test_threadsafe.py"),
    *("conformance/test_datagram_endpoint.py", "conformance/test_datagram_transport.py", "unit/test_files.py"),
)
# The timer that such waits need instead is a descriptor, which those tests would count that count descriptors.
NOT_BESIDE_SUITES = {"epoll_pwait2"}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the shim knows glibc's names of the calls")
    return built_shim(Path(__file__).with_name("refusals.c"), tmp_path_factory.mktemp("shim"))


def verdict(output: str) -> dict[str, Any]:
    """The last line of a sweep."""
    said: dict[str, Any] = json.loads(output.splitlines()[-1])
    return said


def test_a_refused_call_ends_its_own_operation_at_most(shim: Path) -> None:
    options = ["--seconds", str(SECONDS), "--seed", SEED, "--calls", CALLS]
    status, output = run_module_under(shim, "faults.refused.sweep", *options, deadline_s=DEADLINE_S)
    assert status == 0, output
    assert verdict(output)["counts"]["refused"] > 0


def refusing(number: int, names: tuple[str, ...]) -> str:
    return " ".join(f"{name}={number}" for name in names)


@pytest.mark.parametrize("kernel", OLD_KERNELS)
def test_programs_do_without_what_an_old_kernel_lacks(shim: Path, kernel: str) -> None:
    """As if nothing had been: every program of every part."""
    refused = refusing(*OLD_KERNELS[kernel])
    status, output = run_module_under(shim, "faults.refused.sweep", "--always", refused, deadline_s=DEADLINE_S)
    assert status == 0, output
    assert verdict(output)["counts"]["refused"] > 0


@pytest.mark.parametrize("kernel", OLD_KERNELS)
def test_the_suite_does_without_what_an_old_kernel_lacks(shim: Path, kernel: str) -> None:
    number, names = OLD_KERNELS[kernel]
    refused = refusing(number, tuple(name for name in names if name not in NOT_BESIDE_SUITES))
    suites = [str(Path(__file__).parents[1] / name) for name in SUITES]
    options = ["-q", "-x", "--timeout", "60", "-p", "no:cacheprovider", "-k", "not asyncio", *suites]
    status, output = run_module_under(shim, "pytest", *options, deadline_s=DEADLINE_S, HOOP_REFUSE=refused)
    assert status == 0, output
