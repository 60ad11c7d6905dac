# Targets for development; CONTRIBUTING.md describes them. PYTHON and VENV may be set: make install PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: install test lint types help-texts docs serve bench clean

install:
	$(PYTHON) -m venv $(VENV)
	CMAKE_ARGS="-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/docs/lean-llama.cmake" \
	$(BIN)/pip install -c constraints.txt -e ".[dev]"

test:
	$(BIN)/pytest $(ARGS)

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:
	$(BIN)/python tests/support/check_types.py

# Writes the help texts of all commands into docs/cli.md.
help-texts:
	$(BIN)/python docs/generate_cli.py

docs: help-texts
	$(BIN)/mkdocs build --strict

serve:
	$(BIN)/mkdocs serve

bench:
	$(BIN)/dearlite bench $(ARGS)

clean:
	rm -rf build/site .mypy_cache .pytest_cache .ruff_cache
