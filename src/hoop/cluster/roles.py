"""Roles: processes beside the workers that serve nothing, and are kept running like them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from hoop.adapters.target import TargetError, split
from hoop.cluster.supervisor import RoleSlot
from hoop.core.checks import check_count


@dataclasses.dataclass(frozen=True)
class Role:
    """What must run once, or a few times, and not in every worker: a scheduler, a consumer of a queue.

    target: an async function, or the import string of one: main() or main(worker). It goes on until it is cancelled,
        when the cluster drains; if it ends before, it is started again. It counts as ready when it first waits.
    count: how many processes.
    overlap: whether a reload starts the next process before this one has ended. Without it there are never two of one
        place, but then a reload onto code that fails leaves the role without a process until it is mended.

    ValueError or TypeError for what makes no sense.
    """

    target: str | Callable[..., Any]
    count: int = 1
    overlap: bool = False

    def __post_init__(self) -> None:
        check_target("the target of a role", "an async function", self.target)
        if self.count is None:
            raise TypeError("count must be a whole number, not None")
        check_count("count", self.count)


def check_target(name: str, kind: str, target: Any) -> None:
    """ValueError for an import string that is none, TypeError for what is neither one nor callable."""
    if isinstance(target, str):
        try:
            split(target)
        except TargetError as error:
            raise ValueError(str(error)) from None
    elif not callable(target):
        raise TypeError(f"{name} must be an import string or {kind}, not {target!r}")


def check_roles(roles: Mapping[str, Role] | None) -> None:
    """TypeError or ValueError for what is no mapping of names to roles."""
    for name, role in (roles or {}).items():
        if not isinstance(name, str) or not name.isidentifier() or name == "worker":
            raise ValueError(f"the name of a role is a word, and not 'worker': {name!r}")
        if not isinstance(role, Role):
            raise TypeError(f"role {name} must be a hoop.cluster.Role, not {role!r}")


def places_of(roles: Mapping[str, Role] | None) -> list[tuple[str, int]]:
    """The role of each slot -1, -2, ..., and the how manieth of its processes is there."""
    return [(name, number) for name, role in (roles or {}).items() for number in range(role.count)]


def slots_of(roles: Mapping[str, Role] | None) -> list[RoleSlot]:
    """The same for the supervisor."""
    known = roles or {}
    return [
        RoleSlot(name if known[name].count == 1 else f"{name} {number}", known[name].overlap)
        for name, number in places_of(roles)
    ]


def check_main(main: Any) -> None:
    """TargetError unless it can be a role's."""
    if not inspect.iscoroutinefunction(main):
        raise TargetError(f"the target of a role must be an async function, not {main!r}")
