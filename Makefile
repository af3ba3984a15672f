# make                 build hoop in place, with PYTHON (default: the clone's environment, else python3)
# make test            all tests, as ./tests/run; make ctest: those of csrc; make check-types: mypy
# make bench           the quick benchmark, as ./bench/run
# make dist            an sdist and a wheel in dist/
# make clean           removes everything that was built, but not the environments

PYTHON ?= $(firstword $(wildcard .venv/bin/python) python3)

.PHONY: build test ctest check-types bench dist clean

build:
	$(PYTHON) setup.py --quiet build_ext --inplace

test:
	./tests/run

ctest:
	$(MAKE) -C tests/c check check-thread
	[ "$$(uname -s)" != Linux ] || $(MAKE) -C tests/c check-kqueue

check-types:
	$(PYTHON) -m mypy

bench:
	./bench/run

dist:
	$(PYTHON) -m build

clean:
	rm -rf build dist wheelhouse src/hoop.egg-info bench/build .mypy_cache .pytest_cache .hypothesis
	rm -f src/hoop/*.c src/hoop/*.so
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
