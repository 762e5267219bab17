# Everything from a fresh clone with Python 3.11 or newer:  make book,  make test.
# Written for GNU make 3.81 (macOS) and 4; tools run as modules, since shebangs break in a folder with a space.
# To choose an interpreter:  make PYTHON=/path/to/python3

PY := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)/python
NB := $(PY) tools/nb.py

.DEFAULT_GOAL := help
.PHONY: help env book test portable notebooks sync check lint serve clean

help:
	@echo 'make book        build the book into _build/html'
	@echo 'make test        unit tests, and every notebook re-executed and compared, text and pictures'
	@echo 'make portable    the same under other arithmetic: no vector instructions, AVX2, AVX-512, two threads'
	@echo 'make notebooks   book/NN_name.py -> .ipynb, executed (one: make notebooks CHAPTER=03_ssa)'
	@echo 'make sync        the same without executing: for a change of prose alone'
	@echo 'make check       do the pairs agree, in seconds, executing nothing'
	@echo 'make lint        ruff over the package, tests, tools and chapters'
	@echo 'make serve       the built book at http://localhost:8000'
	@echo 'make clean       remove what was built (the environment stays: rm -r .venv removes it)'

# The first Python of 3.11 to 3.14 there is, else whatever answers: tools/env.py then says what to install.
# Each is asked for its version, because a version manager's shim can exist and not run.
env:
	@found=; for p in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python3.14 python); do \
	  if "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1; then \
	    found=$$p; break; fi; \
	done; \
	for p in $(if $(PYTHON),"$(PYTHON)",python3 python); do \
	  if [ -z "$$found" ] && "$$p" -c '' >/dev/null 2>&1; then found=$$p; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo 'mspace: $(if $(PYTHON),$(PYTHON) does not run,no Python found). Install Python 3.11 or newer (python.org, or your system'"'"'s packages)' \
	    'and run make again, or name one: make PYTHON=/path/to/python3.' >&2; exit 1; \
	fi; \
	"$$found" tools/env.py

# Sphinx warns of a page only when it reads it: after a failure all are read again, or the next build would pass.
book: env
	@$(NB) check
	$(PY) -c 'from jupyter_book.cli.main import main; main()' build . -W -n --keep-going \
	  || { rm -rf _build/.doctrees; exit 1; }
	@$(NB) pages

test: env
	$(PY) -m pytest -n logical --maxprocesses 4 --dist loadfile --nbval --nbval-current-env \
	  --nbval-cell-timeout 600 --nbval-kernel-startup-timeout 180

# MODES="plain avx2" and CHAPTER=03_ssa choose; an hour on two cores without them
portable: env
	$(PY) tools/portable.py $(if $(MODES),--modes $(MODES)) -- $(CHAPTER)

notebooks: env
	$(NB) run $(CHAPTER)

sync: env
	$(NB) sync $(CHAPTER)

check: env
	@$(NB) check

lint: env
	$(PY) -m ruff check

serve: book
	$(PY) -m http.server --bind 127.0.0.1 --directory _build/html 8000

clean:
	rm -rf _build .pytest_cache .ruff_cache
