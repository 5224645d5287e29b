# `make` or `make help` lists what there is. Every target first makes its own environment in .venv, from settings.ini.
# PYTHON=... chooses the interpreter, VENV=... another place for the environment, WORKERS=... notebooks and tests run at once,
# CONSTRAINTS=... a file of versions instead of constraints.txt (CONSTRAINTS=none: the newest).

VENV    ?= .venv
WORKERS ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2)
BIN     := $(VENV)/bin
BUILT_FROM := settings.ini setup.py pyproject.toml constraints.txt .ci/make-env

# glibc gives every buffer over 32 MB back to the kernel and faults it in again page by page: keeping them makes
# training and search on a CPU about 1.3 times faster. Other C libraries do not read these.
export MALLOC_MMAP_THRESHOLD_ := 4000000000
export MALLOC_TRIM_THRESHOLD_ := 8000000000
# threads that spin while they wait make a step forty times as long beside another busy program
export GOMP_SPINCOUNT ?= 1000
export PYTHON CONSTRAINTS

# compiled modules are kept: without them each of the many processes of a test run compiles them again
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env demo demo-fast learn test check notebooks pytest docs lock export clean-nbs wheel explore page trunks moments
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:           ## this list
	@sed -n 's/^\([a-z-]*:\).*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(VENV)/.for-running: $(BUILT_FROM)
	@.ci/make-env $(VENV)
	@touch $@

$(VENV)/.for-developing: $(BUILT_FROM)
	@.ci/make-env $(VENV) '[dev]'
	@touch $@ $(VENV)/.for-running

$(VENV)/.for-docs: $(BUILT_FROM)
	@.ci/make-env $(VENV) '[docs]'
	@touch $@ $(VENV)/.for-running

$(VENV)/.for-exploring: $(BUILT_FROM)
	@.ci/make-env $(VENV) '[explore]'
	@touch $@ $(VENV)/.for-running

$(VENV)/.for-deploying: $(BUILT_FROM)
	@.ci/make-env $(VENV) '[deploy]'
	@touch $@ $(VENV)/.for-running

demo: $(VENV)/.for-running       ## make data, train teacher and students, search, report: runs/demo/report.html
	$(BIN)/person-search demo

demo-fast: $(VENV)/.for-running  ## the same path in miniature: proves only that it runs
	$(BIN)/person-search demo --fast

explore: $(VENV)/.for-exploring  ## look through the networks' eyes, and search, in a browser: http://127.0.0.1:8866
	$(BIN)/python .ci/explore

page: $(VENV)/.for-deploying     ## a page whose networks run in the browser, without Python: runs/page; needs npm once
	.ci/fetch-onnxruntime-web runs/onnxruntime-web
	@$(MAKE) --no-print-directory runs/page/data.json
	@echo 'to see it: python -m http.server --bind 127.0.0.1 --directory runs/page, then http://localhost:8000'

# what the page is made of; data.json is written last but for ONNX Runtime's files
runs/page/data.json: .ci/fetch-onnxruntime-web $(wildcard person_search_nb/page/* person_search_nb/weights/*.safetensors) \
		$(addprefix person_search_nb/,web_page.py web_parts.py deployable.py deploy.py person_search.py trunk.py student.py attention.py synthetic.py)
	@$(BIN)/python -c "from person_search_nb.web_page import write_page; print(f'{write_page(\"runs/page\", \"runs/onnxruntime-web\") / 1e6:.1f} MB in runs/page')"

learn: $(VENV)/.for-exploring    ## JupyterLab on copies of tutorials and notebooks in runs/learn: the repository stays as it is
	$(BIN)/python .ci/learn

test: check notebooks pytest     ## everything that has to pass, cheapest first
test: CHECKED := --ignore=tests/test_project.py

check: $(VENV)/.for-developing   ## modules in step with their notebooks, notebooks clean and complete (seconds)
	$(BIN)/python -m pytest -q tests/test_project.py

# one thread each: as many workers as cores are busy already
notebooks: $(VENV)/.for-developing  ## run every notebook; cells marked slow or cuda are left out
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers $(WORKERS) --timing
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test tutorials --n-workers $(WORKERS) --timing

pytest: $(VENV)/.for-developing  ## the tests in tests/
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(CHECKED)

docs: $(VENV)/.for-docs          ## the site: docs/_build/html/index.html, to be read without a network; with npm, the page of `make page` in it
	@if why=$$(.ci/fetch-onnxruntime-web runs/onnxruntime-web 2>&1); then $(MAKE) --no-print-directory page; \
	else echo "The site is made without the page whose networks run in the browser: $$why" >&2; fi
	$(BIN)/python docs/pages.py
	$(BIN)/python -m sphinx -q -W --keep-going -c docs docs/_build/pages docs/_build/html

trunks: $(VENV)/.for-running     ## small trunks of every backbone, taught and not, to start from: runs/trunks; hours, and it goes on
	$(BIN)/python .ci/trunks.py

moments: $(VENV)/.for-running    ## the training that the attention explorer plays: person_search_nb/weights/moments; half an hour, and it goes on
	$(BIN)/python .ci/moments.py

env: $(VENV)/.for-developing     ## the environment for developing, and nothing else

lock: $(VENV)/.for-developing    ## constraints.txt: the versions installed now
	@.ci/lock $(VENV) > $(VENV)/constraints.txt && mv $(VENV)/constraints.txt constraints.txt

export: $(VENV)/.for-developing  ## write the modules from the notebooks, and the version from settings.ini
	$(BIN)/nbdev-export
	$(BIN)/python -c "from nbdev.config import set_version; set_version('person_search_nb', '$(shell sed -n 's/^version *= *//p' settings.ini)')"

clean-nbs: $(VENV)/.for-developing  ## strip what does not belong in committed notebooks
	$(BIN)/nbdev-clean
	$(BIN)/nbdev-clean --fname tutorials

wheel: $(VENV)/.for-developing   ## dist/*.whl
	$(BIN)/python -m build --wheel
