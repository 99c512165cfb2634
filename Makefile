# `make run` and `make test` are all that is needed after a clone: they make the environment when it is missing or stale.
PYTHON ?= python3
VENV ?= .venv
OLDEST ?= .venv-oldest
OUTPUT ?= outputs
ARGS ?=
PORT ?=
STAMP := $(VENV)/.installed

.PHONY: help install run test oldest lint types sweep ui bench keys wheel clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

$(STAMP): pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	@touch $@

install: $(STAMP)  ## the environment, in .venv

run: $(STAMP)  ## one run; ARGS='strategy=finetune backbone=resnet50' changes it
	$(VENV)/bin/python -m tlx $(ARGS)

test: $(STAMP)  ## all tests
	$(VENV)/bin/python -m pytest -n auto --dist worksteal $(ARGS)

oldest:  ## all tests with the oldest versions that pyproject.toml allows, in an environment of its own
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet uv
	$(OLDEST)/bin/uv pip install --quiet --upgrade --compile-bytecode --python $(OLDEST)/bin/python --resolution lowest-direct --editable '.[dev]'
	$(OLDEST)/bin/python -m pytest -n auto --dist worksteal $(ARGS)

lint: $(STAMP)  ## format, style, and which package may import which
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports --no-cache

types: $(STAMP)  ## static types
	$(VENV)/bin/mypy

sweep: $(STAMP)  ## two strategies by two backbones
	$(VENV)/bin/python -m tlx -m strategy=feature_extraction,finetune backbone=efficientnet_lite0,small_cnn $(ARGS)

ui: $(STAMP)  ## MLflow's pages on what has run, on this machine only
	$(VENV)/bin/python -m tlx ui --output "$(OUTPUT)" $(if $(PORT),--port $(PORT)) $(ARGS)

bench: $(STAMP)  ## tlx against the loop that a user writes; ARGS='--ants-bees FOLDER --cifar FOLDER'
	$(VENV)/bin/python -m bench $(ARGS)

keys: $(STAMP)  ## docs/keys.md, from the schema
	$(VENV)/bin/python -m tlx.config.key_comments > docs/keys.md

wheel: $(STAMP)  ## a wheel with all of conf/, in dist/
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## what was made, but not outputs/
	rm -rf $(VENV) $(OLDEST) dist build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
