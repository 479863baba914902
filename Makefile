# Every target is a command of scripts/bootstrap.py, which installs .venv, or .venv-peers for bench, when needed.
# Without make: python3 scripts/bootstrap.py TARGET

PYTHON ?= python3
# Two workers of one thread each beat one process of two threads on small models; add -k NAME to choose tests
PYTEST_ARGS ?= -n 2 --dist worksteal
ARGS ?=
RUN = $(PYTHON) scripts/bootstrap.py

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint format check docs bench solver-report tutorials clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install:  ## Create .venv with the library, its tests and its tools (again only when their versions change)
	@$(RUN) install

demo:  ## Train on handwritten digits and draw some: runs/demo/samples.png
	@$(RUN) demo $(ARGS)

test:  ## Run the tests, all but the slow ones (PYTEST_ARGS="-k name" to choose)
	@$(RUN) test $(PYTEST_ARGS)

test-slow:  ## Run the slow tests only
	@$(RUN) test-slow $(PYTEST_ARGS)

lint:  ## Check format, lint, types and import layers
	@$(RUN) lint

format:  ## Format the code and fix what the linter can fix
	@$(RUN) format

check:  ## Everything that CI runs: lint, then test
	@$(RUN) check $(PYTEST_ARGS)

docs:  ## Build the documentation site: docs/_build/html/index.html
	@$(RUN) docs

bench:  ## Measure speed, ours and other libraries': docs/performance.md; ARGS="NAME [OPTIONS]" for one benchmark
	@$(RUN) bench $(ARGS)

solver-report:  ## Measure every solver, ours and other libraries': docs/solvers.md (minutes)
	@$(RUN) solver-report $(ARGS)

tutorials:  ## Run the tutorials and store them as notebooks (half an hour); ARGS="NAME" for one, "--text" for changed text
	@$(RUN) tutorials $(ARGS)

clean:  ## Remove .venv, caches and built files (runs/ stays)
	@$(RUN) clean
