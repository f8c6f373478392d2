# Every target sets up what it needs: `make up` in a fresh clone is enough.
PYTHON_FILES := chat_app core memory ops_dashboard scheduler tests
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup up test lint fmt lock clean bench-memory bench-queue bench-runs chaos handover

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv from the lock file; does nothing when it is up to date
	@.ci/setup

up: setup ## Run the whole product on this machine; Ctrl-C stops it
	@exec $(BIN)/bailiwick up

test: setup ## Check format, lint and types, then run all tests (ARGS="-k word" narrows them)
	@.ci/test $(ARGS)

lint: setup ## Check lint, types and import contracts
	@$(BIN)/ruff check $(PYTHON_FILES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

fmt: setup ## Format, and mend what can be mended
	@$(BIN)/ruff format $(PYTHON_FILES)
	@$(BIN)/ruff check --fix $(PYTHON_FILES)

chaos: setup ## Kill every process at random under 500 runs (12 minutes; SEED=7 repeats one); writes tests/benchmarks/results
	@$(BIN)/python -m tests.durability.chaos $(SEED)

handover: setup ## Complete a run of half an hour on workers that live for a minute each (31 minutes)
	@HANDOVER_MINUTES=30 $(BIN)/pytest -q tests/durability/test_handover.py -k limited

bench-memory: setup ## Measure recall of memory on real conversations; writes tests/benchmarks/results
	@$(BIN)/pytest -q -s tests/benchmarks/bench_memory.py

bench-queue: setup ## Measure the fair queue beside DBOS and FIFO (10 minutes); writes tests/benchmarks/results
	@$(BIN)/python -m tests.benchmarks.bench_queue

bench-runs: setup ## Measure steps, waits and takeovers beside DBOS, 100,000 runs parked (10 minutes); writes tests/benchmarks/results
	@$(BIN)/python -m tests.benchmarks.bench_runs

lock: setup ## Compile requirements.lock from pyproject.toml (UPGRADE=--upgrade takes the newest versions)
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --quiet $(UPGRADE) --output-file requirements.lock

clean: ## Remove .venv and caches; the data in .bailiwick stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
	@find $(PYTHON_FILES) -name __pycache__ -type d -prune -exec rm -rf {} +
