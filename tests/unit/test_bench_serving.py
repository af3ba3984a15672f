"""The comparison of servers: what its clients call a failure, what it reads of wrk, and the table in the docs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.serving import report
from bench.serving.application import code_of
from bench.serving.clients import Manner, Outcome, all_clients
from bench.serving.rows import ROWS, wrk_report
from bench.serving.run import merged, parse
from bench.serving.servers import parsed

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n%b\r\n42 1"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def outcome_with(handler: Handler, *, connections: int = 1, **manner: Any) -> Outcome:
    """What a few clients find at a server that serves each connection by handler, for a moment."""

    async def main() -> Outcome:
        async with await asyncio.start_server(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            behaves = Manner(port, time.monotonic() + 0.1, **{"fresh": False, "think_s": 0.0, **manner})
            return await all_clients(behaves, connections)

    return asyncio.run(main())


def answering(count: int, *fields: bytes) -> Handler:
    """A handler that answers so many requests, and closes the connection in front of the next."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # the client has gone
            for _ in range(count):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(ANSWER % b"".join(field + b"\r\n" for field in fields))
            await reader.readuntil(b"\r\n\r\n")
        writer.close()

    return handler


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def test_a_failure_is_told_by_whether_its_connection_was_answered_before() -> None:
    found = outcome_with(answering(2)).as_json()
    assert found["reused"] == found["failed"] == found["failed_at"][42] > 0
    assert 0 <= 2 * found["connections"] - found["answered"] <= 2  # the time may be over after a connect
    found = outcome_with(closing).as_json()
    assert found["fresh"] == found["failed"] > 0
    assert found["answered"] == 0


def test_connection_close_is_no_failure() -> None:
    found = outcome_with(answering(1, b"Connection: close")).as_json()
    assert found["failed"] == 0
    assert 0 <= found["connections"] - found["answered"] <= 1


def test_fresh_clients_ask_once() -> None:
    found = outcome_with(answering(1), fresh=True, connections=3).as_json()
    assert found["failed"] == 0
    assert 0 <= found["connections"] - found["answered"] <= 3


def test_a_port_without_a_listener_refuses() -> None:
    outcome = asyncio.run(all_clients(Manner(1, time.monotonic() + 0.05, False, 0.0), 2))
    assert outcome.refused == outcome.as_json()["failed"] > 0


def test_what_wrk_says() -> None:
    text = (
        "  Latency Distribution\n     50%  812.00us\n     99%    4.10ms\n"
        "  568000 requests in 12.00s, 70 MB read\n"
        "  Socket errors: connect 1, read 260, write 2, timeout 3\n  Non-2xx or 3xx responses: 4\n"
    )
    found = wrk_report(text)
    assert (found["answered"], found["failed"], found["read"], found["p99_ms"]) == (568_000, 270, 260, 4.1)
    assert wrk_report("99%  1.00s\n 5 requests in 1s")["failed"] == 0


def test_versions_of_the_application() -> None:
    assert "GENERATION = 7\n" in code_of(7)
    with pytest.raises(RuntimeError, match="broken deploy"):
        exec(compile(code_of(2, broken=True), "served.py", "exec"), {"__name__": "served"})
    assert parsed(b"HTTP/1.1 200 OK\r\n\r\n42 7") == (42, 7)
    assert parsed(b"HTTP/1.1 500 Oh\r\n\r\n42 7") is None
    assert parsed(b"HTTP/1.1 200 OK\r\n\r\n42") is None


def content(rows: dict[str, Any]) -> dict[str, Any]:
    machine = {"python": "CPython 3.13.0", "system": "Linux 6", "processor": "Processor", "cores": 2}
    versions = {"uvicorn": "uvicorn 0.54.0", "hoop": "hoop 1.0"}
    return {"date": "2030-01-01", "revision": "1111111", "machine": machine, "versions": versions, "rows": rows}


def test_the_table() -> None:
    broken = {"serves": False, "down_after_s": 0.31, "failed": 9}
    kept = {"serves": True, "down_after_s": None, "failed": 0}
    reload = {"failed": 51, "answered": 100_000, "generation": 3}
    share = {str(workers): {"paced": 1.0, "waves": 1.04} for workers in (2, 4, 16)}
    made = content(
        {
            "reload-keep-alive": {"uvicorn": reload, "hoop": {"failed": 0, "answered": 9, "generation": 4}},
            "broken": {"uvicorn": broken, "hoop": kept},
            "kill": {"uvicorn": {"failure": "failed: why"}},
            "shares": {"hoop": share},
        }
    )
    page = report.page_text(f"before\n{report.BEGIN}\nbygone\n{report.END}\nafter\n", made)
    assert "bygone" not in page
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert lines[0] == "|  | uvicorn | **hoop** |"
    assert lines[2].endswith("| 51 of 100,051 (2 of 3 reloads came to their end) | **0 of 9** |")
    assert lines[3].endswith("| whole server down after 0.3 s | **old code serves on** |")
    assert [line.split(" | ")[1] for line in lines[4:7]] == ["failed: why"] * 3
    assert lines[7].endswith("| – | **1.00 / 1.04** |")
    with pytest.raises(ValueError, match="serving table begins"):
        report.page_text("no markers", made)


def test_the_page_has_what_was_recorded() -> None:
    if not report.RESULTS.exists():
        pytest.skip("nothing has been recorded")
    page = report.PAGE.read_text()
    assert page == report.page_text(page, json.loads(report.RESULTS.read_text()))


def test_a_run_keeps_what_it_did_not_measure() -> None:
    old = content({"kill": {"uvicorn": {"failed": 1}, "hoop": {"failed": 2}}, "blocked": {"hoop": {"gone_s": 30}}})
    new = content({"kill": {"hoop": {"failed": 0}}})
    assert merged(old, new)["rows"] == {
        "kill": {"uvicorn": {"failed": 1}, "hoop": {"failed": 0}},
        "blocked": {"hoop": {"gone_s": 30}},
    }


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    options = parse(["--only", "kill", "--servers", "hoop,uvicorn"])
    assert (options.only, options.servers) == (["kill"], ["hoop", "uvicorn"])
    with pytest.raises(SystemExit):
        parse(["--servers", "apache"])
    assert "unknown server apache" in capsys.readouterr().err
    assert set(report.CELLS) == set(ROWS)
