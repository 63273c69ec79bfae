# Everything a newcomer or a CI machine needs. `make help` lists it.
VENV ?= .venv
PYTHON ?= python3
EXTRAS ?= dev
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-all lint bench clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(STAMP)  ## Create .venv and install the package with its exact, tested versions

$(STAMP): pyproject.toml .ci/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[$(EXTRAS)]'
	touch $(STAMP)

demo: $(STAMP)  ## Train teacher and students on the embedded eye clips, print the table (10 minutes on 2 cores)
	$(BIN)/lightning fit --config experiments/seye.yaml --config experiments/quick.yaml
	$(BIN)/lightning test --config experiments/seye.yaml --config experiments/quick.yaml --ckpt_path best
	$(BIN)/lightning fit --config experiments/seye_ce.yaml --config experiments/quick.yaml
	$(BIN)/lightning test --config experiments/seye_ce.yaml --config experiments/quick.yaml --ckpt_path best
	$(BIN)/lightning test --config experiments/seye_teacher.yaml --config experiments/quick.yaml --ckpt_path best
	$(BIN)/sdsnn report runs/quick/seye_teacher runs/quick/seye_ce runs/quick/seye

test: $(STAMP)  ## Run the fast tests, two at a time
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)  ## Run the slow tests, one at a time
	$(BIN)/python -m pytest -m slow

test-all: test test-slow  ## Run every test

lint: $(STAMP)  ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Without what spikingjelly would bring: PyPI's torchvision does not import beside a torch that is built for CPUs.
bench: $(STAMP)  ## Run every benchmark, with spikingjelly as peer, and write their table
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c .ci/constraints.txt spikingjelly loguru
	$(BIN)/python tests/benchmarks/run.py

clean:  ## Remove the environment and all caches, but no runs and no data
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info build dist
