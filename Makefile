# make                 build hoop in place, with PYTHON (default: the clone's environment, else python3)
# make test            all tests, as ./tests/run; make ctest: those of csrc; make check-types: mypy and stubtest
# make verify-types    every public name has a type that pyright knows (scripts/verify_types.py)
# make lint            ruff, cython-lint, clang-format, shellcheck (scripts/lint.sh; --fix mends what they can mend)
# make site            the documentation site, build/site/html (scripts/site.sh)
# make sanitize        hoop's half of the Python suite on modules built with ASan and UBSan (scripts/sanitized_tests.sh)
# make debug           the same on a debug build of CPython, Debian's by default (scripts/debug_tests.sh)
# make suites          other projects' tests on asyncio and on hoop (SUITES="tornado uvicorn": only these)
# make fuzz            random calls of every public method, with sanitizers: HOOP_FUZZ_SECONDS (60), HOOP_FUZZ_SEED
# make bench           the quick benchmark, as ./bench/run
# make dist            an sdist and a wheel in dist/
# make release-check   builds and tries what a release uploads, as far as this machine can (docs/releasing.md)
# make clean           removes everything that was built, but not the environments

PYTHON ?= $(firstword $(wildcard .venv/bin/python) python3)

.PHONY: build test ctest check-types verify-types lint site sanitize debug fuzz suites bench dist release-check clean

build:
	$(PYTHON) setup.py --quiet build_ext --inplace

test:
	./tests/run

ctest:
	$(MAKE) -C tests/c check check-thread
	[ "$$(uname -s)" != Linux ] || $(MAKE) -C tests/c check-kqueue

check-types:
	$(PYTHON) -m mypy
	$(PYTHON) -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist tests/unit/stubtest_allowlist.txt hoop

verify-types:
	$(PYTHON) scripts/verify_types.py

lint:
	./scripts/lint.sh

site:
	./scripts/site.sh

sanitize:
	./scripts/sanitized_tests.sh

debug:
	./scripts/debug_tests.sh

suites: build
	$(PYTHON) scripts/suites/run.py $(SUITES)

fuzz:
	./scripts/sanitized_tests.sh -q -rP tests/fuzz

bench:
	./bench/run

dist:
	$(PYTHON) -m build

release-check:
	./scripts/release_check.sh

clean:
	rm -rf build dist wheelhouse src/hoop.egg-info bench/build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src/hoop -name '*.c' -delete -o -name '*.so' -delete
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
