# One entry point. Everything lives in .venv and .cache; nothing is installed outside this folder.
# Needs: Python 3.11-3.14 with venv (on Debian: apt install python3 python3-venv) and make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Any python3 can make uv's own environment; uv then finds a Python 3.11-3.14. Name one with PYTHON=... to choose.
PYTHON ?= python3
UV ?= $(shell command -v uv 2>/dev/null || echo .cache/uv/bin/uv)
BIN := .venv/bin
STAMP := .venv/.millrace-synced

export UV_PYTHON_DOWNLOADS := never
# Another active environment must not receive what belongs in .venv.
unexport VIRTUAL_ENV
unexport UV_PROJECT_ENVIRONMENT

# Deno comes with the developer tools; what it fetches from the npm registry stays in .cache.
DENO := cd orchestration/dashboard && DENO_DIR='$(CURDIR)/.cache/deno' DENO_NO_UPDATE_CHECK=1 '$(CURDIR)/$(BIN)/deno' task --quiet

.PHONY: help sync ui screenshots demo test faults fuzz soak bench lint imports types format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

.cache/uv/bin/uv:
	$(PYTHON) -m venv .cache/uv
	.cache/uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

$(STAMP): pyproject.toml uv.lock | $(filter .cache/uv/bin/uv,$(UV))
	$(UV) sync --frozen --all-extras $(if $(filter-out file,$(origin PYTHON)),--python '$(PYTHON)')
	@touch $@

sync: $(STAMP) ## Make .venv with every extra and the developer tools

ui: $(STAMP) ## Build the dashboard's pages
	$(DENO) bundle

screenshots: $(STAMP) ui ## Take pictures of every page of the dashboard, into .cache/screenshots; needs Chromium
	mkdir -p .cache/screenshots
	MILLRACE_SCREENSHOTS=.cache/screenshots $(BIN)/python -m pytest tests/browser/test_pages.py $(ARGS)

demo: $(STAMP) ## Run a real job on all four runners
	$(BIN)/python -m examples.census

test: $(STAMP) ## Run every test; ARGS="-k name" narrows it
	$(BIN)/python -m pytest $(ARGS)

faults: $(STAMP) ## Inject faults into real runs and simulated ones, 40 minutes (MILLRACE_FAULTS_MINUTES); ARGS="-k dask" makes some rows anew
	$(if $(ARGS),,rm -f docs/faults.json)
	MILLRACE_SIMULATION=faults MILLRACE_FAULTS=full MILLRACE_FAULTS_KEPT=docs \
	  $(BIN)/python -m pytest tests/simulation tests/faults $(ARGS)

soak: $(STAMP) ## Run mixed flows for an hour while workers are killed; ARGS="--minutes 5 --runner ray" changes that
	$(BIN)/python tests/faults/soak.py $(ARGS)

bench: $(STAMP) ## Run every benchmark and write down what they say; ARGS="overhead --runner dask" narrows it
	$(UV) sync --frozen --all-extras --group bench
	code=0; $(BIN)/python -m benchmarks $(ARGS) --json .cache/bench || code=$$?; \
	  $(BIN)/python -m benchmarks report .cache/bench; \
	  $(BIN)/python -m benchmarks plot .cache/bench -o .cache/bench; exit $$code

fuzz: $(STAMP) ## Feed made-up bytes to what reads the messages of workers, for a minute; ARGS="-max_total_time=600" for longer
	$(UV) sync --frozen --all-extras --group fuzz
	mkdir -p .cache/fuzz
	$(BIN)/python tests/fuzz/messages.py .cache/fuzz $(or $(ARGS),-max_total_time=60 -max_len=4096)

lint: $(STAMP) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(DENO) lint

imports: $(STAMP) ## Check which package may import which
	$(BIN)/lint-imports --no-cache

types: $(STAMP) ## Check types with mypy
	$(BIN)/mypy
	$(DENO) check

format: $(STAMP) ## Put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(DENO) format

lock: | $(filter .cache/uv/bin/uv,$(UV)) ## Choose the newest allowed dependencies
	$(UV) lock --upgrade

clean: ## Remove the environment and every cache
	rm -rf .venv .cache orchestration/dashboard/static .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
