PYTHON ?= python3
BIN = .venv/bin

.PHONY: quickstart test check accept bench

quickstart: .venv/installed
	$(BIN)/heedful quickstart --dir runs/quickstart

test: .venv/installed
	HF_HUB_OFFLINE=1 $(BIN)/pytest -n 2 --dist worksteal -m "not accept"

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/sizes.py

accept: .venv/installed
	HF_HUB_OFFLINE=1 $(BIN)/python tests/accept/run.py

bench: .venv/installed
	$(BIN)/python benchmarks/run.py

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@
