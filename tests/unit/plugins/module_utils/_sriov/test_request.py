# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked for, and what is refused before the host is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._sriov.request import Request
from ansible_collections.kvm.passthrough.plugins.module_utils._sriov.settings import VfSettings

PF = "0000:01:00.0"


def read(*vfs: dict[str, Any], count: int = 4, **pf: Any) -> Request:
    item = {"pf": PF, "count": count, "vfs": list(vfs), **pf}
    return Request.from_params({"pfs": [item], "persistent": True, "force": [], "timeout": 5})


def problems(*vfs: dict[str, Any], **pf: Any) -> list[tuple[str, Any]]:
    with pytest.raises(PassthroughError) as caught:
        read(*vfs, **pf)
    return [(problem.code, problem.details.get("field")) for problem in caught.value.problems]


def test_settings_of_several_entries_add_up() -> None:
    found = read(
        {"vf": "all", "trust": True}, {"vf": [1, 2], "spoof_check": False}, {"vf": "2", "vlan": 7, "trust": True}
    )
    assert found.pfs[0].vfs == {
        0: VfSettings(trust=True),
        1: VfSettings(trust=True, spoof_check=False),
        2: VfSettings(trust=True, spoof_check=False, vlan=7, vlan_qos=0, vlan_protocol="802.1q"),
        3: VfSettings(trust=True),
    }


def test_a_mac_address_is_read_in_any_spelling() -> None:
    assert read({"vf": 0, "mac": "52-54-00-AA-BB-CC"}).pfs[0].vfs[0].mac == "52:54:00:aa:bb:cc"


@pytest.mark.parametrize(
    ("mac", "word"),
    [
        ("00:00:00:00:00:00", "leave mac out"),
        ("01:00:5e:00:00:01", "group"),
        ("ff:ff:ff:ff:ff:ff", "group"),
        ("52:54:00:aa:bb", "no MAC address"),
        (525400112233, "quotes"),
    ],
)
def test_mac_addresses_that_none_can_have(mac: Any, word: str) -> None:
    with pytest.raises(PassthroughError) as caught:
        read({"vf": 0, "mac": mac})
    assert caught.value.code == "mac_invalid"
    assert word in str(caught.value)
    assert caught.value.problems[0].details["field"] == "pfs[0].vfs[0].mac"


def test_one_mac_address_for_several() -> None:
    same = "52:54:00:00:00:01"
    assert problems({"vf": [0, 1], "mac": same})[0] == ("vf_settings_invalid", "pfs[0].vfs[0].mac")
    assert problems({"vf": 0, "mac": same}, {"vf": 1, "mac": same.upper()}) == [("mac_duplicate", None)]


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"vf": 0, "vlan": 4095}, "vlan"),
        ({"vf": 0, "vlan": -1}, "vlan"),
        ({"vf": 0, "vlan": 5, "vlan_qos": 8}, "vlan_qos"),
        ({"vf": 0, "vlan_qos": 3}, "vlan_qos"),
        ({"vf": 0, "vlan": 0, "vlan_protocol": "802.1ad"}, "vlan_protocol"),
        ({"vf": 0, "vlan": 5, "vlan_protocol": "802.1x"}, "vlan_protocol"),
        ({"vf": 0, "link_state": "up"}, "link_state"),
        ({"vf": 0, "min_tx_rate": 20, "max_tx_rate": 10}, "min_tx_rate"),
        ({"vf": 0, "max_tx_rate": 2**32}, "max_tx_rate"),
        ({"vf": 0, "queues": 2}, "queues"),
        ({"vf": 0, "interrupts": 2}, "interrupts"),
        ({"vf": 0, "queues": 1, "interrupts": 1}, "queues"),
        ({"vf": 0, "queues": 2, "interrupts": 0}, "interrupts"),
        ({"vf": 0, "queues": 0, "interrupts": 1}, "interrupts"),
        ({"vf": 4, "trust": True}, "vf"),
        ({"vf": [0, 7], "trust": True}, "vf"),
        ({"vf": [], "trust": True}, "vf"),
        ({"vf": "first", "trust": True}, "vf"),
        ({"vf": [1, 1], "trust": True}, "vf"),
    ],
)
def test_settings_that_make_no_sense(entry: dict[str, Any], field: str) -> None:
    assert problems(entry) == [("vf_settings_invalid", f"pfs[0].vfs[0].{field}")]


def test_a_rate_below_no_limit_is_sane() -> None:
    assert read({"vf": 0, "min_tx_rate": 20, "max_tx_rate": 0}).pfs[0].vfs[0].min_tx_rate == 20


def test_entries_that_contradict_each_other() -> None:
    assert problems({"vf": "all", "trust": True}, {"vf": 3, "trust": False}) == [
        ("vf_settings_invalid", "pfs[0].vfs[1].trust")
    ]


def test_everything_is_told_at_once() -> None:
    bad = {"pf": "01:20.0", "count": -1, "vfs": [{"vf": 0, "mac": "x"}]}
    with pytest.raises(PassthroughError) as caught:
        Request.from_params({"pfs": [bad], "persistent": True, "force": [], "timeout": 0})
    codes = [problem.code for problem in caught.value.problems]
    assert codes == [
        "address_out_of_range",
        "vf_settings_invalid",
        "vf_settings_invalid",
        "mac_invalid",
        "timeout_invalid",
    ]


def test_settings_of_virtual_functions_that_are_to_go() -> None:
    assert problems({"vf": 0, "trust": True}, count=0) == [("vf_settings_invalid", "pfs[0].vfs[0].vf")]
