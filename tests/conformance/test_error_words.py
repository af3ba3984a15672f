"""Errors that other suites know by their words or their moment. Each is one of uvloop's own tests."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest
from peers import LOCALHOST


def test_a_custom_handler_that_fails_is_named(loop_factory: Any, caplog: pytest.LogCaptureFixture) -> None:
    """uvloop: test_default_exc_handler_broken. The default handler fails, too; the log says which of the two failed."""
    loop = loop_factory()

    def fails(*arguments: Any) -> None:
        raise ValueError("spam")

    try:
        loop.default_exception_handler = fails
        with caplog.at_level(logging.ERROR, "asyncio"):
            loop.call_exception_handler({"message": "first"})
            loop.set_exception_handler(fails)
            loop.call_exception_handler({"message": "second"})
    finally:
        loop.close()
    assert [record.getMessage() for record in caplog.records] == [
        "Exception in default exception handler",
        "Exception in default exception handler while handling an unexpected error in custom exception handler",
    ]


def test_a_flowinfo_that_is_none(run: Any) -> None:
    """uvloop: test_getnameinfo_2."""
    address = (LOCALHOST, 80, 1 << 20)
    with pytest.raises(OverflowError) as expected:
        socket.getnameinfo(address, 0)

    async def main() -> None:
        with pytest.raises(OverflowError) as caught:
            await asyncio.get_running_loop().getnameinfo(address)
        assert str(caught.value) == str(expected.value)

    run(main())


def test_a_blocking_socket_is_refused_before_its_address_is_looked_at(run: Any) -> None:
    """uvloop: test_socket_blocking_error. In debug mode."""

    async def main() -> None:
        with socket.socket() as sock, pytest.raises(ValueError, match="the socket must be non-blocking"):
            await asyncio.get_running_loop().sock_connect(sock, (b"", 0))

    run(main(), debug=True)


@pytest.mark.parametrize("backlog", [1.5, "1"])
def test_a_backlog_that_is_no_number(run: Any, backlog: Any) -> None:
    """uvloop: test_create_server_float_backlog."""

    async def main() -> None:
        with pytest.raises(TypeError, match="integer"):
            await asyncio.get_running_loop().create_server(asyncio.Protocol, LOCALHOST, 0, backlog=backlog)

    run(main())
