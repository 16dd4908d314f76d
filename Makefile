# What a developer or a new user runs. Every target sets up what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SECONDS ?= 600
MEMORIES ?= 5000
READS ?= 100000
CYCLES ?= 10000
RAM_MIB ?= 6144
SEED ?= 1
SUITE ?= trixie
TRACEABLE := not untraced and not privilege
TWO := --numprocesses 2 --dist loadfile --no-loadscope-reorder
NO_LIMIT := -o timeout=0 -o faulthandler_timeout=0

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-balloon example example-volatility test test-here coverage test-nobody test-floors test-python test-debian13 test-debian test-lab docs ansible fleet soak-fleet ironic fuzz lab-soak token-soak driver-soak mount-soak case-soak oracle-soak bench bench-fleet lint dist dist-check lock vendor clean

help:  ## Show what there is
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(VENV)/.ready  ## A virtual environment with the locked dependencies, all of it compiled
	$(call compiled,$(VENV))

# An environment with openrbu as it is here, and the packages of the first file that it is made from.
define environment
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "openrbu needs Python 3.11 or later")'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(@D)/bin/python -m compileall -q -j 0 $(@D)/lib
	touch $@
endef

# Python would compile a module when it is first imported: in a test without room for files, by half.
compiled = @$(1)/bin/python -m compileall -q src

$(VENV)/.ready: requirements/dev.lock pyproject.toml
	$(environment)

demo: setup  ## Update the BIOS of two virtual Dell machines
	scripts/demo

demo-balloon: setup  ## Guests balloon up while others balloon down: told, and drawn in build/
	$(BIN)/python scripts/demo-balloon

example: setup  ## An update tool under test: rbu try and pytest find its mistakes
	PATH="$(CURDIR)/$(BIN):$$PATH" $(MAKE) --no-print-directory -C examples/tool-under-test test

# An environment with other packages, in which openrbu is as it is here: for a program that loads it.
define beside
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	$(@D)/bin/python -c 'import sys, sysconfig; print("import site; site.addsitedir(" + repr(sys.argv[1]) + ")", \
	  file=open(sysconfig.get_path("purelib") + "/openrbu.pth", "w"))' \
	  "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	touch $@
endef

VOLATILITY := build/volatility3

example-volatility: setup $(VOLATILITY)/.ready  ## The plugin for volatility3, in an environment of its own
	VOLATILITY3=$(CURDIR)/$(VOLATILITY)/bin/vol $(BIN)/python -m pytest -q examples/volatility3

$(VOLATILITY)/.ready: examples/volatility3/requirements.txt $(VENV)/.ready
	$(beside)

test: test-here test-lab  ## All tests

test-here: setup  ## The tests but for those in the lab; COVERAGE=1: those that can be are traced
ifdef COVERAGE
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest -m "not lab and $(TRACEABLE)" $(TWO)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report
	$(BIN)/python -m pytest -m "not lab and not ($(TRACEABLE))" $(TWO)
else
	$(BIN)/python -m pytest -m "not lab" $(TWO)
endif

coverage: setup  ## Lines and branches that the tests but for those in the lab run; what none runs
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest -m "not lab and not untraced" $(TWO) || \
	  echo "some tests failed while they were traced, which makes them slow: make test-here judges"
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

FLOORS := build/floors

test-nobody: $(FLOORS)/.ready  ## Those that may do something else for another user, to be run as one; with the oldest packages
	$(call compiled,$(FLOORS))
	OPENRBU_MOUNT_SECONDS=5 $(FLOORS)/bin/python -m pytest -m "privilege and not lab" $(TWO) tests/unit tests/contract

FLOORS_TESTS = $(CAN_DIFFER)

test-floors: $(FLOORS)/.ready  ## The other tests that can differ with the oldest numpy, rich and platformdirs (Debian 12's); all: FLOORS_TESTS=tests/unit
	$(call compiled,$(FLOORS))
	$(FLOORS)/bin/python -m pytest -m "not privilege and not lab" $(TWO) $(FLOORS_TESTS) \
	  --deselect tests/unit/test_api.py::test_the_examples_are_right_by_their_types  # needs mypy

$(FLOORS)/.ready: requirements/floors.lock pyproject.toml
	$(environment)

# What can differ with another Python, or other packages: the commands and what they print, formats, searches, maps,
# and each file that names numpy or rich. Not what needs long: random Xen histories.
CAN_DIFFER = $(sort $(wildcard tests/unit/test_cli_[eimp]*.py tests/unit/test_cli_status.py tests/unit/test_check_words.py \
  tests/unit/test_hdr.py tests/unit/test_maps.py tests/unit/test_packet.py tests/unit/test_scan.py) \
  $(filter-out %test_run_xen.py %_histories.py %test_simulation.py %test_conservation.py, \
    $(shell grep -rlE '^(import numpy|from rich)' tests/unit --include='test_*.py')))
NEW_PYTHON_TESTS := $(addprefix tests/unit/test_,cli_main.py cli_images.py hdr.py layout.py packet.py plan_view.py \
  errors.py typed_json.py units.py dell_rbu.py)
PYTHON_VERSION ?= 3.12
OTHER := build/python-$(PYTHON_VERSION)

test-python: $(OTHER)/.ready  ## What can differ with another Python, PYTHON_VERSION (3.12): one of PATH, or uv's
	$(call compiled,$(OTHER))
	$(OTHER)/bin/python -m pytest $(TWO) $(CAN_DIFFER)

$(OTHER)/.ready: PYTHON = $$(python$(PYTHON_VERSION) -c 'import sys; print(sys.executable)' 2>/dev/null || \
  { uv python install --quiet $(PYTHON_VERSION) && uv python find $(PYTHON_VERSION); })
$(OTHER)/.ready: requirements/dev.lock pyproject.toml
	$(environment)

test-debian13: dist  ## On Debian 13, in a chroot: what make dist builds, the demo, tests, the lab; takes root
	scripts/check-debian trixie --lab $(NEW_PYTHON_TESTS)

test-debian: dist  ## On SUITE (SUITE=forky: Python 3.14), the same but for the lab, with the tests of test-python; takes root
	scripts/check-debian $(SUITE) $(CAN_DIFFER)

# Where they are; to read all other tests, too, would take each process ten seconds.
LAB_TESTS = tests/lab tests/contract $(shell grep -rl 'mark\.lab' tests/unit tests/oracle --include='test_*.py')

test-lab: setup  ## The tests in the lab: real Linux and the real driver in QEMU
	$(BIN)/python -m pytest -m lab $(TWO) $(LAB_TESTS)

DOCS := build/docs

docs: setup $(DOCS)/.ready  ## The manual as a site, in build/manual; all its links are checked
	rm -rf build/manual
	OPENRBU_PYTHON=$(CURDIR)/$(BIN)/python $(DOCS)/bin/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --jobs 2 -b html -d build/manual.doctrees docs build/manual
	$(DOCS)/bin/python scripts/check-site build/manual
	@echo "the manual is in build/manual/index.html"

$(DOCS)/.ready: requirements/docs.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "the manual is made by Python 3.11 or later")'
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.lock
	touch $@

ANSIBLE := build/ansible

ansible: setup $(ANSIBLE)/.ready  ## The Ansible collection: its tests with the real ansible-playbook, ansible-lint, ansible-test sanity
	OPENRBU_ANSIBLE=$(CURDIR)/$(ANSIBLE)/bin $(BIN)/python -m pytest $(TWO) ansible/tests
	scripts/check-ansible $(ANSIBLE)

fleet: setup $(ANSIBLE)/.ready  ## A roll-out to N (1000) virtual machines with accidents, by the real ansible-playbook
	PYTHONPATH=tests OPENRBU_ANSIBLE=$(CURDIR)/$(ANSIBLE)/bin $(BIN)/python ansible/tests/fleet.py --machines $(or $(N),1000) --seed $(SEED)

soak-fleet: setup $(ANSIBLE)/.ready  ## The same with N (10000) machines, and the controller killed more often: KILLS (6) times
	PYTHONPATH=tests OPENRBU_ANSIBLE=$(CURDIR)/$(ANSIBLE)/bin $(BIN)/python ansible/tests/fleet.py --machines $(or $(N),10000) --seed $(SEED) --kills $(or $(KILLS),6)

$(ANSIBLE)/.ready: requirements/ansible.lock $(VENV)/.ready
	$(beside)

IRONIC := build/ironic

ironic: setup $(IRONIC)/.ready  ## The hardware manager for Ironic, in the real ironic-python-agent on virtual machines
	OPENRBU_IRONIC=$(CURDIR)/$(IRONIC)/bin/python $(BIN)/python -m pytest ironic/tests

$(IRONIC)/.ready: requirements/ironic.lock $(VENV)/.ready
	$(beside)

fuzz: setup $(VENV)/.fuzz-ready  ## Any bytes for all parsers of what others wrote, for SECONDS (600) in all
	$(BIN)/python tests/fuzz --seconds $(SECONDS)

$(VENV)/.fuzz-ready: requirements/fuzz.lock $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.lock
	touch $@

lab-soak: setup  ## Random operations on a real kernel and on ours, for SECONDS (600)
	OPENRBU_SOAK_SECONDS=$(SECONDS) $(BIN)/python -m pytest $(NO_LIMIT) -s tests/lab/soak.py

token-soak: setup  ## The token in CMOS of a lab machine, READS (100000) and CYCLES (10000) times, on KERNEL
	OPENRBU_TOKEN_READS=$(READS) OPENRBU_TOKEN_CYCLES=$(CYCLES) OPENRBU_LAB_KERNEL=$(KERNEL) \
	  $(BIN)/python -m pytest $(NO_LIMIT) -s -m lab tests/lab/test_tokens.py

driver-soak: setup  ## The own driver in the lab: all sizes, all steps killed, a machine with RAM_MIB (6144)
	OPENRBU_DRIVER_LARGE_MIB=$(RAM_MIB) \
	  $(BIN)/python -m pytest $(NO_LIMIT) -s -m lab tests/lab/test_own_driver.py

mount-soak: setup  ## 32 programs at once on a mount, for SECONDS (600)
	OPENRBU_MOUNT_SECONDS=$(SECONDS) $(BIN)/python -m pytest $(NO_LIMIT) tests/unit/mount/test_mount_stress.py -k 32_programs

case-soak: setup  ## A failure at each call, and a kill at more lines, on each machine: CI tries some
	OPENRBU_ALL_CASES=1 $(BIN)/python -m pytest $(NO_LIMIT) $(TWO) $$(grep -rl rigs.all_cases tests --include='test_*.py')

oracle-soak: setup  ## Our rule sets against the code of real BIOSes, over MEMORIES (5000)
	OPENRBU_NOTHING_LEFT_OUT=1 OPENRBU_ORACLE_MEMORIES=$(MEMORIES) \
	  $(BIN)/python -m pytest $(NO_LIMIT) tests/oracle/test_random_memories.py

lint: setup  ## Types, style, and which folder imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/check-imports
	$(BIN)/mypy

bench: setup  ## Speed, as ratios measured in one run; also as build/bench.json
	$(BIN)/python tests/bench --json build/bench.json

bench-fleet: setup  ## What N (10000) virtual machines cost: time, disk, a list of them; a long journal
	$(BIN)/python tests/bench/fleet.py $(or $(N),10000)

dist: setup $(VENV)/.dist-ready $(ANSIBLE)/.ready  ## Wheel, sdist, Debian package, single file and Ansible collection, in build/dist
	PYTHON=$(BIN)/python scripts/make-dist

dist-check: dist  ## Install, use and remove what make dist builds, here and on SUITE (trixie); takes root
	scripts/check-dist $(SUITE)

$(VENV)/.dist-ready: requirements/dist.lock $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dist.lock
	touch $@

lock:  ## Make requirements/*.lock anew (names, versions and hashes; no addresses)
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet pip-tools
	cd requirements && for name in ansible dev dist docs floors fuzz ironic; do \
	  ../build/lock/bin/pip-compile --quiet --upgrade --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras --allow-unsafe \
	    --output-file $$name.lock $$name.in || exit 1; \
	done

vendor: setup  ## Make src/openrbu/_vendor anew, from the wheels in requirements/vendor.txt
	$(BIN)/python scripts/vendor-typer

clean:  ## Remove what was made here
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
