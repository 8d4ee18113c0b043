# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.modalias import ModuleAliases
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.variant import VariantDrivers
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

CONNECTX = "pci:v000015B3d0000101Esv000015B3sd00000001bc02sc00i00"
GENERIC = "vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci"
MLX5 = "vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci"


def drivers(tree: SysfsTree, modalias: str | None = CONNECTX) -> list[str] | None:
    return VariantDrivers(tree.host(), ModuleAliases(tree.host())).of(modalias)


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    return SysfsTree(tmp_path)


@pytest.mark.parametrize("lines", [(GENERIC, MLX5), (MLX5, GENERIC), (MLX5,)])
def test_the_variant_comes_before_the_driver_for_any_device(tree: SysfsTree, lines: tuple[str, ...]) -> None:
    assert drivers(tree.add_aliases(*lines)) == ["mlx5_vfio_pci"]


def test_another_device_has_no_variant(tree: SysfsTree) -> None:
    tree.add_aliases(GENERIC, MLX5, "pci:v00008086d000010CAsv*sd*bc*sc*i* igbvf")
    assert drivers(tree, "pci:v00008086d000010CAsv00008086sd0000A02Cbc02sc00i00") == []


def test_fewer_wildcards_are_better_and_of_equals_the_first(tree: SysfsTree) -> None:
    tree.add_aliases(
        GENERIC,
        "vfio_pci:v000015B3d*sv*sd*bc*sc*i* wide",
        "vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* first",
        "vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* second",
        "vfio_pci:v000015B3d0000101Esv000015B3sd00000001bc*sc*i* narrow",
        "vfio_pci:v000015B3d*sv*sd*bc02sc00i* wide",
    )
    assert drivers(tree) == ["narrow", "wide", "first", "second"]


def test_only_a_lone_star_is_a_wildcard(tree: SysfsTree) -> None:
    tree.add_aliases(GENERIC, "vfio_pci:v000015B3d0000101Esv*sd*bc02sc00i00* ends_in_a_star")
    assert drivers(tree) == []


def test_what_is_no_better_than_vfio_pci_is_not_preferred(tree: SysfsTree) -> None:
    assert drivers(tree.add_aliases(GENERIC, "vfio_pci:v*d*sv*sd*bc*sc*i* other")) == []
    assert drivers(tree.add_aliases("vfio_pci:v*d*sv*sd*bc*sc*i* other", GENERIC)) == ["other"]


def test_the_driver_of_a_loaded_module_is_what_it_says(tree: SysfsTree) -> None:
    tree.add_aliases(GENERIC, MLX5).link("/sys/module/mlx5_vfio_pci/drivers/pci:mlx5-vfio", "/sys/bus/pci/drivers/x")
    assert drivers(tree) == ["mlx5-vfio"]


def test_it_is_not_known_without_the_kernels_modules(tree: SysfsTree) -> None:
    assert drivers(tree) is None
    assert drivers(tree.add_aliases(GENERIC), None) is None


NAMES = ("v", "d", "sv", "sd", "bc", "sc", "i")
VALUES = ("000015B3", "0000101E", "000015B3", "00000001", "02", "00", "00")


def choice_of_libvirt(device: tuple[str, ...], lines: list[tuple[str, ...]]) -> int | None:
    """Which line ``virPCIDeviceFindBestVFIOVariant`` settles on: it walks through the file and keeps the best."""
    best, fewest = None, len(NAMES) + 1
    for number, line in enumerate(lines):
        if all(value in ("*", own) for value, own in zip(line, device)) and line.count("*") < fewest:
            best, fewest = number, line.count("*")
    return best


@given(
    st.lists(
        st.tuples(*(st.sampled_from((value, "*", "F" * len(value))) for value in VALUES[:-1]), st.just("*")),
        max_size=10,
    )
)
def test_the_first_is_always_the_one_libvirt_chooses(lines: list[tuple[str, ...]]) -> None:
    texts = ["vfio_pci:" + "".join(map("".join, zip(NAMES, line))) for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        tree = SysfsTree(Path(folder)).add_aliases(*(f"{text} d{number}" for number, text in enumerate(texts)))
        found = drivers(tree)
    chosen = choice_of_libvirt(VALUES, lines)
    assert found is not None
    assert found[:1] == ([] if chosen is None else [f"d{chosen}"])
    assert len(found) == len(set(found))
