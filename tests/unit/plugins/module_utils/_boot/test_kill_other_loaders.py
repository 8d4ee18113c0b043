# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""As for GRUB in test_kill: a run on a host with another boot loader may end at any moment."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import build
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.tests.unit.support import boot, extlinux, grubby, proxmox, systemd_boot, zipl
from ansible_collections.kvm.passthrough.tests.unit.support.extlinux import ExtlinuxHost
from ansible_collections.kvm.passthrough.tests.unit.support.grubby import RHEL_8, GrubbyHost
from ansible_collections.kvm.passthrough.tests.unit.support.kill import Case, bad_outcomes, errors, points
from ansible_collections.kvm.passthrough.tests.unit.support.proxmox import ProxmoxHost
from ansible_collections.kvm.passthrough.tests.unit.support.systemd_boot import KERNELS, SystemdBootHost
from ansible_collections.kvm.passthrough.tests.unit.support.zipl import ZiplHost

CHUNKS = 3
"""Into how many tests the moments of one case are split, for pytest to spread."""


def run(*present: str) -> Callable[[Any], None]:
    def on(machine: Any) -> None:
        procedure = build(machine.host, present)
        execute(machine.host, procedure, module="kernel_parameters", check_mode=False, lock_timeout=0)

    return on


ENTRIES = tuple(map(systemd_boot.entry_path, KERNELS))
IMAGES = tuple(map(systemd_boot.image_path, KERNELS))
LINE = f"{systemd_boot.LINE}\n"

CASES = {
    "entries": Case(
        lambda root: SystemdBootHost(root, LINE), run("intel_iommu=on", "iommu=pt"), (systemd_boot.SETTINGS, *ENTRIES)
    ),
    "no settings": Case(SystemdBootHost, run("intel_iommu=on"), ENTRIES),
    "images": Case(
        lambda root: SystemdBootHost(root, LINE, layout="uki"), run("intel_iommu=on"), (systemd_boot.SETTINGS, *IMAGES)
    ),
    "u-boot-update": Case(
        lambda root: ExtlinuxHost(root, 'U_BOOT_PARAMETERS="quiet"\n'),
        run("iommu=pt"),
        (extlinux.DEFAULTS, extlinux.CONFIG),
    ),
    "extlinux.conf by hand": Case(
        lambda root: ExtlinuxHost(root, files={extlinux.CONFIG: extlinux.BY_HAND}),
        run("intel_iommu=on"),
        (extlinux.CONFIG,),
    ),
    "entries of GRUB": Case(
        lambda root: GrubbyHost(root, settings=None),
        run("intel_iommu=on", "iommu=pt"),
        (grubby.DEFAULTS, *map(grubby.entry_path, grubby.RHEL_9.kernels)),
    ),
    "kernelopts of RHEL 8": Case(
        lambda root: GrubbyHost(root, RHEL_8), run("intel_iommu=on"), (grubby.ENVIRONMENT, grubby.DEFAULTS)
    ),
    # proxmox-boot-tool writes each entry in place: here it is ended between two files, never within one.
    "proxmox-boot-tool, systemd-boot": Case(
        ProxmoxHost, run("intel_iommu=on"), (proxmox.SETTINGS, *proxmox.entry_paths())
    ),
    "proxmox-boot-tool, GRUB": Case(
        lambda root: ProxmoxHost(root, proxmox.GRUB_LEGACY), run("intel_iommu=on"), (boot.DEFAULTS, *proxmox.configs())
    ),
    "zipl, sections": Case(
        lambda root: ZiplHost(root, zipl.UBUNTU), run("intel_iommu=on", "iommu=pt"), (zipl.CONFIG, zipl.BOOT_MAP)
    ),
    "zipl, entries": Case(
        lambda root: ZiplHost(root, zipl.RHEL, {version: zipl.entry(version) for version in zipl.KERNELS}),
        run("intel_iommu=on"),
        (zipl.BOOT_MAP, *map(zipl.entry_path, zipl.KERNELS)),
    ),
}


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_moment(tmp_path: Path, name: str, chunk: int) -> None:
    (tmp_path / "scratch").mkdir()
    found = points(CASES[name], tmp_path / "scratch")
    assert len(found) > 20
    assert bad_outcomes(CASES[name], found[chunk::CHUNKS], tmp_path) == []


@pytest.mark.parametrize("name", CASES)
def test_any_file_operation_may_fail(tmp_path: Path, name: str) -> None:
    (tmp_path / "scratch").mkdir()
    found = errors(CASES[name], errno.ENOSPC, tmp_path / "scratch")
    assert len(found) > 10
    assert bad_outcomes(CASES[name], found, tmp_path) == []


def test_hundreds_of_moments(tmp_path: Path) -> None:
    numbers = {}
    for name, case in CASES.items():
        (tmp_path / name).mkdir()
        numbers[name] = len(points(case, tmp_path / name))
    print(f"moments at which a run is killed, just before a call: {numbers}")
    assert sum(numbers.values()) > 200
