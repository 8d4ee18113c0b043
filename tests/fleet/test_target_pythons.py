# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every module, sent to hosts with other Pythons by Ansible as to any host: all of them have to say and do the same.

The hosts are copies of each other, and each has one of the Pythons that are on PATH.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.release import __version__ as ansible_core

from tests.lab.controller import Run, told
from tests.unit.support import machine
from tests.unit.support.tree import LOCK, tree_listing
from tools import dev

from . import hosts, tree
from .conftest import controller
from .hosts import VF, Fleet

OLDEST = 9
NEWEST = 14
"""Of the minor versions of Python that hosts may have; ansible-core 2.18 to 2.21 run modules under these."""
TOO_OLD = "3.8"

PF = {"address": machine.PF, "expect": {"vendor_id": "8086", "device_id": "10c9"}}
CALLS: dict[str, dict[str, Any]] = {
    "iommu_info": {},
    "pci_device_info": {"tree": True},
    "kernel_parameters": {"present": ["intel_iommu=on", "iommu=pt"]},
    # Nothing here builds an initramfs: bindings for every boot are planned only.
    "vfio_devices": {"devices": [VF], "persistent": "{{ ansible_check_mode }}"},
    "sriov_vfs": {"pfs": [{"pf": PF, "count": 2}], "persistent": False},
    "selinux_booleans": {"booleans": {"virt_use_sysfs": True}, "missing": "ignore"},
    "hostdev_info": {},
    "domain_hostdevs": {"domain": "web01", "hostdevs": [{"device": machine.VF0}]},
    "hostdev_network": {"name": "pool", "pf": machine.PF},
}
NO_LIBVIRT = {"python_module_missing", "libvirt_unreachable"}
"""What a module of LIBVIRT says here. Whether the bindings are missing as well depends on who owns the Python."""
LIBVIRT = {"hostdev_info", "domain_hostdevs", "hostdev_network"}


def found_pythons(*versions: str) -> dict[str, tuple[str, str]]:
    """The Pythons of these versions on PATH: interpreter and the folder it is installed in.

    Not those of environments: one leads to the interpreter it was made with, which has to be in the tree.
    """
    found = dev.find_interpreters(versions, os.environ.get("PATH", os.defpath).split(os.pathsep))[0]
    code = "import sys; print(sys.base_prefix)"
    pythons = {}
    for version in (version for version in versions if version in found):
        interpreter = found[version]
        prefix = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        pythons[version] = (f"{prefix}/bin/python{version}", prefix)
    return pythons


def fleet_of(folder: Path, pythons: dict[str, tuple[str, str]]) -> Fleet:
    """One host for each Python, named after it."""
    fleet = hosts.build(folder, {"host": hosts.Kind(hosts.intel_bound, len(pythons))})
    inventory: dict[str, Any] = yaml.safe_load(fleet.inventory.read_text(encoding="utf-8"))
    members = inventory[hosts.GROUP]["hosts"]
    renamed = {}
    for (_name, variables), (version, (interpreter, prefix)) in zip(members.items(), pythons.items(), strict=True):
        if prefix == "/usr":  # a host has that of this machine already, elsewhere
            interpreter = f"{tree.MACHINE}/bin/python{version}"
        else:
            variables["ansible_tree_python"] = prefix
            Path(variables["ansible_tree_root"] + prefix).mkdir(parents=True)
        renamed[f"python{version}"] = {**variables, "ansible_python_interpreter": interpreter}
    inventory[hosts.GROUP]["hosts"] = renamed
    fleet.inventory.write_text(yaml.safe_dump(inventory), encoding="utf-8")
    return fleet


def call_all(fleet: Fleet, *words: str) -> Run:
    """Call every module on every host, whatever the one before it said."""
    return controller(fleet).play([{f"kvm.passthrough.{name}": arguments} for name, arguments in CALLS.items()], *words)


def test_every_module_is_called() -> None:
    assert set(CALLS) == {path.stem for path in (dev.ROOT / "plugins/modules").glob("[!_]*.py")}


def test_every_module_says_and_does_the_same_under_every_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = [f"3.{minor}" for minor in range(OLDEST, NEWEST + 1)]
    pythons = found_pythons(*versions)
    with capsys.disabled():
        print("\nmodules under:", ", ".join(interpreter for interpreter, _prefix in pythons.values()))
        missing = [version for version in versions if version not in pythons]
        if missing:
            print("SKIPPED, not on PATH: Python", ", ".join(missing))
    fleet = fleet_of(tmp_path, pythons)

    def listings() -> list[dict[str, str]]:
        # Without what Ansible leaves, mount points, and the record, in which is when something was done.
        noise = (
            LOCK,
            "tmp",
            ".machine",
            "var/lib/kvm-passthrough",
            *(prefix[1:] for _python, prefix in pythons.values()),
        )
        folders = [tmp_path / f"host-{number:02}" for number in range(1, len(pythons) + 1)]
        return [tree_listing(folder, exclude=noise) for folder in folders]

    before = listings()
    for words in (["--check"], []):
        run = call_all(fleet, *words)
        assert not words or listings() == before
        for name in CALLS:
            results = {task.host: task.result for task in run.of(name)}
            assert set(results) == {f"python{version}" for version in pythons}, run.output
            first = next(iter(results.values()))
            for host, result in results.items():
                if name in LIBVIRT:
                    assert result.get("code") in NO_LIBVIRT, f"{name} on {host}: {result}"
                else:
                    assert "code" not in result, f"{name} on {host}: {result['msg']}"
                    assert told(result) == told(first), f"{name} on {host}"
    changes = [dict(after.items() - was.items()) for was, after in zip(before, listings(), strict=True)]
    assert "etc/default/grub" in str(changes[0])
    assert changes == [changes[0]] * len(changes)


@pytest.mark.skipif(ansible_core >= "2.20", reason="this ansible-core itself refuses hosts with Python 3.8")
def test_a_python_that_is_too_old_is_told_by_every_module(tmp_path: Path) -> None:
    pythons = found_pythons(TOO_OLD)
    if not pythons:
        pytest.skip(f"no python{TOO_OLD} on PATH")
    run = call_all(fleet_of(tmp_path, pythons))
    assert len(run.tasks) == len(CALLS)
    for task in run.tasks:
        assert task.result["code"] == "python_too_old", run.output
        assert "3.9 or newer" in task.result["msg"]
        assert "Traceback" not in str(task.result)
