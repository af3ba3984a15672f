"""What the sources of hoop say about a name: signatures and types, from the stub beside a compiled module, else from
the module itself. Nothing is imported.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from pathlib import Path

SRC = Path(__file__).resolve().parents[2] / "src"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass
class Member:
    """A function, method, property or attribute, as a reader sees it."""

    name: str
    kind: str  # the name of Sphinx's directive
    signatures: list[str]
    options: list[str]
    parameters: list[str]
    doc: str | None
    base: str  # the class whose body has it


@functools.cache
def tree_of(module: str) -> ast.Module:
    """The stub's, where there is one. FileNotFoundError for a module that is not of hoop."""
    path = SRC / module.replace(".", "/")
    tries = (path.with_suffix(".pyi"), path.with_suffix(".py"), path / "__init__.py")
    found = next((one for one in tries if one.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"no source of {module} in {SRC}")
    return ast.parse(found.read_text())


def find(module: str, name: str) -> list[ast.stmt]:
    """The definitions of a name at the top of a module: several, if it is overloaded."""
    return [node for node in flat(tree_of(module).body) if name in names_of(node)]


def flat(body: list[ast.stmt]) -> list[ast.stmt]:
    """With what stands in `if` blocks."""
    found = []
    for node in body:
        found += flat(node.body) + flat(node.orelse) if isinstance(node, ast.If) else [node]
    return found


def names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def class_of(module: str, name: str) -> ast.ClassDef | None:
    return next((node for node in find(module, name) if isinstance(node, ast.ClassDef)), None)


def lineage(module: str, name: str) -> list[tuple[str, ast.ClassDef]]:
    """The class and its bases that are hoop's, nearest first, each with its module."""
    node = class_of(module, name)
    if node is None:
        return []
    found = [(module, node)]
    for given in node.bases:
        base = given.value if isinstance(given, ast.Subscript) else given
        if isinstance(base, ast.Name):
            found += lineage(*imported(module, base.id))
    seen: dict[str, tuple[str, ast.ClassDef]] = {}
    for where, one in reversed(found):  # a base that several have comes after all of them
        seen.pop(one.name, None)
        seen = {one.name: (where, one), **seen}
    return list(seen.values())


def imported(module: str, name: str) -> tuple[str, str]:
    """Where the name that the module uses is defined; the module itself if it imports it from nowhere in hoop."""
    for node in flat(tree_of(module).body):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hoop"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return node.module, alias.name
    return module, name


def members_of(module: str, name: str) -> list[Member]:
    """The public members of a class, in the order of their sources."""
    found: dict[str, Member] = {}
    for where, node in lineage(module, name):
        body = public_part(where, node)
        here: dict[str, Member] = {}
        for position, one in enumerate(body):
            for own in names_of(one):
                if own.startswith("_") or own in found:
                    continue
                made = member(one, own, node.name, doc_after(body, position))
                if made is not None and own in here and made.kind == here[own].kind == "py:method":
                    here[own].signatures += made.signatures  # overloaded
                elif made is not None:
                    here.setdefault(own, made)
        found.update(here)
        for own, made in set_in_init(node).items():
            found.setdefault(own, made)
    return list(found.values())


def public_part(module: str, node: ast.ClassDef) -> list[ast.stmt]:
    """Of a stub: what stands before the line that says for whom the rest is."""
    body = flat(node.body)
    path = SRC / (module.replace(".", "/") + ".pyi")
    if not path.is_file():
        return body
    lines = path.read_text().splitlines()
    ends = [number for number, line in enumerate(lines, 1) if line.strip().startswith("# ---- for the")]
    end = next((number for number in ends if number > node.lineno), len(lines) + 1)
    return [one for one in body if one.lineno < end]


def doc_after(body: list[ast.stmt], position: int) -> str | None:
    """The string below an attribute."""
    after = body[position + 1] if position + 1 < len(body) else None
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
        return " ".join(after.value.value.split())
    return None


def set_in_init(node: ast.ClassDef) -> dict[str, Member]:
    """Attributes that __init__ sets and a string below explains."""
    found: dict[str, Member] = {}
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or method.name != "__init__":
            continue
        for position, one in enumerate(method.body):
            target = one.targets[0] if isinstance(one, ast.Assign) else getattr(one, "target", None)
            doc = doc_after(method.body, position)
            if doc and isinstance(target, ast.Attribute) and not target.attr.startswith("_"):
                options = [f":type: {ast.unparse(one.annotation)}"] if isinstance(one, ast.AnnAssign) else []
                found[target.attr] = Member(target.attr, "py:attribute", [target.attr], options, [], doc, node.name)
    return found


def member(node: ast.stmt, name: str, base: str, doc_below: str | None) -> Member | None:
    """None for what no reader needs: the setter of a property, an implementation of overloads."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return function(node, base)
    if isinstance(node, ast.AnnAssign):
        options = [f":type: {plain(ast.unparse(node.annotation))}"]
        if node.value is not None and "field(" not in ast.unparse(node.value):
            options.append(f":value: {ast.unparse(node.value)}")
        return Member(name, "py:attribute", [name], options, [], doc_below, base)
    if isinstance(node, ast.Assign) and doc_below:
        return Member(name, "py:attribute", [name], [f":value: {ast.unparse(node.value)}"], [], doc_below, base)
    return None


def function(node: Function, base: str = "") -> Member | None:
    decorators = [ast.unparse(one) for one in node.decorator_list]
    if any(one.endswith((".setter", ".deleter")) for one in decorators):
        return None
    doc = ast.get_docstring(node)
    if any(one in ("property", "functools.cached_property") for one in decorators):
        options = [f":type: {plain(ast.unparse(node.returns))}"] if node.returns else []
        return Member(node.name, "py:property", [node.name], options, [], doc, base)
    is_static = "staticmethod" in decorators
    options = [f":{one}:" for one in ("staticmethod", "classmethod") if one in decorators]
    if isinstance(node, ast.AsyncFunctionDef):
        options.append(":async:")
    signature = f"{node.name}{arguments(node, drop_first=bool(base) and not is_static)}"
    kind = "py:method" if base else "py:function"
    return Member(node.name, kind, [signature], options, parameters_of(node), doc, base)


def parameters_of(node: Function) -> list[str]:
    given = node.args
    some = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [one.arg for one in some if one is not None]


def arguments(node: Function, *, drop_first: bool) -> str:
    """As a signature has them, with the type of the result."""
    given = ast.parse(ast.unparse(node)).body[0].args  # type: ignore[attr-defined]
    if drop_first:
        (given.posonlyargs or given.args).pop(0)
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return plain(f"({ast.unparse(given)}){result}")


def plain(text: str) -> str:
    """Types as a reader wants them: without the names that only a checker needs."""
    text = text.replace("[[*_Ts], ", "[..., ").replace("*args: *_Ts", "*args")
    text = re.sub(r"\b(?:typing|collections\.abc)\.", "", text)
    return re.sub(r"(?<![\w.])_([A-Z]\w*)", r"\1", text)
