# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.names import PCI_IDS_FILES, PciNames

PCI_IDS = """#
#\tList of PCI ID's
#
0001  SafeNet (wrong ID)
8086  Intel Corporation
\t10c9  82576 Gigabit Network Connection
\t\t8086 a02c  Gigabit ET Quad Port Server Adapter
# 10ff  in a comment
\t10ca  82576 Virtual Function

8087  Somebody else
\t10cb  Not Intel's
ffff  Illegal Vendor ID


C 02  Network controller
\t00  Ethernet controller
"""


@pytest.mark.parametrize("path", PCI_IDS_FILES)
def test_names_are_found_wherever_the_file_is(tmp_path: Path, path: str) -> None:
    target = tmp_path / path.lstrip("/")
    target.parent.mkdir(parents=True)
    target.write_text(PCI_IDS)
    names = PciNames(Host(str(tmp_path)))
    assert names.vendor(0x8086) == "Intel Corporation"
    assert names.vendor(0x0001) == "SafeNet (wrong ID)"
    assert names.vendor(0xFFFF) == "Illegal Vendor ID"
    assert names.vendor(0x10CA) is None
    assert names.device(0x8086, 0x10C9) == "82576 Gigabit Network Connection"
    assert names.device(0x8086, 0x10CA) == "82576 Virtual Function"
    assert names.device(0x8086, 0x10CB) is None
    assert names.device(0x8086, 0x8086) is None
    assert names.device(0x8087, 0x10CB) == "Not Intel's"
    assert names.device(0xFFFF, 0x0000) is None


@pytest.mark.parametrize("text", [None, "", "8086", "8086  Intel Corporation", "\xff\xfe"])
def test_a_missing_or_short_file_has_no_names(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "usr/share/misc").mkdir(parents=True)
        (tmp_path / "usr/share/misc/pci.ids").write_text(text, encoding="latin-1")
    names = PciNames(Host(str(tmp_path)))
    assert names.vendor(0x8086) == ("Intel Corporation" if text and "Intel" in text else None)
    assert names.device(0x8086, 0x10CA) is None


def test_names_of_cards(tmp_path: Path) -> None:
    (tmp_path / "usr/share/misc").mkdir(parents=True)
    (tmp_path / "usr/share/misc/pci.ids").write_text(
        "8086  Intel\n"
        "\t10c9  82576\n"
        "\t\t8086 a02c  Quad Port Adapter\n"
        "\t\t103c 31ef  NC362i\n"
        "\t10ca  82576 Virtual Function\n"
        "# comment\n"
        "\t\t8086 a02c  Another\n"
        "8087  Other\n"
        "\t10c9  Something\n"
        "\t\t8086 0001  Not Intel's\n"
    )
    names = PciNames(Host(str(tmp_path)))
    assert names.subsystem(0x8086, 0x10C9, 0x8086, 0xA02C) == "Quad Port Adapter"
    assert names.subsystem(0x8086, 0x10C9, 0x103C, 0x31EF) == "NC362i"
    assert names.subsystem(0x8086, 0x10CA, 0x8086, 0xA02C) == "Another"
    assert names.subsystem(0x8086, 0x10C9, 0x8086, 0x0001) is None
    assert names.subsystem(0x1234, 0x10C9, 0x8086, 0x0001) is None
