# make demo: protect generated images, train on them, show the result.  make test: the tests.  make help: the rest.
# Another Python: make demo PYTHON=/usr/bin/python3.12.  Another place for the environment: VENV=/path.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := help
.PHONY: help demo test test-slurm lint docs tutorials test-install release accessibility environment clean

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := dev
# Tests run in two processes of one thread each, which keeps two cores busy; make test ARGS="-n 0 -k name" for one process.
TESTS := OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -n 2 --dist worksteal --benchmark-disable -m "not slurm and not tutorials"
# The first Python that is new enough, python3 before the others.
PYTHON ?= $(shell for p in python3 python3.12 python3.13 python3.11 python3.14 python3.10 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo "$$p"; break; }; done)

help:
	echo "make demo           set up $(VENV) if need be, then protect generated images, train on them, and write a report"
	echo "make test           set up $(VENV) if need be, then run the tests that need no SLURM"
	echo "make test-slurm     the tests that need SLURM (slurmctld, slurmd and munge installed, and root to start them)"
	echo "make lint           ruff and mypy"
	echo "make docs           the site, in build/site; a dead link ends it"
	echo "make tutorials      run what the tutorials tell a reader to type, on generated images"
	echo "make accessibility  axe-core on the site in headless Chromium, at 390 and 1280 px, light and dark"
	echo "make test-install   what the containers install, in a fresh environment"
	echo "make release ADDRESS=https://HOST/OWNER/medveil"
	echo "                    what is uploaded and tagged, checked, in dist/"
	echo "make clean          remove $(VENV) and caches (never runs/)"

environment: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	if [ -z "$(PYTHON)" ]; then
		echo "medveil needs Python 3.10 or newer and found none; install one, or name it: make demo PYTHON=/path/to/python3" >&2
		exit 1
	fi
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || {
		echo "$(PYTHON) is not Python 3.10 or newer; name another: make demo PYTHON=/path/to/python3" >&2
		exit 1
	}
	if ! "$(BIN)/python" -m pip --version >/dev/null 2>&1; then
		echo "==> Making a Python environment in $(VENV) with $$("$(PYTHON)" --version)"
		if "$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null; then
			"$(PYTHON)" -m venv --clear "$(VENV)"
		elif "$(PYTHON)" -c 'import venv, pip' 2>/dev/null; then # Debian's python3 and python3-pip without python3-venv
			"$(PYTHON)" -m venv --clear --without-pip "$(VENV)"
			"$(PYTHON)" -m pip --python "$(BIN)/python" install --quiet pip
		elif "$(PYTHON)" -c 'import virtualenv' 2>/dev/null; then
			"$(PYTHON)" -m virtualenv --quiet --clear "$(VENV)"
		else
			echo "$(PYTHON) cannot make environments (its venv and ensurepip modules are missing)." >&2
			echo "On Debian and Ubuntu: sudo apt install python3-venv. Or name another: make demo PYTHON=/path/to/python3" >&2
			exit 1
		fi
	fi
	echo "==> Installing medveil and what it needs (a few minutes and some gigabytes the first time; torch is the largest)"
	"$(BIN)/python" -m pip install $$([ -t 1 ] || echo --quiet) --disable-pip-version-check --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch "$(STAMP)"
	echo "==> The environment is ready"

demo: $(STAMP)
	echo "==> The demo: protect generated images, train on the originals and on the protected ones, compare on clean test images"
	"$(BIN)/python" launch/sweep.py

test: $(STAMP)
	echo "==> The tests (the SLURM suite is left out: make test-slurm runs it)"
	$(TESTS) $(ARGS)

test-slurm: $(STAMP)
	for program in slurmctld slurmd sbatch munged; do
		command -v "$$program" >/dev/null || {
			echo "$$program is missing: install SLURM and munge to run these tests: sudo apt-get install slurm-wlm munge" >&2
			exit 1
		}
	done
	echo "==> The tests that need SLURM"
	"$(BIN)/python" -m pytest -m slurm tests/slurm $(ARGS)

lint: $(STAMP)
	echo "==> ruff check"
	"$(BIN)/python" -m ruff check .
	echo "==> ruff format --check"
	"$(BIN)/python" -m ruff format --check .
	echo "==> mypy"
	"$(BIN)/python" -m mypy

tutorials: $(STAMP)
	echo "==> The tutorials, on generated images"
	OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -n 2 --dist load -m tutorials tests/test_tutorials.py $(ARGS)

test-install:
	echo "==> What the containers install, in a fresh environment (some minutes and gigabytes)"
	folder=$$(mktemp -d)
	trap 'rm -rf "$$folder"' EXIT
	"$(PYTHON)" -m venv "$$folder/venv"
	PYTHON="$$folder/venv/bin/python" containers/install.sh
	cd "$$folder" # away from the checkout
	venv/bin/medveil protect phantom:seg:8:32 --method random --out release
	venv/bin/medveil check release

release: $(STAMP)
	"$(BIN)/python" tools/release.py $(ADDRESS)

docs: $(STAMP)
	echo "==> The site: build/site/index.html (its search wants a server: python -m http.server --directory build/site)"
	NO_MKDOCS_2_WARNING=1 "$(BIN)/python" -m mkdocs build --strict --quiet

# Needs Node, npm and Chromium (CHROMIUM=/path/to/it). Not part of CI: it fetches packages of npm.
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
accessibility: docs
	for program in node npm "$(CHROMIUM)"; do
		command -v "$$program" >/dev/null || {
			echo "skipped: node, npm or Chromium is missing (CHROMIUM=/path/to/it)"
			exit 0
		}
	done
	echo "==> axe-core on the pages of the site; screenshots in build/accessibility/pictures"
	mkdir -p build/accessibility
	npm install --prefix build/accessibility --no-audit --no-fund --silent puppeteer-core@24 axe-core@4
	pages=$${PAGES:-$$(find build/site -name '*.html' -not -path '*/repository/*' -not -name 404.html | sort)}
	CHROMIUM="$(CHROMIUM)" node tools/accessibility.mjs build/accessibility build/accessibility/pictures $$pages

clean:
	rm -rf "$(VENV)" build ./*.egg-info .pytest_cache .ruff_cache .mypy_cache .benchmarks
