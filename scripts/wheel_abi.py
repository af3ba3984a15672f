"""What the compiled modules of a Linux wheel ask of a system and an interpreter, read from their ELF headers."""

from __future__ import annotations

import io
import re
import subprocess
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection

# What glibc consists of: PEP 600 promises no more.
SYSTEM_LIBRARIES = re.compile(r"(libc|libm|libpthread|libdl|librt|ld-linux-[\w-]+)\.so(\.\d+)*")
EXECUTABLE = 1  # PF_X

# Prints each file that may define the C API of the interpreter that runs it.
LIBRARIES = """
import os, sys, sysconfig
print(os.path.realpath(sys.executable))
print(os.path.join(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("INSTSONAME") or ""))
"""


@dataclass
class Module:
    """One shared object."""

    name: str
    machine: str
    libraries: list[str] = field(default_factory=list)  # DT_NEEDED
    search_paths: list[str] = field(default_factory=list)  # DT_RPATH, DT_RUNPATH
    glibc: tuple[int, ...] = (0,)  # the newest version of a symbol that it needs
    exported: set[str] = field(default_factory=set)
    undefined: set[str] = field(default_factory=set)
    has_executable_stack: bool = False
    is_relro: bool = False


def modules_of(wheel: Path) -> list[Module]:
    """Each shared object of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return [module_of(name, archive.read(name)) for name in archive.namelist() if name.endswith(".so")]


def module_of(name: str, content: bytes) -> Module:
    elf = ELFFile(io.BytesIO(content))
    module = Module(name, elf["e_machine"].removeprefix("EM_"))
    for segment in elf.iter_segments():
        module.is_relro |= segment["p_type"] == "PT_GNU_RELRO"
        if segment["p_type"] == "PT_GNU_STACK":
            module.has_executable_stack = bool(segment["p_flags"] & EXECUTABLE)
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                if tag.entry.d_tag == "DT_NEEDED":
                    module.libraries.append(tag.needed)
                elif tag.entry.d_tag == "DT_RPATH":
                    module.search_paths.append(tag.rpath)
                elif tag.entry.d_tag == "DT_RUNPATH":
                    module.search_paths.append(tag.runpath)
        elif isinstance(section, GNUVerNeedSection):
            for _, versions in section.iter_versions():
                for one in versions:
                    if found := re.fullmatch(r"GLIBC_([\d.]+)", one.name):
                        module.glibc = max(module.glibc, tuple(int(part) for part in found[1].split(".")))
        elif isinstance(section, SymbolTableSection) and section.name == ".dynsym":
            for symbol in section.iter_symbols():
                defined = symbol["st_shndx"] != "SHN_UNDEF"
                if symbol.name and symbol["st_info"]["bind"] in ("STB_GLOBAL", "STB_WEAK"):
                    (module.exported if defined else module.undefined).add(symbol.name)
    return module


def c_api_of(interpreter: str) -> set[str]:
    """The names that this interpreter, or its library, exports."""
    printed = subprocess.run([interpreter, "-c", LIBRARIES], check=True, stdout=subprocess.PIPE, text=True).stdout
    names: set[str] = set()
    for path in printed.splitlines():
        if Path(path).is_file():
            names |= module_of(path, Path(path).read_bytes()).exported
    return names


def faults_of(module: Module, machine: str, floor: tuple[int, ...], c_api: set[str] | None) -> list[str]:
    """What would keep it from loading on another system with glibc `floor`, or what it should not have."""
    entry = "PyInit_" + module.name.rpartition("/")[2].partition(".")[0]
    faults = []
    if module.machine != machine:
        faults.append(f"is for {module.machine}, not {machine}")
    if module.glibc > floor:
        faults.append(f"needs glibc {'.'.join(map(str, module.glibc))}")
    faults += [f"needs {name}" for name in module.libraries if not SYSTEM_LIBRARIES.fullmatch(name)]
    faults += [f"looks for libraries in {path}" for path in module.search_paths]
    if module.exported != {entry}:
        faults.append(f"exports {', '.join(sorted(module.exported ^ {entry}))} amiss")
    if module.has_executable_stack:
        faults.append("asks for an executable stack")
    if not module.is_relro:
        faults.append("is linked without relro")
    if c_api is not None:
        missing = {name for name in module.undefined if re.match("_?Py", name)} - c_api
        faults += [f"needs {name}, which its interpreter does not have" for name in sorted(missing)]
    return [f"{module.name} {fault}" for fault in faults]
