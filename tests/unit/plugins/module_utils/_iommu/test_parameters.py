# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import CommandLine
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu import parameters

ITEMS = st.sampled_from(
    ["on", "off", "igfx_off", "strict", "sm_on", "pt", "soft", "force", "", "offline", "on1", "usedac"]
)
VALUES = st.lists(ITEMS, max_size=4).map(",".join)
LINES = st.lists(
    st.one_of(
        st.builds(
            "{}={}".format, st.sampled_from(["intel_iommu", "intel-iommu", "amd_iommu", "iommu", "intremap"]), VALUES
        ),
        st.sampled_from(["nointremap", "quiet", "intel_iommu", "xintel_iommu=off", "--"]),
    ),
    max_size=6,
)


def walk(value: str) -> list[str]:
    """The places of a value at which the kernel's loop stops: str += strcspn(str, ","), then over the commas."""
    found = []
    position = 0
    while position < len(value):
        found.append(value[position:])
        while position < len(value) and value[position] != ",":
            position += 1
        while position < len(value) and value[position] == ",":
            position += 1
    return found


@given(LINES)
def test_verdicts_are_those_of_the_kernels_loops(words: list[str]) -> None:
    line = CommandLine.parse(" ".join(words))
    intel = remap = None
    amd_off = iommu_off = False
    for word in words[: words.index("--")] if "--" in words else words:
        name, _unused, value = word.replace("-", "_").partition("=")
        for rest in walk(value):
            if name == "iommu" and rest.startswith("usedac"):
                break
            on, off = rest.startswith("on"), rest.startswith("off")
            if name == "intel_iommu":
                intel = True if on else False if off else intel
            elif name == "intremap":
                remap = True if on else False if off else remap
            elif name == "amd_iommu":
                amd_off = amd_off or off
            elif name == "iommu":
                iommu_off = iommu_off or off
        if name == "nointremap":
            remap = False
    assert parameters.intel_iommu(line).on is intel
    assert parameters.interrupt_remapping(line).on is remap
    assert (parameters.amd_iommu(line).on is False) == amd_off
    assert (parameters.iommu(line).on is False) == iommu_off


@given(st.lists(VALUES, max_size=3))
def test_taking_off_out_leaves_no_off_and_keeps_the_rest(values: list[str]) -> None:
    line = CommandLine.parse(" ".join(f"iommu={value}" for value in values))
    present, absent = parameters.without_off(line.named("iommu"))
    if parameters.iommu(line).on is None:
        assert (present, absent) == ([], [])
        return
    assert bool(present) != bool(absent)
    after = CommandLine.parse(" ".join(present))
    assert parameters.iommu(after).on is None
    if present:
        assert parameters.other_items(after.named("iommu")) == parameters.other_items(line.named("iommu"))
    else:
        assert parameters.other_items(line.named("iommu")) == []


@pytest.mark.parametrize(
    ("line", "relevant"),
    [
        ("root=/dev/vda1 intel_iommu=on quiet", ["intel_iommu=on"]),
        ("vfio-pci.ids=8086:10ca vfio_pci.disable_vga=1", ["vfio-pci.ids=8086:10ca", "vfio_pci.disable_vga=1"]),
        ("kvm.ignore_msrs=1 kvm_intel.nested=1 kvmx=1", ["kvm.ignore_msrs=1", "kvm_intel.nested=1"]),
        ("iommu.passthrough=1 pci=realloc nointremap", ["iommu.passthrough=1", "pci=realloc", "nointremap"]),
        ("my_iommu=on -- intel_iommu=off", []),
    ],
)
def test_relevant_parameters(line: str, relevant: list[str]) -> None:
    assert parameters.relevant(CommandLine.parse(line)) == relevant


@given(st.text("yYtTnNfFoO01x", max_size=4))
def test_booleans_are_read_as_the_kernel_reads_them(value: str) -> None:
    # kstrtobool() looks at the first character and, for "o", at the second.
    by_first = {"y": True, "t": True, "1": True, "n": False, "f": False, "0": False}
    lower = value.lower()
    expected = {"n": True, "f": False}.get(lower[1:2]) if lower[:1] == "o" else by_first.get(lower[:1])
    assert parameters.boolean(value) is expected


def test_no_value_is_no_boolean() -> None:
    assert parameters.boolean(None) is None


@given(st.lists(st.lists(st.sampled_from(["a", "b", "off", "on", "offset"]), max_size=4), max_size=3))
def test_taking_items_out(values: list[list[str]]) -> None:
    line = CommandLine.parse(" ".join(f"pci={','.join(value)}" for value in values))
    present, absent = parameters.without_items(line.named("pci"), frozenset(("off",)))
    rest = [item for value in values for item in value if item != "off"]
    if not any("off" in value for value in values):
        assert (present, absent) == ([], [])
    elif rest:
        assert (present, absent) == ([f"pci={','.join(dict.fromkeys(rest))}"], [])
    else:
        assert not present
        assert set(absent) == {f"pci={','.join(value)}" for value in values if "off" in value}
