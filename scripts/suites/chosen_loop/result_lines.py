"""A plugin of pytest that appends "outcome test" to the file HOOP_SUITE_RESULTS, so that a crash loses nothing."""

import asyncio
import logging
import os

import pytest

RESULTS = os.environ["HOOP_SUITE_RESULTS"]
worst: dict[str, str] = {}


def note(test: str, outcome: str) -> None:
    with open(RESULTS, "a", encoding="utf-8") as file:
        file.write(f"{outcome} {test}\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    worst[nodeid] = "passed"
    note(nodeid, "begun")


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.outcome == "failed" or (report.outcome == "skipped" and worst[report.nodeid] == "passed"):
        worst[report.nodeid] = report.outcome
    if report.when == "teardown":
        note(report.nodeid, worst[report.nodeid])


def pytest_configure(config: pytest.Config) -> None:
    """What a suite's own runner does."""
    name = os.environ.get("HOOP_SUITE_NAME")
    if name == "tornado":  # its tests fail over what else is logged
        logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    if name == "uvloop":  # its tests make loops by uvloop's own functions
        import uvloop

        loop = asyncio.SelectorEventLoop  # hoop's, if that was chosen
        uvloop.new_event_loop = loop
        uvloop.Loop = loop
        uvloop.EventLoopPolicy = asyncio.DefaultEventLoopPolicy
