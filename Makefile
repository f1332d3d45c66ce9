# Everything here works on a fresh clone of a bare machine: what is missing is installed first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export NEARCAST_BEGAN := $(shell date +%s)

python := .venv/bin/python
# The private database cluster for as long as the command runs, or the one of DATABASE_URL.
with_database := $(python) -m config.cluster hold
# Extra arguments for pytest: make test TESTS="tests/devices -k dwell"
TESTS ?=

.PHONY: help
help: ## List what there is to make
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: run
run: ## Install, prepare and start everything; Ctrl-C stops it
	@bin/bootstrap
	@$(python) assets/build.py
	@exec $(python) -m config.run

.PHONY: stop
stop: ## Stop what `make run` started, from another terminal
	@test ! -x $(python) || $(python) -m config.run stop

.PHONY: test
test: ready-for-tests ## Run the tests; TESTS="tests/devices -k dwell" chooses
	@$(with_database) bin/tests $(TESTS)

.PHONY: check
check: ready-for-tests ## What CI runs: style, types, contracts, migrations, API document, tests
	@$(with_database) bin/check $(TESTS)

.PHONY: ready-for-tests
ready-for-tests:
	@bin/bootstrap --tests
	@$(python) assets/build.py

.PHONY: format
format: ## Rewrite the sources in the house's format
	@bin/bootstrap
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

.PHONY: coverage
coverage: ready-for-tests ## Run the tests and show which lines they miss
	@$(with_database) .venv/bin/coverage run -m pytest $(TESTS)
	@.venv/bin/coverage report

.PHONY: bench
bench: ## Measure every stage beside its peers; a table, and JSON
	@bin/bootstrap
	@$(with_database) $(python) -m benchmarks

.PHONY: bench-quick
bench-quick: ## The same in under two minutes
	@bin/bootstrap
	@$(with_database) $(python) -m benchmarks --quick

.PHONY: assets
assets: ## Fetch the pinned npm packages of the map and put them in place
	@bin/bootstrap
	@$(python) assets/build.py

.PHONY: openapi
openapi: ## Write the OpenAPI document again after an intended change
	@bin/bootstrap
	@$(with_database) $(python) manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml

.PHONY: lock
lock: ## Resolve requirements.lock and package-lock.json again
	@bin/bootstrap
	@.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --group pyproject.toml:dev pyproject.toml -o requirements.lock
	@npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved

.PHONY: psql
psql: ## Look into the private database
	@$(with_database) bash -c 'psql "$${DATABASE_URL/postgis:/postgresql:}"'

.PHONY: clean
clean: ## Stop everything and delete the private database and all that was built
	@test ! -x $(python) || $(python) -m config.run stop
	@test ! -x $(python) || $(python) -m config.cluster destroy
	rm -rf .venv .nearcast node_modules static/build staticfiles .*_cache
