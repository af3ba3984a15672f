#!/bin/sh
# hoop's half of the Python suite on a debug build of CPython (Py_DEBUG: assertions, counted references, checked
# memory), in Python's development mode. PYTHON names the build; the default is Debian's, of the package python3-dbg.
#
#   scripts/debug_tests.sh                   the whole suite
#   scripts/debug_tests.sh -k tls -x         the tests that these options of pytest choose
#   scripts/debug_tests.sh --prepare         only the environment and the build
#
# Left out, because a debug build adds nothing to what they say: tests/apps and tests/cluster, whose compiled packages
# (multidict crashes) would have to be built for it, the benchmark's smoke tests, and mypy's verdict on the types.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh
export HOOP_OPTIMIZE=1

PYTHON=${PYTHON:-/usr/bin/python3-dbg}
is_debug_build "$PYTHON" || fail "$PYTHON is no debug build (Debian: python3-dbg)"
open_for_tests
[ "${1:-}" != --prepare ] || exit 0
[ $# -gt 0 ] || set -- -q
HOOP_CPYTHON_SUITE=0 HOOP_TEST_ONCE=0 HOOP_TEST_LOOPS=hoop PYTHONMALLOC=debug "$python" -X dev -m pytest --timeout 180 \
    --ignore tests/apps --ignore tests/cluster --ignore-glob '*/test_bench_*' --ignore tests/unit/test_types.py "$@"
