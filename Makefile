# Every target sets up what it needs, so that each works in a fresh clone.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# What scripts/setup.sh installs because PATH has none.
export PATH := $(CURDIR)/.tools/bin:$(PATH)
export UV_PYTHON_DOWNLOADS := never

RUN := uv run --no-sync
ALL_PARTS := bench livekit toxiproxy postgres chromium

.PHONY: help setup demo test test-pythons check check-wheel bench clean

help:
	@echo "make demo          play 45 s of a meeting into a room, show its captions, make its report"
	@echo "make setup         install all that the targets below need"
	@echo "make test          all tests; some of them: make test ARGS='tests/unit -k config'"
	@echo "make test-pythons  the unit tests on each Python from 3.11 to 3.13 that is at hand"
	@echo "make check         format, lint, types, import contracts, links in the docs"
	@echo "make check-wheel   build the wheel and use it in an empty environment and folder"
	@echo "make bench         all benchmarks; in full: make bench ARGS=--full"
	@echo "make clean         remove what these targets have made"

setup:
	@scripts/setup.sh $(ALL_PARTS)

demo:
	@scripts/setup.sh python livekit
	@$(RUN) python scripts/demo.py

# The benchmarks have tests too.
test:
	@scripts/setup.sh $(ALL_PARTS)
	$(RUN) pytest --durations=10 --durations-min=1 $(ARGS)

test-pythons:
	@scripts/setup.sh uv
	@scripts/test_pythons.sh

check:
	@scripts/setup.sh dev
	$(RUN) ruff format --check
	$(RUN) ruff check
	$(RUN) mypy
	$(RUN) lint-imports
	$(RUN) python scripts/check_links.py

check-wheel:
	@scripts/setup.sh uv livekit
	@scripts/check_wheel.sh

bench:
	@scripts/setup.sh $(ALL_PARTS)
	$(RUN) python -m benchmarks $(ARGS)

clean:
	rm -rf .venv .tools dist roomscribe-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find agent persistence plugins benchmarks scripts tests -name __pycache__ -prune -exec rm -rf {} +
