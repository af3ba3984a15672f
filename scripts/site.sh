#!/bin/sh
# Builds the documentation site: scripts/site.sh, or make site. Its start is build/site/html/index.html.
#
# Warnings are errors. The tools are those of the extra `docs` in pyproject.toml, in an environment of their own,
# build/site/env. The reference is made from hoop itself, which is built in place for that.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

open_environment
environment=build/site/env-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
tools=$PWD/$environment/bin/python
if ! "$tools" -m pip --version >/dev/null 2>&1; then
    say "creating $environment with $("$interpreter" --version)"
    "$interpreter" -m venv --clear "$environment" || fail "$interpreter cannot make one (Debian: python3-venv)"
fi
python=$tools
requirements_of docs >"$environment/docs.txt"
install -r "$environment/docs.txt"
say "building the site"
PYTHONPATH=src exec "$tools" -W ignore::DeprecationWarning scripts/site/build.py
