# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.element import libvirt_number


@pytest.mark.parametrize(
    ("text", "number"),
    [("10", 10), ("010", 8), ("0x10", 16), ("0X1f", 31), ("0", 0), ("00", 0), ("+7", 7), (" 7", 7), ("0x0a", 10)],
)
def test_numbers_are_read_as_libvirt_reads_them(text: str, number: int) -> None:
    assert libvirt_number(text) == number


@pytest.mark.parametrize("text", ["", " ", "0x", "09", "1a", "-1", "7 ", "1.0", "ten", "\uff11"])
def test_what_libvirt_refuses_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"no number|invalid literal"):
        libvirt_number(text)


def strtoul(text: str) -> int | None:
    """What virStrToLong_uip makes of a text: strtoul with base 0, nothing left over, no minus sign."""
    libc = ctypes.CDLL(None)
    libc.strtoul.restype = ctypes.c_ulong
    buffer = ctypes.create_string_buffer(text.encode())
    end = ctypes.c_char_p()
    value: int = libc.strtoul(buffer, ctypes.byref(end), 0)
    return None if end.value or not text.strip() or "-" in text else value


@given(st.text(alphabet="0123456789abcdefxX+ ", min_size=1, max_size=6))
def test_numbers_are_those_of_strtoul(text: str) -> None:
    found: Any
    try:
        found = libvirt_number(text)
    except ValueError:
        found = None
    assert found == strtoul(text)
