#!/bin/sh
# Builds and tries what a release is made of, as far as this machine can: scripts/release_check.sh, or make
# release-check. scripts/release_check.py says what it does, and takes the same arguments.
#
# The tools are those of the extra `release` in pyproject.toml, in an environment of their own, build/release/tools.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

find_python
environment=build/release/tools
python=$PWD/$environment/bin/python
if ! "$python" -m pip --version >/dev/null 2>&1; then
    say "creating $environment with $("$interpreter" --version)"
    "$interpreter" -m venv --clear "$environment" || fail "$interpreter cannot make one (Debian: python3-venv)"
fi
requirements_of release >"$environment/release.txt"
install -r "$environment/release.txt"
exec "$python" -u scripts/release_check.py "$@"
