# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Daniel Henrique Barboza, partial assignment of multifunction devices (2019): functions 0 and 3 of a card of four.

The proposed ``assigned='no'`` was never merged; today it is ``<address type='unassigned'/>``.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests import lab
from tests.lab.controller import Controller, quadruple, refusals

pytestmark = pytest.mark.lab("intel")

CARD = [f"0000:02:00.{function}" for function in range(4)]
IDS = {"assigned": "1234:11e8", "unassigned": "1b36:0005"}


def test_a_guest_has_two_of_four_functions(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    before = iommu_host.drivers()
    declared: list[dict[str, Any]] = [
        {"device": CARD[0], "guest_address": "02:00.0"},
        {"device": CARD[1], "assigned": False},
        {"device": CARD[2], "assigned": False},
        {"device": CARD[3], "guest_address": "02:00.3"},
    ]

    # "All the functions must be declared in the XML", and one that is not assigned has no address.
    assert refusals(ansible, "domain_hostdevs", {"domain": "guest1", "hostdevs": declared[::3]}) == [
        "functions_undeclared"
    ]
    with_address = [declared[0], {**declared[1], "guest_address": "02:00.1"}, *declared[2:]]
    assert refusals(ansible, "domain_hostdevs", {"domain": "guest1", "hostdevs": with_address}) == [
        "unassigned_conflict"
    ]
    quadruple(ansible, "domain_hostdevs", {"domain": "guest1", "hostdevs": declared})

    iommu_host.ssh("sudo virsh start guest1")
    # All four are taken from the host, and the guest has functions 0 and 3 of one slot.
    assert {iommu_host.drivers()[address] for address in CARD} == {"vfio-pci"}
    listed = {function.address: function.ids for function in iommu_host.guest_pci_list("guest1")}
    assert {address: ids for address, ids in listed.items() if ids in IDS.values()} == {
        "0000:02:00.0": IDS["assigned"],
        "0000:02:00.3": IDS["assigned"],
    }

    # "It will be re-attached back to the host with guest shutdown."
    iommu_host.wait_guest_off("guest1")
    assert {address: iommu_host.drivers()[address] for address in CARD} == {
        address: before[address] for address in CARD
    }
