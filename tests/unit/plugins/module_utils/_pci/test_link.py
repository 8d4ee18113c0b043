# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.link import link_speed, link_width


@pytest.mark.parametrize(
    ("text", "speed"),
    [
        ("2.5 GT/s PCIe", "2.5 GT/s"),
        ("32.0 GT/s PCIe", "32.0 GT/s"),
        ("8.0 GT/s", "8.0 GT/s"),
        ("8 GT/s", "8.0 GT/s"),
        ("Unknown", None),
        ("Unknown speed", None),
        ("", None),
        (None, None),
    ],
)
def test_speeds(text: str | None, speed: str | None) -> None:
    assert link_speed(text) == speed


@pytest.mark.parametrize(
    ("text", "width"),
    [("1", 1), ("16", 16), ("0", None), ("255", None), ("-1", None), ("", None), ("x8", None), (None, None)],
)
def test_widths(text: str | None, width: int | None) -> None:
    assert link_width(text) == width


@given(st.text())
def test_any_text_gives_an_answer(text: str) -> None:
    assert link_speed(text) is None or "GT/s" in text
    assert link_width(text) is None or text.strip()
