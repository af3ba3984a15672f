"""The log of a cluster on standard error: lines for people, coloured on a terminal, or JSON for programs.

    14:02:11.123 master   4711 serving on tcp://127.0.0.1:8000 with 2 workers
    14:02:15.870 worker 1 4713 error: ...

All processes write to one stream, each line at once. A program that has set up logging itself keeps what it has.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal, TextIO

from hoop.cluster import worker_process

RESET, DIM, BOLD, RED, YELLOW = "\x1b[0m", "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[33m"
MASTER = "\x1b[36m"
WORKERS = ("\x1b[32m", "\x1b[34m", "\x1b[35m", "\x1b[33m", "\x1b[96m", "\x1b[92m")  # by slot, over and over
ACCESS = ("uvicorn.access", "hypercorn.access", "aiohttp.access")
FIELDS = ("slot", "worker_pid", "generation")  # that a record may have, see watch.fields_of()


def who() -> tuple[str, int | None]:
    """What this process, or this thread, is, and in which slot."""
    worker = worker_process.here()
    return ("master", None) if worker is None else ("worker", worker.id)


class TextFormatter(logging.Formatter):
    """One line for people; what follows the first line of a message is set below it."""

    def __init__(self, is_coloured: bool = False) -> None:
        super().__init__()
        self._is_coloured = is_coloured

    def format(self, record: logging.LogRecord) -> str:
        name, slot = who()
        label = name if slot is None else f"{name} {slot}"
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        text, _, detail = message_of(self, record).partition("\n")
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        if self._is_coloured:
            colour = MASTER if slot is None else WORKERS[slot % len(WORKERS)]
            loud = "" if not level else f"{BOLD}{RED if record.levelno >= logging.ERROR else YELLOW}"
            line = (
                f"{DIM}{clock}.{record.msecs:03.0f}{RESET} {colour}{label:<8}{RESET} {DIM}{os.getpid()}{RESET} "
                f"{loud}{level}{RESET if loud else ''}{text}"
            )
        else:
            line = f"{clock}.{record.msecs:03.0f} {label:<8} {os.getpid()} {level}{text}"
        return line if not detail else f"{line}\n{detail}"


class JsonFormatter(logging.Formatter):
    """One line of JSON: time, level, who, pid, text; slot, generation, worker_pid, logger, detail if there are any."""

    def format(self, record: logging.LogRecord) -> str:
        name, slot = who()
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text, _, detail = message_of(self, record).partition("\n")
        line: dict[str, Any] = {
            "time": f"{seconds}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "who": name,
            "pid": os.getpid(),
            "text": text,
        }
        if slot is not None:
            line["slot"] = slot
        line.update({field: getattr(record, field) for field in FIELDS if hasattr(record, field)})
        if not record.name.startswith("hoop."):
            line["logger"] = record.name
        if detail:
            line["detail"] = detail
        return json.dumps(line, ensure_ascii=False)


def message_of(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The message, with the traceback and the stack that belong to it."""
    parts = [record.getMessage()]
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(part.rstrip("\n") for part in parts)


def is_coloured(stream: TextIO, environment: Mapping[str, str] | None = None) -> bool:
    """Whether the stream is a terminal whose user wants colours (https://no-color.org)."""
    environment = os.environ if environment is None else environment
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    return bool(environment.get("FORCE_COLOR")) or stream.isatty()


def log_to_stderr(wanted: Literal["auto", "text", "json"] = "auto", *, access: bool = False) -> None:
    """Write the log of the cluster to standard error, unless the program has set up a log of its own.

    access: the servers' lines about requests, too. What the application logs without setting up logging, and what
    Python would print of it as it is (warnings, errors), has the same form.
    """
    logger = logging.getLogger("hoop.cluster")
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if wanted == "json" else TextFormatter(is_coloured(sys.stderr)))
    attach(logger, handler)
    if access:
        for name in ACCESS:
            attach(logging.getLogger(name), handler)
    last_resort = logging.StreamHandler(sys.stderr)
    last_resort.setLevel(logging.WARNING)
    last_resort.setFormatter(handler.formatter)
    logging.lastResort = last_resort


def attach(logger: logging.Logger, handler: logging.Handler) -> None:
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
