# Every target sets up what it needs: system packages, a virtual environment in .venv, the project in it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
# More arguments for pytest, as in: make test ARGS="-k codec"
ARGS ?=

# So many processes run tests beside each other: most of them wait for something most of the time.
JOBS ?= 3

# How long `make soak` looks for faults, and from which seed on (a fresh one, printed, if none is given).
MINUTES ?= 60
SEED ?=

.PHONY: help setup test test-system demo soak bench compiled dist site lint clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## system packages that are missing, .venv, the project in it
	@scripts/setup.sh

test: setup  ## run every test, three at a time (ARGS="-k codec" passes arguments to pytest, JOBS=1 runs one at a time)
	@$(BIN)/python -m pytest -q --color=no -n $(JOBS) --durations=15 --durations-min=20 $(ARGS)

test-system: setup  ## README and runbook on fresh Debian systems, a virtual machine, the page in a browser, Prometheus: root, a network
	@scripts/prometheus.sh
	@for tool in debootstrap:debootstrap qemu-system-x86_64:qemu-system-x86 busybox:busybox-static depmod:kmod \
	    chromedriver:chromium-driver; do \
	    command -v $${tool%%:*} >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $${tool##*:}; \
	done
	@$(BIN)/python -c 'import mypy' 2>/dev/null || $(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[lint]'
	@DSREG_TEST_SYSTEM=1 $(BIN)/python -m pytest -q --color=no -x tests/system $(ARGS)

demo: setup  ## three nodes, a mounted ext4, a node killed in mid-copy, every byte compared
	@$(BIN)/python -m scripts.demo $(ARGS)

soak: setup  ## simulator, crash states, fuzzing, chaos with fresh seeds: MINUTES=60 SEED=1 ARGS="--report FILE"
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: setup  ## this disk and its peers under one load, as root: ARGS="--quick --peers plain,nbdkit,quorum,gluster,ceph --install"
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[bench]'
	@$(BIN)/python -m bench $(ARGS)

compiled: setup  ## an optional build with mypyc, in build/compiled, and tests of it (other ones: ARGS="tests/register")
	@scripts/compiled.sh $(ARGS)

dist: setup  ## source distribution, wheel, compiled wheel and Debian package, in dist/
	@$(BIN)/python -c 'import mypy' 2>/dev/null || $(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[lint]'
	@scripts/dist.sh $(ARGS)

site: setup  ## the documents as a site, in build/site
	@$(BIN)/python -c 'import material' 2>/dev/null || $(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[docs]'
	@$(BIN)/python -m scripts.site

lint: setup  ## ruff and mypy
	@test -x $(BIN)/ruff -a -x $(BIN)/mypy || $(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[lint]'
	@$(BIN)/ruff check .
	@$(BIN)/mypy dsreg fuse_frontend nbd_frontend scripts bench

clean:  ## remove what the other targets made
	@rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
