"""Who may know whom: a file may name only files on a floor below its own. Also the few rules that keep it that way.

The package has two tables: the floors of its areas (folders, and what stands beside them), and inside each area the
floors of its files. To add a file, put its name (without suffix) on a floor. A floor's members do not know one another;
where one of them has to know another, they are two floors.
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once  # about the text of the files

Floors = tuple[tuple[str, ...], ...]

# Lowest first.
CSRC_FLOORS: Floors = (
    ("base", "platform"),
    ("clock", "allocator"),
    ("ring", "timers", "inbox", "waker", "poller", "net", "expiry", "histogram", "spin", "local_names", "openssl"),
    ("spin_before_sleep", "datagrams", "send_batch", "proxy_header"),
    ("pool", "meter"),
    ("board",),
    ("fs_contents", "fs_directory", "fs_cached"),
    ("jobs_fs", "jobs_dns", "poller_epoll", "poller_kqueue", "poller_poll"),
)
AREAS: Floors = (
    ("stats", "systemd", "watched"),
    ("core",),
    ("jobs",),
    ("net",),
    ("names", "files", "tls", "streams", "limits", "drain", "proxy_protocol"),
    ("handles", "server_defaults"),
    ("loop_methods",),
    ("monitor",),
    ("loop",),
    ("policy", "drained_run"),
    ("fs", "dns", "crypto", "compress", "agent", "workers"),
    ("figures",),
    ("prometheus", "otel"),
    ("__init__",),
    ("asgi",),
    ("adapters",),
    ("cluster",),
    ("inspect",),
    ("command",),
    ("__main__",),
)
FLOORS_IN: dict[str, Floors] = {
    "core": (
        ("csrc", "cpython_api", "flag", "checks", "processors", "other_loops"),
        ("refuse_instances", "step_coroutine", "ownership"),
        ("errors", "rings"),
        ("handle", "poller_choice"),
        ("scheduler",),
        ("reactor",),
        ("turns", "running"),
        ("garbage", "timer", "timeouts", "board"),
    ),
    "jobs": (("crew",), ("pool",), ("default_executor", "offload")),
    "net": (
        ("connection_socket", "keepalive", "addresses", "chunks", "flow_control", "proxy_ssl", "asyncio_streams"),
        ("transport",),
        ("writing", "datagram", "proxy_header", "fd_watcher"),
        ("stream",),
        ("admission", "server_streams"),
        ("listener", "sockops", "pipe"),
        ("proxy_listener",),
    ),
    "tls": (
        ("engine", "tls_options", "ssl_layouts"),
        ("memory_engine", "direct_engine", "tls_connection"),
        ("engine_choice",),
        ("tls_writing",),
        ("tls_reading",),
        ("session",),
        ("tls_transport",),
    ),
    "streams": (("reader",), ("writer",), ("stream_api",)),
    "names": (("address_info",), ("name_jobs",), ("name_history",)),
    "files": (("file_jobs", "cancellation", "lines_ahead"), ("file_object",), ("temporary_files",)),
    "handles": (("udp_socket", "socket"),),
    "adapters": (
        ("target", "end"),
        ("asgi_application", "serving"),
        ("main", "protocol", "uvicorn", "hypercorn", "aiohttp"),
    ),
    "agent": (("pooled",), ("host", "lease"), ("agent",)),
    "workers": (("process_worker",), ("thread_worker",), ("interpreter_worker",), ("pool",)),
    "loop_methods": (
        ("calls", "signal_pipe", "race"),
        ("base_loop",),
        ("executors",),
        ("name_lookups",),
        ("signals", "async_generators", "problems", "sendfile", "start_tls", "pipes", "processes", "metrics"),
        ("connections", "drains"),
        ("ageing",),
        ("servers",),
        ("unix_sockets",),
        ("endpoints", "socket_handles"),
    ),
    "command": (
        ("parser", "reaching"),
        ("serve", "ctl", "screen", "machine"),
        ("top_frame", "checks"),
        ("top", "doctor"),
        ("main",),
    ),
    "cluster": (
        ("supervisor", "binds", "channel", "spawn", "stacks", "changes", "accounts", "looks"),
        ("roles",),
        ("options", "listeners", "control", "liveness", "post", "health", "upgrade", "metrics_page"),
        ("worker_process", "watch", "desk", "handover"),
        ("template", "thread_worker"),
        ("application", "master", "log"),
        ("threads",),
        ("thread_master",),
        ("cluster",),
    ),
}
PUBLIC_AREAS = {"cluster"}  # users import these by name: their names come from modules inside, on demand

# The only file that may ask which platform it is compiled for. The others ask it for HOOP_HAVE_ one thing or another.
PLATFORM_FILE = "platform.h"
PLATFORM_MACROS = """
    __linux__ __linux linux __ANDROID__ __APPLE__ __MACH__ __unix__ __sun __CYGWIN__
    __FreeBSD__ __OpenBSD__ __NetBSD__ __DragonFly__ BSD _WIN32 _WIN64 __MINGW32__
""".split()

SAYS_NOTHING = {"util", "utils", "misc", "common", "helper", "helpers"}
LONGEST_FILE = 700  # lines, exclusive
LONGEST_FUNCTION = {"src": 60, "csrc": 60, "bench": 60, "tests": 85}  # lines from `def` to the last, inclusive
NOT_OURS = {"build", "results", "__pycache__"}  # folders of generated files

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "src" / "hoop"

TRIPLE_QUOTED = re.compile(r"""("{3}|'{3})(?:[^\\]|\\.)*?\1""", re.DOTALL)
QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
COMMENT = re.compile(r"#[^\n]*")
CONTINUATION = re.compile(r"\\\n")
FROM_IMPORT = re.compile(r"^[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+c?import[ \t]*(\([^)]*\)|[^\n;]+)", re.MULTILINE)
PLAIN_IMPORT = re.compile(r"^[ \t]*c?import[ \t]+([^\n;]+)", re.MULTILINE)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)
EXTERN = re.compile(r"^[ \t]*cdef[ \t]+extern[ \t]+from[ \t]+[\"']<?([^\"'>]+)", re.MULTILINE)
LIST_COMPREHENSION = re.compile(r"\[[^\[\]]*(?:\[[^\]]*\][^\[\]]*)*\bfor\b[^\]]*\bin\b[^\]]*\]")
TEXTUAL_INCLUDE = re.compile(r"^[ \t]*include[ \t]+[\"']", re.MULTILINE)
CONDITION = re.compile(r"^[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif|elifdef|elifndef)\b([^\n]*)", re.MULTILINE)
C_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
C_FUNCTION = re.compile(r"\b(hoop_\w+)\(")
EXTERN_LINE = re.compile(r"^(?:cdef extern|from|import)\b[^\n]*", re.MULTILINE)
FUNCTION_POINTER = re.compile(r"\(\*(\w+)\)")
ARGUMENTS = re.compile(r"\([^()]*\)")
WORD = re.compile(r"[A-Za-z_]\w*")
C_WORDS = {"ctypedef", "struct", "enum", "const", "unsigned", "long", "short", "char", "void", "noexcept", "pass"}
CYTHON_CLASS = re.compile(r"^cdef class (?:Owned|Scheduler|Reactor|BaseLoop)\b.*:\n((?:[ \t].*\n|\n)*)", re.MULTILINE)
OF_LOOP = re.compile(r"(?:\b_?(reactor|loop)|\(<(Reactor|BaseLoop)>[\w.]+\))\.(\w+)")
CYTHON_FUNCTION = re.compile(r"^([ \t]*)(?:cdef|cpdef|def|async def)\b(?! class)[^\n=(]*?(\w+)\(", re.MULTILINE)
C_BODY = re.compile(r"^(\w[^\n;]*\([^;{}]*\))\n\{\n.*?^\}", re.MULTILINE | re.DOTALL)
PLAN = re.compile(r"^```\ncsrc/.*?^```$", re.MULTILINE | re.DOTALL)
PLATFORM = re.compile(rf"\b(?:{'|'.join(PLATFORM_MACROS)}|HOOP_ON_\w+)\b")


def sources(folder: Path, *suffixes: str) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix in suffixes)
    return sorted(path for path in found if not NOT_OURS & set(path.relative_to(folder).parts))


def csrc_files() -> list[Path]:
    return sources(CSRC, ".h", ".c")


def package_files() -> list[Path]:
    return sources(PACKAGE, ".pyx", ".pxd", ".py")


def all_files() -> list[Path]:
    """What people wrote; the C files beside the .pyx files are Cython's."""
    stubs = sources(PACKAGE, ".pyi")
    tests = sources(ROOT / "tests", ".py", ".c", ".h")
    return [*csrc_files(), *package_files(), *stubs, *tests, *sources(ROOT / "bench", ".py", ".c", ".h")]


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """The name as it stands on a floor; a module of a subpackage has dots."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def listed(names: str) -> Iterator[str]:
    """`a as b, c` gives a and c."""
    for item in names.strip("() \t\n").split(","):
        if item.strip():
            yield item.split()[0]


def resolved(name: str, modules: Iterable[str]) -> str:
    """The module that `name`, dotted and relative to the package, leads to: what is left over is a name inside it."""
    parts = name.split(".")
    while parts and ".".join(parts) not in modules:
        parts.pop()
    return ".".join(parts) or "__init__"


def imported(module: str, text: str, modules: Iterable[str]) -> set[str]:
    """The modules of the package that the source text of `module` imports or cimports, wherever in the text."""
    text = CONTINUATION.sub(" ", COMMENT.sub("", TRIPLE_QUOTED.sub('""', text)))
    targets = set()
    for dots, path, names in FROM_IMPORT.findall(text):
        if dots:
            base, below = module.split(".")[: -len(dots)], path
        elif path.split(".")[0] == "hoop":
            base, below = [], path.partition(".")[2]
        else:
            continue
        targets |= {".".join(filter(None, [*base, below, name])) for name in listed(names)}
    for names in PLAIN_IMPORT.findall(text):
        targets |= {name.partition(".")[2] for name in listed(names) if name.split(".")[0] == "hoop"}
    return {resolved(target, modules) for target in targets} - {module}


def unit_of(name: str) -> str:
    """A header, its source and the header that only the unit's own back ends see (poller_internal.h) are one unit."""
    return name.rpartition(".")[0].removesuffix("_internal")


def included(unit: str, text: str) -> set[str]:
    """The units of csrc that a C file includes."""
    return {unit_of(name) for quote, name in INCLUDE.findall(text) if quote == '"'} - {unit}


def area_of(module: str) -> str:
    """The folder that a module is in, or the module itself, where it stands beside the folders."""
    return module.partition(".")[0]


def package_arrows_wrong(module: str, targets: Iterable[str]) -> list[str]:
    """What is wrong with the fact that `module` knows `targets`: between areas, and inside its own."""
    area = area_of(module)
    inside = {target for target in targets if area_of(target) == area}
    wrong = arrows_wrong(area, {area_of(target) for target in set(targets) - inside}, AREAS)
    if "." in module:
        names = {target.partition(".")[2] for target in inside - {area}}
        wrong += arrows_wrong(module.partition(".")[2], names, FLOORS_IN[area])
    return wrong


def floor_of(name: str, floors: Floors) -> int | None:
    return next((number for number, floor in enumerate(floors) if name in floor), None)


def arrows_wrong(name: str, targets: Iterable[str], floors: Floors) -> list[str]:
    """What is wrong with the fact that `name` knows `targets`."""
    own = floor_of(name, floors)
    if own is None:
        return [f"{name} stands on no floor: put it on one in the table at the top of tests/unit/test_floors.py"]
    wrong = []
    for target in sorted(targets):
        other = floor_of(target, floors)
        if other is None:
            wrong.append(f"{name} (floor {own}) knows {target}, which stands on no floor")
        elif other >= own:
            direction = "beside it" if other == own else "above it"
            wrong.append(f"{name} (floor {own}) knows {target} (floor {other}), which is {direction}")
    return wrong


def asks_for_platform(text: str) -> list[str]:
    """The preprocessor conditions in `text` that name a platform."""
    return [line.strip() for line in CONDITION.findall(CONTINUATION.sub(" ", text)) if PLATFORM.search(line)]


def unused_declarations(declarations: str, users: Iterable[str]) -> list[str]:
    """The names that the text of csrc.pxd declares and that neither it nor one of `users` says again."""
    text = EXTERN_LINE.sub("", COMMENT.sub("", declarations))
    said = Counter(WORD.findall(text))
    said_elsewhere = {word for user in users for word in WORD.findall(COMMENT.sub("", TRIPLE_QUOTED.sub("", user)))}
    declared = dict.fromkeys(WORD.findall(ARGUMENTS.sub("", FUNCTION_POINTER.sub(r" \1 ", text))))
    return [name for name in declared if said[name] == 1 and name not in said_elsewhere | C_WORDS]


def private_functions(files: dict[str, str], declarations: str) -> list[str]:
    """The functions of csrc's headers that no other unit calls, and Cython does not either: they should be static."""
    texts = {name: C_COMMENT.sub("", text) for name, text in files.items()}
    wrong = []
    for header, text in texts.items():
        if not header.endswith(".h") or header.endswith("_internal.h"):
            continue
        others = [declarations, *(other for name, other in texts.items() if unit_of(name) != unit_of(header))]
        said = Counter(C_FUNCTION.findall(text))
        wrong += [
            f"{header}: {name}"
            for name in said
            if said[name] == 1 and not any(re.search(rf"\b{name}\b", other) for other in others)
        ]
    return wrong


def declared_of_loop(declarations: str) -> set[str]:
    """The words by which the text of a .pxd declares what a loop has, as Owned, Scheduler, Reactor or BaseLoop."""
    return {word for body in CYTHON_CLASS.findall(COMMENT.sub("", declarations)) for word in WORD.findall(body)}


def undeclared_of_loop(text: str, declared: set[str]) -> list[str]:
    """The attributes of a reactor or a loop that the text of a .pyx names and that are not declared.

    Of a loop the public names of asyncio's are good, too: it need not be one of hoop's.
    """
    text = COMMENT.sub("", TRIPLE_QUOTED.sub('""', text))
    wrong = []
    for variable, cast, name in OF_LOOP.findall(text):
        is_asyncios = variable == "loop" and not name.startswith("_") and hasattr(asyncio.AbstractEventLoop, name)
        if name not in declared and not is_asyncios:
            wrong.append(f"{variable or cast}.{name}")
    return wrong


def is_below(name: str, module: str) -> bool:
    """Whether one module of the package stands on a lower floor than another."""
    same_area = area_of(name) == area_of(module)
    floors = FLOORS_IN[area_of(name)] if same_area else AREAS
    parts = [one.partition(".")[2] if same_area else area_of(one) for one in (name, module)]
    low, high = (floor_of(part, floors) for part in parts)
    return low is not None and high is not None and low < high


def planned(page: str) -> dict[str, set[str]]:
    """The units of csrc ("csrc") and the modules of each area ("": beside them) that docs/architecture.md names."""
    names = defaultdict(set)
    (plan,) = PLAN.findall(page)
    area = ""
    for line in plan.splitlines()[1:-1]:
        column = re.split(r" {2,}", line.strip())[0].split()
        indent = len(line) - len(line.lstrip())
        if column[0].endswith("/"):
            area = "csrc" if column[0] == "csrc/" else "" if indent == 0 else column[0][:-1]
        else:
            if indent == 2 and area != "csrc":
                area = ""
            names[area] |= {name.partition(".")[0].removesuffix("_internal") for name in column}
    return names


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def cython_functions(text: str) -> Iterator[tuple[str, int]]:
    for found in CYTHON_FUNCTION.finditer(text):
        length = 1
        for number, line in enumerate(text[found.start() :].splitlines()[1:], 2):
            if line.strip() and len(line) - len(line.lstrip()) <= len(found[1]):
                break
            if line.strip():
                length = number
        yield found[2], length


def c_functions(text: str) -> Iterator[tuple[str, int]]:
    for found in C_BODY.finditer(text):
        yield found[1].partition("(")[0].split()[-1], found[0].count("\n") + 1


FUNCTIONS = {".py": python_functions, ".pyx": cython_functions, ".pxd": cython_functions}
FUNCTIONS |= {".c": c_functions, ".h": c_functions}


def complain(wrong: list[str]) -> None:
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def test_sources_are_found() -> None:
    assert {"base.h", "poller.h", "ring.c"} <= {path.name for path in csrc_files()}
    assert {"csrc.pxd", "reactor.pyx"} <= {path.name for path in package_files()}


@pytest.mark.parametrize("floors", [CSRC_FLOORS, AREAS, *FLOORS_IN.values()], ids=["csrc", "areas", *FLOORS_IN])
def test_each_name_stands_on_one_floor(floors: Floors) -> None:
    names = [name for floor in floors for name in floor]
    assert sorted(names) == sorted(set(names))


def test_csrc_includes_run_downward() -> None:
    wrong = []
    for path in csrc_files():
        unit = unit_of(path.name)
        targets = included(unit, path.read_text())
        wrong += [f"{shown(path)}: {line}" for line in arrows_wrong(unit, targets, CSRC_FLOORS)]
    complain(wrong)


def test_package_imports_run_downward() -> None:
    modules = {module_name(path) for path in package_files()}
    wrong = []
    for path in package_files():
        name = module_name(path)
        targets = imported(name, path.read_text(), modules)
        wrong += [f"{shown(path)}: {line}" for line in package_arrows_wrong(name, targets)]
    complain(wrong)


def test_every_floor_has_its_files() -> None:
    """Nothing stands on a floor that is not there."""
    modules = {module_name(path) for path in package_files()}
    listed_modules = {name for floor in AREAS for name in floor if name not in FLOORS_IN}
    for area, floors in FLOORS_IN.items():
        listed_modules |= {area} | {f"{area}.{name}" for floor in floors for name in floor}
    assert listed_modules == modules
    assert {name for floor in CSRC_FLOORS for name in floor} == {unit_of(path.name) for path in csrc_files()}


def test_every_file_is_on_the_plan() -> None:
    """docs/architecture.md names every module and every unit, in its area, and no other."""
    names = planned((ROOT / "docs" / "architecture.md").read_text())
    found: dict[str, set[str]] = {"csrc": {unit_of(path.name) for path in csrc_files()}}
    for path in package_files():
        area, _, name = module_name(path).rpartition(".")
        if area or name not in FLOORS_IN:
            found.setdefault(area, set()).add(name)
    assert names == found


def test_nothing_of_a_loop_is_used_that_no_lower_floor_declares() -> None:
    declared = {}
    for path in sources(PACKAGE, ".pxd"):
        declared[module_name(path)] = declared_of_loop(path.read_text())
    wrong = []
    for path in sources(PACKAGE, ".pyx"):
        own = module_name(path)
        known = set().union(*(names for module, names in declared.items() if module == own or is_below(module, own)))
        wrong += [f"{shown(path)}: {name}" for name in undeclared_of_loop(path.read_text(), known)]
    complain(wrong)


def test_an_area_imports_nothing_by_itself() -> None:
    """Its __init__ is a docstring: who needs one module of it does not get the others."""
    complain(
        [
            f"{area}/__init__.py"
            for area in FLOORS_IN
            if area not in PUBLIC_AREAS and imported(area, (PACKAGE / area / "__init__.py").read_text(), {"__init__"})
        ]
    )


def test_only_csrc_pxd_declares_csrc() -> None:
    headers = {path.name for path in csrc_files()}
    wrong = []
    for path in package_files():
        declared = {Path(name).name for name in EXTERN.findall(path.read_text())} & headers
        if declared and path != PACKAGE / "core" / "csrc.pxd":
            wrong.append(f"{shown(path)}: `cdef extern from` {', '.join(sorted(declared))} belongs into csrc.pxd")
    complain(wrong)


def test_every_declaration_of_csrc_is_used() -> None:
    (declarations,) = PACKAGE.rglob("csrc.pxd")
    users = [path.read_text() for path in package_files() if path != declarations]
    complain([f"{shown(declarations)}: {name}" for name in unused_declarations(declarations.read_text(), users)])


def test_every_function_of_a_header_of_csrc_is_called() -> None:
    (declarations,) = PACKAGE.rglob("csrc.pxd")
    complain(private_functions({path.name: path.read_text() for path in csrc_files()}, declarations.read_text()))


def test_no_module_is_included_as_text() -> None:
    complain([f"{shown(path)}: include" for path in package_files() if TEXTUAL_INCLUDE.search(path.read_text())])


def test_compiled_code_has_no_list_comprehension() -> None:
    """Where memory ends, Cython's (3.3.1) releases an item twice: in __Pyx_ListComp_AppendAndDecref() and after it."""
    wrong = []
    for path in sources(PACKAGE, ".pyx", ".pxd"):
        text = COMMENT.sub("", QUOTED.sub('""', TRIPLE_QUOTED.sub('""', path.read_text())))
        wrong += [f"{shown(path)}: {found}: append in a loop" for found in LIST_COMPREHENSION.findall(text)]
    complain(wrong)


def test_csrc_does_not_know_python() -> None:
    wrong = []
    for path in csrc_files():
        names = {Path(name).name for _, name in INCLUDE.findall(path.read_text())}
        if names & {"Python.h", "pythread.h", "structmember.h"}:
            wrong.append(f"{shown(path)}: csrc is plain C and includes nothing of Python's")
    complain(wrong)


def test_platform_conditions_stay_where_they_belong() -> None:
    wrong = []
    for path in [*csrc_files(), *package_files()]:
        if path == CSRC / PLATFORM_FILE:
            continue
        wrong += [f"{shown(path)}: #if {condition}" for condition in asks_for_platform(path.read_text())]
    complain(wrong)


def test_names_say_something() -> None:
    complain([f"{shown(path)}: {path.stem}" for path in all_files() if SAYS_NOTHING & set(path.stem.split("_"))])


def test_files_are_short() -> None:
    lengths = {shown(path): len(path.read_text().splitlines()) for path in all_files()}
    complain([f"{name}: {lines} lines" for name, lines in lengths.items() if lines >= LONGEST_FILE])


def test_functions_are_short() -> None:
    wrong = []
    for path in all_files():
        most = LONGEST_FUNCTION[path.relative_to(ROOT).parts[0]]
        for name, length in FUNCTIONS.get(path.suffix, lambda _: iter(()))(path.read_text()):
            if length > most:
                wrong.append(f"{shown(path)}: {name} has {length} lines, more than {most}")
    complain(wrong)


# The checks above are worth something only if they see what they look for.

EXAMPLE_MODULES = {"__init__", "csrc", "handle", "reactor", "loop", "server", "sub", "sub.inner"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from hoop.reactor cimport Reactor", {"reactor"}),
        ("from hoop.csrc cimport *", {"csrc"}),
        ("from hoop.loop import (\n    Loop,  # why\n    other,\n)", {"loop"}),
        ("from hoop cimport csrc, handle as h", {"csrc", "handle"}),
        ("from hoop import Loop", {"__init__"}),
        ("import hoop", {"__init__"}),
        ("import os, hoop.loop as loop", {"loop"}),
        ("cimport hoop.csrc", {"csrc"}),
        ("from .handle cimport Handle, \\\n    TimerHandle", {"handle"}),
        ("from . import loop", {"loop"}),
        ("    def f():\n        from hoop.loop import Loop", {"loop"}),
        ("if TYPE_CHECKING:\n    from hoop.loop import Loop", {"loop"}),
        ("from hoop.sub.inner import x", {"sub.inner"}),
        ("from hoop.sub import inner, x", {"sub", "sub.inner"}),
        ("from hoop.nowhere import x", {"__init__"}),
        ('"""\nfrom hoop.loop import Loop\n"""\n# import hoop', set()),
        ("import hoops\nfrom hooper import x\nfrom libc.stdint cimport int64_t", set()),
        ("from hoop.server import itself", set()),
    ],
)
def test_imports_are_seen(source: str, expected: set[str]) -> None:
    assert imported("server", source, EXAMPLE_MODULES) == expected


def test_relative_imports_of_a_subpackage_are_seen() -> None:
    source = "from . import x\nfrom ..loop import Loop\nfrom .. import handle"
    assert imported("sub.inner", source, EXAMPLE_MODULES) == {"sub", "loop", "handle"}


def test_what_a_loop_has_is_seen() -> None:
    declarations = """
cdef class Reactor(Scheduler):
    cdef bint must_poll         # sometimes

    cdef int watch(self, Watcher watcher) except -1

cdef class Watcher:
    cdef int fd
"""
    declared = declared_of_loop(declarations)
    assert {"must_poll", "watch"} <= declared
    assert not {"sometimes", "fd"} & declared
    source = """
reactor.must_poll, self.reactor.watch(watcher), loop.create_future(), (<Reactor>job.loop).watch  # loop.gone
reactor._queues, self.reactor.create_future(), self._loop._pool, (<Reactor>job.loop).jobs, callback.reactor_of
"""
    wrong = ["reactor._queues", "reactor.create_future", "loop._pool", "Reactor.jobs"]
    assert undeclared_of_loop(source, declared) == wrong


def test_floors_of_modules_are_compared() -> None:
    assert is_below("core.reactor", "core.running") and is_below("core.running", "net.stream")
    assert not is_below("core.reactor", "core.scheduler")
    assert not is_below("net.stream", "core.reactor")


def test_the_plan_is_read() -> None:
    page = """
```
csrc/            plain C
  base.h ring.c   why
src/hoop/        areas
  stats          values
  core/          descriptors
    csrc.pxd     declarations
    handle flag  more
  loop
```
"""
    assert planned(page) == {"csrc": {"base", "ring"}, "": {"stats", "loop"}, "core": {"csrc", "handle", "flag"}}


def test_lengths_of_functions_are_seen() -> None:
    assert list(python_functions("@why\ndef f(\n    a,\n):\n    b\n\n\nc")) == [("f", 4)]
    cython = "cdef class C:\n    cdef int f(self,\n               x):\n        y\n\n        z\n"
    cython += "\n    def g(self):\n        y\n"
    assert list(cython_functions(cython)) == [("f", 5), ("g", 2)]
    assert list(c_functions("int f(int a,\n      int b)\n{\n    if (a) {\n    }\n}\n")) == [("f", 6)]


def test_includes_are_seen() -> None:
    source = '#include "ring.h"\n#include "own.h"\n#include <string.h>\n  #  include "clock.h" // why\n'
    assert included("own", source) == {"ring", "clock"}
    assert included("own", '#include "own_internal.h"\n#include "ring_internal.h"') == {"ring"}


def test_unused_declarations_are_told() -> None:
    declarations = """
from libc.stdint cimport int64_t
cdef extern from "some_header.h" nogil:
    ctypedef void (*note_fn)(int64_t number)
    ctypedef struct note:
        int64_t length, unread  # read nowhere
        note_fn told
    void take_note(note *given) noexcept
    int64_t tear_up(note *given) noexcept
"""
    users = ["take_note(&mine)\nreturn mine.length, mine.told", "# tear_up unread", '"""tear_up"""']
    assert unused_declarations(declarations, users) == ["unread", "tear_up"]


def test_private_functions_are_told() -> None:
    files = {
        "a.h": "int hoop_a(void); int hoop_b(void); /* hoop_c(1) */ int hoop_c(int);\nvoid hoop_d(void);",
        "a.c": "hoop_a(); hoop_b(); hoop_c(2); hoop_d();",
        "a_internal.h": "void hoop_e(void);",
        "b.c": "// hoop_b()\nhoop_a();",
    }
    assert private_functions(files, "void hoop_d()") == ["a.h: hoop_b", "a.h: hoop_c"]


def test_wrong_arrows_are_told() -> None:
    floors: Floors = (("ground",), ("left", "right"), ("roof",))
    assert arrows_wrong("roof", {"left", "ground"}, floors) == []
    assert arrows_wrong("left", {"roof"}, floors) == ["left (floor 1) knows roof (floor 2), which is above it"]
    assert arrows_wrong("left", {"right"}, floors) == ["left (floor 1) knows right (floor 1), which is beside it"]
    assert arrows_wrong("left", {"cloud"}, floors) == ["left (floor 1) knows cloud, which stands on no floor"]
    (told,) = arrows_wrong("cloud", {"left"}, floors)
    assert told.startswith("cloud stands on no floor: put it on one")


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("#if defined(__linux__)\n#endif", 1),
        ("#ifdef __APPLE__\n#elif defined(_WIN32)\n#endif", 2),
        ("#  if defined(A) || \\\n    defined(__FreeBSD__)\n", 1),
        ("#if HOOP_ON_LINUX\n#if HOOP_HAVE_EPOLL\n", 1),
        ("#if defined(__GNUC__) || HAVE_ACCEPT4\n#ifndef HOOP_RING_H\n", 0),
        ("/* on __linux__ */ int x;\n", 0),
    ],
)
def test_platform_conditions_are_seen(source: str, count: int) -> None:
    assert len(asks_for_platform(source)) == count
