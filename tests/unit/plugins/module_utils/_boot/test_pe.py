# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._boot import pe
from ansible_collections.kvm.passthrough.tests.unit.support.systemd_boot import portable_executable

IMAGE = portable_executable({".cmdline": "root=x ö\0\0".encode(), ".linux": b"\0kernel" * 200})


def test_sections() -> None:
    image = pe.parse(IMAGE)
    assert image.text(".cmdline") == "root=x ö"
    assert image.sections[".linux"] == b"\0kernel" * 200
    assert image.text(".initrd") == ""
    assert not image.is_signed
    assert pe.parse(portable_executable({".linux": b""}, signed=True)).is_signed


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "MZ"),
        (b"MZ", "cut off"),
        (b"MZ" + bytes(62), "no PE header"),
        (IMAGE[:300], "cut off"),
        (IMAGE[:-600], "beyond its end"),
        (IMAGE.replace(b"PE\0\0\x64\x86\x02\x00", b"PE\0\0\x64\x86\xff\xff"), "65535 sections"),
    ],
)
def test_damaged_files(data: bytes, reason: str) -> None:
    with pytest.raises(pe.NotPortableExecutable, match=reason):
        pe.parse(data)


@given(st.data())
def test_no_bytes_lead_to_another_error(data: st.DataObject) -> None:
    content = bytearray(IMAGE[: data.draw(st.integers(0, len(IMAGE)))])
    for _unused in range(data.draw(st.integers(0, 8))):
        if content:
            content[data.draw(st.integers(0, min(len(content), 600) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(pe.NotPortableExecutable):
        pe.parse(bytes(content))
