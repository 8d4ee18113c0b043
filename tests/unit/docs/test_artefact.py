# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The artefact that is published: what is in it, and that it works where there is nothing else."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.artefact import build, install, run
from ansible_collections.kvm.passthrough.tests.unit.support.places import PROGRAMS, ROOT
from ansible_collections.kvm.passthrough.tools.site import links

PLAYBOOKS = ("audit", "guest", "host", "preflight", "revert", "site")
MOST_BYTES = 1_300_000
"""One third of it are unit tests, a tenth are pictures."""

FOLDERS = {"LICENSES", "changelogs", "docs", "extensions", "meta", "playbooks", "plugins", "roles", "tests"}
FILES = {"CHANGELOG.rst", "CONTRIBUTING.md", "COPYING", "FILES.json", "MANIFEST.json", "README.md", "REUSE.toml"}


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("artefact"))


@pytest.fixture(scope="module")
def installed(artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing in it but the installed collection."""
    folder = tmp_path_factory.mktemp("collections")
    install(artefact, folder)
    return folder


def test_it_is_small_and_has_no_workshop(artefact: Path) -> None:
    with tarfile.open(artefact) as archive:
        members = archive.getmembers()
    files = [member.name for member in members if member.isfile()]
    assert {name.partition("/")[0] for name in files if "/" in name} == FOLDERS
    assert {name for name in files if "/" not in name} == FILES
    tests = {name for name in files if name.startswith("tests/") and not name.startswith("tests/unit/")}
    assert tests == {"tests/config.yml", "tests/requirements.txt"}
    assert {name.split("/")[2] for name in files if name.startswith("tests/unit/")} == {
        "__init__.py", "conftest.py", "plugins", "requirements.txt", "roles", "support",
    }  # fmt: skip
    assert [name for name in files if name.endswith((".pyc", ".tar.gz"))] == []
    assert artefact.stat().st_size < MOST_BYTES


def test_it_has_all_that_is_used(installed: Path) -> None:
    there = installed / "ansible_collections/kvm/passthrough"
    for folder in ("docs/*.md", "docs/pictures/*", "meta/*", "playbooks/*", "plugins/**/*.py", "roles/**/*.yml"):
        assert {path.relative_to(ROOT) for path in ROOT.glob(folder)} == {
            path.relative_to(there) for path in there.glob(folder)
        }
    scenarios = {path.parent.name for path in (ROOT / "extensions/molecule").glob("*/molecule.yml")}
    assert {path.parent.name for path in there.glob("extensions/molecule/*/molecule.yml")} == scenarios - {"lab"}


def test_its_documents_link_to_what_it_has(installed: Path) -> None:
    there = installed / "ansible_collections/kvm/passthrough"
    texts = {path: path.read_text(encoding="utf-8") for path in there.rglob("*.md")}
    assert there / "README.md" in texts
    assert list(links.problems(there, texts)) == []


def test_ansible_finds_and_reads_all_of_it(installed: Path, tmp_path: Path) -> None:
    documentation = run(
        PROGRAMS / "ansible-doc", "--metadata-dump", "kvm.passthrough",
        cwd=tmp_path, ANSIBLE_COLLECTIONS_PATH=str(installed),
    )  # fmt: skip
    found = json.loads(documentation)["all"]
    for kind, folder in (("module", "modules"), ("filter", "filter")):
        names = {f"kvm.passthrough.{path.stem}" for path in (ROOT / "plugins" / folder).glob("[!_]*.py")}
        assert set(found[kind]) == names
        assert [name for name in names if "error" in found[kind][name]] == []
    assert set(found["role"]) == {f"kvm.passthrough.{path.name}" for path in (ROOT / "roles").iterdir()}
    playbooks = [f"kvm.passthrough.{name}" for name in PLAYBOOKS]
    run(
        PROGRAMS / "ansible-playbook", "--syntax-check", "-i", "host,", *playbooks,
        cwd=tmp_path, ANSIBLE_COLLECTIONS_PATH=str(installed),
    )  # fmt: skip


def test_hardware_of_a_copied_scenario_can_be_described(installed: Path, tmp_path: Path) -> None:
    there = installed / "ansible_collections/kvm/passthrough"
    run(
        sys.executable, there / "extensions/molecule/vfio_host/hardware.py", tmp_path / "tree",
        cwd=tmp_path, PYTHONPATH=str(installed),
    )  # fmt: skip
    assert (tmp_path / "tree/sys/bus/pci/devices/0000:01:10.0").exists()
