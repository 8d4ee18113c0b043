# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Nothing has to be set up first: tools/dev makes the Python environment and installs missing Debian packages,
# and says so. ARGS goes to the tool: make unit ARGS="-k address -x"

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test unit fleet lint docs sanity benchmark browser molecule lab lab-full lab-image lab-table clean distclean
.PHONY: ruff mypy reuse ansible-lint changelog docs-lint links workflows galaxy-importer docs-pictures docs-generated versions

MACHINE ?=
SCENARIO ?=
ARGS ?=
RUN := tools/dev run
# The folder of a target's tests, unless ARGS names some itself.
TESTS = $(if $(filter tests/%,$(ARGS)),,$(1))

help:
	@echo 'make demo        see the whole story on an emulated machine'
	@echo 'make test        everything below: unit, fleet, lint, docs, sanity, benchmark, browser, molecule, lab'
	@echo 'make unit        unit tests'
	@echo 'make fleet       the playbooks on a fleet of hosts that are directory trees'
	@echo 'make lint        static checks; one of them only: ruff, mypy, reuse, ansible-lint, changelog, docs-lint, links,'
	@echo '                 workflows, galaxy-importer'
	@echo 'make docs        the documentation as a site, in docs/build/html; docs-pictures draws its pictures anew'
	@echo 'make sanity      ansible-test sanity, with all supported Pythons on PATH'
	@echo 'make benchmark   how fast, beside lspci'
	@echo 'make browser     the page of the audit in a browser (Chromium)'
	@echo 'make molecule    Molecule scenarios in containers; some of them only: make molecule SCENARIO=vfio_host'
	@echo 'make lab         tests on emulated machines; some of them only: make lab MACHINE=intel, MACHINE="arm64*"'
	@echo 'make lab-full    the same, and what takes long: every boot loader through several reboots (an hour more)'
	@echo 'make lab-image   build the images of the emulated machines, or of one: MACHINE=amd'
	@echo 'make lab-table   write the table of docs/platforms.md from what the emulated machines show'
	@echo 'make versions    sanity and unit tests under every ansible-core that is supported; one of them: ARGS="--core 2.18"'
	@echo 'make docs-generated  write what is generated of the documentation: docs/troubleshooting.md, variables of roles'
	@echo 'make clean       remove what was made for this checkout'
	@echo 'make distclean   remove the whole cache: Python environment, lab images'
	@echo
	@echo 'ARGS="…" is handed on, for example: make unit ARGS="-k address -x"'

demo:
	@$(RUN) --lab python -m tests.demo $(ARGS)

test: unit fleet lint docs sanity benchmark browser molecule lab
	@echo
	@echo '=== all passed: unit, fleet, lint, docs, sanity, benchmark, browser, molecule, lab'

unit:
	@$(RUN) --title 'unit tests' pytest -n auto $(call TESTS,tests/unit) $(ARGS)

fleet:
	@$(RUN) --title 'fleet' pytest -n auto $(call TESTS,tests/fleet) $(ARGS)

lint: ruff mypy reuse ansible-lint changelog docs-lint links workflows galaxy-importer

ruff:
	@$(RUN) --title 'ruff check' ruff check
	@$(RUN) --title 'ruff format' ruff format --check

mypy:
	@$(RUN) --title 'mypy, code for targets' mypy --python-version 3.9 -p ansible_collections.kvm.passthrough.plugins
	@$(RUN) --title 'mypy, tests and tools' mypy --python-version 3.11 tests tools extensions

reuse:
	@$(RUN) --copy --title 'licences' reuse lint --lines

ansible-lint:
	@$(RUN) --copy --title 'ansible-lint' ansible-lint --offline --profile production

changelog:
	@$(RUN) --copy --title 'changelog' antsibull-changelog lint

docs-lint:
	@$(RUN) --copy --title 'documentation' antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs self .

links:
	@$(RUN) --title 'links' python -m tools.site.links

workflows:
	@$(RUN) --title 'workflows' check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

galaxy-importer:
	@$(RUN) --title 'galaxy-importer' python -m tools.importer

docs:
	@$(RUN) --title 'documentation site' python -m tools.site

docs-pictures:
	@$(RUN) --browser --title 'pictures of the documentation' python -m tests.browser.pictures

sanity:
	@tools/dev sanity -- $(ARGS)

benchmark:
	@$(RUN) --benchmark --title 'benchmarks' python -m ansible_collections.kvm.passthrough.tests.benchmark $(ARGS)

browser:
	@$(RUN) --browser --title 'browser' pytest $(call TESTS,tests/browser) $(ARGS)

molecule:
	@$(RUN) --molecule --title 'molecule' python -m tests.molecule $(SCENARIO)

lab:
	@$(RUN) --lab --title 'lab' pytest $(call TESTS,tests/lab) --durations 20 --durations-min 10 $(if $(MACHINE),--machine '$(MACHINE)') $(ARGS)

lab-full:
	@$(RUN) --lab --title 'lab, all of it' pytest $(call TESTS,tests/lab) --durations 20 --durations-min 10 --full $(ARGS)

lab-image:
	@$(RUN) --lab --title 'lab images' python -m tests.lab build $(MACHINE)

lab-table:
	@$(RUN) --lab --title 'table of platforms' pytest tests/lab/test_detection_table.py --write-table $(if $(MACHINE),--machine '$(MACHINE)') $(ARGS)

versions:
	@$(RUN) python -m tools.versions $(ARGS)

docs-generated:
	@$(RUN) python -m ansible_collections.kvm.passthrough.tools.docs

clean:
	@tools/dev clean

distclean:
	@tools/dev clean --all
