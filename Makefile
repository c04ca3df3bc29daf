# `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
SERVERS ?= auto
BROKER ?=
OUTSIDE ?= partner
PYTEST_ARGS ?=
SEEDS ?= 10000
FAULTS ?= 60
SEED ?= 1
MINUTES ?= 30
WORKERS ?= 3
MUTANTS ?=
BENCH_ARGS ?=
RELEASE ?= trixie
COMMAND ?= make test

# The application that everything here runs: the reference system.
export COORDINATOR_APP ?= gateways.app:APP

# Processes that the tests start would compile the project again each.
test test-all unit authors doors operators upgrades faults properties package: export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install run monolith clean lint format test test-all authors doors operators upgrades faults properties flood crowd cluster-test move-large test-short test-current test-compose screenshots package unit simulate mutants chaos chaos-cluster chaos-mutants soak bench bench-full bench-rows lock up down

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $$($(PYTHON) --version) is what PYTHON=$(PYTHON) names"; exit 1; }
	@echo "installing the Python packages into $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "python3 has no venv module: install it (Debian: apt-get install python3-venv) and run make again"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(STAMP) ## the virtual environment with everything in it

run: $(STAMP) ## the whole system: servers, coordinators, gateways; Ctrl-C stops it (SERVERS=auto|docker|native BROKER=rabbitmq|redis)
	@$(if $(BROKER),DEV_BROKER='$(BROKER)') INGRESS_ACCOUNTS='$(OUTSIDE)' exec $(BIN)/coordinator dev --servers $(SERVERS)

monolith: $(STAMP) ## the whole system in one process, without a server, on files; Ctrl-C stops it
	@exec $(BIN)/coordinator dev $(COORDINATOR_APP)

clean: ## remove the data of `make run` and `make monolith`, and the caches
	@if [ -x $(BIN)/coordinator ]; then $(BIN)/coordinator dev --clean; else rm -rf .dev; fi
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

# What the tree says of itself: layers, public names, limits that are tried, documents that are true.
GUARDS := $(addprefix tests/unit/, \
	test_architecture.py test_ci.py test_documentation.py test_documents.py test_guarantees.py test_hostile_limits.py \
	test_http_documentation.py test_kinds.py test_named_paths.py test_public_face.py test_telemetry_documentation.py)

lint: $(STAMP) ## ruff, mypy --strict, and the tests that only read the tree
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest --quiet --numprocesses 2 $(GUARDS)

format: $(STAMP) ## let ruff format and mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

unit: $(STAMP) ## the tests that need no server
	@$(BIN)/pytest --numprocesses $(WORKERS) -m "not authors" tests/unit $(PYTEST_ARGS)

# `loadgroup` gives each process one test after the other; each has servers of its own, some 1.2 GB with them. There
# are more processes than processors of a small machine, since many tests wait for servers, and for time to pass.
test: $(STAMP) ## the tests against real servers, but those of the targets below (WORKERS=3)
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup -m "not authors and not doors and not operators and not upgrades and not properties and not faults and not flood and not crowd and not cluster" $(PYTEST_ARGS)

authors: $(STAMP) ## what authors of services get: the test kit, the tutorial, `coordinator new`, `coordinator dev`
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup -m "authors and not faults" $(PYTEST_ARGS)

doors: $(STAMP) ## who gets in, and what he may do: certificates, accounts, keys, secrets
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup -m "doors and not faults" $(PYTEST_ARGS)

operators: $(STAMP) ## what operators see and do: commands, pages, alarms, traces, restored copies
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup -m "operators and not faults and not crowd" $(PYTEST_ARGS)

upgrades: $(STAMP) ## releases, schemas and databases that change while the system runs
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup -m "upgrades and not faults" $(PYTEST_ARGS)

test-all: $(STAMP) ## the five before this in one run, whose servers start once, and properties (WITHOUT_PROPERTIES=1)
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup -m "not faults and not flood and not crowd and not cluster$(if $(WITHOUT_PROPERTIES), and not properties)" $(PYTEST_ARGS)

# On the disk, where what is killed or cut off has been waiting for it.
faults: export TESTS_ON := disk
faults: $(STAMP) ## the tests that kill, stop and cut off servers and processes again and again
	@$(BIN)/pytest --numprocesses 2 --dist loadgroup -m faults tests/e2e tests/integration $(PYTEST_ARGS)

properties: export EXAMPLES := all
properties: $(STAMP) ## random histories of payments, providers' answers, hostile messages: five times as many as `make test-all` tries
	@$(BIN)/pytest --numprocesses 2 -m properties tests/unit $(PYTEST_ARGS)

flood: export TESTS_ON := disk
flood: $(STAMP) ## one greedy client beside an honest one, alone on this machine: the latter's p99
	@$(BIN)/pytest -m flood -s tests/e2e/test_greedy_client.py $(PYTEST_ARGS)

move-large: export MOVE_ROWS ?= 100000
move-large: export MOVE_WRITERS ?= 50
move-large: $(STAMP) ## a lane of 100,000 rows moves to another database while 50 clients write (MOVE_ROWS= MOVE_WRITERS=)
	@$(BIN)/pytest -s tests/e2e/test_move.py $(PYTEST_ARGS)

cluster-test: $(STAMP) ## nodes of RabbitMQ and Galera, a primary of PostgreSQL and a master of Redis die under load
	@$(BIN)/pytest -m cluster tests/cluster $(PYTEST_ARGS)

crowd: $(STAMP) ## what an operator waits for while a million messages do, alone on this machine (CROWD_MESSAGES=)
	@$(BIN)/pytest -m crowd -s tests/e2e/test_crowd.py $(PYTEST_ARGS)

# Each of what differs between servers: their protocols, their faults, the whole system on them.
SHORT := tests/integration/test_stores.py tests/integration/test_store_refusals.py tests/integration/test_transports.py \
	tests/faults/test_proxy.py tests/e2e/test_payments.py tests/e2e/test_permissions.py tests/e2e/test_cache.py

test-short: $(STAMP) ## the tests that depend most on the servers, and 10 faults, in 6 minutes or so
	@$(BIN)/pytest --numprocesses 2 --dist loadgroup $(SHORT) $(PYTEST_ARGS)
	@$(BIN)/python -m tests.faults --faults 10 --seed $(SEED)

test-current: export COMMAND := $(COMMAND)
test-current: $(STAMP) ## COMMAND on current servers, in a chroot, as root (RELEASE=trixie|sid COMMAND='make test')
	@exec $(BIN)/python -m tests.current $(RELEASE) "$$COMMAND"

# WITHOUT_ENGINE=allow: no failure on a machine that lets nobody make an engine. ENGINE_DIRECTORY: where one is made.
test-compose: $(STAMP) ## compose.yaml and the tests' containers on a real Docker engine, made here if there is none
	@$(BIN)/python -m tests.engine $(BIN)/pytest tests/compose $(PYTEST_ARGS)

screenshots: export SCREENSHOTS := $(CURDIR)/docs/operating
screenshots: $(STAMP) ## the pictures of docs/OPERATING.md, taken of the pages for operators
	@$(BIN)/pytest tests/e2e/test_screenshots.py $(PYTEST_ARGS)

package: $(STAMP) ## the wheel in a fresh environment, and the project that `coordinator new` makes
	@$(BIN)/pytest tests/package $(PYTEST_ARGS)

simulate: $(STAMP) ## run SEEDS random histories through the simulation (SEEDS=10000 BROKER=rabbitmq|redis)
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(if $(BROKER),--broker '$(BROKER)')

mutants: $(STAMP) ## plant known bugs in the core: the simulation must catch each
	@$(BIN)/python -m tests.simulation.mutants

chaos: $(STAMP) ## FAULTS random faults on real servers under load (FAULTS=60 SEED=1 TRANSPORT=redis)
	@$(BIN)/python -m tests.faults --faults $(FAULTS) --seed $(SEED) --transport $(or $(TRANSPORT),rabbitmq)

chaos-cluster: $(STAMP) ## the same on three nodes of RabbitMQ and a PostgreSQL with a standby (FAULTS=60 SEED=1)
	@$(BIN)/python -m tests.faults --clusters --faults $(FAULTS) --seed $(SEED)

chaos-mutants: $(STAMP) ## plant known bugs in a copy of the tree: chaos must name each (8 minutes or so; MUTANTS=2 SEED=1: two; CLUSTERS=1: those of chaos-cluster)
	@$(BIN)/python -m tests.faults.mutants $(if $(CLUSTERS),--clusters) $(if $(MUTANTS),--count $(MUTANTS)) --seed $(SEED)

soak: $(STAMP) ## load and a fault now and then for MINUTES: nothing may grow (MINUTES=30 SEED=1)
	@$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) --seed $(SEED)

$(BENCH_STAMP): $(STAMP) requirements-bench.lock
	@echo "installing what the benchmark compares with into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

bench: $(BENCH_STAMP) ## the lane against what one would do without it, in 7 minutes or so (BENCH_ARGS=--list)
	@exec $(BIN)/python -m tests.bench $(BENCH_ARGS)

bench-full: $(BENCH_STAMP) ## the same with every row, longer, with larger logs and backlogs (more than an hour)
	@exec $(BIN)/python -m tests.bench --full $(BENCH_ARGS)

bench-rows: $(BENCH_STAMP) ## each row of `make bench` once, for a moment: none may fail, whatever it measures
	@exec $(BIN)/python -m tests.bench --brief --report .dev/bench-rows $(BENCH_ARGS)

lock: ## pin the dependencies again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -q --extra reference pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -q --extra reference --extra mongodb-stand-in --extra test -c requirements.lock pyproject.toml -o requirements-dev.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -q --extra reference --extra mongodb-stand-in --extra test --extra bench -c requirements-dev.lock pyproject.toml -o requirements-bench.lock

up: ## the whole system in containers (compose.yaml)
	docker compose up --build --detach --wait

down: ## stop the containers; their data stays in volumes
	docker compose down
