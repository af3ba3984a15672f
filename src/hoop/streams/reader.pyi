"""Types of the compiled reader: asyncio's, so that either fits where the other is expected."""

import asyncio

from typing_extensions import disjoint_base

@disjoint_base
class StreamReader(asyncio.StreamReader):
    @property
    def _is_untouched(self) -> bool: ...
