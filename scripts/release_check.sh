#!/bin/sh
# Builds and tries what a release is made of, as far as this machine can: scripts/release_check.sh, or make
# release-check. scripts/release_check.py says what it does, and takes the same arguments.
#
# The tools are those of the extra `release` in pyproject.toml, in an environment of their own, build/release/tools.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

find_python
open_tools build/release/tools release
exec "$python" -u scripts/release_check.py "$@"
