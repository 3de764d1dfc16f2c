# Two commands on a fresh machine do all the set-up: `make train` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# uv takes half of pip's time, but does not know an index that pip's own settings name
UV_INSTALL = $(BIN)/python -m pip install --quiet uv && $(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements-dev.lock
PIP_INSTALL = $(BIN)/python -m pip install --quiet --requirement requirements-dev.lock

.PHONY: venv train test test-quick test-slow lint clean lock corpus

venv: .venv/.installed

.venv/.installed: requirements-dev.lock
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "Python 3.11 or 3.12 is needed: make PYTHON=python3.11 venv")'
	$(PYTHON) -m venv .venv
	$(UV_INSTALL) || $(PIP_INSTALL)
	touch $@

# The main job on the bundled corpus: prepare, train, listen.
train: venv
	$(BIN)/python -m job.prepare --config job/presets/voice.yaml
	$(BIN)/python -m job.train --config job/presets/voice.yaml
	$(BIN)/python -m job.synthesize --checkpoint runs/voice --speaker en_f1 --language EN --text "This voice is learning to speak." --out runs/voice/sample.wav

# The fast suite, what CI runs: in two processes, which share its modules.
test: venv
	$(BIN)/python -m tools.run_tests

# What starts no Ray and no process, and does not take long.
test-quick: venv
	$(BIN)/python -m tools.run_tests --quick

# Chaos, sweeps and repeated kills.
test-slow: venv
	$(BIN)/python -m pytest -m slow --timeout 1200 -s

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

# Pins everything that pyproject.toml asks for; names no host.
lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url --upgrade --extra jp-plus -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url --upgrade --extra jp-plus --extra onnx --extra transcribe --extra listen --extra serve --extra mlflow --extra wandb --extra recognition --group dev -c requirements.lock -o requirements-dev.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url --upgrade -c requirements.lock -o deploy/cloud.lock deploy/cloud.in

clean:
	rm -rf .venv runs shards .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
