# make serve   installs and serves the bundled checkpoint   (ARGS="--port 8000" passes flags on)
# make test    installs, lints, checks the layers, runs every test
# make setup   only makes the environment, with the test extra

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: serve test setup lint unit clean

serve: $(VENV)/.installed
	$(BIN)/python -m g4jax.server $(ARGS)

test: setup lint unit

setup: $(VENV)/.installed-test

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

unit: setup
	$(BIN)/python -m pytest tests

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "g4jax needs Python 3.11 or newer: make PYTHON=python3.12 ..."'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e '.[test]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .venv-newest .pytest_cache .ruff_cache .import_linter_cache
