#!/bin/sh
# hoop's half of the Python suite on extension modules built with AddressSanitizer and UndefinedBehaviorSanitizer, in
# the clone's own virtual environment. PYTHON chooses the interpreter, as for ./tests/run: on a debug build of CPython
# (Py_DEBUG: assertions, counted references) it runs in Python's development mode. Linux and gcc.
#
#   scripts/sanitized_tests.sh                   build, the whole suite
#   scripts/sanitized_tests.sh build             only the build, in build/sanitized-3.x
#   scripts/sanitized_tests.sh -k tls -x         the tests that these options of pytest choose
#   scripts/sanitized_tests.sh run program.py    any program on the sanitized modules
#
# Every report of a sanitizer ends in a file of its own, so that one from a child process whose output a test throws
# away fails the run, too. CPython keeps what it has allocated until it ends, so leaks are not looked for here but by
# tests/leaks, which asks LeakSanitizer while the interpreter is whole.
#
# Left out, because hoop's modules have no part in it or a slow build is no judge: tests/apps, tests/cluster (Python code
# makes processes and kills them, also by SIGABRT, of which the sanitizer makes a report), the benchmark's smoke tests,
# mypy's verdict on the types, what only reads the text of the files, models of plain Python (supervisor, agent), and the
# suite as in an old kernel: there the sanitizer's own library, which every child of a test loads, is refused calls, too.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

open_for_tests
name=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2] + sys.abiflags)')
folder=$PWD/build/sanitized-$name
runtime=$("${CC:-cc}" -print-file-name=libasan.so)
[ "$(uname -s)" = Linux ] && [ -e "$runtime" ] || fail "needs Linux, and a compiler with a shared libasan (gcc)"

say "building hoop with sanitizers"
HOOP_SANITIZE=address,undefined "$python" setup.py --quiet build >"$folder.log" 2>&1 || {
    cat "$folder.log"
    exit 1
}
[ "${1:-}" != build ] || exit 0

rm -rf "$folder/reports"
mkdir -p "$folder/reports"
status=0
debug_build=
! is_debug_build "$python" || debug_build=yes
sanitized() {
    # Children of a test get all this, too. A size that cannot be had is an error that Python reports, not the end.
    env LD_PRELOAD="$runtime${LD_PRELOAD:+:$LD_PRELOAD}" \
        PYTHONPATH="$folder/lib${PYTHONPATH:+:$PYTHONPATH}" PYTHONMALLOC=malloc HOOP_SANITIZED=1 HOOP_TEST_LOOPS=hoop \
        ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:handle_abort=1:log_path=$folder/reports/address" \
        UBSAN_OPTIONS="print_stacktrace=1:log_path=$folder/reports/undefined" \
        "$python" ${debug_build:+-X dev} "$@" || status=$?
}

if [ "${1:-}" = run ]; then
    shift
    sanitized "$@"
else
    [ $# -gt 0 ] || set -- -q
    HOOP_CPYTHON_SUITE=0 sanitized -m pytest --timeout 180 --ignore tests/apps --ignore tests/cluster \
        --ignore-glob '*/test_bench_*' --ignore tests/unit/test_types.py --ignore tests/unit/test_floors.py \
        --ignore tests/unit/test_trap_coverage.py --ignore tests/unit/test_verify_types.py \
        --ignore tests/unit/test_site.py --ignore tests/unit/test_release.py --ignore tests/unit/test_dashboard.py \
        --ignore tests/property/test_agent_model.py --ignore-glob '*/property/test_supervisor*.py' \
        --deselect tests/faults/test_refused_calls.py::test_the_suite_does_without_what_an_old_kernel_lacks "$@"
fi
for report in "$folder"/reports/*; do
    [ -e "$report" ] || break
    # A size that cannot be had: Python's error, and of all warnings the only one that makes a report.
    grep -qv 'WARNING: AddressSanitizer failed to allocate' "$report" || continue
    say "$report"
    cat "$report"
    status=1
done
exit "$status"
