# Everything happens in .venv, which the first target that needs it creates.

PYTHON ?= python3
BIN := .venv/bin
# Most tests wait, for the loop or for a process: two workers fill a processor.
WORKERS := $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN))
CYTHON := $(shell find ibfast -name '*.pyx' -o -name '*.pxd')
STUBBED := $(shell find ibfast -name '*.pyi' | sed 's/\.pyi$$//; s|/|.|g' | sort)
SOURCES := pyproject.toml setup.py $(CYTHON)

.PHONY: demo test lint lint-js style types stubs benchmarks fuzz wheel clean

demo: .venv/.installed  ## Market data from the embedded gateway, live
	$(BIN)/ibfast demo

test: .venv/.test lint  ## Every test
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

lint: style types stubs lint-js  ## Style and types

style: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/.venv/bin:$$PATH" cython-lint $(CYTHON)

types: .venv/.test
	$(BIN)/mypy

stubs: .venv/.test
	$(BIN)/python -m mypy.stubtest $(STUBBED) --allowlist tests/stubtest_allowlist.txt

lint-js:  ## Style and types of the JavaScript client
	@if ! command -v npm >/dev/null; then echo "js/ is not checked, as there is no npm"; \
	else $(MAKE) --no-print-directory js/node_modules/.installed && npm --prefix js run lint && npm --prefix js run types; fi

benchmarks: .venv/.test  ## Decoding, side by side with other clients
	$(BIN)/python -m benchmarks decode

fuzz: .venv/.test  ## Both decoders under a coverage-guided fuzzer and sanitizers, for a minute each
	fuzz/run.sh 60

wheel: .venv/.installed
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf .venv .node js/node_modules .oracles build dist ibfast.egg-info
	find ibfast -name '*.so' -delete -o -name '_*.c' -delete

.venv/.installed: $(SOURCES)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -qq --editable .
	touch $@

.venv/.test: .venv/.installed
	$(BIN)/python -m pip install --quiet --group test --group lint
	touch $@

js/node_modules/.installed: js/package.json js/package-lock.json
	npm --prefix js ci --no-audit --no-fund --loglevel error
	touch $@
