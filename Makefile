# What one does with a checkout of Inlay. `make help` prints the targets; each line after `##` is its help.
# Needs make and Python 3.11 to 3.13. Everything is installed into .venv of this folder and nowhere else.

.POSIX:
.DEFAULT_GOAL := help

# Arguments handed to the command of a target: make demo ARGS="--once --json", make test ARGS="-k locks".
ARGS =
# An additional package index, for instance one with CPU builds of torch, which saves several gigabytes of CUDA packages.
PIP_INDEX =
# The interpreter for .venv; empty: the first of python3, python3.13, python3.12, python3.11 that fits.
PYTHON =

# The base of the images, by digest: docker.io/library/python:3.12-slim-trixie@sha256:...
PYTHON_IMAGE =
# What builds images, what stands before their names, and their tag (empty: the version of the distribution).
ENGINE = docker
PREFIX =
TAG =

BIN = .venv/bin
PIP_FLAGS = --quiet --disable-pip-version-check --retries=10 -c constraints.txt $(if $(PIP_INDEX),--extra-index-url $(PIP_INDEX))

.PHONY: help
help: ## print this help
	@echo 'Inlay: make TARGET [ARGS="..."] [PIP_INDEX=URL] [PYTHON=python3.12]'
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

.PHONY: demo
demo: .venv/ready ## run the whole flow on this machine and leave the service up (ARGS="--once --json" for scripts)
	@$(BIN)/inlay demo $(ARGS)

.PHONY: up
up: .venv/ready ## run all processes of Inlay on this machine, data in ./var
	@$(BIN)/inlay up $(ARGS)

.PHONY: test
test: .venv/ready-dev ## run every test that needs Python only
	@$(BIN)/python -m pytest -m "not peers" $(ARGS)

.PHONY: test-peers
test-peers: .venv/ready-dev ## run the tests against servers and clients of others (installs them where it may)
	@tests/support/install-peers
	@$(BIN)/python -m pytest tests -m peers $(ARGS)

.PHONY: drill
drill: .venv/ready-dev ## do harm to a whole Inlay under load and count what is lost (ARGS="--only redis --runs 10 --json")
	@tests/support/install-peers
	@$(BIN)/python -m inlay_testkit.drill $(ARGS)

.PHONY: load
load: .venv/ready-dev ## run a compressed hospital day against a whole Inlay and time each stage (ARGS="--help" tells more)
	@tests/support/install-peers
	@$(BIN)/python -m inlay_testkit.load $(ARGS)

.PHONY: bench-integrations
bench-integrations: .venv/ready-dev ## measure HL7 and FHIR against other libraries, side by side
	@tests/support/install-peers
	@$(BIN)/python -m inlay_testkit.bench_hl7 $(ARGS)
	@$(BIN)/python -m inlay_testkit.bench_fhir $(filter --json,$(ARGS))

.PHONY: lint
lint: .venv/ready-dev ## check style, format, types and who imports whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy tests
	@$(BIN)/lint-imports --no-logo

.PHONY: licences
licences: .venv/ready-dev ## list the licence of everything that is installed; fails where one does not fit
	@$(BIN)/python -m inlay_testkit.licences

# Not part of CI: it asks a service of PyPI, which a closed network (or a mirror of packages) does not reach.
.PHONY: audit
audit: .venv/ready ## ask PyPI for known weaknesses of the pinned versions (needs the internet)
	@$(BIN)/python -m venv --clear .venv/audit
	@.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.9,<3'
	@.venv/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt $(ARGS)

.PHONY: format
format: .venv/ready-dev ## rewrite the code in the house format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: docs
docs: .venv/ready ## write the reference pages that come from the code
	@$(BIN)/python docs/generate.py

.PHONY: web
web: ## build the reading page's scripts from services/api/web (needs Node and npm)
	@npm ci --prefix services/api/web --no-audit --no-fund --silent
	@node services/api/web/build.mjs

.PHONY: wheel
wheel: .venv/ready-dev ## build the wheel into dist/
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

.PHONY: images
images: ## build the container images (PYTHON_IMAGE=...@sha256:..., ENGINE=podman, PREFIX=registry/path/, TAG=...)
	@deploy/images "$(ENGINE)" "$(PYTHON_IMAGE)" "$(PREFIX)" "$(TAG)" "$(PIP_INDEX)"

.PHONY: sbom
sbom: .venv/ready ## write what the images' environments hold (CycloneDX) into dist/sbom/
	@PIP_INDEX="$(PIP_INDEX)" deploy/sbom/write $(ARGS)

.PHONY: setup
setup: .venv/ready-dev ## create .venv with everything that the other targets need

.PHONY: clean
clean: ## remove caches and build results; .venv and var/ stay
	@rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name .venv -prune -o -name __pycache__ -type d -print | xargs rm -rf

.PHONY: clean-all
clean-all: clean ## remove .venv and the data in var/ as well
	@rm -rf .venv var

# The stamps: set-up is repeated when the pins or the project file change. Messages go to stderr, so that the output of
# `make demo ARGS=--json` stays JSON.
.venv/ready: constraints.txt pyproject.toml
	@echo "Setting up .venv (once; downloads on the first run) ..." >&2
	@tests/support/make-venv "$(PYTHON)" >&2
	@$(BIN)/python -m pip install $(PIP_FLAGS) -e '.[model]' >&2
	@touch $@

.venv/ready-dev: .venv/ready
	@echo "Adding what tests and checks need ..." >&2
	@$(BIN)/python -m pip install $(PIP_FLAGS) -e '.[model,dev]' >&2
	@touch $@
