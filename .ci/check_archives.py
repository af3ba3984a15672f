"""check_archives.py SDIST WHEEL: the sdist has all of the sources and nothing made from them, the wheel no sources."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import PurePosixPath

NOT_SHIPPED = (".gitignore", ".github/")  # tracked, but of no use in an sdist

sdist, wheel = sys.argv[1:]
with tarfile.open(sdist) as archive:
    members = {member.name.partition("/")[2] for member in archive if member.isfile()}
# Whoever owns the clone: CI often checks out as somebody else.
command = ["git", "-c", "safe.directory=*", "ls-files"]
tracked = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
wanted = {name for name in tracked if not name.startswith(NOT_SHIPPED)}
metadata = {name for name in members if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
problems = [f"the sdist lacks {name}" for name in sorted(wanted - members)]
problems += [f"the sdist has {name}, which is not in git" for name in sorted(members - wanted - metadata)]

with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
modules = {name[len("src/") : -len(".pyx")] for name in tracked if name.startswith("src/hoop/") and name.endswith(".pyx")}
compiled = {name.partition(".")[0] for name in names if name.endswith(".so")}
problems += [f"the wheel lacks the compiled module {name}" for name in sorted(modules - compiled)]
problems += [f"the wheel has {name}" for name in names if PurePosixPath(name).suffix in {".c", ".h", ".pyx", ".pxd"}]
problems += [f"the wheel lacks {name}" for name in ("hoop/py.typed", "hoop/loop_methods/base_loop.pyi") if name not in names]

print("\n".join(problems) or f"{len(members)} files in the sdist, {len(names)} in the wheel")
sys.exit(bool(problems))
