# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fake kernel's SR-IOV: ``sriov_numvfs`` makes and removes virtual functions, and ``ip`` sets them.

All of its state is in the directory tree, so another process may go on where one was killed. Sources:
drivers/pci/iov.c; drivers/net/ethernet/intel/igb/igb_main.c for what the driver refuses; iproute2's ip/iplink.c.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed

from .kernel import PCI_DEVICES, FakeKernel
from .machine import PF, hypervisor_with

SECOND_PF = "0000:07:00.0"

SETTINGS = ".vf-settings"
"""A folder below a PF: one file for each setting of each VF."""

_DEFAULTS: dict[str, Any] = {
    "mac": "00:00:00:00:00:00",
    "vlan": 0,
    "qos": 0,
    "proto": "802.1Q",
    "spoofchk": True,
    "trust": False,
    "min_tx_rate": 0,
    "max_tx_rate": 0,
    "state": "auto",
}


class SriovKernel(FakeKernel):
    """A :class:`FakeKernel` whose PFs have virtual functions."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.refusals: dict[str, int] = {}
        """PF -> the errno with which the kernel refuses to make VFs."""
        self.silent: set[str] = set()
        """PFs whose number of VFs is taken, and of which nothing is made."""
        self.busy = 0
        """So many times the driver is still resetting a VF."""
        self.unsupported = {"state"}
        """What the driver of the PFs cannot set (igb)."""
        self.untold: set[str] = set()
        """What it does not tell of a VF."""
        self.forgetful: set[str] = set()
        """What it takes and does not keep."""
        self._refusals_left: dict[str, int] = {}
        self.reactions.update(sriov_numvfs=self._set_numvfs, sriov_drivers_autoprobe=self._set_autoprobe)

    def refuse_once(self, pf: str | None, number: int) -> None:
        """Refuse to make VFs of a PF the next time, with this errno; None: never."""
        self.refusals = {} if pf is None else {pf: number}
        self._refusals_left = {} if pf is None else {pf: 1}

    # -- attributes --------------------------------------------------------------------------------------

    def _set_autoprobe(self, path: str, value: str) -> None:
        if value.strip() not in ("0", "1"):
            raise self.refused(path, value, errno.EINVAL)
        self.tree.set_attribute(self.address_of(path, value), "sriov_drivers_autoprobe", value.strip())

    def _set_numvfs(self, path: str, value: str) -> None:
        pf = self.address_of(path, value)
        wanted, now = int(value), int(self.attribute(path) or 0)
        if wanted > int(self.attribute(f"{PCI_DEVICES}/{pf}/sriov_totalvfs") or 0):
            raise self.refused(path, value, errno.ERANGE)
        if wanted == now:
            return
        if self.link_name(f"{PCI_DEVICES}/{pf}/driver") not in ("igb", "nvme"):
            raise self.refused(path, value, errno.ENOENT)
        if wanted and now:
            raise self.refused(path, value, errno.EBUSY)
        if not wanted:
            self._remove_vfs(pf)
        elif self._refusals_left.get(pf) == 0:
            self._make_vfs(pf, wanted)
        elif pf in self.refusals:
            self._refusals_left[pf] = self._refusals_left.get(pf, -1) - 1
            raise self.refused(path, value, self.refusals[pf])
        elif pf in self.silent:
            self.tree.set_attribute(pf, "sriov_numvfs", str(wanted))
        else:
            self._make_vfs(pf, wanted)

    def _make_vfs(self, pf: str, count: int) -> None:
        ids = f"8086:{self.attribute(f'{PCI_DEVICES}/{pf}/sriov_vf_device')}"
        offset, stride = (int(self.attribute(f"{PCI_DEVICES}/{pf}/sriov_{name}") or 0) for name in ("offset", "stride"))
        vfs = self.tree.add_vfs(pf, count, ids=ids, offset=offset, stride=stride)
        for vf in vfs:
            # A number for each address: a VF that is made anew is then as it was.
            self.tree.join_group(vf, vf.bus << 8 | vf.slot << 3 | vf.function)
        self._reset_settings(pf)
        if self.attribute(f"{PCI_DEVICES}/{pf}/sriov_drivers_autoprobe") == "1":
            for vf in vfs:
                self._probe(str(vf))

    def _remove_vfs(self, pf: str) -> None:
        for name in self.list_dir(f"{PCI_DEVICES}/{pf}"):
            if name.startswith("virtfn"):
                vf = self.link_name(f"{PCI_DEVICES}/{pf}/{name}") or ""
                group = self.link_name(f"{PCI_DEVICES}/{vf}/iommu_group")
                self.tree.path(f"{self.tree.device_path(pf)}/{name}").unlink()
                self.remove_device(vf)
                self.tree._bases = {key: base for key, base in self.tree._bases.items() if str(key) != vf}
                if group is not None:
                    for entry in sorted(self._group(int(group)).rglob("*"), reverse=True):
                        entry.rmdir() if entry.is_dir() else entry.unlink()
                    self._group(int(group)).rmdir()
        self.tree.set_attribute(pf, "sriov_numvfs", "0")
        self._reset_settings(pf)

    def _group(self, number: int) -> Path:
        return self.tree.path(f"/sys/kernel/iommu_groups/{number}")

    def _matches(self, driver: str, address: str) -> bool:
        """pci_device_can_probe(): a VF whose PF does not let drivers have VFs is for the one that it is kept for."""
        physfn = f"{PCI_DEVICES}/{address}/physfn"
        override = self.attribute(f"{PCI_DEVICES}/{address}/driver_override")
        if override in (None, "", "(null)") and self.attribute(f"{physfn}/sriov_drivers_autoprobe") == "0":
            return False
        return super()._matches(driver, address)

    # -- settings ----------------------------------------------------------------------------------------

    def _settings(self, pf: str) -> Path:
        return self.tree.path(f"{self.tree.device_path(pf)}/{SETTINGS}")

    def _reset_settings(self, pf: str) -> None:
        folder = self._settings(pf)
        folder.mkdir(exist_ok=True)
        for entry in folder.iterdir():
            entry.unlink()
        for index in range(int(self.attribute(f"{PCI_DEVICES}/{pf}/sriov_numvfs") or 0)):
            for name, value in _DEFAULTS.items():
                (folder / f"{index}-{name}").write_text(json.dumps(value))

    def setting(self, pf: str, index: int, name: str) -> Any:
        """A setting as the driver has it, by its word in ip-link(8)."""
        return json.loads((self._settings(pf) / f"{index}-{name}").read_text())

    def set_behind_our_back(self, pf: str, index: int, name: str, value: Any) -> None:
        """What somebody else set."""
        (self._settings(pf) / f"{index}-{name}").write_text(json.dumps(value))

    # -- programs ----------------------------------------------------------------------------------------

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        if list(argv[:1]) != ["ip"] or "link" not in argv:
            return super()._run(argv, timeout, stdin)
        self.commands.append(list(argv))
        if "ip" in self.failing_commands:
            return Completed(tuple(argv), 1, "", "ip: told to fail")
        if list(argv[:5]) == ["ip", "-j", "link", "show", "dev"] and len(argv) == 6:
            return self._show(argv)
        if list(argv[:4]) == ["ip", "link", "set", "dev"] and len(argv) > 8 and argv[5] == "vf":
            return self._set(argv)
        raise AssertionError(f"no command of iproute2: {argv}")

    def _pf_of(self, interface: str) -> str | None:
        device = self.real_path(f"/sys/class/net/{interface}/device").rsplit("/", 1)[-1]
        return device if self.exists(f"{PCI_DEVICES}/{device}/sriov_numvfs") else None

    def _show(self, argv: Sequence[str]) -> Completed:
        if not self.exists(f"/sys/class/net/{argv[5]}"):
            return Completed(tuple(argv), 1, "", f'Device "{argv[5]}" does not exist.\n')
        pf = self._pf_of(argv[5])
        count = int(self.attribute(f"{PCI_DEVICES}/{pf}/sriov_numvfs") or 0) if pf else 0
        link: dict[str, Any] = {"ifindex": 3, "ifname": argv[5], "link_type": "ether"}
        if pf and count:
            link["vfinfo_list"] = [self._entry(pf, index) for index in range(count)]
        return Completed(tuple(argv), 0, json.dumps([link]), "")

    def _entry(self, pf: str, index: int) -> dict[str, Any]:
        """As iproute2 6.15 prints it."""
        now = {name: self.setting(pf, index, name) for name in _DEFAULTS}
        vlan = {"vlan": now["vlan"]} if now["vlan"] else {}
        vlan.update({"qos": now["qos"]} if now["qos"] else {})
        vlan.update({"protocol": now["proto"]} if now["proto"] == "802.1ad" else {})
        entry = {
            "vf": index,
            "link_type": "ether",
            "address": now["mac"],
            "broadcast": "ff:ff:ff:ff:ff:ff",
            "vlan_list": [vlan],
            "rate": {"max_tx": now["max_tx_rate"], "min_tx": now["min_tx_rate"]},
            "spoofchk": now["spoofchk"],
            "link_state": now["state"],
            "trust": now["trust"],
        }
        return {name: value for name, value in entry.items() if name not in self.untold}

    def _set(self, argv: Sequence[str]) -> Completed:
        def answer(text: str) -> Completed:
            return Completed(tuple(argv), 2 if text else 0, "", f"RTNETLINK answers: {text}\n" if text else "")

        pf, index = self._pf_of(argv[4]), int(argv[6])
        if not self.exists(f"/sys/class/net/{argv[4]}"):
            return Completed(tuple(argv), 1, "", f'Cannot find device "{argv[4]}"\n')
        if pf is None or index >= int(self.attribute(f"{PCI_DEVICES}/{pf}/sriov_numvfs") or 0):
            return answer("Invalid argument")
        if self.busy:
            self.busy -= 1
            return answer("Resource temporarily unavailable")
        words = dict(zip(argv[7::2], argv[8::2]))
        assert len(argv) == 7 + 2 * len(words), argv
        for word, text in words.items():
            value = _value(word, text)
            if word in self.unsupported:
                return answer("Operation not supported")
            if (word == "mac" and int(text[:2], 16) & 1) or (word == "min_tx_rate" and value):
                return answer("Invalid argument")
            if word == "proto" and value == "802.1ad":
                return answer("Protocol not supported")
        if "vlan" in words:
            words = {"qos": "0", "proto": "802.1Q", **words}
        else:
            assert not {"qos", "proto"} & set(words), "iproute2: these belong to a vlan"
        for word, text in words.items():
            if word not in self.forgetful:
                self.set_behind_our_back(pf, index, word, _value(word, text))
        return answer("")


Kind = TypeVar("Kind", bound=SriovKernel)


def _value(word: str, text: str) -> Any:
    """A value as ip-link(8) takes it."""
    if word in ("spoofchk", "trust"):
        return {"on": True, "off": False}[text]
    if word in ("vlan", "qos", "min_tx_rate", "max_tx_rate"):
        return int(text)
    if word == "mac":
        assert re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", text), text
        return text
    choices = {"proto": ("802.1Q", "802.1ad"), "state": ("auto", "enable", "disable")}
    assert text in choices[word], (word, text)
    return text


def sriov_host(root: Path, **options: Any) -> SriovKernel:
    """The hypervisor with two cards that have SR-IOV; the first has two VFs, as the host's own set-up made them."""
    return sriov_host_with(SriovKernel, root, **options)


def sriov_host_with(kind: type[Kind], root: Path, **options: Any) -> Kind:
    """The same with another kind of kernel."""
    kernel = hypervisor_with(kind, root, **options)
    tree = kernel.tree
    tree.add_device(
        SECOND_PF,
        ids="8086:10c9",
        pci_class=0x020000,
        driver="igb",
        group=30,
        totalvfs=7,
        interfaces={"enp7s0": "52:54:00:00:07:00"},
    )
    for pf in (PF, SECOND_PF):
        tree.set_attribute(pf, "sriov_offset", "128").set_attribute(pf, "sriov_stride", "2")
        tree.set_attribute(pf, "sriov_vf_device", "10ca")
    # The VFs as this kernel makes them, so that they are the same when they are made anew.
    kernel._remove_vfs(PF)
    kernel._make_vfs(PF, 2)
    kernel._reset_settings(SECOND_PF)
    tree.path("/run/systemd/system").mkdir(parents=True)
    tree.path("/etc/systemd/system").mkdir(parents=True)
    return kernel
