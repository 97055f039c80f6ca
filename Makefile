# The commands of this checkout. Each sets up what it needs and says what it does.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo test acceptance coverage lint bench lock clean

help: ## Say what there is.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(VENV)/.installed ## Make .venv with .venv/bin/roost.

$(VENV)/.installed: requirements.lock pyproject.toml scripts/prepare
	@scripts/prepare install
	@test -x $(BIN)/python || { echo "Making $(VENV)."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the packages of requirements.lock into $(VENV)."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## A central cloud and three subclouds on this machine, until Ctrl-C.
	@scripts/prepare demo
	@exec $(BIN)/roost demo run

test: install ## Everything that must hold: unit, property, kernel and acceptance tests.
	@scripts/prepare test
	@scripts/test

acceptance: install ## Only the tests that run the whole demo.
	@scripts/prepare test
	@$(BIN)/python -m pytest -m acceptance

coverage: install ## What the tests do not reach (the demo's own processes are not counted).
	@scripts/prepare test
	@$(BIN)/python -m pytest -m "not acceptance" --cov --cov-report=term-missing:skip-covered

lint: install ## Types, style, layers.
	@$(BIN)/ruff check src tests bench
	@$(BIN)/ruff format --check src tests bench
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: install ## Measure; prints the table of docs/benchmarks.md.
	@scripts/prepare demo
	@scripts/prepare bench
	@$(BIN)/python -m bench

lock: ## Write requirements.lock anew from pyproject.toml, with hashes and without addresses.
	@$(BIN)/python -m piptools compile --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet pip-tools
	@$(BIN)/python -m piptools compile --quiet --extra dev --extra postgresql --generate-hashes --allow-unsafe \
	  --strip-extras --no-header --output-file requirements.lock pyproject.toml
	@sed -i -e '/^--/d' -e '1{/^$$/d}' requirements.lock # where packages come from is each machine's own business

clean: ## Remove what was made here.
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
