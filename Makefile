# The whole developer manual: make help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install up test quick check bench clean

help:
	@echo "make up       set everything up and run a broker on 127.0.0.1:9092"
	@echo "make test     set everything up and run every test this machine can run"
	@echo "make quick    the tests of the inner loop, under a minute"
	@echo "make check    linters, types, import contract, sizes, generated files"
	@echo "make bench    figures beside Apache Kafka"
	@echo "make install  only set up (.venv)"

$(STAMP): requirements-dev.txt pyproject.toml src/penstock/_twin.pyx tools/build_twin.py
	@[ -x $(BIN)/python ] || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python >= 3.11 is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	@echo "== setting up, 1 of 4: a virtual environment in $(VENV)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
		{ $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --quiet --python $(BIN)/python install pip; }
	@echo "== setting up, 2 of 4: what requirements-dev.txt pins, a minute or two"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@echo "== setting up, 3 of 4: penstock itself"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q src/penstock
	@echo "== setting up, 4 of 4: the compiled twin of the hot path, if there is a C compiler"
	@$(BIN)/python tools/build_twin.py
	@touch $@

install: $(STAMP)

up: install
	$(BIN)/penstock up

quick: install
	$(BIN)/python tools/run_tests.py --quick

test: install
	$(BIN)/python tools/install_toolchains.py
	$(BIN)/python tools/run_tests.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/tidy.py
	$(BIN)/python tools/generate_messages.py --check
	$(BIN)/python tools/generate_cli_reference.py --check
	$(BIN)/python tools/generate_reference.py --check

bench: install
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache src/penstock/_twin.*.so
