# Everything happens in .venv: with uv where it is on PATH, else with pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := src tests run_ingestion.py

.PHONY: demo test check fuzz bench format lint types wheel clean

demo: $(VENV)/.runtime
	$(BIN)/data-engine demo

test: $(VENV)/.development
	$(BIN)/python -m pytest -n auto

check: $(VENV)/.development lint types test wheel

lint: $(VENV)/.development
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(VENV)/.development
	$(BIN)/mypy

format: $(VENV)/.development
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# The wheel, built and tried where nothing else is installed.
wheel: $(VENV)/.development
	$(BIN)/python tests/packaging/try_wheel.py

fuzz: $(VENV)/.development
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -n auto tests

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.runtime: pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
		(test -x $(BIN)/python || uv venv --quiet --python $(PYTHON) $(VENV)) && uv pip install --quiet --python $(BIN)/python -e .; \
	else \
		(test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)) && $(BIN)/python -m pip install --quiet --upgrade pip && $(BIN)/python -m pip install --quiet -e .; \
	fi
	@touch $@

$(VENV)/.development: $(VENV)/.runtime
	@if command -v uv >/dev/null 2>&1; then \
		uv pip install --quiet --python $(BIN)/python --group dev; \
	else \
		$(BIN)/python -m pip install --quiet --group dev; \
	fi
	@touch $@
