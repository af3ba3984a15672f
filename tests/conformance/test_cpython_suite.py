"""CPython's own tests of asyncio, those of this interpreter, on hoop: one case for each of their modules.

The work is done by the runner in cpython/ (which can be called by hand, too); what is expected to fail, and why, is in
cpython/expected.txt.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).with_name("cpython")))
import expected
import suite

MODULES = suite.modules()
# One minute of two idle cores, so it is not for every run of pytest: ./tests/run and CI switch it on.
IS_WANTED = os.environ.get("HOOP_CPYTHON_SUITE") == "1"
SLOWEST = ("test_subprocess", "test_ssl", "test_events", "test_tasks")
Verdicts = Callable[[str], suite.Verdict]

# A case waits for its turn among all the others.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def verdict_of(request: pytest.FixtureRequest) -> Iterator[Verdicts]:
    """The modules that were selected run two at a time from the first case on; each case waits for its own."""
    lines = expected.read()
    selected = [
        item.callspec.params["module"]
        for item in request.session.items
        if item.path == request.path and "module" in getattr(getattr(item, "callspec", None), "params", {})
    ]
    slow_first = sorted(selected, key=lambda module: module not in SLOWEST)
    with ThreadPoolExecutor(2) as pool:
        verdicts: dict[str, Future[suite.Verdict]] = {
            module: pool.submit(suite.run_module, "hoop", module, lines) for module in slow_first
        }
        yield lambda module: verdicts[module].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.skipif(not IS_WANTED, reason="CPython's own tests run with HOOP_CPYTHON_SUITE=1")
@pytest.mark.parametrize("module", MODULES)
def test_module(module: str, verdict_of: Verdicts) -> None:
    verdict = verdict_of(module)
    assert verdict.results, "not a single test was found"
    for remark in suite.remarks(verdict):
        warnings.warn(remark, stacklevel=1)  # pytest prints them at the end
    assert verdict.is_good, suite.describe(verdict)


def test_this_python_has_the_tests() -> None:
    if not MODULES and not (IS_WANTED and os.environ.get("CI") == "true"):
        pytest.skip("this Python came without test.test_asyncio (Debian: libpython3-testsuite)")
    assert MODULES, "this Python came without test.test_asyncio: CI must measure"
    found = "test_events" in MODULES and "test_tasks" in MODULES
    assert found, f"where are test_events and test_tasks? {MODULES}"


def test_each_line_of_the_data_file_can_be_read() -> None:
    for minor in range(11, 16):
        expected.read(python=(3, minor))


@pytest.mark.parametrize(
    "line",
    [
        "fails | test_events.X.test_y | 3.11-3.13",
        "passes | test_events.X.test_y | 3.11-3.13 | white-box: pokes",
        "fails | test_events.X.test_y | 3.11-3.13 | it is hard",
    ],
)
def test_a_line_without_a_reason_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        expected.parse(line)
