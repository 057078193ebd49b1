# `make demo` and `make test` set up what they need in .venv: the demo little, the tests everything but the packages that
# build the documentation. The rest is for who works on redisq itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest

.PHONY: demo test test-oldest check docs dist format instructions bench screenshots chaos clean

demo: $(VENV)/demo
	$(BIN)/redisq demo

test: $(VENV)/ready
	$(BIN)/pytest -q -n 4 --dist worksteal  # more than cores: many tests wait for events

# The site in build/docs. A warning is an error: also a link that leads nowhere, and a name that no page describes.
docs: $(VENV)/docs
	$(BIN)/python -m sphinx -q -W --keep-going -n -j auto -b dirhtml docs build/docs
	@echo "the site is in build/docs: run $(BIN)/python -m http.server -d build/docs, and open http://localhost:8000"

# The wheel and the sdist of a release, in dist/. The wheel is built from the sdist.
dist: $(VENV)/ready
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

# The oldest redis-py and opentelemetry that redisq takes.
test-oldest: $(OLDEST)/ready
	$(OLDEST)/bin/pytest -q -n auto tests/queues/test_clients.py tests/queues/test_bad_input.py tests/scripts/test_raw.py tests/workers/test_worker.py tests/telemetry

check: $(VENV)/docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.idioms --check
	$(BIN)/python -m tools.own_lines --check
	$(BIN)/python -m tools.async_to_sync --check
	$(BIN)/python -m tools.diagrams --check
	$(MAKE) --no-print-directory docs
	@if command -v luacheck >/dev/null; then luacheck -q lua redisq/cli/steps; \
	elif [ -n "$$CI" ]; then echo "luacheck is missing: CI installs lua-check" >&2; exit 1; \
	else echo "luacheck is not installed, so the Lua was not checked: apt-get install lua-check, or luarocks install luacheck" >&2; fi

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m tools.idioms
	$(BIN)/python -m tools.own_lines --write
	$(BIN)/python -m tools.async_to_sync
	$(BIN)/python -m tools.diagrams

# The budgets: what a call may cost the server, in instructions. Needs valgrind.
instructions: $(VENV)/ready
	$(BIN)/python -m benchmarks.instructions --check

# Every result, chart and table anew, in about an hour, on a machine that does nothing else. Needs valgrind, npm and ruby.
# `make bench QUICK=1` asks in a minute whether the stated ratios hold.
bench: $(VENV)/ready
ifdef QUICK
	$(BIN)/python -m benchmarks --quick
else
	$(BIN)/python -m benchmarks.peers.kill  # first: the table of peers says what it found
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.sizing
	$(BIN)/python -m benchmarks.growth.blocking_time
	$(BIN)/python -m benchmarks.instructions
endif

# docs/images/dashboard*.png, in Chromium.
screenshots: $(VENV)/ready
	$(BIN)/python -m tools.dashboard_screenshots

# Everything in tests/faults, long: CHAOS_MINUTES and CHAOS_SEED say how long, and which faults. Then every state of
# small scopes, as far as the time lasts. Then all other tests while MONITOR is read: no script may touch a key of
# another queue. On every server that is found, or on those of REDISQ_TEST_SERVERS, such as redis-7.0,valkey-9.1.
chaos: export CHAOS_MINUTES ?= 20
chaos: export CHAOS_SEED ?= 1
chaos: export REDISQ_TEST_SERVERS ?= all
chaos: $(VENV)/ready
	$(BIN)/pytest -v -s tests/faults
	$(BIN)/python -m tests.scripts.exhaustive all --seconds 300  # each scope; most are closed sooner
	$(BIN)/pytest -q -n 4 --dist worksteal -p tests.faults.monitor --ignore tests/faults

clean:
	rm -rf $(VENV) $(OLDEST) .venv-node .venv-peers examples/node/node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Three stages of one environment, each completing the one before.
$(VENV)/demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[cli,embedded,fast]'
	touch $@

$(VENV)/ready: $(VENV)/demo
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

$(VENV)/docs: $(VENV)/ready
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev,docs]'
	touch $@

$(OLDEST)/ready: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install -q --disable-pip-version-check -e '.[test]' 'redis==5.0.1' 'opentelemetry-api==1.30.0' 'opentelemetry-sdk==1.30.0'
	touch $@
