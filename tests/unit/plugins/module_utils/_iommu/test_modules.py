# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.machine import Machine
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.modules import _LISTED, KernelModules, ModuleState
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


def state(tree: SysfsTree, name: str = "vfio_pci") -> ModuleState:
    return KernelModules(Machine(tree.host())).state(name)


@pytest.mark.parametrize("suffix", ["", ".xz", ".gz", ".zst"])
def test_a_module_that_can_be_loaded(tree: SysfsTree, suffix: str) -> None:
    tree.add_modules(available=[f"kernel/drivers/vfio/pci/vfio-pci.ko{suffix}"])
    assert state(tree) == ModuleState(loaded=False, built_in=False, available=True)


def test_a_module_that_is_only_needed_by_name_of_another_is_not_there(tree: SysfsTree) -> None:
    tree.write(
        f"/lib/modules/{tree.kernel}/modules.dep",
        "kernel/a/mlx5-vfio-pci.ko: kernel/b/vfio-pci.ko\nkernel/c/vfio-pci-core.ko:\n",
    )
    assert state(tree).available is False
    assert state(tree, "vfio_pci_core").available is True


def test_a_loaded_module(tree: SysfsTree) -> None:
    tree.path("/sys/module/vfio_pci").mkdir()
    assert state(tree) == ModuleState(loaded=True, built_in=False, available=True)


@pytest.mark.parametrize(
    ("config", "built_in", "available"),
    [
        ("CONFIG_VFIO_PCI=y\n", True, True),
        ("CONFIG_VFIO_PCI=m\n", False, None),
        ("CONFIG_VFIO=y\n", False, False),
        (None, False, None),
    ],
)
def test_without_lists_of_modules_the_kernel_says_how_it_was_built(
    tree: SysfsTree, config: str | None, built_in: bool, available: bool | None
) -> None:
    shutil.rmtree(tree.path("/lib/modules"))
    if config is not None:
        tree.write(f"/boot/config-{tree.kernel}", config)
    assert state(tree) == ModuleState(False, built_in, available)
    assert state(tree, "some_module") == ModuleState(False, False, None)


NAMES = st.text(st.sampled_from("abcxyz019_-"), min_size=1)


@given(st.lists(NAMES), st.booleans(), st.sampled_from(["", ".xz", ".zst"]))
def test_every_listed_name_is_found_and_no_other(names: list[str], dependencies: bool, suffix: str) -> None:
    after = f": kernel/other-module.ko{suffix}" if dependencies else ""
    text = "".join(f"kernel/drivers/a-b/{name}.ko{suffix}{after}\n" for name in names)
    assert _LISTED.findall(text) == names
