# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the README's first minute, as they stand there, with the collection as it is handed out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.artefact import build, install
from ansible_collections.kvm.passthrough.tests.unit.support.places import ROOT
from tests import lab

from .controller import Controller

pytestmark = pytest.mark.lab("intel")

README = ROOT / "README.md"


def first_minute() -> list[list[str]]:
    """Each command of that section, in words."""
    text = README.read_text(encoding="utf-8")
    section = text.partition("\n## The first minute\n")[2].partition("\n## ")[0]
    return [shlex.split(line) for line in re.findall(r"^\$ (.+)$", section, re.MULTILINE)]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with nothing in it but the artefact that is built of this checkout, installed as the README says."""
    collections = tmp_path / "collections"
    install(build(tmp_path), collections)
    return collections


def test_the_first_minute(iommu_host: lab.Machine, installed: Path, tmp_path: Path) -> None:
    ansible = Controller(iommu_host, collections=installed)
    before = iommu_host.etc()
    commands = first_minute()
    assert {words[0] for words in commands} == {"ansible", "ansible-playbook"}
    answers: dict[str, str] = {}
    for program, *words in commands:
        if "-i" in words:  # the inventory is that of the machine
            del words[words.index("-i") : words.index("-i") + 2]
        more = ("-e", f"vfio_audit_folder={tmp_path}") if program == "ansible-playbook" else ()
        run = ansible.run(program, *words, *more, "-vvv")
        assert run.rc == 0, run.output
        assert f"Using module file {installed}/ansible_collections/kvm/passthrough/plugins/modules/" in run.output
        assert [task.task for task in run.tasks if task.changed] == []
        answers[" ".join([program, *words])] = run.output
    assert " is active" in next(text for command, text in answers.items() if "iommu_info" in command)
    assert "0000:01:10.0" in next(text for command, text in answers.items() if "8086:10ca" in command)
    page = (tmp_path / "kvm-passthrough-audit.html").read_text(encoding="utf-8")
    assert "0000:02:00.3" in page
    assert iommu_host.etc() == before
