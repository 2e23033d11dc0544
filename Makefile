# Everything runs in .venv, made from hash-pinned lock files; nothing else is needed beforehand.
PYTHON ?= python3
VENV := .venv
# NVIDIA's libraries, 4 GB, come along where a GPU answers; GPU=0 leaves them, GPU=1 takes them. What
# is installed stays until somebody says otherwise: a driver may fail to answer once.
ifndef GPU
GPU := $(shell if [ -e .venv/.installed-gpu ]; then echo 1; elif [ -e .venv/.installed ]; then echo 0; elif nvidia-smi --list-gpus > /dev/null 2>&1; then echo 1; else echo 0; fi)
endif
GPU_LOCK := $(if $(filter-out 0,$(GPU)),requirements-gpu.lock)
# What only some commands need is added by name: make venv EXTRAS="report export". What was added
# stays, also where a lock has changed and all is installed anew.
ALL := report baselines optuna trackers export dev
EXTRAS ?=
$(foreach extra,$(EXTRAS),$(if $(filter $(extra),$(ALL)),,$(error EXTRAS: $(extra) is none of $(ALL))))
STAMP := $(VENV)/.installed$(if $(GPU_LOCK),-gpu)
# Whoever works on this has all, in one installation.
WHOLE := $(VENV)/.whole
ADDED := $(or $(wildcard $(WHOLE)),$(sort $(EXTRAS:%=$(VENV)/.extra-%) $(wildcard $(VENV)/.extra-*)))

.PHONY: train test venv docs bench results chaos faults e2e compat lint lock image clean

train: venv  ## train LeNet5 on MNIST with the quick recipe and show the result
	$(VENV)/bin/lenet train --recipe quick

# Three processes for two processors: tests often wait.
test: $(WHOLE)  ## the whole test suite
	$(VENV)/bin/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

venv: $(STAMP) $(ADDED)

# An interrupted installation leaves no stamp, so the next call starts over.
$(STAMP): requirements.lock requirements-uv.lock $(GPU_LOCK) pyproject.toml
	@test -z "$(GPU_LOCK)" || test "$$(uname -m)" = x86_64 || { echo "TensorFlow's wheel for $$(uname -m) is built without CUDA; make GPU=0 installs for processors" >&2; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed, this is " + sys.version.split()[0] + "; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python cluster/packages.py requirements.lock $(GPU_LOCK)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

$(VENV)/.extra-%: requirements-%.lock $(STAMP)
	$(VENV)/bin/python cluster/packages.py requirements.lock $<
	touch $@

$(WHOLE): $(ALL:%=requirements-%.lock) $(STAMP)
	$(VENV)/bin/python cluster/packages.py requirements.lock $(ALL:%=requirements-%.lock)
	touch $(ALL:%=$(VENV)/.extra-%) $@

docs: $(WHOLE)  ## every table and figure of README and docs/, and docs/reference.md, from docs/results
	$(VENV)/bin/python -m docs.make.pages

bench: $(WHOLE)  ## this project beside Keras, tf_keras, PyTorch and Ray's example; ONLY="startup workers" for parts
	$(VENV)/bin/python -m benchmarks.bench $(ONLY)

# What docs/results holds, made anew, but for gpu.json: days on two cores, and root for the last. Runs
# that are in runs/ or in notebook_story.json already are not repeated.
STUDIES := quick notebook sweep-winner choose-quick choose-alexnet fine-tuning fashion-best
SWEEPS := quick lenet5 ffnn ffnn-muon fashion-lenet5 fashion-alexnet
MEASURED := accuracy.notebook_story commands.listing scaling.kernels scaling.lanes \
  speed.ablation speed.collectives speed.million
results: $(WHOLE)  ## every measurement behind the documents
	for study in $(STUDIES); do $(VENV)/bin/python -m benchmarks.accuracy.studies run $$study || exit; done
	for sweep in $(SWEEPS); do $(VENV)/bin/python -m benchmarks.accuracy.best sweep $$sweep || exit; done
	for name in best fashion baselines; do $(VENV)/bin/python -m benchmarks.accuracy.$$name run || exit; done
	for name in $(MEASURED); do $(VENV)/bin/python -m benchmarks.$$name || exit; done
	for name in install memory; do $(VENV)/bin/python -m benchmarks.commands.$$name edc60ec || exit; done
	$(MAKE) bench
	for study in efficiency asha; do $(VENV)/bin/python -m benchmarks.speed.sweep $$study || exit; done
	$(VENV)/bin/python -m benchmarks.scaling.scaling measure
	$(VENV)/bin/python -m benchmarks.scaling.scaling fit
	$(VENV)/bin/python -m docs.make.notebook
	$(MAKE) chaos faults e2e docs

chaos: $(WHOLE)  ## kill workers, nodes and drivers a hundred times; weights must not change
	$(VENV)/bin/python -m tests.campaigns.chaos --faults 100 --out docs/results/chaos.json

faults: $(WHOLE)  ## spoil a thousand requests to an object store; no checkpoint may be lost or wrong
	$(VENV)/bin/python -m tests.campaigns.faults --faults 1000 --out docs/results/faults.json

e2e: $(WHOLE)  ## clusters from ray up to ray down on simulated hosts, one cut off, one reclaimed (needs root)
	$(VENV)/bin/python -m tests.lab.e2e --out docs/results/e2e.json

compat: $(WHOLE)  ## two workers, a kill and a short sweep with the oldest Ray and another Python (all: root)
	$(VENV)/bin/python -m tests.lab.compat

lint: $(WHOLE)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# Upgrading, since of a file that is there already uv keeps the hashes, and those that a version has got
# since, of wheels for other Pythons, stay out.
PIN := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --upgrade --no-emit-index-url --no-header --no-annotate

# An extra's lock has what requirements.lock has not, in the same versions.
lock: $(WHOLE)  ## pin the newest allowed versions, with hashes and without the registry's name
	mkdir -p build
	$(PIN) pyproject.toml $(ALL:%=--extra %) -o build/all.lock
	$(PIN) -c build/all.lock pyproject.toml -o requirements.lock
	for extra in $(ALL); do \
	  $(PIN) -c build/all.lock pyproject.toml --extra $$extra -o requirements-$$extra.lock \
	    $$(sed -nE 's/^([A-Za-z0-9._-]+)==.*/--no-emit-package \1/p' requirements.lock) || exit; \
	done
	$(PIN) -c build/all.lock pyproject.toml --extra optuna --extra baselines --extra cluster -o requirements-cluster.lock
	$(PIN) -c build/all.lock pyproject.toml --extra optuna --extra baselines --extra cluster --extra gpu -o requirements-gpu.lock
	echo uv | $(PIN) - -o requirements-uv.lock

image: $(WHOLE)  ## run the Dockerfile's steps in a Debian root, and train in it (needs root)
	$(VENV)/bin/python -m tests.lab.image --work build/image

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
