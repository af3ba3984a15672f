"""The reference: a page for each class of `hoop` and for each public module, from stubs, sources and docstrings.

Signatures and types come from the stubs, which stubtest compares with the modules, or from the Python sources;
docstrings from the modules themselves. A public name without a docstring is an error.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import hoop
import sources
from docstrings import Docstrings
from sources import Member

# Files of hoop whose names users have from elsewhere, or not at all.
INSIDE = {"loop", "drained_run", "figures", "__init__", "__main__"}
FOR_HOOP = {"WorkerPool": ("on_ready", "on_outcome", "on_end")}  # members that other modules of hoop call
OF_LOOP = {"BaseLoop": "Callbacks, timers and descriptors", "StartTls": "TLS", "SendFile": "sendfile"}
CONSTANTS = {"__version__": "The version of hoop, a string."}


def public_modules() -> list[str]:
    """The files of src/hoop, and the packages whose name is an attribute of hoop."""
    files = {path.stem for path in (sources.SRC / "hoop").glob("*.py")} - INSIDE
    found = []
    for name in sorted(files | hoop.MODULES_ON_DEMAND):
        module = importlib.import_module(f"hoop.{name}")
        if any(one not in hoop.__all__ for one in public_names(module)):
            found.append(f"hoop.{name}")
    return found


def public_names(module: ModuleType) -> list[str]:
    """__all__, or what the module defines itself, without an underscore and with a docstring."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return [name for name in listed if not isinstance(getattr(module, name), ModuleType)]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
        and isinstance(value, type | type(public_names))
        and value.__doc__
    ]


class Reference:
    """Collects all names first, since a page links to names of others; then writes."""

    def __init__(self) -> None:
        self.classes = [name for name in hoop.__all__ if isinstance(getattr(hoop, name), type)]
        self.functions = [
            name
            for name in hoop.__all__
            if name not in self.classes and not isinstance(getattr(hoop, name), ModuleType)
        ]
        self.modules = public_modules()
        self.names: set[str] = {"hoop", *self.modules, *(f"hoop.{name}" for name in hoop.__all__)}
        for name in self.classes:
            self._collect(f"hoop.{name}", getattr(hoop, name))
        for module in self.modules:
            for name in self._own_names(module):
                self.names.add(f"{module}.{name}")
                self._collect(f"{module}.{name}", getattr(importlib.import_module(module), name))
        self.docs = Docstrings(self.names)
        self.missing: list[str] = []

    def _own_names(self, module: str) -> list[str]:
        """Without those that hoop itself has."""
        loaded = importlib.import_module(module)
        shared = {id(getattr(hoop, name)) for name in hoop.__all__}
        return [name for name in public_names(loaded) if id(getattr(loaded, name)) not in shared]

    def _collect(self, full: str, value: Any) -> None:
        if isinstance(value, type):
            self.names.update(f"{full}.{member.name}" for member in members(value))

    # ---- pages -------------------------------------------------------------------------------------------------------

    def class_page(self, name: str) -> str:
        full = f"hoop.{name}"
        return heading(full) + "\n.. py:currentmodule:: hoop\n\n" + self.class_entry(full, getattr(hoop, name))

    def hoop_page(self) -> str:
        text = heading("hoop") + "\n.. py:module:: hoop\n\n" + self.docs.render(inspect.getdoc(hoop) or "") + "\n"
        return text + "\n".join(self.entry(f"hoop.{name}", getattr(hoop, name)) for name in self.functions)

    def module_page(self, module: str) -> str:
        loaded = importlib.import_module(module)
        text = heading(module) + f"\n.. py:module:: {module}\n\n"
        text += self.docs.render(self._doc(module, inspect.getdoc(loaded)), scope=module) + "\n"
        own = self._own_names(module)
        shared = [name for name in public_names(loaded) if name not in own]
        if shared:
            text += "Also here: " + ", ".join(f":py:obj:`hoop.{name}`" for name in shared) + ".\n\n"
        return text + "\n".join(self.entry(f"{module}.{name}", getattr(loaded, name)) for name in own)

    def index_page(self) -> str:
        text = heading("Reference") + "\nEvery public name, with its signature. Types are those that mypy sees.\n\n"
        text += rubric("Functions of hoop") + self._table(
            [(f"hoop.{name}", self._first(name)) for name in self.functions]
        )
        text += rubric("Classes of hoop") + self._table([(f"hoop.{name}", self._first(name)) for name in self.classes])
        rows = [
            (module, self.docs.summary(inspect.getdoc(importlib.import_module(module)) or ""))
            for module in self.modules
        ]
        text += rubric("Modules") + self._table(rows)
        pages = ["hoop", *(f"hoop.{name}" for name in self.classes), *self.modules]
        return text + "\n.. toctree::\n   :hidden:\n   :titlesonly:\n\n" + "".join(f"   {page}\n" for page in pages)

    def _first(self, name: str) -> str:
        return self.docs.summary(self._doc(f"hoop.{name}", CONSTANTS.get(name) or inspect.getdoc(getattr(hoop, name))))

    def _table(self, rows: list[tuple[str, str]]) -> str:
        made = [".. list-table::", "   :widths: 30 70", ""]
        for name, summary in rows:
            made += [f"   * - :py:obj:`{name}`", f"     - {summary}"]
        return "\n".join([*made, "", ""])

    # ---- entries -----------------------------------------------------------------------------------------------------

    def entry(self, full: str, value: Any) -> str:
        if isinstance(value, type):
            return self.class_entry(full, value)
        name = full.rpartition(".")[2]
        found = sources.find(value.__module__, value.__name__) if is_function(value) else []
        functions = [node for node in found if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        if not functions:
            return self._constant(full, value)
        member = sources.function(functions[-1])
        assert member is not None
        stub_only = [node for node in functions if is_overload(node)]
        if stub_only:
            member.signatures = [f"{node.name}{sources.arguments(node, drop_first=False)}" for node in stub_only]
        member.signatures = [f"{name}{one.removeprefix(functions[-1].name)}" for one in member.signatures]
        member.doc = self._doc(full, inspect.getdoc(value))
        return self._directive(
            Member(name, "py:function", member.signatures, member.options, member.parameters, member.doc, ""), ""
        )

    def _constant(self, full: str, value: Any) -> str:
        module, _, name = full.rpartition(".")
        options = [f":value: {value!r}"] if isinstance(value, int | str | float) and name != "__version__" else []
        doc = (
            CONSTANTS.get(name)
            or comment_at(module, name)
            or (inspect.getdoc(value) if callable(value) else None)
            or ""
        )
        if not isinstance(value, int | str | float):
            options = [f":value: {value!r}".replace("typing.", "")] if not callable(value) else []
        return self._directive(Member(name, "py:data", [name], options, [], doc, ""), "")

    def class_entry(self, full: str, value: type) -> str:
        lineage = sources.lineage(value.__module__, value.__name__)
        kind = "py:exception" if issubclass(value, BaseException) else "py:class"
        init = next((one for one in map(init_of, (node for _, node in lineage)) if one is not None), None)
        inside = members(value)
        signature = full.rpartition(".")[2]
        if init is not None and is_for_users(value):
            signature += sources.arguments(init, drop_first=True).removesuffix(" -> None")
        parameters = (sources.parameters_of(init) if init else []) + [member.name for member in inside]
        lines = [f".. {kind}:: {signature}", ""]
        bases = [
            base.__name__
            for base in value.__mro__[1:]
            if base.__module__ in ("asyncio.events", "builtins") and base is not object
        ]
        doc = self._doc(full, own_doc(value))
        if kind == "py:exception" and bases:
            lines += [textwrap.indent(f"A subclass of ``{bases[0]}``.", "   "), ""]
        lines += [textwrap.indent(self.docs.render(doc, parameters, full), "   "), ""]
        base = None
        is_mixed = len({member.base for member in inside}) > 3
        for member in inside:
            if is_mixed and member.base != base:
                base = member.base
                title = "Running" if base == value.__name__ else OF_LOOP.get(base, words(base))
                lines += [textwrap.indent(rubric(title), "   ")]
            if member.doc is None:
                member.doc = doc_of_member(value, member.name)
            lines += [textwrap.indent(self._directive(member, full), "   ")]
        return "\n".join(lines)

    def _directive(self, member: Member, scope: str) -> str:
        first, *others = member.signatures
        head = f".. {member.kind}:: "
        lines = [head + first, *(" " * len(head) + one for one in others)]
        lines += [f"   {option}" for option in member.options]
        doc = member.doc or ""
        lines += ["", textwrap.indent(self.docs.render(doc, member.parameters, scope), "   ") if doc else ""]
        return "\n".join(lines)

    def _doc(self, full: str, doc: str | None) -> str:
        if not doc:
            self.missing.append(full)
        return doc or ""


def members(value: type) -> list[Member]:
    found = sources.members_of(value.__module__, value.__name__)
    return [member for member in found if member.name not in FOR_HOOP.get(value.__name__, ())]


def init_of(node: ast.ClassDef) -> ast.FunctionDef | None:
    found = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    return found[0] if found else None


def is_function(value: Any) -> bool:
    """Compiled ones included."""
    is_callable = inspect.isroutine(value) or type(value).__name__ == "cython_function_or_method"
    return is_callable and value.__module__.startswith("hoop")


def is_for_users(value: type) -> bool:
    """Whether users make instances: not where the loop does."""
    return value.__name__ not in {"Server", "SocketServer", "Socket", "UdpSocket", "Lease", "Immediate", "Timer"}


def is_overload(node: ast.stmt) -> bool:
    return any(ast.unparse(one) in ("overload", "typing.overload") for one in getattr(node, "decorator_list", []))


def own_doc(value: type) -> str | None:
    doc = value.__dict__.get("__doc__")
    if doc is None or (doc.startswith(f"{value.__name__}(") and issubclass(value, tuple)):
        return None if doc is None else "A named tuple."
    return inspect.cleandoc(doc)


def doc_of_member(value: type, name: str) -> str | None:
    """The member's own docstring; of what asyncio has, too, and nobody has explained, that it is so."""
    found = inspect.getattr_static(value, name, None)
    doc = inspect.getdoc(found) if found is not None and not isinstance(found, str | int | float) else None
    if doc and type(found).__doc__ != getattr(found, "__doc__", None):
        return doc
    for kind in (asyncio.AbstractEventLoop, asyncio.StreamReader, asyncio.StreamWriter, asyncio.Server, asyncio.Handle):
        if callable(getattr(kind, name, None)):
            return "As asyncio's."
    return None


def comment_at(module: str, name: str) -> str | None:
    """The comment behind a constant."""
    path = sources.SRC / (module.replace(".", "/") + ".py")
    for line in path.read_text().splitlines() if path.is_file() else []:
        if line.startswith((f"{name} =", f"{name}:")) and "  # " in line:
            comment = line.partition("  # ")[2]
            return comment[0].upper() + comment[1:] + "."
    return None


def words(name: str) -> str:
    spaced = "".join(f" {one.lower()}" if one.isupper() else one for one in name).strip()
    return spaced[0].upper() + spaced[1:]


def heading(title: str) -> str:
    return f"{title}\n{'=' * len(title)}\n"


def rubric(title: str) -> str:
    return f".. rubric:: {title}\n\n"


def write_pages(folder: Path) -> int:
    """Write all pages into folder; how many. SystemExit if a public name has no docstring."""
    made = Reference()
    pages = {"index": made.index_page(), "hoop": made.hoop_page()}
    pages |= {f"hoop.{name}": made.class_page(name) for name in made.classes}
    pages |= {module: made.module_page(module) for module in made.modules}
    if made.missing:
        raise SystemExit(f"no docstring: {', '.join(sorted(set(made.missing)))}")
    folder.mkdir(parents=True)
    for name, text in pages.items():
        (folder / f"{name}.rst").write_text(text)
    documented = {name for name in hoop.__all__ if f"hoop.{name}" in made.names}
    assert documented == set(hoop.__all__)
    return len(pages)
