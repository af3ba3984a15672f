"""Builds csrc as one static library and links it into the modules of src/hoop; all else is in pyproject.toml."""

import json
import os
import sys
from pathlib import Path

import Cython
import setuptools
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
MODULES = sorted(path.relative_to("src").with_suffix("") for path in Path("src/hoop").rglob("*.pyx"))  # hoop/AREA/NAME

if sys.platform == "win32":
    raise SystemExit("hoop runs on Linux, macOS and the BSDs; on Windows use winloop or asyncio's own loop")

# HOOP_WERROR=1 is for CI: a user's newer compiler must not fail the build with a new warning.
strict = os.environ.get("HOOP_WERROR") == "1"
csrc_flags = ["-std=c11", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-O2", "-fvisibility=hidden", "-fPIC"]
if strict:
    csrc_flags += ["-Wall", "-Wextra", "-Wundef", "-Werror"]

# HOOP_SANITIZE=address,undefined (or thread) builds with those sanitizers of the compiler, apart from every other
# build: see make sanitize.
sanitizers = os.environ.get("HOOP_SANITIZE", "")
# HOOP_OPTIMIZE=0 or 1 builds modules in half the time or less, to be tested and not to be measured.
optimize = f"-O{os.environ.get('HOOP_OPTIMIZE', '1' if sanitizers else '2')}"
sanitize_flags = []
build_options = {}
version = f"{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}"
if sanitizers:
    sanitize_flags = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1"]
    sanitize_flags += ["-UNDEBUG"]  # with the assertions in CPython's headers and in Cython's code
    folder = f"build/{'thread-' if sanitizers == 'thread' else ''}sanitized-{version}"
    build_options = {"build": {"build_lib": f"{folder}/lib", "build_temp": f"{folder}/objects"}}

# Debug information is four fifths of a module. A build to be installed goes without; one in place, one with sanitizers
# and one for a debug interpreter keep it, and so does any with HOOP_DEBUG_SYMBOLS=1. The linker drops it, not the
# compiler: the builds of a clone share their objects. Names of functions stay, for profilers.
is_asked_for_symbols = os.environ.get("HOOP_DEBUG_SYMBOLS") == "1"
keeps_symbols = is_asked_for_symbols or bool(sanitizers) or hasattr(sys, "gettotalrefcount")
symbol_flags = ["-g"] if is_asked_for_symbols else []  # else as this Python was compiled
strip_flags = ["-Wl,-S"] if sys.platform == "darwin" else ["-Wl,--strip-debug"]
if sys.platform == "linux":
    strip_flags += ["-Wl,-z,noseparate-code"]  # a page less of padding in each module
if is_asked_for_symbols and not sanitizers:
    folder = f"build/symbols-{version}"
    build_options = {"build": {"build_lib": f"{folder}/lib", "build_temp": f"{folder}/objects"}}


class BuildModules(build_ext):
    """Builds csrc first, which a bare `build_ext --inplace` leaves out, and uses every core."""

    def finalize_options(self):
        super().finalize_options()
        self.strips = not self.inplace and not keeps_symbols
        if self.inplace and not self.editable_mode:
            self.build_lib = f"build/in_place-{version}"  # not where a build to be installed would find it
        self.parallel = self.parallel or os.cpu_count()

    def run(self):
        if sanitizers and self.inplace:
            raise SystemExit("a build with HOOP_SANITIZE does not go in place, where every other program would load it")
        self.run_command("build_clib")
        super().run()

    def build_extension(self, extension):
        if self.strips:
            extension.extra_link_args += strip_flags
        super().build_extension(extension)


class Wheel(bdist_wheel):
    """With a bill of materials, where PEP 770 has it: what is in the modules that the metadata does not name."""

    def write_wheelfile(self, wheelfile_base, *arguments, **keywords):
        super().write_wheelfile(wheelfile_base, *arguments, **keywords)
        folder = Path(wheelfile_base, "sboms")
        folder.mkdir(exist_ok=True)
        text = json.dumps(bill_of_materials(self.distribution.get_version()), indent=2)
        (folder / "hoop.cdx.json").write_text(text + "\n")


def bill_of_materials(version):
    """CycloneDX 1.6. No library is bundled: csrc is hoop's own. Compiled modules contain what Cython writes into each.

    Without a time and a serial number, so that the same sources make the same file.
    """

    def component(name, version, licence, **more):
        reference = f"pkg:pypi/{name.lower()}@{version}"
        licences = [{"license": {"id": licence}}]
        return {"type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference,
                "licenses": licences, **more}  # fmt: skip

    hoop = component("hoop", version, "MIT")
    cython = component("Cython", Cython.__version__, "Apache-2.0", scope="required",
                       description="its runtime support, compiled into each module")  # fmt: skip
    tool = component("setuptools", setuptools.__version__, "MIT")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": hoop, "tools": {"components": [tool]}, "lifecycles": [{"phase": "build"}]},
        "components": [cython],
        "dependencies": [{"ref": hoop["bom-ref"], "dependsOn": [cython["bom-ref"]]}, {"ref": cython["bom-ref"]}],
    }


# HOOP_BUILT=1: an editable install of a clone in which everything is built in place; pip would build all of it once
# more.
is_built = os.environ.get("HOOP_BUILT") == "1"

core = (
    "hoop_core",
    {
        "sources": [str(path) for path in sorted(CSRC.glob("*.c"))],  # those of other systems compile to nothing
        "obj_deps": {"": ["setup.py", *(str(path) for path in sorted(CSRC.glob("*.h")))]},
        "include_dirs": [str(CSRC)],
        "cflags": csrc_flags + sanitize_flags + symbol_flags,
    },
)

extensions = [
    Extension(
        ".".join(module.parts),
        [f"src/{module}.pyx"],
        include_dirs=[str(CSRC)],
        depends=["setup.py", *(str(path) for path in sorted(CSRC.glob("*.[ch]")))],
        extra_compile_args=[optimize, "-fvisibility=hidden", "-Wno-unused-function", *sanitize_flags, *symbol_flags],
        extra_link_args=sanitize_flags[:1],
    )
    for module in MODULES
]

# Nothing is translated to say who we are or to pack the sources. CYTHON_CACHE_DIR=FOLDER shares what Cython writes
# among the builds for several Pythons.
is_compiled = not {"egg_info", "dist_info", "sdist"} & set(sys.argv[1:])
is_cached = bool(os.environ.get("CYTHON_CACHE_DIR"))

setup(
    options=build_options,
    cmdclass={"bdist_wheel": Wheel, "build_ext": BuildModules},
    libraries=[] if is_built else [core],
    ext_modules=[]
    if is_built
    else extensions
    if not is_compiled
    else cythonize(
        extensions,
        include_path=["src"],
        cache=is_cached,
        quiet=True,
        compiler_directives={
            "language_level": 3,
            "binding": False,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "auto_pickle": False,
            "embedsignature": True,
            "embedsignature.format": "clinic",
            "freethreading_compatible": True,  # docs/threads.md says what makes it so
        },
    ),
)
