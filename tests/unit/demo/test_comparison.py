# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.demo import comparison
from tests.lab import PciFunction

INVENTORY = Path(comparison.__file__).parent / "inventory" / "group_vars" / "kvm_hosts.yml"
EHCI = PciFunction("0000:00:1a.0", "0x0c0320", "8086:293c")
VF = PciFunction("0000:01:00.0", "0x020000", "8086:10ca")
FUNCTIONS = [PciFunction(f"0000:05:00.{number}", "0x00ff00", "1234:11e8") for number in (0, 3)]
OWN = [PciFunction("0000:00:00.0", "0x060000", "8086:29c0"), PciFunction("0000:00:01.0", "0x060400", "1b36:000c")]
RIGHT = [*OWN, EHCI, VF, *FUNCTIONS]


@pytest.fixture
def asked() -> list[comparison.Asked]:
    return comparison.read_inventory(yaml.safe_load(INVENTORY.read_text(encoding="utf-8")), "guest2")


def problems(asked: list[comparison.Asked], functions: list[PciFunction]) -> dict[str, list[str]]:
    return {row.asked.name: row.problems for row in comparison.compare(asked, functions) if row.problems}


def test_what_was_asked_for_is_found(asked: list[comparison.Asked]) -> None:
    rows = comparison.compare(asked, RIGHT)
    assert {row.asked.name: row.seen and row.seen.address for row in rows} == {
        "nic-vf": "0000:01:00.0",
        "quad-0": "0000:05:00.0",
        "quad-1": None,
        "quad-2": None,
        "quad-3": "0000:05:00.3",
        "usb-ehci": "0000:00:1a.0",
        "usb-uhci": None,
    }
    assert not any(row.problems for row in rows)


def test_the_bus_may_have_another_number_in_the_guest(asked: list[comparison.Asked]) -> None:
    moved = [PciFunction(each.address.replace("05:00", "07:00"), each.pci_class, each.ids) for each in FUNCTIONS]
    assert problems(asked, [*OWN, EHCI, VF, *moved]) == {}


def test_a_missing_function_is_found(asked: list[comparison.Asked]) -> None:
    found = problems(asked, [*OWN, EHCI, VF, FUNCTIONS[0]])
    assert found["quad-0"] == found["quad-3"] == ["it is missing in the guest"]


def test_functions_in_two_slots_are_not_what_was_asked_for(asked: list[comparison.Asked]) -> None:
    elsewhere = PciFunction("0000:06:00.3", "0x00ff00", "1234:11e8")
    assert {"quad-0", "quad-3"} <= set(problems(asked, [*OWN, EHCI, VF, FUNCTIONS[0], elsewhere]))


def test_a_function_that_was_to_stay_out_is_found(asked: list[comparison.Asked]) -> None:
    intruder = PciFunction("0000:05:00.1", "0x00ff00", "1b36:0005")
    found = problems(asked, [*RIGHT, intruder])
    assert found["quad-1"] == found["quad-2"] == ["the guest has 0000:05:00.1, which nobody asked for"]
    assert found["quad-0"] == ["its slot also has function 1"]


def test_an_empty_list_misses_everything(asked: list[comparison.Asked]) -> None:
    assert set(problems(asked, [])) == {"nic-vf", "quad-0", "quad-3", "usb-ehci"}


def test_the_table_says_which_line_differs(asked: list[comparison.Asked]) -> None:
    drivers: dict[str, str | None] = {each.host: "vfio-pci" for each in asked}
    drivers["0000:01:10.0"] = "igbvf"
    lines = comparison.table(comparison.compare(asked, RIGHT), drivers, "vfio-pci").splitlines()
    assert [line.split()[-1] for line in lines[2:]] == ["DIFFERS", *["ok"] * 6]
