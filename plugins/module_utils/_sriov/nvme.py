# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secondary controllers of an NVMe physical function, which its virtual functions are, through nvme-cli.

A controller with flexible resources has VFs without queues or interrupts, and offline: no driver of a guest can use
them. Queues and interrupts are given to a secondary controller while it is offline, and then it is brought online,
which takes a VF that exists. Drives without such resources have VFs that work as they are made.

Sources: NVM Express Base Specification 2.0, 8.26 "Virtualization Enhancements" and 5.29 "Virtualization Management
command"; nvme-virt-mgmt(1), nvme-list-secondary(1), nvme-primary-ctrl-caps(1); kernel
Documentation/ABI/stable/sysfs-class-nvme.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.errors import PassthroughError
from .._core.host import Host
from .._pci.address import PciAddress
from .._pci.device import DEVICES
from .settings import VfSettings

PROGRAM = "nvme"

# Virtualization Management command: actions and types of resources.
_OFFLINE, _ASSIGN, _ONLINE = 7, 8, 9
_QUEUES, _INTERRUPTS = 0, 1
_TIMEOUT = 60.0


@dataclass(frozen=True)
class _Secondary:
    """An entry of the list of secondary controllers."""

    identifier: int
    online: bool
    queues: int
    interrupts: int

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> _Secondary:
        return cls(
            int(entry["secondary-controller-identifier"]),
            bool(entry["secondary-controller-state"]),
            int(entry["num-virtual-queues"]),
            int(entry["num-virtual-interrupts"]),
        )


def controller_of(host: Host, pf: PciAddress) -> str | None:
    """The controller of a PF (``nvme0``); None for a device that is none, or that the host's driver does not have."""
    return next(iter(host.list_dir(f"{DEVICES}/{pf}/nvme")), None)


def read_settings(host: Host, pf: PciAddress) -> dict[int, VfSettings]:
    """VF index -> queues and interrupts; zero while the secondary controller is offline.

    Empty for a drive without secondary controllers, and where nvme-cli is not installed: then nothing was set by it.

    :raises PassthroughError: ``vf_settings_unreadable``, and what :meth:`Host.run` raises
    """
    if host.which(PROGRAM) is None:
        return {}
    return {
        index: VfSettings(queues=one.queues, interrupts=one.interrupts)
        if one.online
        else VfSettings(queues=0, interrupts=0)
        for index, one in _secondaries(host, pf).items()
    }


def write_setting(host: Host, pf: PciAddress, index: int, settings: VfSettings) -> None:
    """Give the secondary controller of a VF its queues and interrupts, and bring it online; with none, offline.

    :raises PassthroughError: ``vf_setting_unsupported`` or ``vf_setting_refused``, ``command_missing``, or what
        :meth:`Host.run` raises
    """
    found = _secondaries(host, pf).get(index)
    if found is None:
        raise PassthroughError(
            "vf_setting_unsupported",
            f"{pf} lists no secondary controller for VF {index}, so its queues and interrupts cannot be set.",
            "Leave queues and interrupts out: virtual functions of such a drive work as they are made.",
            device=str(pf),
            vf=index,
            settings=list(settings.to_json()),
        )
    _manage(host, pf, index, found, settings)


def release(host: Host, pf: PciAddress, count: int) -> None:
    """Take back what the controllers of the first ``count`` VFs have, which are gone: others could not have it.

    :raises PassthroughError: as :func:`write_setting`
    """
    if host.which(PROGRAM) is None:
        return
    for index, one in _secondaries(host, pf).items():
        if index < count and not one.online and (one.queues or one.interrupts):
            _manage(host, pf, index, one, VfSettings(queues=0, interrupts=0))


def _manage(host: Host, pf: PciAddress, index: int, found: _Secondary, settings: VfSettings) -> None:
    steps = [(_OFFLINE, 0, 0)] if found.online else []
    steps += [(_ASSIGN, _QUEUES, settings.queues or 0), (_ASSIGN, _INTERRUPTS, settings.interrupts or 0)]
    steps += [(_ONLINE, 0, 0)] if settings.queues else []
    for action, resource, number in steps:
        argv = [PROGRAM, "virt-mgmt", _device(host, pf), "-c", str(found.identifier)]
        argv += ["-r", str(resource), "-a", str(action), "-n", str(number)]
        done = host.run(argv, timeout=_TIMEOUT, check=False)
        if done.rc != 0:
            said = (done.stderr.strip() or done.stdout.strip()).replace("\n", " ")
            raise PassthroughError(
                "vf_setting_refused",
                f"The drive {pf} refused {' '.join(settings.words())} for VF {index} ({' '.join(argv)}): {said}.",
                f"'nvme primary-ctrl-caps {_device(host, pf)}' tells how many queues (VQ) and interrupts (VI) there "
                "are to give, to one controller and in all. What the primary controller itself holds of them it gives "
                "back with 'nvme virt-mgmt -a 1 -n 0' and a reset of the controller, which the host notices.",
                device=str(pf),
                vf=index,
                settings=list(settings.to_json()),
            )


def _device(host: Host, pf: PciAddress) -> str:
    controller = controller_of(host, pf)
    if controller is None:
        raise PassthroughError(
            "vf_settings_impossible",
            f"{pf} has no NVMe controller any more.",
            "The driver nvme of the host has to have the physical function; dmesg says why it lost it.",
            device=str(pf),
        )
    return f"/dev/{controller}"


def _secondaries(host: Host, pf: PciAddress) -> dict[int, _Secondary]:
    """VF index -> its secondary controller."""
    argv = [PROGRAM, "list-secondary", _device(host, pf), "-o", "json"]
    done = host.run(argv, timeout=_TIMEOUT, check=False)
    if done.rc != 0:  # a drive that does not know such a list refuses the command
        return {}
    try:
        listed = json.loads(done.stdout)["secondary-controllers"]
        # The first VF has the number 1 there.
        found = {int(entry["virtual-function-number"]) - 1: _Secondary.from_json(entry) for entry in listed}
    except (ValueError, KeyError, TypeError) as error:
        raise PassthroughError(
            "vf_settings_unreadable",
            f"What '{' '.join(argv)}' printed about the VFs of {pf} is not understood ({error!r}).",
            "It takes an nvme-cli of the versions 1 or 2; install one of those.",
            device=str(pf),
        ) from error
    return {index: one for index, one in found.items() if index >= 0}
