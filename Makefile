# What people run. Each target brings up the environments it needs; a current one costs no time.
.DEFAULT_GOAL := help
BOOT := $(firstword $(foreach p,$(PYTHON) python3 python3.12 python3.11,$(shell command -v $(p))))
export PYTHON
PREFLIGHT = $(if $(BOOT),$(BOOT) scripts/preflight.py,$(error no python3 found. Mend it: \
  sudo apt-get install python3 python3-venv libpython3.11))
PYTEST = .venv/bin/python -m pytest
# Whole files side by side; `ARGS=-n0` gives a debugger its terminal back.
SIDE_BY_SIDE = -n logical --maxprocesses 4 --dist loadfile

.NOTPARALLEL:
.PHONY: help up venv test test-fast test-slow test-e2e lint lock proto clean

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

up:  ## build what is missing, then serve in the foreground until Ctrl-C
	@$(PREFLIGHT) run triton
	@exec .venv/bin/forebay up $(ARGS)

venv:  ## both environments, with the development tools
	@$(PREFLIGHT) dev triton

test: test-fast test-slow test-e2e  ## every test that needs no GPU and no browser

test-fast: venv  ## without Triton, network blocked, some three minutes
	@$(PYTEST) $(SIDE_BY_SIDE) -m "not slow and not e2e and not gpu and not browser" $(ARGS)

test-slow: venv  ## whole builds and load generators, without Triton
	@$(PYTEST) -m "slow and not e2e and not gpu and not browser" $(ARGS)

test-e2e: venv  ## on real Triton with the embedded engine, and a foreign provider, on free ports
	@scripts/aimock.sh || echo "Tests against a foreign provider are skipped."
	@$(PYTEST) -m "e2e and not gpu and not browser" $(ARGS)

lint: venv  ## ruff, mypy, import floors, hadolint, generated code
	@.venv/bin/python scripts/lint.py

lock:  ## resolve requirements/*.in again (UPGRADE=1: newest of everything)
	@scripts/lock.sh

proto: venv  ## generate router/forebay/v1 from router/proto
	@.venv/bin/python scripts/proto.py

clean:  ## remove what this checkout built: environments, engine, state, caches
	rm -rf .venv .venv-triton .forebay build model_repository/tensorrt_llm/1/engine
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -f model_repository/*/config.pbtxt
	find . -name __pycache__ -prune -exec rm -rf {} +
