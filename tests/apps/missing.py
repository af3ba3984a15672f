"""What becomes of a test for which something is not on this machine."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def fail_or_skip(reason: str, *, excused: bool = False) -> NoReturn:
    """Something that the tests need is not on this machine: fail under CI unless excused, skip elsewhere."""
    if os.environ.get("CI") and not excused:
        pytest.fail(f"{reason} (CI is set, so this is not skipped)", pytrace=False)
    pytest.skip(reason)
