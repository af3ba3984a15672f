#!/bin/sh
# Builds the documentation site: scripts/site.sh, or make site. Its start is build/site/html/index.html.
#
# Warnings are errors. The tools are those of the extra `docs` in pyproject.toml, in an environment of their own,
# build/site/env. The reference is made from hoop itself, which is built in place for that.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh

open_environment
open_tools "build/site/env-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" docs
say "building the site"
PYTHONPATH=src exec "$python" -W ignore::DeprecationWarning scripts/site/build.py
