# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of a VF: what iproute2 tells, what it is told, and what is still missing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._sriov.settings import VfSettings

MACS = st.from_regex(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", fullmatch=True)
ANY = st.builds(
    VfSettings,
    mac=st.none() | MACS,
    vlan=st.none() | st.integers(0, 4094),
    vlan_qos=st.none() | st.integers(0, 7),
    vlan_protocol=st.none() | st.sampled_from(["802.1q", "802.1ad"]),
    spoof_check=st.none() | st.booleans(),
    trust=st.none() | st.booleans(),
    min_tx_rate=st.none() | st.integers(0, 1000),
    max_tx_rate=st.none() | st.integers(0, 1000),
    link_state=st.none() | st.sampled_from(["auto", "enable", "disable"]),
    queues=st.none() | st.integers(0, 100),
    interrupts=st.none() | st.integers(0, 100),
)


@given(ANY)
def test_words_and_json_lose_nothing(settings: VfSettings) -> None:
    assert VfSettings.from_words(settings.words()) == settings
    assert VfSettings.from_json(settings.to_json()) == settings
    whole = VfSettings()
    for part in settings.parts():
        assert not part.restricted_to(whole).to_json()
        whole = part.over(whole)
    assert whole == settings


@given(ANY, ANY)
def test_what_is_missing_makes_the_present_as_wanted(wanted: VfSettings, present: VfSettings) -> None:
    missing = wanted.beyond(present)
    after = missing.over(present)
    assert not wanted.beyond(after).to_json()
    assert missing.restricted_to(wanted) == missing
    # What is set together is told together.
    if missing.vlan is not None:
        assert (missing.vlan_qos, missing.vlan_protocol) == (wanted.vlan_qos, wanted.vlan_protocol)


@pytest.mark.parametrize("words", [["mac"], ["nonsense", "1"], ["vlan", "many"]])
def test_other_words_are_none(words: list[str]) -> None:
    with pytest.raises(ValueError, match=r".*"):
        VfSettings.from_words(words)


DEFAULTS = {
    "vlan": 0,
    "vlan_qos": 0,
    "vlan_protocol": "802.1q",
    "min_tx_rate": 0,
    "max_tx_rate": 0,
    "link_state": "auto",
    "spoof_check": True,
    "trust": False,
}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        # iproute2 6.15 with igb, as it was seen.
        (
            {
                "vf": 0,
                "link_type": "ether",
                "address": "52:54:00:AA:00:02",
                "broadcast": "ff:ff:ff:ff:ff:ff",
                "vlan_list": [{"vlan": 7, "qos": 2}],
                "rate": {"max_tx": 100, "min_tx": 0},
                "spoofchk": False,
                "link_state": "auto",
                "trust": True,
            },
            {**DEFAULTS, "mac": "52:54:00:aa:00:02", "vlan": 7, "vlan_qos": 2, "max_tx_rate": 100}
            | {"spoof_check": False, "trust": True},
        ),
        (
            {
                "vf": 1,
                "address": "00:00:00:00:00:00",
                "vlan_list": [{}],
                "rate": {"max_tx": 0, "min_tx": 0},
                "spoofchk": True,
                "link_state": "auto",
                "trust": False,
            },
            {**DEFAULTS, "mac": "00:00:00:00:00:00"},
        ),
        # Before 5.0 the address was called mac, and what could be on or off was said so.
        (
            {"vf": 0, "mac": "52:54:00:00:00:01", "vlan": 9, "qos": 1, "spoofchk": "on", "trust": "off"}
            | {"link_state": "auto", "vlan_list": []},
            {**DEFAULTS, "mac": "52:54:00:00:00:01", "vlan": 9, "vlan_qos": 1},
        ),
        (
            {"vf": 0, "vlan_list": [{"vlan": 9, "protocol": "802.1ad"}], "rate": {"max_tx": 5, "min_tx": 2}},
            {**DEFAULTS, "vlan": 9, "vlan_protocol": "802.1ad", "min_tx_rate": 2, "max_tx_rate": 5}
            | {"spoof_check": None, "trust": None, "link_state": None},
        ),
    ],
)
def test_what_iproute2_tells(entry: dict[str, Any], expected: dict[str, Any]) -> None:
    assert VfSettings.from_ip(entry) == VfSettings(**expected)
