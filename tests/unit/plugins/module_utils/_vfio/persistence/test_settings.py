# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files for the next boot, as values, and what is done to get there."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.plan import WriteFile
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence import images
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.images import Cargo, Image
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.initramfs_tools import HOOK_PATH
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.rules import (
    RULES_PATH,
    PersistentDevice,
    render,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.settings import BootSettings
from ansible_collections.kvm.passthrough.tests.unit.support.initramfs import cpio
from ansible_collections.kvm.passthrough.tests.unit.support.kernel import FakeKernel
from ansible_collections.kvm.passthrough.tests.unit.support.machine import KERNELS, hypervisor
from ansible_collections.kvm.passthrough.tests.unit.support.systemd_boot import STUB_INFO

VF = PersistentDevice(PciAddress.parse("0000:01:10.0"), 0x8086, 0x10CA, 0x8086, 0xA03C, "vfio-pci", ("igbvf",))
OTHER = PersistentDevice(PciAddress.parse("0000:41:00.2"), 0x15B3, 0x101E, 0x15B3, 0x0001, "mlx5_vfio_pci")
RULES_END = "udev/rules.d/70-kvm-passthrough.rules"


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return hypervisor(tmp_path)


def targets(kernel: FakeKernel, *devices: PersistentDevice) -> list[str]:
    settings = BootSettings.observe(kernel)
    wanted = settings.wanted(devices, None)
    actions = [*settings.plan_first(wanted), *settings.plan_last(wanted)]
    for action in actions:
        action.apply(kernel)
    return [action.target for action in actions]


def test_a_second_plan_is_empty(kernel: FakeKernel) -> None:
    kernel.drivers["mlx5_vfio_pci"] = frozenset()
    assert targets(kernel) == []
    assert len(targets(kernel, VF)) == 5
    assert targets(kernel, VF) == []
    assert BootSettings.observe(kernel).devices == (VF,)
    assert len(targets(kernel, VF, OTHER)) == 4  # the new device has no driver of the host that modprobe is told of
    assert "manual_add_modules mlx5_vfio_pci vfio-pci\n" in kernel.read_text(HOOK_PATH)
    assert len(targets(kernel)) == 5
    assert targets(kernel) == []


def test_a_file_that_somebody_edited_is_set_right(kernel: FakeKernel) -> None:
    targets(kernel, VF)
    kernel.tree.write(RULES_PATH, render([VF]) + "# mine\n")
    assert targets(kernel, VF) == [RULES_PATH]
    kernel.tree.path(HOOK_PATH).chmod(0o644)  # such a hook does nothing
    assert targets(kernel, VF) == [HOOK_PATH]


def test_an_image_that_somebody_else_built_is_looked_into(kernel: FakeKernel) -> None:
    """With the files of an earlier moment, say, or by a tool that knows nothing of them."""
    targets(kernel, VF)
    assert kernel.initramfs is not None
    kernel.run(["update-initramfs", "-u", "-k", "all"])
    assert targets(kernel, VF) == []
    kernel.tree.write(f"/boot/initrd.img-{KERNELS[0]}", "")
    kernel.tree.path(f"/boot/initrd.img-{KERNELS[0]}").write_bytes(cpio({"init": b""}))
    assert targets(kernel, VF) == ["initramfs"]
    assert targets(kernel, VF) == []


def test_a_kernel_that_was_installed_without_its_settings(kernel: FakeKernel) -> None:
    targets(kernel, VF)
    kernel.tree.write("/lib/modules/6.12.1/modules.dep", "kernel/vfio-pci.ko.zst:\n")
    assert targets(kernel, VF) == []  # it has no image: it boots without
    kernel.tree.path("/boot/initrd.img-6.12.1").write_bytes(cpio({"init": b""}))
    kernel.tree.write("/lib/modules/6.12.1/modules.dep", "kernel/vfio-pci.ko.xz:\n")
    assert targets(kernel, VF) == ["initramfs"]
    assert targets(kernel, VF) == []


def test_the_hook_is_a_shell_script_that_initramfs_tools_can_ask(kernel: FakeKernel) -> None:
    settings = BootSettings.observe(kernel)
    [action] = [each for each in settings.plan_last(settings.wanted([VF], None)) if each.target == HOOK_PATH]
    assert isinstance(action, WriteFile)
    action.apply(kernel)
    for arguments in (["-n", kernel.path(HOOK_PATH)], [kernel.path(HOOK_PATH), "prereqs"]):
        done = subprocess.run(["/bin/sh", *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
    assert kernel.tree.path(HOOK_PATH).stat().st_mode & 0o777 == 0o755


RULES = {f"usr/lib/{RULES_END}": b"rules"}


@pytest.mark.parametrize(
    ("files", "cargo", "wrong"),
    [
        ({**RULES, "lib/modules/V/a/vfio-pci.ko.zst": b""}, Cargo({RULES_END: b"rules"}, ("vfio-pci",)), []),
        ({f"lib/{RULES_END}": b"rules", "vfio_pci.ko": b""}, Cargo({RULES_END: b"rules"}, ("vfio-pci",)), []),
        ({f"etc/{RULES_END}": b"rules", "a/vfio-pci-core.ko": b""}, Cargo({}, ("vfio-pci",)), ["lacks the module"]),
        ({"lib/modules/V/a/vfio-pci.ko": b""}, Cargo({RULES_END: b"rules"}, ("vfio-pci",)), [f"lacks {RULES_END}"]),
        ({f"lib/{RULES_END}": b"old"}, Cargo({RULES_END: b"rules"}, ()), [f"has another {RULES_END}"]),
        ({**RULES, f"etc/{RULES_END}": b"old"}, Cargo({RULES_END: b"rules"}, ()), [f"has another {RULES_END}"]),
        (RULES, Cargo({RULES_END: b""}, ()), [f"still has {RULES_END}"]),
        ({"init": b""}, Cargo({RULES_END: b""}, ()), []),
        ({"init": b""}, Cargo({RULES_END: b"rules"}, ("vfio-pci",)), [f"lacks {RULES_END}", "lacks the module"]),
    ],
)  # fmt: skip
def test_images_are_looked_into(kernel: FakeKernel, files: dict[str, bytes], cargo: Cargo, wrong: list[str]) -> None:
    kernel.tree.path("/boot/image").write_bytes(cpio(files))
    found = images.complaints(kernel, [Image(KERNELS[0], "/boot/image")], cargo, "update-initramfs")
    assert [problem.code for problem in found] == (["initramfs_incomplete"] if wrong else [])
    for text in wrong:
        assert text in found[0].message


@pytest.mark.parametrize("builtin", [True, False])
def test_a_kernel_that_has_the_driver_built_in_or_not_at_all(kernel: FakeKernel, builtin: bool) -> None:
    kernel.tree.write(f"/lib/modules/{KERNELS[0]}/modules.dep", "kernel/drivers/net/igb.ko:\n")
    kernel.tree.write(f"/lib/modules/{KERNELS[0]}/modules.builtin", "kernel/vfio-pci.ko\n" if builtin else "")
    assert len(targets(kernel, VF)) == 5


def test_images_of_every_known_layout_are_found(kernel: FakeKernel) -> None:
    version = KERNELS[0]
    kernel.tree.path("/boot/efi/0123abcd").mkdir(parents=True)
    paths = [
        f"/boot/0123abcd/{version}/initrd",
        f"/boot/initramfs-{version}.img",
        f"/boot/initrd-{version}",
        f"/efi/debian/{version}/initrd.img-{version}",
    ]
    for path in paths:
        kernel.tree.write(path, "")
    for path in (
        f"/boot/initramfs-{version}kdump.img",
        "/boot/initramfs-0-rescue-0123.img",
        f"/efi/debian/{version}/linux",
    ):
        kernel.tree.write(path, "")  # none of ours to build
    kernel.tree.link("/boot/initrd.img-link", f"initrd.img-{version}")
    found = [image.path for image in images.find(kernel) if image.version == version]
    assert sorted(found) == sorted([*paths, f"/boot/initrd.img-{version}"])


@pytest.mark.parametrize("text", ["{", "[]", '{"sources": 7}', '"x"'])
def test_a_spoilt_stamp_means_that_images_are_built(kernel: FakeKernel, text: str) -> None:
    targets(kernel, VF)
    kernel.tree.write("/var/lib/kvm-passthrough/initramfs.json", text)
    assert targets(kernel, VF) == ["initramfs"]


def test_what_cannot_be_persistent(kernel: FakeKernel) -> None:
    def obstacle(**paths: Any) -> Any:
        for path, text in paths.items():
            kernel.tree.write(path, text)
        return BootSettings.observe(kernel).obstacle

    assert obstacle() is None
    kernel.tree.write("/boot/efi/EFI/Linux/debian-6.1.efi", "MZ")
    assert obstacle() is None  # it is there, but the host did not boot it
    found = obstacle(**{STUB_INFO: "systemd-stub"})
    assert found.code == "persistence_unsupported"
    assert "/boot/efi/EFI/Linux/debian-6.1.efi" in found.message
    assert "ostree" in obstacle(**{"/run/ostree-booted": ""}).message
