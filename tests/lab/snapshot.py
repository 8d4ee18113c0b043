# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines saved while they run, so that a start takes seconds and not a boot.

A snapshot is a frozen disk and, beside it, the machine's state as QEMU's migration writes
it to a file. Both are only ever read: a start makes an overlay of the disk and loads the
state, so that any number of machines can start from one snapshot. Snapshots inside a
qcow2 file (``savevm``) cannot be reached through an overlay and would have to be copied.
"""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path

from . import cache, image, intel
from .machine import BOOT_TIMEOUT, Machine, launch
from .qemu import find_qemu
from .run import run, say, step

DISK_FILE, STATE_FILE = "disk.qcow2", "state"
_BUILD_LIMIT = 3600

# libvirt asks its QEMU what it can do once and remembers it: that is slow under emulation,
# and every test would wait for it.
_PREPARE = """
set -eu
sudo virsh --quiet define /var/lib/libvirt/images/guest1.xml
sudo virsh --quiet define /var/lib/libvirt/images/guest2.xml
sudo virsh domcapabilities --virttype kvm >/dev/null
sudo virsh nodedev-list --cap pci >/dev/null
"""

# Written the way an operator does it, and without the collection: a broken collection
# must not be able to break the machine it is tested on.
_SWITCH_ON = """
set -eu
sudo sed -i 's/intel_iommu=off/intel_iommu=on/' /etc/default/grub
sudo update-grub 2>&1
"""
_AFTER_BOOT = """
set -eu
sudo virsh domcapabilities --virttype kvm >/dev/null
sudo virsh nodedev-list --cap pci >/dev/null
"""


class Snapshot(Enum):
    """The states a machine can start from."""

    FRESH = "fresh"
    """Booted with ``intel_iommu=off``."""
    IOMMU = "iommu"
    """The same machine with ``intel_iommu=on``, rebooted."""


def name(snapshot: Snapshot, qemu_identity: str, base: Path) -> str:
    """The cache's name of a snapshot made with that emulator on that image."""
    return f"{snapshot.value}-{_key(snapshot, qemu_identity, base)}"


def _key(snapshot: Snapshot, qemu_identity: str, base: Path) -> str:
    # The key pair tells one build of an image from the next, which has the same name but
    # other blocks in other places.
    image_identity = (base / f"{image.KEY_FILE}.pub").read_bytes()
    machine = [*intel.BASE, *intel.MEMORY, *intel.DEVICES, *intel.MANAGEMENT_CARD, *intel.ROOT_DISK]
    scripts = [_PREPARE, *([_SWITCH_ON, _AFTER_BOOT] if snapshot is Snapshot.IOMMU else [])]
    return cache.digest("1", qemu_identity, image_identity, machine, scripts)


def build(snapshot: Snapshot) -> Path:
    """The directory with the snapshot's disk and state, built when the cache has none.

    Raises LabError when the machine does not boot or cannot be saved.
    """
    if image.find() is None:
        image.require_build_tools()
    builder = {Snapshot.FRESH: _build_fresh, Snapshot.IOMMU: _build_iommu}[snapshot]
    return cache.artefact(snapshot.value, _key(snapshot, find_qemu().identity, image.build()), builder)


def _build_fresh(directory: Path) -> None:
    base = image.build()
    with launch(
        intel.hardware(find_qemu()),
        base / image.KEY_FILE,
        name=f"build-fresh-{os.getpid()}",
        limit=_BUILD_LIMIT,
        artefact=base.name,
        disk=base / image.DISK_FILE,
    ) as machine:
        with step("booting the lab host"):
            machine.wait_ssh(BOOT_TIMEOUT)
            machine.settle()
        with step("preparing libvirt in it"):
            machine.ssh(_PREPARE, timeout=300)
        _save(machine, directory)


def _build_iommu(directory: Path) -> None:
    with start(Snapshot.FRESH, name=f"build-iommu-{os.getpid()}", limit=_BUILD_LIMIT, nvme=False) as machine:
        with step("switching the IOMMU on"):
            machine.ssh(_SWITCH_ON, timeout=300)
        with step("rebooting"):
            machine.reboot()
        with step("preparing libvirt in it"):
            machine.ssh(_AFTER_BOOT, timeout=300)
        _save(machine, directory)


def _save(machine: Machine, directory: Path) -> None:
    qemu = find_qemu()
    disk = directory / DISK_FILE
    with step("saving it"):
        machine.save(disk, directory / STATE_FILE)
        # So that each snapshot needs the image and nothing else.
        run([*qemu.img, "rebase", "-q", "-f", "qcow2", "-b", image.build() / image.DISK_FILE, "-F", "raw", disk],
            timeout=300, env=qemu.environment)  # fmt: skip
    size = sum((directory / file).stat().st_blocks * 512 for file in (DISK_FILE, STATE_FILE))
    say(f"the snapshot takes {size // 1024**2} MiB")


def start(snapshot: Snapshot, *, name: str, limit: float, boot: bool = False, nvme: bool = True) -> Machine:
    """Start a machine from a snapshot and wait until ssh answers, its clock is right and all is plugged in.

    With ``boot`` only the snapshot's disk is used, and the machine boots from it. The
    snapshot is built first when the cache has none. Raises LabError.
    """
    saved = build(snapshot)
    machine = launch(
        intel.hardware(find_qemu()),
        image.build() / image.KEY_FILE,
        name=name,
        limit=limit,
        artefact=saved.name,
        disk=saved / DISK_FILE,
        state=None if boot else saved / STATE_FILE,
    )
    try:
        if nvme:
            intel.plug_nvme(machine)
        machine.wait_ssh(BOOT_TIMEOUT)
        machine.set_clock()
        if boot:
            machine.settle()
    except BaseException:
        machine.stop(keep_logs=True)
        raise
    return machine
