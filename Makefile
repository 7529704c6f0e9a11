# Everything a contributor needs. On a fresh machine: Python 3.10, 3.11 or 3.12, and Node.js for Azurite.
#
#   make demo ARGS="--small --store azure"     ARGS goes to the command behind the target
#   make test ARGS="tests/unit -k resume"
#   make PYTHON=python3.10 venv                another Python than the first usable one

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
ARGS ?=
export PYTHON

.PHONY: help venv azurite demo test bench-transfer lint format lock clean

help: ## show this
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

venv: ## make .venv from requirements.lock, or bring it up to date
	@bash scripts/venv.sh

azurite: ## install Azurite into .cache/azurite, if npm is here
	@bash scripts/azurite.sh

demo: venv azurite ## run the demo
	$(BIN)/v6-largefile demo $(ARGS)

test: venv azurite ## run the tests; what needs Azurite, PostgreSQL or Docker is skipped where that is missing
	$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

bench-transfer: venv azurite ## measure transfers beside the SDK and the stock cryptor
	$(BIN)/python -m benchmarks.transfer $(ARGS)

lint: venv ## ruff, mypy, the layers, the scripts and the lock file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	for script in .ci/run scripts/*.sh; do bash -n "$$script"; done
	bash scripts/lock.sh --check

format: venv ## let ruff format the code and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: venv ## resolve requirements.lock again; ARGS=--upgrade takes the newest of everything
	bash scripts/lock.sh $(ARGS)

clean: ## remove what can be made again (.venv, .cache, caches of the tools)
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
