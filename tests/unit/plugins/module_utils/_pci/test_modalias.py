# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.modalias import ModuleAliases, parse
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

IGBVF = "pci:v00008086d000010CAsv00008086sd0000A02Cbc02sc00i00"
NVME = "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02"

LINES = (
    "pci:v00008086d000010CAsv*sd*bc*sc*i* igbvf",
    "pci:v00008086d00001520sv*sd*bc*sc*i* igbvf",
    "pci:v*d*sv*sd*bc01sc08i02* nvme",
    "usb:v1B36p0010d*dc*dsc*dp*ic*isc*ip*in* some_usb",
    "vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci",
    "vfio_pci:v00008086d000010CAsv*sd*bc*sc*i* igbvf_vfio_pci",
    "char-major-10-200 tun",
)


def aliases(tree: SysfsTree) -> ModuleAliases:
    return ModuleAliases(tree.host())


def test_modules_are_found_by_ids_and_by_class(tmp_path: Path) -> None:
    found = aliases(SysfsTree(tmp_path).add_aliases(*LINES))
    assert found.modules(IGBVF) == ["igbvf"]
    assert found.modules(NVME) == ["nvme"]
    assert found.modules("pci:v00001234d000011E8sv00001AF4sd00001100bc00scFFi00") == []


def test_drivers_for_user_space_are_a_list_of_their_own(tmp_path: Path) -> None:
    lines = aliases(SysfsTree(tmp_path).add_aliases(*LINES)).for_vfio
    assert lines is not None
    assert [(line.module, line.wildcards) for line in lines] == [("vfio_pci", 7), ("igbvf_vfio_pci", 5)]


def test_a_module_is_named_once_and_each_module_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = ("pci:v000010DEd*sv*sd*bc03sc00i00* nouveau", "pci:v000010DEd*sv*sd*bc03sc*i* nouveau")
    card = "pci:v000010DEd00001EB8sv000010DEsd000012A2bc03sc00i00"
    found = aliases(SysfsTree(tmp_path).add_aliases(*lines, "pci:v000010DEd*sv*sd*bc03sc*i* nvidia"))
    assert found.modules(card) == ["nouveau", "nvidia"]


def test_without_the_file_or_the_modalias_nothing_is_known(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    assert aliases(tree).modules(IGBVF) is None
    assert aliases(tree).for_vfio is None
    tree.add_aliases(*LINES)
    assert aliases(tree).modules(None) is None
    assert aliases(tree).modules("usb:v1B36p0010") is None


def test_the_file_is_read_once(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path).add_aliases(*LINES)
    found = aliases(tree)
    assert found.modules(IGBVF) == ["igbvf"]
    tree.add_aliases()
    assert found.modules(NVME) == ["nvme"]
    assert found.for_vfio


HEX = st.sampled_from(("0000", "8086", "10CA"))


@st.composite
def fields(draw: st.DrawFn, wild: bool = False) -> str:
    """A modalias; ``wild``: any field may be a star, and a star may follow, as in modules.alias."""
    values = [f"0000{draw(HEX)}" for _each in range(4)] + [draw(st.sampled_from(("00", "02"))) for _each in range(3)]
    if wild:
        values = [draw(st.sampled_from((value, "*"))) for value in values]
        values[-1] += "" if values[-1] == "*" else draw(st.sampled_from(("", "*")))
    names = ("v", "d", "sv", "sd", "bc", "sc", "i")
    return "".join(name + value for name, value in zip(names, values))


@given(device=fields(), patterns=st.lists(fields(wild=True), max_size=8))
def test_what_matches_is_what_the_module_loader_would_match(device: str, patterns: list[str]) -> None:
    """libkmod compares a device's modalias with every pattern by fnmatch(3)."""
    with tempfile.TemporaryDirectory() as folder:
        tree = SysfsTree(Path(folder)).add_aliases(*(f"pci:{each} m{at}" for at, each in enumerate(patterns)))
        found = ModuleAliases(tree.host()).modules(f"pci:{device}")
    assert found is not None
    assert sorted(found) == sorted(f"m{at}" for at, each in enumerate(patterns) if fnmatchcase(device, each))


@given(st.text(alphabet="pcivdsb0A*:\n ", max_size=40))
def test_anything_but_a_modalias_is_none(text: str) -> None:
    assert parse(text) is None or text.startswith("pci:v")


@given(st.lists(st.text(alphabet="alis pci:vdb0A*\nx", max_size=60), max_size=5))
def test_garbage_in_the_file_is_no_error(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = ModuleAliases(SysfsTree(Path(folder)).add_aliases(*lines, *LINES).host())
        assert "igbvf" in (found.modules(IGBVF) or [])
