# shellcheck shell=sh
# The clone's own virtual environment. bench/run, tests/run and .ci/run source this file from the top of the repository.
#
#   open_environment     the environment, with hoop built in place; sets `python`
#   install ARGUMENTS    pip install in it, unless these arguments were installed before and pyproject.toml is as it was
#   open_tools DIR X     the tools of the extra X in an environment of their own, DIR; sets `python`
#   open_for_tests       the environment, with what tests need; on a debug build of CPython, too
#   requirements_of X    what the extra X of pyproject.toml asks for, one requirement on a line
#
# All it needs is a C compiler and Python with its venv module: the one that PYTHON names, or python3, or a newer one.
# The environment is .venv, or .venv-3.x where PYTHON chooses. It is kept: the next run builds only what has changed.

say() {
    printf '== %s\n' "$*"
}

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON is not a working Python 3.11 or newer"
        interpreter=$PYTHON
        environment=.venv-$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2] + sys.abiflags)')
        return
    fi
    environment=.venv
    for interpreter in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do
        if is_new_enough "$interpreter"; then return; fi
    done
    fail "hoop needs Python 3.11 or newer; name one with PYTHON=/path/to/python3"
}

open_environment() {
    command -v "${CC:-cc}" >/dev/null 2>&1 || fail "hoop needs a C compiler (Debian: apt install gcc libc6-dev make)"
    find_python
    python=$PWD/$environment/bin/python
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        say "creating $environment with $("$interpreter" --version)"
        "$interpreter" -m venv --clear "$environment" || fail "$interpreter cannot make one (Debian: python3-venv)"
    fi
    install "setuptools>=77" "Cython>=3.1"
    # Where the builds for several Pythons share what Cython writes, its own declarations must not look newer than that:
    # they are as new as each environment, and all would be translated and compiled once more, for every Python.
    [ -z "${CYTHON_CACHE_DIR:-}" ] || find "$environment" -path '*/Cython/Includes/*' -exec touch -t 200001010000 {} +
    say "building hoop"
    "$python" setup.py --quiet build_ext --inplace
    export HOOP_BUILT=1
    install --no-build-isolation --no-deps --editable .
    unset HOOP_BUILT
}

open_tools() {
    environment=$1
    python=$PWD/$environment/bin/python
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        say "creating $environment with $("$interpreter" --version)"
        "$interpreter" -m venv --clear "$environment" || fail "$interpreter cannot make one (Debian: python3-venv)"
    fi
    requirements_of "$2" >"$environment/$2.txt"
    install -r "$environment/$2.txt"
}

is_debug_build() {
    "$1" -c 'import sys; sys.gettotalrefcount' 2>/dev/null
}

open_for_tests() {
    open_environment
    if ! is_debug_build "$python"; then
        requirements_of test >"$environment/test.txt"
        install -r "$environment/test.txt"
        return
    fi
    requirements_of test | grep -v '^mypy' >"$environment/test.txt"
    install --prefer-binary -r "$environment/test.txt"
    # A debug build loads modules that were compiled for the ordinary one, but does not look for their names.
    "$python" - <<'END'
import pathlib, sysconfig

folder = pathlib.Path(sysconfig.get_path("platlib"))
for module in folder.rglob(f"*.cpython-{sysconfig.get_config_var('py_version_nodot')}-*.so"):
    plain = module.with_name(module.name.split(".")[0] + ".so")
    if "Cython" not in module.parts and not plain.exists():
        plain.symlink_to(module.name)
END
}

install() {
    stamp=$environment/installed-$(printf '%s\n' "$@" | cksum | cut -d ' ' -f 1)
    now=$(cat pyproject.toml tests/apps/requirements.txt | cksum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$now" ]; then
        say "installing $*"
        # Most of what comes is never imported: what is, Python compiles then.
        "$python" -W ignore::ResourceWarning -m pip install --quiet --disable-pip-version-check --no-compile "$@" ||
            return
        printf '%s\n' "$now" >"$stamp"
    fi
}

requirements_of() {
    "$python" - "$1" <<'END'
import sys, tomllib

with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"][sys.argv[1]], sep="\n")
END
}
