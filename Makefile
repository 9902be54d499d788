# `make help` lists the targets. Everything is installed into $(VENV); nothing else on the machine changes.

PYTHON ?= python3
VENV ?= .venv
# Where CPU-only builds of torch are, for Linux machines whose package index has none (empty: do not ask it).
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# Processes that run the test suite.
WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help demo test test-app coverage check fix docs bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## classify Chinese sentences by a prompt and fill masks, with the embedded model
	HF_HUB_OFFLINE=1 $(BIN)/hf-nlpnotes demo

test: $(VENV)/.installed-dev ## run the test suite (ARGS="-k tokenizer" passes options to pytest)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

test-app: $(VENV)-app/.installed ## run the tests of the app, with gradio, in an environment of its own
	$(VENV)-app/bin/python -m pytest tests/app $(ARGS)

coverage: $(VENV)/.installed-dev ## run the test suite, and list the lines that it does not run; below 95 % it fails
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --cov --cov-fail-under=95 $(ARGS)

check: $(VENV)/.installed-dev ## lint, formatting, types and the direction of imports; nothing is changed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_dependency_direction.py

fix: $(VENV)/.installed-dev ## repair what the linter and the formatter can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs ## build the documentation into docs/_build/html; a warning is an error
	HF_HUB_OFFLINE=1 $(BIN)/python -m sphinx -b html -W --keep-going -q --fresh-env docs docs/_build/html

bench: $(VENV)/.installed-dev ## measure every ratio and print one table (--help: ARGS="--data DIR --peers DIR --only crf")
	$(BIN)/python benchmarks/_performance_sheet.py $(ARGS)

clean: ## remove the environment and what builds and tools leave behind
	rm -rf $(VENV) $(VENV)-app build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* src/*.egg-info

# torch comes first and by itself. On Linux the default build brings several GB of CUDA libraries that the demo and
# the tests do not need, so a CPU build ("+cpu") is taken where the configured index or $(TORCH_INDEX) has one.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "Installing torch $(TORCH) into $(VENV) …"
	@if [ "$$(uname -s)" = Linux ]; then \
	    $(PIP) install --quiet 'torch==$(TORCH)+cpu' 2>/dev/null \
	    || { [ -n '$(TORCH_INDEX)' ] && $(PIP) install --quiet --retries 1 --timeout 20 \
	             --extra-index-url '$(TORCH_INDEX)' 'torch==$(TORCH)+cpu' 2>/dev/null; } \
	    || { echo 'No CPU-only build of torch $(TORCH) in reach: installing the default one.' >&2; \
	         $(PIP) install 'torch==$(TORCH)'; }; \
	else \
	    $(PIP) install 'torch==$(TORCH)'; \
	fi
	@touch $@

$(VENV)/.installed: $(VENV)/.torch setup.cfg pyproject.toml
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.torch setup.cfg pyproject.toml
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(VENV)/.torch setup.cfg pyproject.toml
	$(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@ $(VENV)/.installed

# gradio 6 wants Pillow below 13: everything else is as in the tested set.
$(VENV)-app/.installed: setup.cfg pyproject.toml constraints.txt
	$(MAKE) --no-print-directory VENV=$(VENV)-app $(VENV)-app/.torch
	sed '/^pillow==/d' constraints.txt > $(VENV)-app/constraints.txt
	$(VENV)-app/bin/python -m pip --disable-pip-version-check install --quiet \
	    --constraint $(VENV)-app/constraints.txt --editable '.[app]' 'pytest>=9'
	@touch $@
