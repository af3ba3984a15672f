"""What `hoop top` shows: lines of text, of an answer to "look" and the size of a terminal. It reads nothing and writes
nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hoop.command.ctl import duration

Json = dict[str, Any]

RED, YELLOW, GREEN, DIM, BOLD, INVERSE = "31", "33", "32", "2", "1", "7"
LONG_TURN_S = 0.5  # that lasts: shown in place of the state
HELP = "q quits"


@dataclass(frozen=True)
class Cell:
    text: str
    colour: str = ""


@dataclass(frozen=True)
class Column:
    name: str
    title: str
    show: Callable[[Json], Cell]
    width: int  # at least, so that columns do not jump from one look to the next
    rank: int  # the highest is the first to go where the terminal is narrow
    is_text: bool = False


def frame(look: Json, width: int, height: int, *, coloured: bool, notice: str | None = None) -> list[str]:
    """At most height lines, none of them wider than width. notice: a line above the table, such as that nobody
    answers any more."""
    width, height = max(width, 1), max(height, 1)
    workers = look["workers"]
    head = [(line, BOLD if number == 0 else "") for number, line in enumerate(head_lines(look))]
    if notice is not None:
        head.append((notice, RED))
    columns = fitting(workers, width)
    rows = [[column.show(worker) for column in columns] for worker in workers]
    sizes = [
        max(column.width, cells_of(column.title), *(cells_of(row[number].text) for row in rows), 0)
        for number, column in enumerate(columns)
    ]
    lines = [painted(clipped(text, width), colour, coloured) for text, colour in head]
    titles = [Cell(column.title) for column in columns]
    lines.append(painted(clipped(joined(columns, titles, sizes, False), width, fill=coloured), INVERSE, coloured))
    room = height - len(lines) - 1
    shown = rows if len(rows) <= room else rows[: max(room - 1, 0)]
    lines += [line_of(columns, row, sizes, width, coloured) for row in shown]
    if len(shown) < len(rows):
        lines.append(clipped(f"... and {len(rows) - len(shown)} more: the window is too low", width))
    lines.append(painted(clipped(HELP, width), DIM, coloured))
    return lines[:height]


def head_lines(look: Json) -> list[str]:
    """Who runs, since when; where; and the sums."""
    workers = look["workers"]
    who = "process" if look.get("kind") == "process" else "master"
    generation = f", generation {look['generation']}" if "generation" in look else ""
    programs = f"hoop {look['hoop']}, Python {look['python']}"
    lines = [f"{who} {look['pid']} {look['state']}, up {duration(look['age'])}{generation}, {programs}"]
    if look.get("addresses"):
        lines.append(f"on {', '.join(look['addresses'])}")
    sums = [f"{sum_of(workers, 'connections'):.0f} connections, {sum_of(workers, 'accepts_per_s'):.0f} new/s"]
    if sum_of(workers, "requests"):
        sums.append(f"{sum_of(workers, 'requests_per_s'):.0f} requests/s")
    if any(worker.get("cpu") is not None for worker in workers):
        sums.append(f"CPU {sum_of(workers, 'cpu'):.0%}")
    if any(worker.get("rss") is not None for worker in workers):
        sums.append(f"RSS {size(sum_of(workers, 'rss'))}")
    count = f"{len(workers)} worker{'s' * (len(workers) != 1)}: " if who == "master" else ""
    lines.append(count + ", ".join(sums))
    if look.get("last_failure"):
        lines.append(f"last failure: {look['last_failure']}")
    return lines


def sum_of(workers: Sequence[Json], name: str) -> float:
    return float(sum(worker.get(name) or 0 for worker in workers))


# ---- cells ----------------------------------------------------------------------------------------------------------


def plain(name: str) -> Callable[[Json], Cell]:
    return lambda worker: Cell("-" if worker.get(name) is None else str(worker[name]))


def who_of(worker: Json) -> Cell:
    return Cell(str(worker.get("slot", worker.get("role", "-"))))


def state_of(worker: Json) -> Cell:
    """A turn that does not end says more than what the master takes the worker for."""
    held = worker.get("held") or 0.0
    if held >= LONG_TURN_S:
        return Cell(f"held {held:.1f}s", RED)
    state = str(worker["state"])
    return Cell(
        state, {"serving": GREEN, "running": GREEN, "starting": YELLOW, "waiting": RED, "blocked": RED}.get(state, "")
    )


def share(name: str, warn: float = 2.0, alarm: float = 2.0) -> Callable[[Json], Cell]:
    def show(worker: Json) -> Cell:
        value = worker.get(name)
        if value is None:
            return Cell("-")
        return Cell(f"{value:.0%}", RED if value >= alarm else YELLOW if value >= warn else "")

    return show


def per_second(name: str) -> Callable[[Json], Cell]:
    def show(worker: Json) -> Cell:
        value = worker.get(name)
        return Cell("-" if value is None else f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}")

    return show


def time_cell(name: str) -> Callable[[Json], Cell]:
    def show(worker: Json) -> Cell:
        value = worker.get(name)
        if value is None:
            return Cell("-")
        return Cell(short_time(value), RED if value >= 1.0 else YELLOW if value >= 0.1 else "")

    return show


def pool_of(worker: Json) -> Cell:
    """Jobs that a pool has; of them, where that is known, those that wait for a thread."""
    queued = worker.get("queued")
    text = "-" if worker.get("jobs") is None else str(worker["jobs"])
    return Cell(text if queued is None else f"{text} ({queued} wait)")


def exit_of(worker: Json) -> Cell:
    last = worker.get("last_exit")
    if last is None:
        return Cell("-")
    is_quiet = last["how"] == "exited with status 0"
    count = f" ({last['count']} in all)" if last["count"] > 1 else ""
    return Cell(f"{duration(last['ago'])} ago: {last['how']}{count}", "" if is_quiet else YELLOW)


COLUMNS = (
    Column("slot", "SLOT", who_of, 4, 0),
    Column("pid", "PID", plain("pid"), 7, 1),
    Column("generation", "GEN", plain("generation"), 3, 8),
    Column("state", "STATE", state_of, 9, 2, is_text=True),
    Column("age", "AGE", lambda worker: Cell("-" if worker["age"] is None else duration(worker["age"])), 7, 7),
    Column("cpu", "CPU", share("cpu"), 4, 3),
    Column("rss", "RSS", lambda worker: Cell(size(worker.get("rss"))), 5, 5),
    Column("connections", "CONNS", plain("connections"), 6, 4),
    Column("accepts", "NEW/S", per_second("accepts_per_s"), 6, 6),
    Column("requests", "REQ/S", per_second("requests_per_s"), 6, 9),
    Column("utilization", "BUSY", share("utilization", 0.7, 0.9), 4, 3),
    Column("lag_p50", "LAG50", time_cell("lag_p50"), 6, 10),
    Column("lag_p99", "LAG99", time_cell("lag_p99"), 6, 4),
    Column("lag_max", "MAX", time_cell("lag_max"), 6, 6),
    Column("jobs", "POOL", pool_of, 4, 8),
    Column("last_exit", "LAST EXIT", exit_of, 9, 11, is_text=True),
)
OF_CLUSTERS = {"slot", "generation", "last_exit"}
GAP = 2
LEAST_OF_LAST = 12  # cells of the last column, which is cut where the line ends


def fitting(workers: Sequence[Json], width: int) -> list[Column]:
    """The columns that have something to show and fit; the least important ones go first."""
    has_slots = any("slot" in worker or "role" in worker for worker in workers)
    wanted = [column for column in COLUMNS if has_slots or column.name not in OF_CLUSTERS]
    if not any(worker.get("requests") for worker in workers):
        wanted = [column for column in wanted if column.name != "requests"]
    while len(wanted) > 1 and least_width(wanted, workers) > width:
        wanted.remove(max(wanted, key=lambda column: column.rank))
    return wanted


def least_width(columns: Sequence[Column], workers: Sequence[Json]) -> int:
    total = GAP * (len(columns) - 1)
    for column in columns:
        widest = max([cells_of(column.show(worker).text) for worker in workers], default=0)
        widest = min(widest, LEAST_OF_LAST) if column.name == "last_exit" else widest
        total += max(column.width, cells_of(column.title), widest)
    return total


# ---- numbers --------------------------------------------------------------------------------------------------------


def short_time(seconds: float) -> str:
    """With two or three digits that count: 12us, 3.4ms, 120ms, 2.5s."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms"), (float("inf"), 1.0, "s")):
        if seconds < limit:
            value = seconds * factor
            return f"{value:.1f}{unit}" if 0 < value < 10 and unit != "us" else f"{value:.0f}{unit}"
    return "-"


def size(value: float | None) -> str:
    if value is None:
        return "-"
    mebibytes = value / (1 << 20)
    return f"{mebibytes:.0f}M" if mebibytes < 10_000 else f"{mebibytes / 1024:.0f}G"


# ---- lines ----------------------------------------------------------------------------------------------------------


def line_of(columns: Sequence[Column], row: Sequence[Cell], sizes: Sequence[int], width: int, coloured: bool) -> str:
    """Cut first, then coloured: a cell that is cut keeps its colour, and no colour is cut in its middle."""
    parts: list[str] = []
    used = 0
    for column, cell, cells in zip(columns, row, sizes, strict=True):
        room = width - used
        if room <= 0:
            break
        is_last = column is columns[-1]
        text = clipped(padded(cell.text, cells, column.is_text) if not is_last else cell.text, room)
        if is_last and not column.is_text:
            text = clipped(padded(cell.text, cells, False), room)
        parts.append(painted(text, cell.colour, coloured))
        used += cells_of(text)
        if not is_last and used + GAP <= width:
            parts.append(" " * GAP)
            used += GAP
    return "".join(parts).rstrip()


def joined(columns: Sequence[Column], row: Sequence[Cell], sizes: Sequence[int], coloured: bool) -> str:
    cells = [padded(cell.text, size, column.is_text) for column, cell, size in zip(columns, row, sizes, strict=True)]
    return (" " * GAP).join(cells)


def padded(text: str, cells: int, is_text: bool) -> str:
    fill = " " * max(cells - cells_of(text), 0)
    return text + fill if is_text else fill + text


def painted(text: str, colour: str, coloured: bool) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if coloured and colour and text else text


def cells_of(text: str) -> int:
    """How many places a terminal gives it."""
    return sum(map(cells_of_one, text))


def cells_of_one(character: str) -> int:
    if character.isascii():
        return 1
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def clipped(text: str, width: int, *, fill: bool = False) -> str:
    """At most width places, on one line, and nothing that commands the terminal: an exit's reason is somebody's."""
    kept: list[str] = []
    used = 0
    for character in text:
        shown = character if character.isprintable() else "?"
        cells = cells_of_one(shown)
        if used + cells > width:
            break
        kept.append(shown)
        used += cells
    return "".join(kept) + (" " * (width - used) if fill else "")
