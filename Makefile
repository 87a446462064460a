# Each target sets up .venv by itself (scripts/bootstrap): it needs Python 3.11 or newer and nothing else.
#
#   make demo     a real flow on real data: its run, its result, its replay
#   make test     the tests, on all cores; ARGS='-k name' narrows them, and runs them in one process
#   make check    lint, types, layers
#   make format   rewrite the sources in the house format
#   make soak     the tests with ten times the counts that CI runs
#   make chaos    kill, cut off and fill up real schedulers and servers, for ten times as long as CI does
#   make bench    against Metaflow, Temporal and `aws s3 cp`, which get environments of their own
#   make images   build the container images (needs a Docker engine); ARGS=--test runs a flow in the composed system afterwards
#   make lock     compile requirements/*.txt anew (needs uv); ARGS=--upgrade takes newer versions
#   make clean    remove .venv and what the tools left

SOURCES := evflow scheduler executors
BIN := .venv/bin
ARGS ?=
# All tests are spread over the cores, three processes for each two (tests/conftest.py); up to six, because each process imports
# pandas and starts servers of its own. What somebody asks for by ARGS runs in one process: in order, with -s and --pdb.
PYTEST = $(BIN)/python -m pytest $(or $(ARGS),--numprocesses=logical --maxprocesses=6 --dist=worksteal)

.PHONY: help demo test check lint layers mypy pyright format soak chaos bench images lock clean env-demo env-test env-check
# Two targets that set up .venv would be in each other's way; what `check` starts finds it there.
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif

help:
	@sed -n 's/^#   //p' Makefile

demo: env-demo
	@$(BIN)/python examples/demo.py $(ARGS)

test: env-test
	@echo "make test: pytest, scale $${EVFLOW_TEST_SCALE:-0.1}"
	@$(PYTEST)

soak: env-test
	@echo "make soak: pytest, scale $${EVFLOW_TEST_SCALE:-10}"
	@EVFLOW_TEST_SCALE=$${EVFLOW_TEST_SCALE:-10} EVFLOW_TEST_SEED=$${EVFLOW_TEST_SEED:-$$(date +%Y%m%d)} \
		$(PYTEST) --timeout=7200

chaos: env-test
	@echo "make chaos: pytest tests/chaos, scale $${EVFLOW_TEST_SCALE:-10}, seed $${EVFLOW_TEST_SEED:-$$(date +%Y%m%d)}"
	@EVFLOW_TEST_SCALE=$${EVFLOW_TEST_SCALE:-10} EVFLOW_TEST_SEED=$${EVFLOW_TEST_SEED:-$$(date +%Y%m%d)} \
		$(BIN)/python -m pytest --timeout=7200 -s tests/chaos $(ARGS)

# Side by side: mypy and pyright keep one core busy each. `make -k check` goes on after the first failure, as CI does.
check: env-check
	@$(MAKE) --no-print-directory --jobs=2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) SIDE_BY_SIDE=yes pyright mypy lint layers

lint: env-check
	@echo "make check: ruff"
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --check --quiet .

layers: env-check
	@echo "make check: import-linter"
	@$(BIN)/lint-imports --no-cache >.venv/layers.log 2>&1 || { cat .venv/layers.log; exit 1; }

mypy: env-check
	@echo "make check: mypy"
	@$(BIN)/mypy

pyright: env-check
	@echo "make check: pyright"
	@$(BIN)/pyright

format: env-check
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format .

bench: env-test
	@$(BIN)/python -m benchmarks $(ARGS)

images:
	@scripts/images $(ARGS)

lock:
	@scripts/lock $(ARGS)

# The sources are byte-compiled so that commands start fast even where PYTHONDONTWRITEBYTECODE is set.
env-demo env-test env-check: env-%:
	@scripts/bootstrap $*
	@$(BIN)/python -m compileall -q $(SOURCES)

clean:
	rm -rf .venv .venv-home build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find $(SOURCES) tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
