#!/bin/sh
# hoop's tests of threads on extension modules built with ThreadSanitizer, on a free-threaded CPython that is built with it,
# too (./configure --disable-gil --with-thread-sanitizer): PYTHON names it. Linux and gcc.
#
#   PYTHON=python3.14t scripts/thread_sanitized_tests.sh                 build, and the tests that use threads
#   PYTHON=python3.14t scripts/thread_sanitized_tests.sh -k pool -x      those of them that these options of pytest choose
#   PYTHON=python3.14t scripts/thread_sanitized_tests.sh tests/property  other tests
#   PYTHON=python3.14t scripts/thread_sanitized_tests.sh run program.py  any program on these modules
#
# What is left as it is stands with its reason in thread_sanitizer_suppressions.txt. Every report of a process ends in a
# file, and fails the run.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

open_for_tests
"$python" -c 'import sys, sysconfig
sys.exit("--with-thread-sanitizer" not in sysconfig.get_config_var("CONFIG_ARGS"))' ||
    fail "$python is not built with ThreadSanitizer"
name=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2] + sys.abiflags)')
folder=$PWD/build/thread-sanitized-$name

say "building hoop with ThreadSanitizer"
HOOP_SANITIZE=thread "$python" setup.py --quiet build >"$folder.log" 2>&1 || {
    cat "$folder.log"
    exit 1
}

rm -rf "$folder/reports"
mkdir -p "$folder/reports"
status=0
sanitized() {
    # Where the kernel puts what at random, the sanitizer may find no room for its shadow: setarch lets it be the same.
    env PYTHONPATH="$folder/lib${PYTHONPATH:+:$PYTHONPATH}" PYTHON_GIL=0 HOOP_SANITIZED=1 HOOP_TEST_LOOPS=hoop \
        TSAN_OPTIONS="suppressions=$PWD/scripts/thread_sanitizer_suppressions.txt:log_path=$folder/reports/thread:\
die_after_fork=0:history_size=4:report_thread_leaks=0" \
        setarch -R "$python" "$@" || status=$?
}

case ${1:-} in
run)
    shift
    sanitized "$@"
    ;;
*)
    chosen=
    for argument in "$@"; do
        case $argument in tests/*) chosen=yes ;; esac
    done
    [ -n "$chosen" ] || set -- tests/faults/test_threads.py tests/faults/test_pool_faults.py \
        tests/conformance/test_threadsafe.py tests/conformance/test_executor.py tests/conformance/test_signals.py \
        tests/unit/test_ownership.py tests/unit/test_run_threads.py tests/unit/test_thread_cluster.py \
        tests/unit/test_crossing_threads.py tests/unit/test_pool.py tests/unit/test_default_executor.py \
        tests/unit/test_worker_pool.py tests/unit/test_monitor.py tests/unit/test_monitor_watch.py \
        tests/unit/test_board.py tests/unit/test_handle_lifetime.py tests/unit/test_kept_wake_ups.py \
        tests/unit/test_crypto.py tests/unit/test_dns.py tests/unit/test_files.py "$@"
    # The sanitizer ends a child that was forked beside other threads ("dup thread with used id"). The last one starts some
    # twenty interpreters, each of which takes seconds, within the time limit of one test.
    HOOP_CPYTHON_SUITE=0 sanitized -m pytest -q --timeout 600 \
        --deselect tests/faults/test_threads.py::test_fork_while_loops_run_in_other_threads \
        --deselect tests/faults/test_pool_faults.py::test_trap_43_fork_with_a_busy_pool \
        --deselect tests/faults/test_pool_faults.py::test_trap_43_fork_while_threads_submit_and_run \
        --deselect tests/unit/test_worker_pool.py::test_every_future_ends_under_random_aborts_deaths_and_timeouts "$@"
    ;;
esac
for report in "$folder"/reports/*; do
    [ -e "$report" ] || break
    say "$report"
    cat "$report"
    status=1
done
exit "$status"
