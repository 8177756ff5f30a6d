# Everything happens in .venv: with uv where it is on PATH, else with pip. Each target does its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# For how long `make check` plays worlds of fresh seeds (tests/simulation) on each core; 0 plays none.
SIMULATION_SECONDS ?= 60
ENGINE_PYTHON ?= $(PYTHON)
# One worker more than cores: many tests wait for a server, a lock or a process.
export PYTEST_XDIST_AUTO_NUM_WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)' 2>/dev/null || echo 2)
SOURCES := src tests docs_tools examples/bots $(wildcard benchmarks) run_ingestion.py hatch_build.py

.PHONY: demo test check lowest newest engines fuzz bench format lint types wheel dist docs workflows clean python

demo: $(VENV)/.runtime
	@echo "Running $(BIN)/data-engine demo"
	@$(BIN)/data-engine demo

test: $(VENV)/.development
	$(BIN)/python -m pytest -n auto

# What CI runs. Checking and packing use one core each; the tests then have all cores to themselves.
check: $(VENV)/.development
	@$(MAKE) --no-print-directory -j 3 lint types wheel
	@SIMULATION_SECONDS=$(SIMULATION_SECONDS) $(MAKE) --no-print-directory test

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

# What a release uploads from this machine, in dist: needs auditwheel and others, in an environment of their own.
dist: $(VENV)-release/.done
	$(VENV)-release/bin/python tests/packaging/distributions.py build

# The workflows of GitHub and CITATION.cff, as their checkers see them.
workflows: $(VENV)-release/.done
	$(VENV)-release/bin/actionlint .github/workflows/*.yml
	$(VENV)-release/bin/zizmor --offline --pedantic .github
	$(VENV)-release/bin/cffconvert --validate
	$(VENV)-release/bin/validate-pyproject pyproject.toml

# The site, in site/: every page is in the menu, and every link leads somewhere, or it fails.
docs: $(VENV)-docs/.done
	$(VENV)-docs/bin/mkdocs build --strict
	$(VENV)-docs/bin/python docs_tools/check_site.py site

# The tools of one group, beside the package: .venv-docs, .venv-release.
$(VENV)-%/.done: pyproject.toml | python
	@echo "Installing the group $* of pyproject.toml in $(VENV)-$*"
	@$(PYTHON) -m venv $(VENV)-$* || { rm -rf $(VENV)-$*; exit 1; }
	@$(VENV)-$*/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(VENV)-$*/bin/python -m pip install --quiet --group $* $(if $(filter docs,$*),-e .)
	@touch $@

# The core tests with the lowest versions that pyproject.toml declares, and with the newest: minutes, most of them to install.
lowest newest: | python
	$(PYTHON) tests/packaging/try_versions.py $@

# Exports, read back by each engine in an environment of its own (.engines): minutes, most of them to install.
# Qlib and NautilusTrader have builds for Python 3.12: make engines ENGINE_PYTHON=python3.12
engines: $(VENV)/.development
	$(BIN)/python tests/engines/try_engines.py --python $(ENGINE_PYTHON)

# Against the reference and its peers; takes minutes. What it prints is docs/benchmarks.md.
bench: $(VENV)/.development
	$(BIN)/python benchmarks/run.py

fuzz: $(VENV)/.development
	$(BIN)/python tests/safety/fuzz_inputs.py --minutes 10
	$(BIN)/python tests/safety/fuzz.py --kills 1000 --faults 10000 --minutes 20
	RECHECK_WORLDS=250 $(BIN)/python -m pytest tests/ingest/test_recheck.py
	SIMULATION_YEAR=1 $(BIN)/python -m pytest tests/simulation/test_year.py
	cd tests && ../$(BIN)/python -m simulation $$(date +%s) --minutes 60
	cd tests && ../$(BIN)/python -m simulation.mutants
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -n auto tests

clean:
	rm -rf $(VENV) $(VENV)-docs $(VENV)-release site build dist src/data_engine/alpaca/*.native .mypy_cache .pytest_cache .ruff_cache .hypothesis

# One line, before anything is made, where Python is missing or too old. Nothing else is needed on the machine.
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "data-engine needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 | sed -e 's/.*not found/not there/' -e 1q). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }

# An environment that was begun and not finished (Debian without python3-venv) is taken away again.
$(BIN)/python: | python
	@echo "Making an environment in $(VENV); nothing outside of this folder changes"
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV); \
	else \
		$(PYTHON) -m venv $(VENV); \
	fi || { rm -rf $(VENV); exit 1; }

$(VENV)/.runtime: pyproject.toml hatch_build.py $(wildcard src/data_engine/alpaca/*.c) | $(BIN)/python
	@echo "Installing data-engine and what it needs: about 100 MB to download the first time, a minute or less"
	@if command -v uv >/dev/null 2>&1; then \
		uv pip install --quiet --python $(BIN)/python -e .; \
	else \
		{ $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; } && \
		$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' && $(BIN)/python -m pip install --quiet -e .; \
	fi
	@touch $@

$(VENV)/.development: $(VENV)/.runtime
	@echo "Installing the tools of development: some minutes the first time"
	@if command -v uv >/dev/null 2>&1; then \
		uv pip install --quiet --python $(BIN)/python --group dev; \
	else \
		$(BIN)/python -m pip install --quiet --group dev; \
	fi
	@touch $@
