# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every example in documents and modules is one that Ansible takes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from ansible_collections.kvm.passthrough.tests.unit.support import query
from ansible_collections.kvm.passthrough.tests.unit.support.examples import (
    Example,
    all_examples,
    in_markdown,
    module_spec,
    wrong,
)
from ansible_collections.kvm.passthrough.tests.unit.support.places import COLLECTIONS, PROGRAMS

EXAMPLES = all_examples()


def test_no_example_is_wrong() -> None:
    assert [f"{example.where}: {problem}" for example in EXAMPLES for problem in wrong(example)] == []


def test_the_examples_that_are_known_to_be_there_are_looked_at() -> None:
    texts = [example.text for example in EXAMPLES]
    assert sum(example.kind == "yaml" for example in EXAMPLES) >= len(query.MODULES) + 10
    assert "ansible kvm_hosts -b -m kvm.passthrough.iommu_info" in texts
    assert any(text.startswith("ansible-playbook") and "-e vfio_host_reboot=true" in text for text in texts)
    assert any("vfio_guest_domains" in text for text in texts)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- kvm.passthrough.vfio_devices: {device: '01:00.0'}", "Supported parameters"),
        ("- kvm.passthrough.vfio_devices: {devices: ['01:00.0'], state: away}", "value of state must be one of"),
        ("- kvm.passthrough.sriov_vfs: {pfs: [{pf: eth0}]}", "missing required arguments: count"),
        ("- kvm.passthrough.vfio_device: {devices: ['01:00.0']}", "there is no module"),
        ("- {hosts: all, roles: [{role: kvm.passthrough.vfio_hosts}]}", "there is no role"),
        (
            "- {hosts: all, roles: [{role: kvm.passthrough.vfio_host, vars: {vfio_host_boot: true}}]}",
            "Supported parameters",
        ),
        ("vfio_guest_domains: [{name: web01}]", "missing required arguments: hostdevs"),
        ("all: {vars: {vfio_host_timeout: long}}", "unable to convert to int"),
        ("- ansible.builtin.import_playbook: kvm.passthrough.hosts", "there is no playbook"),
        ("kvm_passthrough_serials: 5", "no playbook reads"),
        ("- [", "cannot be read"),
    ],
)
def test_yaml_that_is_wrong_is_found(text: str, problem: str) -> None:
    assert problem in "\n".join(wrong(Example("here", "yaml", text)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ansible all -m kvm.passthrough.iommu -b", "there is no module"),
        ("ansible all -b -m kvm.passthrough.pci_device_info -a 'device=01:00.0'", "Supported parameters"),
        ("ansible all -b -m kvm.passthrough.pci_device_info -a 'tree=perhaps'", "unable to convert to bool"),
        ("ansible-playbook -i x kvm.passthrough.hosts", "there is no playbook"),
        ("ansible-playbook kvm.passthrough.site -e vfio_host_rebot=true", "Supported parameters"),
        ("ansible-playbook kvm.passthrough.site -e '{\"kvm_passthrough_seriall\": [1]}'", "no playbook reads"),
        ("ansible-playbook kvm.passthrough.site -e reboot=true", "nothing reads reboot"),
        ("make tests", "the Makefile has no target tests"),
        ("tools/dev run ansible all -m kvm.passthrough.nothing", "there is no module"),
        ("ansible 'all", "cannot be read"),
    ],
)
def test_commands_that_are_wrong_are_found(text: str, problem: str) -> None:
    assert problem in "\n".join(wrong(Example("here", "console", text)))


@pytest.mark.parametrize(
    "text",
    [
        "- kvm.passthrough.vfio_devices: {devices: '{{ mine }}', state: '{{ how }}', timeout: '{{ t }}'}",
        "- {hosts: all, roles: [{role: kvm.passthrough.vfio_host, vars: {vfio_host_timeout: '{{ t }}'}}]}",
        "- ansible.builtin.debug: {msg: x}",
    ],
)
def test_templates_and_what_is_not_ours_are_left_alone(text: str) -> None:
    assert wrong(Example("here", "yaml", text)) == []


def test_examples_are_found_in_markdown() -> None:
    text = (
        "Run `make unit`, `x`.\n\n```yaml\na: 1\n```\n\n- item\n\n  ```console\n  $ make \\\n    lab\n  out\n  ```\n\n"
        "```python\nx\n```\n"
    )
    found = list(in_markdown(text, "here"))
    assert [(one.where, one.kind, " ".join(one.text.split())) for one in found] == [
        ("here:3", "yaml", "a: 1"),
        ("here:9", "console", "make lab"),
        ("here", "console", "make unit"),
    ]


@pytest.mark.parametrize("name", query.MODULES)
def test_what_a_module_takes_is_what_it_documents(name: str) -> None:
    assert set(module_spec(name)["argument_spec"]) == set(query.documented_options(name))


def test_plays_and_tasks_pass_the_syntax_check_of_ansible(tmp_path: Path) -> None:
    playbooks = []
    for number, example in enumerate(EXAMPLES):
        data = yaml.safe_load(example.text) if example.kind == "yaml" else None
        if not isinstance(data, list):
            continue
        is_play = any(
            key in item for item in data for key in ("hosts", "import_playbook", "ansible.builtin.import_playbook")
        )
        path = tmp_path / f"{number}.yml"
        play = data if is_play else [{"hosts": "all", "gather_facts": False, "tasks": data}]
        path.write_text(yaml.safe_dump(play, sort_keys=False), encoding="utf-8")
        playbooks.append(str(path))
    assert len(playbooks) > len(query.MODULES)
    done = subprocess.run(
        [PROGRAMS / "ansible-playbook", "--syntax-check", "-i", "host,", *playbooks],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS, "ANSIBLE_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
