# `make run` and `make test` are all that a fresh machine with Python and make needs.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# What the gateway is asked to serve, and more: make run ARGS="--port 9000"
ARGS   ?=
# Which vLLM to install: auto looks at the machine; cpu, cuda or none
BUILD  ?= auto

.PHONY: help run test check quick lock lint format bench profile clean

help:
	@echo "make run    install what is missing and serve the demo model on http://127.0.0.1:8000"
	@echo "make test   lint and run all tests"
	@echo "make check  lint, and the tests that need neither vLLM nor a server, in a minute; BUILD=none is enough for it"
	@echo "make lint   ruff, mypy, import-linter"
	@echo "make bench  measure Farebox beside vLLM's own server; make bench ARGS=--quick takes a few minutes"
	@echo "make profile  where Farebox's front end spends its time under load"
	@echo "make lock   write requirements/*.lock anew; make lock ARGS=--upgrade takes the newest versions"
	@echo "make clean  remove the virtual environment; the data folder stays"

run: $(VENV)/.installed
	@$(BIN)/farebox serve $(ARGS)

test: lint
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Each on one of two cores.
check: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint quick

quick: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest --quick --numprocesses 2 --quiet -r fE $(ARGS)

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.installed-bench
	@$(BIN)/python -m bench $(ARGS)

profile: $(VENV)/.installed-bench
	@$(BIN)/python -m bench.profile $(ARGS)

lock:
	@$(PYTHON) scripts/lock.py --venv $(VENV) $(ARGS)

$(VENV)/.installed: pyproject.toml scripts/install.py $(wildcard requirements/*.lock)
	@$(PYTHON) scripts/install.py --venv $(VENV) --build $(BUILD)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PYTHON) scripts/install.py --venv $(VENV) --build $(BUILD) --extra dev
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	@$(PYTHON) scripts/install.py --venv $(VENV) --build $(BUILD) --extra bench
	@touch $@

clean:
	rm -rf $(VENV)
