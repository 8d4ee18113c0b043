# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.numbers import integer


@pytest.mark.parametrize(
    ("text", "base", "number"),
    [
        ("0", 10, 0),
        ("12", 10, 12),
        ("-1", 10, None),
        ("", 10, None),
        ("0x1f", 10, None),
        ("0x1f", 16, 31),
        ("1f", 16, 31),
        ("zz", 16, None),
        ("\x00", 10, None),
        (None, 10, None),
    ],
)
def test_numbers(text: str | None, base: int, number: int | None) -> None:
    assert integer(text, base) == number


@given(st.integers(0))
def test_a_number_is_read_as_the_kernel_writes_it(number: int) -> None:
    assert integer(f"{number}") == integer(f"0x{number:x}", 16) == number


@given(st.text())
def test_any_text_gives_a_number_from_0_on_or_none(text: str) -> None:
    for base in (10, 16):
        found = integer(text, base)
        assert found is None or found >= 0
