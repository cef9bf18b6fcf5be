# Every command that this project is worked with; CI calls these targets and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

FLAVOR ?= mariadb
REPLICAS ?= 1
STORES ?= 0
# Gigabytes of data on the master.
SIZE ?= 0.2
ROUNDS ?= 3
ID ?= auto

BIN := .venv/bin
LAB := PYTHONPATH=fixtures $(BIN)/python -m lab --dir .lab
SOURCES := $(shell find orchestrator playbooks -type f -not -path '*/__pycache__/*') pyproject.toml
PYTHON_CODE := orchestrator fixtures tests
PYTEST_OPTIONS ?=

.PHONY: help
help:  ## This list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | column -t -s $$'\t'

.PHONY: packages
packages:  ## Install the Debian packages that are missing; starts no server.
	@fixtures/install-packages.sh

.PHONY: browser
browser:  ## Install Chromium, in which the tests open the report of a drill.
	@fixtures/install-packages.sh chromium

.PHONY: mysql-server
mysql-server:  ## Put MySQL into .mysql, apart from the machine's own packages.
	@fixtures/install-mysql.sh .mysql

# With hashes: what was locked is what is installed.
.venv/.dependencies: requirements.lock requirements-dev.lock | packages
	[ -x $(BIN)/python ] || "$$(command -v python3.11 || command -v python3)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock -r requirements-dev.lock
	touch $@

# The wheel and not the checkout, so that tests meet what users get.
.venv/.wheel: .venv/.dependencies $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	touch $@

.PHONY: install
install: packages .venv/.wheel  ## Make .venv with everything in it.

.PHONY: lab-up
lab-up: install  ## Bring the laboratory up in .lab (FLAVOR=mariadb REPLICAS=1 SIZE=0.2 STORES=0 ID=auto).
	$(LAB) up --id $(ID) --flavor $(FLAVOR) --replicas $(REPLICAS) --size $(SIZE) --stores $(STORES) $(LAB_OPTIONS)

.PHONY: lab-down
lab-down: .venv/.dependencies  ## Take it down; nothing of it remains.
	$(LAB) down

.PHONY: lab-exec
lab-exec:  ## Run CMD='…' as root on HOST=master.
	@$(LAB) exec $(or $(HOST),master) $(call quote,$(or $(value CMD),$(error say what to run: CMD='…')))

.PHONY: demo
demo: install  ## Clone a server (FLAVOR=mysql for MySQL) while it is written to, in a laboratory of its own.
	FLAVOR=$(FLAVOR) SIZE=$(SIZE) fixtures/lab/demo.sh

.PHONY: check
check: install  ## Lint, format, types, layers.
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/mypy $(PYTHON_CODE)
	$(BIN)/lint-imports

.PHONY: test
test: check browser  ## Everything that must hold before a push.
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST_OPTIONS)

.PHONY: golden
golden: install  ## Write the approved texts anew; read what has changed with git diff.
	XBVAULT_GOLDEN=write $(BIN)/pytest -q tests/unit/flavors tests/unit/report tests/contract/test_recorded_plans.py

# The clone's whole suite of faults: every kill point, every nemesis, every planted defect. The page is
# written once nothing has failed and nothing was left out; what failed in a whole run can be played
# again by itself, by NEMESIS or PYTEST_OPTIONS=--lf, while the product stays as it is. On MySQL, what
# differs there: the tools, what is killed around them, and a keyring in a Vault that is away, refuses,
# or is not trusted.
FAULT_PAGE := $(if $(POINT)$(filter mysql,$(FLAVOR)),,docs/reference/faults.md)
NEMESES := $(wildcard tests/fault/test_nemeses_*.py)
KILLS := tests/fault/test_kill_points.py tests/fault/test_kill_points_undo.py tests/fault/test_kill_points_sets.py
FAULTS := $(if $(filter mysql,$(FLAVOR)),$(KILLS) tests/fault/test_nemeses_stream.py \
    tests/fault/test_nemeses_restore.py tests/fault/test_nemeses_disks.py \
    tests/integration/test_restore_into_vault.py tests/e2e/test_mysql_vault.py,tests/fault)
FAULT_TESTS := $(if $(NEMESIS),$(NEMESES),$(if $(POINT),tests/fault/test_kill_points.py $(NEMESES),$(FAULTS)))

.PHONY: fault
fault: install $(if $(filter mysql,$(FLAVOR)),mysql-server)  ## Break everything (or POINT=a-step, NEMESIS=a-name), judge the laws, print the table.
	XBVAULT_FAULT=full XBVAULT_FAULT_POINT=$(POINT) XBVAULT_FAULT_NEMESIS=$(NEMESIS) \
	    XBVAULT_FAULT_FLAVOR=$(FLAVOR) XBVAULT_FAULT_PAGE=$(FAULT_PAGE) \
	    $(BIN)/pytest -n 3 --dist loadfile $(FAULT_TESTS) $(PYTEST_OPTIONS)

# The size is that of the measurements in the documents, unless somebody says another one. Not the
# checkout (-P): what is measured is what users get.
BENCH_OUT ?= .bench
BENCH_SIZE = $(if $(filter file,$(origin SIZE)),2,$(SIZE))

.PHONY: bench
bench: install $(if $(filter mysql,$(FLAVOR)),mysql-server)  ## Measure clones against their peers (SIZE=2 ROUNDS=3 FLAVOR=mariadb BENCH_OPTIONS=--no-cold).
	PYTHONPATH=fixtures:tests/support:tests/bench $(BIN)/python -P -m benchmark --flavor $(FLAVOR) \
	    --size $(BENCH_SIZE) --rounds $(ROUNDS) --out $(BENCH_OUT) $(BENCH_OPTIONS)

# One shell word, whatever is in it.
quote = '$(subst ','\'',$(1))'
