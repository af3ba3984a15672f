#!/bin/sh
# Checks the form of all sources: scripts/lint.sh, or make lint. Nothing is changed.
#
#   scripts/lint.sh          ruff on Python, cython-lint on Cython, clang-format on C, shellcheck on shell
#   scripts/lint.sh --fix    let ruff and clang-format mend what they can, and then check
#
# The tools are those of the extra `lint` in pyproject.toml, in an environment of their own, build/lint: no compiler and
# no build of hoop is needed. What they check is configured in pyproject.toml and .clang-format.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

find_python
open_tools build/lint lint
PATH=$PWD/$environment/bin:$PATH # cython-lint runs pycodestyle from PATH

sources_in_c() {
    find csrc tests bench \( -path bench/build -o -name build \) -prune -o -name '*.[ch]' -print
}

if [ "${1:-}" = --fix ]; then
    ruff check --quiet --fix-only .
    ruff format --quiet .
    sources_in_c | xargs clang-format -i
fi

status=0
say "ruff check"
ruff check --quiet --output-format concise . || status=1
say "ruff format"
ruff format --check . || status=1
say "cython-lint"
cython-lint src || status=1
say "clang-format"
sources_in_c | xargs clang-format --dry-run --Werror || status=1
say "shellcheck"
shellcheck --external-sources scripts/*.sh tests/run tests/c/*.sh bench/run .ci/run || status=1
[ $status -eq 0 ] || fail "make lint has found something; scripts/lint.sh --fix mends what tools can mend"
