# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be set for a virtual function through its physical function: MAC address, VLAN, rates, queues and so on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

VLAN_PROTOCOLS = ("802.1q", "802.1ad")
LINK_STATES = ("auto", "enable", "disable")

# What is set as one, because the kernel or the device takes it as one.
_NVME = ("queues", "interrupts")
_TOGETHER = (
    ("mac",),
    ("vlan", "vlan_qos", "vlan_protocol"),
    ("spoof_check",),
    ("trust",),
    ("min_tx_rate", "max_tx_rate"),
    ("link_state",),
    _NVME,
)


@dataclass(frozen=True)
class VfSettings:
    """Settings of one VF; None for what is not asked for, or what the driver of the PF does not tell."""

    mac: str | None = None
    vlan: int | None = None
    vlan_qos: int | None = None
    vlan_protocol: str | None = None
    spoof_check: bool | None = None
    trust: bool | None = None
    min_tx_rate: int | None = None
    max_tx_rate: int | None = None
    link_state: str | None = None
    queues: int | None = None
    interrupts: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The settings that are there, for results and records."""
        return {name: value for name, value in self._all().items() if value is not None}

    def _all(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def over(self, other: VfSettings) -> VfSettings:
        """The other settings, with these in place of theirs."""
        return replace(other, **self.to_json())

    def beyond(self, present: VfSettings) -> VfSettings:
        """What of these settings is not so at present, with all that is set together with it."""
        differing: dict[str, Any] = {}
        for names in _TOGETHER:
            asked = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
            if any(getattr(present, name) != value for name, value in asked.items()):
                differing.update(asked)
        return VfSettings(**differing)

    def restricted_to(self, other: VfSettings) -> VfSettings:
        """These settings, as far as the other ones say something about the same."""
        names = other.to_json()
        return VfSettings(**{name: value for name, value in self.to_json().items() if name in names})

    @property
    def is_rate(self) -> bool:
        """Whether a rate is among these settings."""
        return self.min_tx_rate is not None or self.max_tx_rate is not None

    @property
    def is_nvme(self) -> bool:
        """Whether something of an NVMe controller is among these settings."""
        return any(getattr(self, name) is not None for name in _NVME)

    @property
    def is_network(self) -> bool:
        """Whether something of a network card is among these settings."""
        return any(name not in _NVME for name in self.to_json())

    def parts(self) -> Iterator[VfSettings]:
        """The settings one command at a time, to tell a driver that refuses one from a driver that refuses all."""
        for names in _TOGETHER:
            part = VfSettings(**{name: getattr(self, name) for name in names})
            if part.to_json():
                yield part

    def words(self) -> list[str]:
        """The settings as words of ``ip link set dev PF vf N`` (see ip-link(8)), or, of NVMe, in that manner."""
        words: list[str] = []
        for name, (word, write, _unused) in _WORDS.items():
            value = getattr(self, name)
            if value is not None:
                words += [word, write(value)]
        return words

    @classmethod
    def from_words(cls, words: list[str]) -> VfSettings:
        """The inverse of :meth:`words`.

        :raises ValueError: when a word or a value is none of those
        """
        names = {word: (name, read) for name, (word, _unused, read) in _WORDS.items()}
        found: dict[str, Any] = {}
        if len(words) % 2:
            raise ValueError(words)
        for word, value in zip(words[::2], words[1::2]):
            if word not in names:
                raise ValueError(word)
            name, read = names[word]
            found[name] = read(value)
        return cls(**found)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VfSettings:
        """The inverse of :meth:`to_json`."""
        return cls(**data)

    @classmethod
    def from_ip(cls, entry: Mapping[str, Any]) -> VfSettings:
        """What ``ip -j link show`` tells of a VF (an entry of ``vfinfo_list``).

        Sources: iproute2's ip/ipaddress.c, ``print_vfinfo``: the MAC address was called ``mac`` before 5.0; a VF
        without VLAN has an empty one, or none; what a driver does not tell is left out.
        """
        mac = entry.get("address", entry.get("mac"))
        vlans = entry.get("vlan_list") or [entry]
        vlan = vlans[0]
        rates = entry.get("rate") if isinstance(entry.get("rate"), Mapping) else entry
        number = vlan.get("vlan", 0)
        return cls(
            mac=mac.lower() if isinstance(mac, str) else None,
            vlan=number,
            vlan_qos=vlan.get("qos", 0),
            vlan_protocol=str(vlan.get("protocol", VLAN_PROTOCOLS[0])).lower(),
            spoof_check=_switch(entry.get("spoofchk")),
            trust=_switch(entry.get("trust")),
            min_tx_rate=rates.get("min_tx", 0) if rates else 0,
            max_tx_rate=rates.get("max_tx", 0) if rates else 0,
            link_state=entry.get("link_state"),
        )


def _switch(value: Any) -> bool | None:
    return None if value is None else value in (True, "on")


def _on_off(value: bool) -> str:
    return "on" if value else "off"


# ip-link(8) writes 802.1Q with a capital letter, and iproute2 compares without regard to case since 4.9 only.
_PROTOCOL_WORDS = {"802.1q": "802.1Q", "802.1ad": "802.1ad"}

_WORDS: dict[str, tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    "mac": ("mac", str, str),
    "vlan": ("vlan", str, int),
    "vlan_qos": ("qos", str, int),
    "vlan_protocol": ("proto", _PROTOCOL_WORDS.__getitem__, str.lower),
    "spoof_check": ("spoofchk", _on_off, "on".__eq__),
    "trust": ("trust", _on_off, "on".__eq__),
    "min_tx_rate": ("min_tx_rate", str, int),
    "max_tx_rate": ("max_tx_rate", str, int),
    "link_state": ("state", str, str),
    "queues": ("queues", str, int),
    "interrupts": ("interrupts", str, int),
}
