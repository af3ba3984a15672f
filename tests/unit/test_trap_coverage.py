"""Every trap that other loops fell into has a test that names its number: in its name, its docstring or a comment.

`def test_trap_24_...`, "Trap 24." and "Traps 24, 49." all count.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once  # about the text of the files

TESTS = Path(__file__).resolve().parents[1]
IN_A_NAME = re.compile(r"(?:^|_)traps?((?:_(?:and_)?\d+)+)(?=_|$)")
IN_A_TEXT = re.compile(r"\b[Tt]raps?((?:(?:, | and | )\d+)+)\b")

# The number of each trap, and what it is about.
TRAPS = {
    1: "a descriptor closed twice",
    2: "a watched descriptor closed behind the loop's back, its number reused",
    3: "a registration that the poller refused",
    4: "a regular file as a pipe",
    5: "abandoned loops that leak",
    6: "accept without descriptors; connection_made that raises",
    7: "descriptors inherited by children; fork",
    8: "the limit of descriptors",
    9: "close() delivers what was written, then closes",
    10: "a buffer changed after write()",
    11: "the order of writes made inside callbacks",
    12: "close() and abort() inside flow control",
    13: "the cause that connection_lost gets",
    14: "writes after the end",
    15: "a loop of writes learns of the connection's end",
    16: "protocols that raise",
    17: "half-closed connections",
    18: "what transports tell about themselves",
    19: "the life of a server, and its options",
    20: "connecting to several addresses",
    21: "closing TLS is bounded",
    22: "start_tls with early bytes, failing, timing out",
    23: "the memory of idle TLS connections",
    24: "bad certificates, bad records, renegotiation, resumption, ALPN, SNI, client certificates",
    25: "sock_* cancelled and tried again",
    26: "the methods that others lack: sock_sendto, sock_recvfrom, sendfile",
    27: "datagrams: errors, empty ones, UNIX, after close, while paused",
    28: "when timers fire",
    29: "which callbacks stop() lets run",
    30: "KeyboardInterrupt and SystemExit leave the loop",
    31: "context variables",
    32: "call_soon_threadsafe",
    33: "what create_task passes on",
    34: "debug mode",
    35: "loops run or closed where they may not be",
    36: "shutting the executor and generators down",
    37: "signals",
    38: "child processes",
    39: "slow lookups beside files",
    40: "pool jobs cancelled while queued, while running",
    41: "the pool shut down with work queued",
    42: "a pool job that raises",
    43: "fork with pool threads alive",
    44: "shortcuts of getaddrinfo",
    45: "a banner before create_connection has returned",
    46: "write and abort; writes on a stopped loop; no needless pause",
    47: "a watched descriptor that wants nothing, with its peer gone",
    48: "jobs that wait for one another",
    49: "the callbacks of an SSL context",
    50: "throughput beside a busy thread",
}


def traps_tested() -> dict[int, list[str]]:
    """The tests that name each trap. What stands at the top of a file counts for none of its tests."""
    tests: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        if path == Path(__file__).resolve():
            continue
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
                continue
            named = IN_A_NAME.findall(node.name) + IN_A_TEXT.findall(ast.get_source_segment(source, node) or "")
            for number in re.findall(r"\d+", " ".join(named)):
                tests.setdefault(int(number), []).append(f"{path.relative_to(TESTS)}::{node.name}")
    return tests


@pytest.fixture(scope="module")
def tested() -> dict[int, list[str]]:
    return traps_tested()


@pytest.mark.parametrize("number", TRAPS)
def test_every_trap_has_a_test(tested: dict[int, list[str]], number: int) -> None:
    assert tested.get(number), f"no test names trap {number} ({TRAPS[number]})"


def test_no_test_names_a_trap_that_is_not_listed(tested: dict[int, list[str]]) -> None:
    assert list(TRAPS) == list(range(1, 51))
    assert {number: tests for number, tests in tested.items() if number not in TRAPS} == {}
