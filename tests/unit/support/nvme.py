# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fake kernel with an NVMe drive whose VFs need queues and interrupts, and the program ``nvme`` that gives them.

All of the drive's state is in the directory tree. Sources: NVM Express Base Specification 2.0, 5.29; QEMU's
hw/nvme/ctrl.c (``nvme_virt_mngmt``) for what a drive refuses; nvme-cli 2 for arguments and output.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed

from .kernel import PCI_DEVICES
from .sriov import SriovKernel, sriov_host_with

DRIVE = "0000:08:00.0"
FLEXIBLE = (4, 2)
"""The queues and interrupts that the drive has to give."""

_STATE = ".secondary-controllers"


class NvmeKernel(SriovKernel):
    """A :class:`SriovKernel` with an NVMe drive."""

    knows_secondaries = True
    """Whether the drive has secondary controllers; others have VFs that work as they are made."""

    def secondaries(self) -> list[dict[str, Any]]:
        """The secondary controllers as they are."""
        found: list[dict[str, Any]] = json.loads(self._state.read_text())
        return found

    @property
    def _state(self) -> Path:
        return self.tree.path(f"{self.tree.device_path(DRIVE)}/{_STATE}")

    def _remove_vfs(self, pf: str) -> None:
        super()._remove_vfs(pf)
        if pf == DRIVE:
            # They keep what they have, and are offline.
            self._save([{**entry, "state": 0} for entry in self.secondaries()])

    def _save(self, entries: list[dict[str, Any]]) -> None:
        self._state.write_text(json.dumps(entries))

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        if argv[0] != "nvme":
            return super()._run(argv, timeout, stdin)
        self.commands.append(list(argv))
        assert argv[2] == "/dev/nvme3", argv
        if list(argv[1:2]) == ["list-secondary"]:
            assert list(argv[3:]) == ["-o", "json"]
            if not self.knows_secondaries:
                return Completed(tuple(argv), 1, "", "NVMe status: Invalid Field in Command(0x2)\n")
            return Completed(tuple(argv), 0, json.dumps(self._listed(), indent=2), "")
        assert argv[1] == "virt-mgmt", argv
        assert list(argv[3::2]) == ["-c", "-r", "-a", "-n"], argv
        refused = self._manage(*(int(word) for word in argv[4::2]))
        return Completed(tuple(argv), 1 if refused else 0, "", f"NVMe status: {refused}\n" if refused else "")

    def _listed(self) -> dict[str, Any]:
        entries = [
            {
                "secondary-controller-identifier": entry["identifier"],
                "primary-controller-identifier": 0,
                "secondary-controller-state": entry["state"],
                "virtual-function-number": number + 1,
                "num-virtual-queues": entry["resources"][0],
                "num-virtual-interrupts": entry["resources"][1],
            }
            for number, entry in enumerate(self.secondaries())
        ]
        return {"num": len(entries), "secondary-controllers": entries}

    def _manage(self, identifier: int, resource: int, action: int, number: int) -> str:
        """What the drive says against it; empty for nothing."""
        entries = self.secondaries()
        index = next((at for at, entry in enumerate(entries) if entry["identifier"] == identifier), None)
        if index is None:
            return "Invalid Controller Identifier(0x11f)"
        entry = entries[index]
        if action == 8:
            if entry["state"]:
                return "Invalid Secondary Controller State(0x120)"
            others = sum(other["resources"][resource] for other in entries if other is not entry)
            if others + number > FLEXIBLE[resource]:
                return "Invalid Number of Controller Resources(0x121)"
            entry["resources"][resource] = number
        elif action == 9:
            made = int(self.attribute(f"{PCI_DEVICES}/{DRIVE}/sriov_numvfs") or 0)
            if entry["resources"][0] < 2 or entry["resources"][1] < 1 or index >= made:
                return "Invalid Secondary Controller State(0x120)"
            entry["state"] = 1
        else:
            assert action == 7
            entry["state"] = 0
        self._save(entries)
        return ""


def nvme_host(root: Path) -> NvmeKernel:
    """The hypervisor with a drive that can have two VFs; nvme-cli is installed."""
    kernel = sriov_host_with(NvmeKernel, root)
    tree = kernel.tree
    tree.add_device(DRIVE, ids="1b36:0010", pci_class=0x010802, driver="nvme", group=31, nvme="nvme3", totalvfs=2)
    for name, value in (("sriov_offset", "1"), ("sriov_stride", "1"), ("sriov_vf_device", "0010")):
        tree.set_attribute(DRIVE, name, value)
    kernel._reset_settings(DRIVE)
    kernel._save([{"identifier": number, "state": 0, "resources": [0, 0]} for number in (7, 9)])
    tree.write("/usr/sbin/nvme", "")
    tree.path("/usr/sbin/nvme").chmod(0o755)
    return kernel
