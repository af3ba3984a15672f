"""Check the arguments of callers: seconds, counts, a protocol."""

from __future__ import annotations

from typing import Any


def check_seconds(name: str, value: object) -> None:
    """TypeError or ValueError unless value is None or a number of seconds above 0 that fits a float."""
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
    """TypeError or ValueError unless value is None or a whole number above 0."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number or None, not {value!r}")
    if not 0 < value <= 0x7FFFFFFF:
        raise ValueError(f"{name} must be between 1 and {0x7FFFFFFF}, not {value!r}")


def require_protocol(protocol: Any) -> None:
    """AttributeError if a protocol factory has forgotten its `return`. Check before making anything for it."""
    _ = protocol.connection_made
