"""Whether what a caller gives makes sense: seconds, counts, a protocol."""

from __future__ import annotations

from typing import Any


def check_seconds(name: str, value: object) -> None:
    """Whether value is None or a number of seconds above 0, as a float can be. TypeError or ValueError."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {value!r}")
    try:
        float(value)
    except OverflowError:  # repr() may refuse such a number, too
        raise ValueError(f"{name} must be a number of seconds that fits a float") from None


def check_count(name: str, value: object) -> None:
    """Whether value is None or a whole number above 0. TypeError or ValueError."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number or None, not {value!r}")
    if not 0 < value <= 0x7FFFFFFF:
        raise ValueError(f"{name} must be between 1 and {0x7FFFFFFF}, not {value!r}")


def require_protocol(protocol: Any) -> None:
    """AttributeError where a protocol factory has forgotten its `return`, before anything is made for the protocol."""
    _ = protocol.connection_made
