"""Functions that need a running hoop loop say so in the same words, each with its own name, when another loop runs; and
in Python's own words when none does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import hoop
import pytest
from hoop.core.running import running_loop

Use = Callable[[], Awaitable[Any]]


async def run_in_pool() -> None:
    with hoop.Pool(1) as pool:
        await pool.run(int)


async def open_a_file() -> None:
    async with hoop.fs.open(__file__):
        pass


USERS: dict[str, tuple[str, Use]] = {
    "stat": ("hoop.fs", lambda: hoop.fs.stat(".")),
    "read": ("hoop.fs", lambda: hoop.fs.read_file(__file__)),
    "open": ("hoop.fs", open_a_file),
    "rmtree": ("hoop.fs", lambda: hoop.fs.rmtree("nowhere", ignore_errors=True)),
    "lookup": ("hoop.dns", lambda: hoop.dns.lookup("127.0.0.1")),
    "reverse": ("hoop.dns", lambda: hoop.dns.reverse(("127.0.0.1", 80))),
    "hash": ("hoop.crypto", lambda: hoop.crypto.pbkdf2_hmac("sha256", b"", b"", 1)),
    "compress": ("hoop.compress", lambda: hoop.compress.compress(b"data")),
    "pool": ("hoop.Pool", run_in_pool),
}


@pytest.mark.parametrize(("name", "use"), USERS.values(), ids=USERS.keys())
def test_another_loop_runs(name: str, use: Use) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        words = f"{name} needs a running hoop loop (hoop.run, hoop.new_event_loop), not {loop!r}"
        with pytest.raises(RuntimeError, match=f"^{re.escape(words)}$"):
            await use()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())


def test_no_loop_runs() -> None:
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        running_loop("hoop.fs")


def test_ours_runs() -> None:
    async def main() -> None:
        assert running_loop("hoop.fs") is asyncio.get_running_loop()

    hoop.run(main())
