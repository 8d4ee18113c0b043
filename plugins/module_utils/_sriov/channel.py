# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the settings of VFs reach the device: by the network interface of their PF, or by its NVMe controller."""

from __future__ import annotations

from .._core.host import Host
from .._pci.address import PciAddress
from . import ip, nvme
from .settings import VfSettings


def read_settings(host: Host, pf: PciAddress) -> dict[int, VfSettings]:
    """VF index -> settings; empty for a PF that has neither, whose VFs cannot be set.

    :raises PassthroughError: ``vf_settings_unreadable``, and what :meth:`Host.run` raises
    """
    if nvme.controller_of(host, pf) is not None:
        return nvme.read_settings(host, pf)
    return ip.read_settings(host, pf)


def write_settings(host: Host, pf: PciAddress, index: int, settings: VfSettings) -> None:
    """Set a VF, one setting after the other.

    :raises PassthroughError: ``vf_setting_unsupported`` or ``vf_setting_refused`` with the setting's name, or what
        :meth:`Host.run` raises
    """
    for part in settings.parts():
        (nvme if part.is_nvme else ip).write_setting(host, pf, index, part)


def release(host: Host, pf: PciAddress, count: int) -> None:
    """Give back what a device still keeps for VFs that are gone.

    :param count: how many there were
    :raises PassthroughError: as :func:`write_settings`
    """
    if nvme.controller_of(host, pf) is not None:
        nvme.release(host, pf, count)
