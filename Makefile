# Every target works on a fresh machine with Python 3.11 or newer: the environment is made first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test bench format clean

BIN := .venv/bin
# A stamp each: nncc with its dependencies; and the tools and torch that the tests want.
BASE := .venv/.base
DEV := .venv/.dev
# A small VGG trained on FashionMNIST; any ONNX file will do: make demo DEMO_MODEL=model.onnx
DEMO_MODEL ?= tests/data/refs/vggs_op13.onnx

help:
	@echo "make demo    compile a trained model for this machine and for a Jetson Nano"
	@echo "make test    what CI runs: ruff, pyright, pytest with doctests"
	@echo "make bench   the measured claims (minutes; wants an idle machine)"
	@echo "make format  let ruff put the code in order"
	@echo "make clean   remove environment, caches and demo"

$(BASE): pyproject.toml .ci/environment
	.ci/environment base
$(DEV): pyproject.toml .ci/environment
	.ci/environment dev

demo: $(BASE)
	for target in host jetson-nano; do \
	  $(BIN)/nncc compile $(DEMO_MODEL) -t $$target --macs 0.7 -o demo/$$target --force; \
	done
	@echo "reports: demo/host/report.html demo/jetson-nano/report.html"

test: $(DEV)
	.ci/system-packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

bench: $(DEV)
	.ci/system-packages
	$(BIN)/python -m pytest tests/bench -s $(PYTEST_ARGS)

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .pyright .pytest_cache .ruff_cache .hypothesis build demo dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
