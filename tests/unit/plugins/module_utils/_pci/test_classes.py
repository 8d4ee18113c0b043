# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.doc_fragments.selector import ModuleDocFragment
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.classes import CLASS_NAMES, ClassPrefix, class_name


@given(st.integers(0, 0xFFFFFF), st.sampled_from([2, 4, 6]), st.sampled_from(["", "0x"]), st.booleans())
def test_a_class_begins_with_each_of_its_prefixes(code: int, length: int, prefix: str, upper: bool) -> None:
    digits = f"{code:06x}"[:length]
    found = ClassPrefix.parse(prefix + (digits.upper() if upper else digits))
    assert found.matches(code)
    assert not found.matches(code ^ 1 << (24 - 4 * length))


@pytest.mark.parametrize(
    "value", ["", "2", "020", "02000", "0200000", "0x", "0x2", "xx", "modem", None, 2, ["02"], "02 00"]
)
def test_what_is_no_class(value: Any) -> None:
    with pytest.raises(PassthroughError) as caught:
        ClassPrefix.parse(value)
    assert caught.value.code == "pci_class_invalid"
    assert "ethernet" in str(caught.value)


def test_no_name_looks_like_a_class_code() -> None:
    assert not [name for name in CLASS_NAMES if re.fullmatch(r"([0-9a-f]{2}){1,3}", name)]


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_every_name_is_understood_and_documented(name: str) -> None:
    assert ClassPrefix.parse(f" {name.upper()} ").digits == CLASS_NAMES[name]
    assert f"C({name})" in ModuleDocFragment.GRAMMAR


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0x020000, "Ethernet controller"),
        (0x010802, "Non-Volatile memory controller"),
        (0x028000, "Network controller"),
        (0x0C0330, "USB controller"),
        (0xFF0000, "Unassigned class"),
        (0x770000, "Class 7700"),
    ],
)
def test_what_a_class_is_called(code: int, name: str) -> None:
    assert class_name(code) == name
