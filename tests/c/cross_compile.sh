#!/bin/sh
# Compile all of csrc and its tests for the systems that this machine is not: no linking, no running, only -Werror.
#
# The compiler is zig's C compiler, which brings the headers of every system along: pip install ziglang. Named by
# ZIG="python -m ziglang"; by default a zig on PATH, else the module. Targets may be given as arguments.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
csrc=$here/../../csrc

if [ -z "${ZIG:-}" ]; then
    if command -v zig >/dev/null 2>&1; then ZIG=zig; else ZIG="${PYTHON:-python3} -m ziglang"; fi
fi
if [ $# -eq 0 ]; then
    set -- aarch64-macos x86_64-macos x86_64-freebsd aarch64-freebsd x86_64-openbsd x86_64-netbsd \
        x86_64-linux-musl aarch64-linux-musl x86_64-linux-gnu.2.17 x86-linux-gnu.2.28
fi

object=$(mktemp)
trap 'rm -f "$object"' EXIT
status=0
for target; do
    case $target in
    *-linux-*) defines=-D_GNU_SOURCE ;;
    *-macos*) defines=-D_DARWIN_C_SOURCE ;;
    *) defines= ;; # the BSDs show everything unless asked for a standard
    esac
    failed=0
    for source in "$csrc"/*.c "$here"/*.c; do
        # $ZIG and $defines are words, not one word.
        # shellcheck disable=SC2086
        if ! $ZIG cc -target "$target" -std=c11 $defines -Wall -Wextra -Wundef -Werror -O1 -fvisibility=hidden \
            -pthread -I"$csrc" -I"$here" -c "$source" -o "$object"; then
            echo "$target: $(basename "$source") failed" >&2
            failed=1
            status=1
        fi
    done
    [ "$failed" -ne 0 ] || echo "$target: ok"
done
exit $status
