# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
BIN := .venv/bin
ARGS ?=

# Each of the hundreds of processes that tests start would otherwise compile what it imports anew: a
# command of ours takes 1.6 s of CPU with bytecode and 2.8 s without, `import torch` 7 s and 11 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test test-fast browsers lint types imports docs docs-pages audit sbom lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: ## the virtual environment in .venv, from the lock (quick when nothing changed)
	@deploy/install-cpu.sh

demo: install ## transcripts of two tenants to two served assistants; ARGS=--check exits when all worked
	@$(BIN)/tenantune demo $(ARGS)

# Tests that start processes or wait leave a fifth of the machine idle with one worker a core.
WORKERS := $(shell expr $$(nproc) + 1)
CLIENT := tests/e2e/node/node_modules
$(CLIENT)/.package-lock.json: tests/e2e/node/package-lock.json | install
	@cd tests/e2e/node && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent --no-audit --no-fund

# Where tests of a mark are: to collect all others too takes each process 6.5 s of CPU. Sorted, because e2e's
# journey wants an installation that is still empty.
marked = $(sort $(shell grep -rlE --include='test_*.py' 'mark\.($(1))\b' tests))
# A file's tests share what they train. In the order of the names the long ones (e2e, examples) come first; by the number of
# their tests, as is usual, they came last, alone.
LONGEST_FIRST := --dist loadfile --no-loadscope-reorder

test: install $(CLIENT)/.package-lock.json ## all tests, the real trainer, engine and PostgreSQL included
	@$(BIN)/python -m pytest -m "not heavy and not browser" -n $(WORKERS) --dist worksteal $(ARGS)
	@$(BIN)/python -m pytest -m browser -n auto --dist worksteal tests/browser $(call marked,browser) $(ARGS)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "heavy and not vllm" -n $(WORKERS) $(LONGEST_FIRST) $(call marked,heavy) $(ARGS)
	@$(BIN)/python -m pytest -m vllm $(call marked,vllm) $(ARGS)

test-fast: install ## the tests that load neither torch nor vLLM, and start no browser
	@$(BIN)/python -m pytest -m "not heavy and not browser" -n $(WORKERS) --dist worksteal $(ARGS)

# Chromium's headless shell has the same engine without the windows: a page takes a third of the CPU.
BROWSERS := chromium-headless-shell firefox-esr webkit2gtk-driver xvfb xauth fonts-noto-core fonts-noto-cjk
browsers: ## browsers and fonts for the tests, by apt (Debian or Ubuntu, as root; quick when they are there)
	@dpkg -s $(BROWSERS) > /dev/null 2>&1 || { apt-get -q update && apt-get -q -y --no-install-recommends install $(BROWSERS); }

lint: install ## style and formatting
	@$(BIN)/ruff check --no-cache . && $(BIN)/ruff format --check .

types: install ## strict types
	@$(BIN)/mypy

imports: install ## which package may import which
	@$(BIN)/lint-imports

docs: install ## build the docs, strictly, and serve them on http://127.0.0.1:8010; ARGS=--check only builds
	@$(BIN)/python docs/generate.py --check
	@$(BIN)/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet docs dist/docs
	@[ "$(ARGS)" = --check ] || $(BIN)/python -m http.server --bind 127.0.0.1 --directory dist/docs 8010

docs-pages: install ## write the reference pages anew from the code
	@$(BIN)/python docs/generate.py

LOCKS := deploy/requirements-cpu.lock deploy/requirements-gpu.lock deploy/torch-cpu.lock deploy/uv.lock
audit: install ## locked packages against deploy/advisories.json; deploy/locked.py tells how to renew that
	@$(BIN)/python deploy/locked.py audit deploy/advisories.json $(LOCKS)

sbom: install ## bills of materials (CycloneDX) of both environments, in dist/
	@mkdir -p dist
	@$(BIN)/python deploy/locked.py sbom deploy/requirements-cpu.lock deploy/torch-cpu.lock > dist/cpu.cdx.json
	@$(BIN)/python deploy/locked.py sbom deploy/requirements-gpu.lock > dist/gpu.cdx.json

lock: install ## rewrite the lock files after a change of pyproject.toml
	@deploy/lock.sh

clean: ## remove the virtual environment and caches
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
