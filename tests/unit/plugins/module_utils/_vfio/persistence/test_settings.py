# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files for the next boot, as values, and what is done to get there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.plan import WriteFile
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.initramfs_tools import (
    HOOK_PATH,
    InitramfsTools,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.rules import (
    RULES_PATH,
    PersistentDevice,
    render,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.settings import BootSettings
from ansible_collections.kvm.passthrough.tests.unit.support.kernel import FakeKernel
from ansible_collections.kvm.passthrough.tests.unit.support.machine import KERNELS, hypervisor

VF = PersistentDevice(PciAddress.parse("0000:01:10.0"), 0x8086, 0x10CA, 0x8086, 0xA03C, "vfio-pci")
OTHER = PersistentDevice(PciAddress.parse("0000:41:00.2"), 0x15B3, 0x101E, 0x15B3, 0x0001, "mlx5_vfio_pci")


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return hypervisor(tmp_path)


def targets(kernel: FakeKernel, *devices: PersistentDevice) -> list[str]:
    actions = BootSettings.observe(kernel).plan(devices)
    for action in actions:
        action.apply(kernel)
    return [action.target for action in actions]


def test_a_second_plan_is_empty(kernel: FakeKernel) -> None:
    kernel.drivers["mlx5_vfio_pci"] = frozenset()
    assert targets(kernel) == []
    assert len(targets(kernel, VF)) == 4
    assert targets(kernel, VF) == []
    assert BootSettings.observe(kernel).devices == (VF,)
    assert len(targets(kernel, VF, OTHER)) == 4
    assert "manual_add_modules mlx5_vfio_pci vfio-pci\n" in kernel.read_text(HOOK_PATH)
    assert len(targets(kernel)) == 4
    assert targets(kernel) == []


def test_a_file_that_somebody_edited_is_set_right(kernel: FakeKernel) -> None:
    targets(kernel, VF)
    kernel.tree.write(RULES_PATH, render([VF]) + "# mine\n")
    assert targets(kernel, VF) == [RULES_PATH]
    kernel.tree.path(HOOK_PATH).chmod(0o644)  # such a hook does nothing
    assert targets(kernel, VF) == [HOOK_PATH]


def test_the_hook_is_a_shell_script_that_initramfs_tools_can_ask(kernel: FakeKernel) -> None:
    [action] = [action for action in BootSettings.observe(kernel).plan([VF]) if action.target == HOOK_PATH]
    assert isinstance(action, WriteFile)
    action.apply(kernel)
    for arguments in (["-n", kernel.path(HOOK_PATH)], [kernel.path(HOOK_PATH), "prereqs"]):
        done = subprocess.run(["/bin/sh", *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
    assert kernel.tree.path(HOOK_PATH).stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("names", "drivers", "what"),
    [
        (["usr/lib/udev/rules.d/70-kvm-passthrough.rules", "lib/modules/V/a/vfio-pci.ko.zst"], ["vfio-pci"], None),
        (["lib/udev/rules.d/70-kvm-passthrough.rules", "lib/modules/V/a/vfio_pci.ko"], ["vfio-pci"], None),
        (["lib/udev/rules.d/70-kvm-passthrough.rules", "a/vfio-pci-core.ko"], ["vfio-pci"], "lacks the module"),
        (["lib/modules/V/a/vfio-pci.ko"], ["vfio-pci"], "lacks the udev rules"),
        (["lib/udev/rules.d/70-kvm-passthrough.rules"], [], "still has the udev rules"),
        (["init"], [], None),
    ],
)
def test_images_are_looked_into(kernel: FakeKernel, names: list[str], drivers: list[str], what: str | None) -> None:
    kernel.tree.write(f"/boot/initrd.img-{KERNELS[0]}", "".join(f"{name}\n" for name in names))
    kernel.tree.path(f"/boot/initrd.img-{KERNELS[1]}").unlink()  # installed without an image
    if what is None:
        InitramfsTools().check(kernel, drivers)
        return
    with pytest.raises(PassthroughError, match=what) as caught:
        InitramfsTools().check(kernel, drivers)
    assert caught.value.code == "initramfs_incomplete"


def test_a_kernel_that_has_the_driver_built_in_or_not_at_all(kernel: FakeKernel) -> None:
    for version in KERNELS:
        kernel.tree.write(f"/lib/modules/{version}/modules.dep", "kernel/drivers/net/igb.ko:\n")
        kernel.tree.write(f"/boot/initrd.img-{version}", "lib/udev/rules.d/70-kvm-passthrough.rules\n")
    InitramfsTools().check(kernel, ["vfio-pci"])
