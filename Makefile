# `make demo` and `make test` do everything, the environment in .venv included. `make` alone lists the targets.

PYTHON ?= python3
# Where to take torch from, if not from pip's usual index; see CONTRIBUTING.md.
TORCH_INDEX ?=

export PIP_DISABLE_PIP_VERSION_CHECK = 1
TORCH = $(shell sed -n '/^torch==/p' constraints.txt)

.PHONY: help demo test test-slow bench format clean

help:
	@echo "make demo       the demonstration"
	@echo "make test       all checks: ruff, mypy, the tests, the examples in the documentation"
	@echo "make test-slow  the longer campaigns"
	@echo "make bench      the benchmarks, measured against other libraries"
	@echo "make format     let ruff fix and format the code"
	@echo "make clean      remove .venv, caches and build results"
	@echo
	@echo "PYTHON=python3.12 chooses another Python. TORCH_INDEX=https://download.pytorch.org/whl/cpu takes PyTorch"
	@echo "for CPU: a much smaller download than the usual one on Linux. Both count when .venv is made."

demo: .venv/.demo
	@.venv/bin/python -m examples

test: .venv/.dev
	@.venv/bin/python tools/check.py test

test-slow: .venv/.dev
	@.venv/bin/python tools/check.py test-slow

bench: .venv/.bench
	@.venv/bin/python -m benchmarks

format: .venv/.dev
	@.venv/bin/python -m ruff check --fix
	@.venv/bin/python -m ruff format

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist report.html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment: one empty file in .venv for each step that is done ----------------------------------------------

# An install that was cut short leaves .venv/.busy. Then, or if .venv has no working Python and pip, it is made anew.
IS_SOUND = test ! -e .venv/.busy && .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))'
SOUND := $(shell ($(IS_SOUND)) 2>/dev/null && echo yes)
ifneq ($(SOUND),yes)
.PHONY: .venv/.python
endif

# $(call install,what pip shall install)
define install
	@touch .venv/.busy; trap 'exit 130' INT TERM; \
	.venv/bin/python -m pip install -c constraints.txt $(1) || { \
	    rm -f .venv/.busy; echo "make: the install failed; the reason is above. Then run make again." >&2; exit 1; }; \
	rm -f .venv/.busy; touch $@
endef

.venv/.demo: .venv/.torch pyproject.toml
	@echo "Installing fanin and what the demo needs: 0.1 GB to download; half a minute on a fast network."
	$(call install,-q -e '.[demo]')

.venv/.dev: .venv/.torch pyproject.toml
	@echo "Installing fanin and what the tests need: 0.15 GB to download; half a minute on a fast network."
	$(call install,-q -e '.[dev]')
	@touch .venv/.demo

.venv/.bench: .venv/.dev
	@echo "Installing JAX, Flax, OpenVINO and PEFT, to compare with; a minute on a fast network."
	$(call install,-q -e '.[bench]')

.venv/.torch: .venv/.python constraints.txt
	@echo "Installing PyTorch. For CPU: 0.2 GB to download, half a minute on a fast network; the whole .venv takes 1.5 GB."
ifeq ($(TORCH_INDEX),)
	@echo "On Linux the usual index may give the CUDA build, several times as large. For the CPU build, stop here, then:"
	@echo "make $(MAKECMDGOALS) TORCH_INDEX=https://download.pytorch.org/whl/cpu"
endif
	$(call install,$(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) $(TORCH))

.venv/.python:
ifneq ($(SOUND),yes)
	@command -v $(PYTHON) >/dev/null || { \
	    echo "make: $(PYTHON) not found. Install Python 3.11 or later with venv;" >&2; \
	    echo "on Debian or Ubuntu: sudo apt install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: fanin needs Python 3.11 or later; $(PYTHON) is `$(PYTHON) -V 2>&1`. Install a newer one" >&2; \
	    echo "(for example: sudo apt install python3.12 python3.12-venv), then: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "make: $(PYTHON) has no complete venv module. On Debian or Ubuntu: sudo apt install python3-venv" >&2; \
	    echo "(for a Python of another version, its own package: python3.12-venv for python3.12)." >&2; exit 1; }
	@echo "Making .venv with `$(PYTHON) -V`."
	@rm -rf .venv && mkdir .venv && touch .venv/.busy && $(PYTHON) -m venv .venv && rm .venv/.busy
endif
	@touch $@
