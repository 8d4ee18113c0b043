# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of virtual functions, read and written through iproute2. Source: ip-link(8)."""

from __future__ import annotations

import json
import re

from .._core.errors import PassthroughError
from .._core.host import Host
from .._pci.address import PciAddress
from .._pci.device import DEVICES
from .settings import VfSettings

CLASS_NET = "/sys/class/net"

# A driver answers so while it resets the VF that was just made (i40e, ice), and an interface can be renamed by udev.
ATTEMPTS = 20
INTERVAL = 0.5
_SOON = re.compile(r"Resource temporarily unavailable|Device or resource busy|Cannot find device")
# A rate is checked against the speed of the link (igb, ixgbe), which is down for a moment when VFs were made.
_SOON_WITH_RATE = re.compile(rf"{_SOON.pattern}|Invalid argument")
_UNSUPPORTED = re.compile(r"Operation not supported|not supported|Unknown error 524")

# With a switch of its own (switchdev mode), a card has an interface for each VF below its PF, too:
# include/net/devlink.h, devlink_port_attrs; net/core/devlink.c names them "pf0vf3".
_REPRESENTOR = re.compile(r"(?:c\d+)?pf\d+(?:vf|sf)\d+")


def interface_of(host: Host, pf: PciAddress) -> str | None:
    """The network interface through which the VFs of a PF are set, or None when it has none."""
    for name in host.list_dir(f"{DEVICES}/{pf}/net"):
        if not _REPRESENTOR.fullmatch(host.attribute(f"{CLASS_NET}/{name}/phys_port_name") or ""):
            return name
    return None


def read_settings(host: Host, pf: PciAddress) -> dict[int, VfSettings]:
    """VF index -> settings, of the VFs that exist; empty for a PF without an interface.

    :raises PassthroughError: ``vf_settings_unreadable``, and what :meth:`Host.run` raises
    """
    interface = interface_of(host, pf)
    if interface is None:
        return {}
    printed = host.run(["ip", "-j", "link", "show", "dev", interface]).stdout
    try:
        link = json.loads(printed)[0]
        return {entry["vf"]: VfSettings.from_ip(entry) for entry in link.get("vfinfo_list", ())}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise PassthroughError(
            "vf_settings_unreadable",
            f"What 'ip -j link show dev {interface}' printed about the VFs of {pf} is not understood ({error}).",
            "It takes an iproute2 that prints VFs in JSON (since 2018); install a newer one.",
            device=str(pf),
        ) from error


def write_setting(host: Host, pf: PciAddress, index: int, part: VfSettings) -> None:
    """Set one thing of a VF (:meth:`VfSettings.parts`).

    :raises PassthroughError: ``vf_setting_unsupported`` or ``vf_setting_refused`` with the setting's name, or what
        :meth:`Host.run` raises
    """
    soon = _SOON_WITH_RATE if part.is_rate else _SOON
    for attempt in range(ATTEMPTS):
        if attempt:
            host.sleep(INTERVAL)
        interface = interface_of(host, pf)
        if interface is None:
            said = "it has no network interface any more"
            continue
        done = host.run(["ip", "link", "set", "dev", interface, "vf", str(index), *part.words()], check=False)
        if done.rc == 0:
            return
        said = (done.stderr or done.stdout).strip().replace("RTNETLINK answers: ", "")
        if not soon.search(said):
            break
    driver = host.link_name(f"{DEVICES}/{pf}/driver")
    names = ", ".join(part.to_json())
    shown = " ".join(part.words())
    if _UNSUPPORTED.search(said):
        raise PassthroughError(
            "vf_setting_unsupported",
            f"The driver {driver} of {pf} does not support {names} ({shown}) for VF {index}: {said}.",
            "Leave it out. Some drivers have it only with newer kernels or firmware.",
            device=str(pf),
            vf=index,
            settings=list(part.to_json()),
        )
    raise PassthroughError(
        "vf_setting_refused",
        f"The driver {driver} of {pf} refused {names} ({shown}) for VF {index}: {said}.",
        "dmesg of the host usually says why. A rate needs a link that is up and has to be one the card can do (igb: no "
        "min_tx_rate)."
        if part.is_rate
        else "dmesg of the host usually says why.",
        device=str(pf),
        vf=index,
        settings=list(part.to_json()),
    )
