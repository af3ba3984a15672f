"""check_archives.py SDIST WHEEL: the sdist has all of the sources and nothing made from them; the wheel no sources, no
debug information and no more than a few megabytes.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import PurePosixPath

MOST_INSTALLED = 5_000_000  # bytes
DEBUG_SECTIONS = (b"\0.debug_info\0", b"\0.zdebug_info\0", b"\0__debug_info\0")  # names in ELF and Mach-O


def is_shipped(name: str) -> bool:
    """Whether a tracked file is of use in an sdist: all but what the hosting platform, git and editors read."""
    return not name.startswith(".github/") and not (name.startswith(".") and "/" not in name)


sdist, wheel = sys.argv[1:]
with tarfile.open(sdist) as archive:
    members = {member.name.partition("/")[2] for member in archive if member.isfile()}
# Whichever user owns the clone: CI often checks out as another one.
command = ["git", "-c", "safe.directory=*", "ls-files"]
tracked = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
wanted = {name for name in tracked if is_shipped(name)}
metadata = {name for name in members if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
problems = [f"the sdist lacks {name}" for name in sorted(wanted - members)]
problems += [f"the sdist has {name}, which is not in git" for name in sorted(members - wanted - metadata)]

with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
    installed = sum(member.file_size for member in archive.infolist())
    binaries = {name: archive.read(name) for name in names if name.endswith(".so")}
modules = {
    name[len("src/") : -len(".pyx")] for name in tracked if name.startswith("src/hoop/") and name.endswith(".pyx")
}
compiled = {name.partition(".")[0] for name in names if name.endswith(".so")}
problems += [f"the wheel lacks the compiled module {name}" for name in sorted(modules - compiled)]
problems += [f"the wheel has {name}" for name in names if PurePosixPath(name).suffix in {".c", ".h", ".pyx", ".pxd"}]
problems += [
    f"the wheel lacks {name}" for name in ("hoop/py.typed", "hoop/loop_methods/base_loop.pyi") if name not in names
]
problems += [
    f"{name} has debug information"
    for name, content in binaries.items()
    if any(section in content for section in DEBUG_SECTIONS)
]
if not any(name.endswith(".dist-info/sboms/hoop.cdx.json") for name in names):
    problems.append("the wheel lacks its bill of materials")
if installed > MOST_INSTALLED:
    problems.append(f"the wheel unpacks to {installed} bytes, more than {MOST_INSTALLED}")

print("\n".join(problems) or f"{len(members)} files in the sdist, {len(names)} in the wheel ({installed / 1e6:.1f} MB)")
sys.exit(bool(problems))
