"""Types of the compiled module, for the Python modules of hoop."""

from typing import Any, final

@final
class Literals:
    def answer(
        self, host: object, port: object, family: int, type: int, proto: int, flags: int
    ) -> list[tuple[Any, Any, int, str, Any]] | None: ...
