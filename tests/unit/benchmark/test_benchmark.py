# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus
from ansible_collections.kvm.passthrough.tests.benchmark.__main__ import what_differs
from ansible_collections.kvm.passthrough.tests.benchmark.measure import Command, CommandFailed, in_turn, ratio
from ansible_collections.kvm.passthrough.tests.benchmark.scan import fields
from ansible_collections.kvm.passthrough.tests.benchmark.tree import FUNCTIONS_PER_CARD, build

RECORDS = "Slot:\t0000:00:01.0\nDriver:\tigb\n\nSlot:\t0000:00:02.0\n\n"


def test_modules_are_no_difference() -> None:
    assert what_differs(RECORDS.replace("igb\n", "igb\nModule:\tigb\nModule:\tother\n"), RECORDS) is None


@pytest.mark.parametrize(
    "other", ["", RECORDS.replace("igb", "e1000e"), RECORDS + "Slot:\t0000:00:03.0\n\n", RECORDS.partition("\n\n")[0]]
)
def test_anything_else_is_one(other: str) -> None:
    assert what_differs(RECORDS, other) is not None


def test_runs_in_turn(tmp_path: Path) -> None:
    log = tmp_path / "log"
    commands = {name: Command(["sh", "-c", f"echo {name} >>{log}"]) for name in ("a", "b")}
    seconds = in_turn(commands, 2)
    assert log.read_text().split() == ["a", "b"] * 3
    assert [len(values) for values in seconds.values()] == [2, 2]
    assert ratio([2.0, 9.0, 4.0], [1.0, 1.0, 1.0]) == 4.0
    with pytest.raises(CommandFailed, match="status 3"):
        in_turn({"bad": Command(["sh", "-c", "exit 3"])}, 1)


@pytest.mark.skipif(not Path("/usr/share/misc/pci.ids").exists(), reason="needs a pci.ids to copy")
def test_the_machine_that_is_measured(tmp_path: Path) -> None:
    bus = Bus(build(tmp_path, FUNCTIONS_PER_CARD).host())
    assert len(bus.devices()) == FUNCTIONS_PER_CARD
    port, first, second, vf, *_more = bus.devices()
    assert port.is_bridge
    assert (len(first.vfs), len(second.vfs), first.physical_slot) == (54, 7, "1")
    assert (vf.pf, vf.vf_index) == (first.address, 0)
    assert first.serial is not None
    assert len({device.iommu_group for device in bus.devices()}) == FUNCTIONS_PER_CARD
    assert "PhySlot:\t1" in fields(first, bus)
