# Everything a person or CI does here. `make` alone lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
ARGS ?=
SEED ?= 1

# Where it is set, every command would compile all it imports anew: seconds for each start of a client.
unexport PYTHONDONTWRITEBYTECODE

CODE := src tests bench compat

.PHONY: help setup setup-tests demo test test-fast cluster guide chaos simulate check format bench bench-cluster compat tempest lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is needed (packages when root; .venv; Keystone, Glance, Neutron); again: a no-op
	@scripts/setup.sh

setup-tests:
	@scripts/setup.sh --tests

demo: setup ## Bring a cloud up and boot a real server on it (ARGS=--teardown: stop everything at the end)
	@$(BIN)/kilonova demo $(ARGS)

test: setup-tests ## All tests, in two processes (ARGS=-n0: in one)
	@$(BIN)/python -m pytest -n 2 $(ARGS)

test-fast: setup ## Units and API, on SQLite: under two minutes (the workflows' fault harness: ARGS=tests/workflows)
	@$(BIN)/python -m pytest tests/unit tests/api $(ARGS)

cluster: ## The long tests: kills by the dozen, many processes, MariaDB and PostgreSQL, a Debian guest
	@scripts/setup.sh --cluster
	@KILL_TIMES=20 KILL_SERVERS=50 SLOW_GUESTS=1 EVERY_DATABASE=1 BROKER_NODES=1 CHAOS_ACROSS_MACHINES=1 \
		$(BIN)/python -m pytest tests/cluster tests/clients/test_kill.py tests/guests/test_signed_images.py $(ARGS)
	@API_DATABASE=postgresql $(BIN)/python -m pytest tests/api $(ARGS)

guide: setup-tests ## The two-node installation guide, step by step, on machines of namespaces (root)
	@GUIDE=1 $(BIN)/python -m pytest -x tests/guide $(ARGS)

chaos: setup-tests ## Servers made and deleted while everything breaks, then an audit (SEED=n; ARGS=--across-machines: the network fails, root)
	@$(BIN)/python -m tests.support.chaos --seed $(SEED) $(ARGS)

simulate: setup ## The cloud under faults that a seed decides, many times (SEEDS=10000, FIRST=0); SEED=n tells one run
	@$(BIN)/python -m tests.simulation $(if $(filter command environment,$(origin SEED)),--seed $(SEED),--seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0)) $(ARGS)

check: setup ## Linters, types and the contracts between the packages
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## Rewrite the code as `make check` wants it
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: setup ## Measure against a bare floor, in one run (docs/performance.md)
	@$(BIN)/python -m bench $(ARGS)

bench-cluster: setup-tests ## Measure roles as processes on MariaDB and RabbitMQ (docs/performance.md)
	@$(BIN)/python -m bench.cluster $(ARGS)

compat: setup ## Compare every operation with the reference implementation (docs/compatibility.md)
	@$(BIN)/python -m compat $(ARGS)

tempest: setup ## Run the reference's own tests of the Networking API (ARGS: other tests by expression; --write)
	@$(BIN)/python -m compat.tempest $(ARGS)

lock: ## Write constraints/*.txt anew from the newest releases
	@scripts/lock.sh

clean: ## Remove what was built and installed here (not .state, which is a cloud)
	rm -rf .venv .services .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .setup.lock src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
