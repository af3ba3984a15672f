"""A docstring of hoop as reStructuredText.

Docstrings are plain English. What they have of form is kept: paragraphs, lists, indented code, and lines that begin
with the name of a parameter and a colon, which become a list of parameters. Names become code, and links where the name
has a page.
"""

from __future__ import annotations

import re
from collections.abc import Collection

TOKENS = re.compile(
    r"`(?P<quoted>[^`\n]+)`"
    r"|docs/(?P<page>\w+)\.md"
    r"|(?P<called>(?<![\w.])[A-Za-z_][\w.]*\w\([^()\n]*\))"
    r"|(?P<dotted>(?<![\w./@-])(?:hoop|loop|Loop|Server|Socket|asyncio|transport|server|worker|os|socket)(?:\.\w+)+)"
    r"|(?P<name>(?<![\w./@-])(?=\w*[a-z0-9])[A-Za-z]\w*_\w+)"
)
SPECIAL = re.compile(r"([\\*`|_])")
BEFORE, AFTER = " '\"([{<-/:", " '\")]}>-/:.,;!?"  # between what else, markup needs an escaped space
ITEM = re.compile(r"(?:-|\d+\.) ")


class Docstrings:
    """Renders docstrings; `names` are those with an entry in the reference, in full."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def render(self, text: str, parameters: Collection[str] = (), scope: str = "") -> str:
        """Paragraphs, for the body of a directive. `scope` is the class that a bare method is looked for in."""
        parts = re.split(r"\n[ \t]*\n", text.strip("\n"))
        return "\n\n".join(self._block(part, parameters, scope) for part in parts if part.strip()) + "\n"

    def summary(self, text: str, scope: str = "") -> str:
        """The first sentence, on one line."""
        first = " ".join(re.split(r"\n[ \t]*\n", text.strip())[0].split())
        sentence = re.match(r".*?[.!?](?= [A-Z(]|$)", first)
        return self._inline(sentence[0] if sentence else first, scope)

    def _block(self, part: str, parameters: Collection[str], scope: str) -> str:
        lines = part.split("\n")
        if all(line.startswith("    ") for line in lines if line.strip()) or lines[0].startswith(">>> "):
            return ".. code-block:: python\n\n" + "\n".join(f"    {line.removeprefix('    ')}" for line in lines)
        if ITEM.match(lines[0]):
            return self._list(lines, scope)
        if self._names_in(lines[0], parameters):
            return self._parameters(lines, parameters, scope)
        return self._inline(" ".join(line.strip() for line in lines), scope)

    def _list(self, lines: list[str], scope: str) -> str:
        items: list[str] = []
        for line in lines:
            if ITEM.match(line):
                items.append(line)
            else:
                items[-1] += " " + line.strip()
        return "\n".join(
            f"{marker} {self._inline(text, scope)}" for marker, _, text in (item.partition(" ") for item in items)
        )

    def _parameters(self, lines: list[str], parameters: Collection[str], scope: str) -> str:
        """Each line that begins with a parameter begins an item; so does one in the middle of a line, after a stop."""
        text = "\n".join(lines)
        items: list[list[str]] = []
        for line in text.split("\n"):
            for piece in self._pieces(line, parameters):
                if self._names_in(piece, parameters):
                    items.append([piece.strip()])
                else:
                    items[-1].append(piece.strip())
        made = []
        for item in items:
            names, _, description = " ".join(item).rstrip(";").partition(": ")
            listed = ", ".join(
                f"**{self._escape(name.strip())}**" for name in re.split(r",|\bor\b|\band\b", names) if name.strip()
            )
            made.append(f"- {listed}: {self._inline(description, scope)}")
        return "\n".join(made)

    def _pieces(self, line: str, parameters: Collection[str]) -> list[str]:
        """The line, cut before each `name: ` of a parameter that follows a full stop or a semicolon."""
        pieces = [""]
        for part in re.split(r"(?<=[.;] )", line):
            if self._names_in(part, parameters) and pieces[-1]:
                pieces.append(part)
            else:
                pieces[-1] += part
        return pieces

    def _names_in(self, line: str, parameters: Collection[str]) -> bool:
        found = re.match(r"((?:\*{0,2}\w+(?:, and |, or |, | and | or )?)+)(?: \(\w+\))?: ", line)
        if not found:
            return False
        return all(name.strip("* ") in parameters for name in re.split(r",|\band\b|\bor\b", found[1]) if name.strip())

    def _inline(self, text: str, scope: str) -> str:
        made, end = [], 0
        for found in TOKENS.finditer(text):
            made.append(self._escape(text[end : found.start()]))
            before, after = text[: found.start()][-1:], text[found.end() :][:1]
            made.append(("" if before in BEFORE else "\\ ") + self._token(found, scope))
            made.append("" if after in AFTER else "\\ ")
            end = found.end()
        made.append(self._escape(text[end:]))
        return "".join(made)

    def _token(self, found: re.Match[str], scope: str) -> str:
        if found["page"]:
            return f":doc:`{found['page']} </{found['page']}>`"
        text = found["quoted"] or found[0]
        name = self._known(re.sub(r"\(.*\)$", "", text), scope)
        if name:
            return f":py:obj:`{text.replace('*', chr(92) + '*')} <{name}>`"
        return f"``{text}``"

    def _known(self, name: str, scope: str) -> str | None:
        tries = [name, f"hoop.{name}"]
        if name.startswith("loop."):
            tries.append(f"hoop.Loop.{name.removeprefix('loop.')}")
        if "." not in name and scope:
            tries.append(f"{scope}.{name}")
        return next(
            (one for one in tries if one in self._names and (one.count(".") > 1 or "." in name or "_" in name)), None
        )

    @staticmethod
    def _escape(text: str) -> str:
        return SPECIAL.sub(r"\\\1", text)
