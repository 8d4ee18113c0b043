# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any moment leaves a host that boots, and the next run brings it where it was to go.

Whatever boots the host. How many moments that are, for each boot loader, and how many of them end badly is printed at
the end of the tests.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.detect import LOADERS
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import build
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.tests.unit.support import boot, extlinux, grubby, proxmox, systemd_boot, zipl
from ansible_collections.kvm.passthrough.tests.unit.support.boot import GrubHost
from ansible_collections.kvm.passthrough.tests.unit.support.extlinux import ExtlinuxHost
from ansible_collections.kvm.passthrough.tests.unit.support.grubby import RHEL_8, GrubbyHost
from ansible_collections.kvm.passthrough.tests.unit.support.kill import (
    COUNTED,
    Case,
    Point,
    bad_outcomes,
    errors,
    points,
)
from ansible_collections.kvm.passthrough.tests.unit.support.loaders import KINDS
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import revert as take_back
from ansible_collections.kvm.passthrough.tests.unit.support.procedures import at_call
from ansible_collections.kvm.passthrough.tests.unit.support.proxmox import ProxmoxHost
from ansible_collections.kvm.passthrough.tests.unit.support.rpm_ostree import DEPLOYMENTS, OstreeHost
from ansible_collections.kvm.passthrough.tests.unit.support.systemd_boot import SystemdBootHost
from ansible_collections.kvm.passthrough.tests.unit.support.transactional_update import NEXT, TransactionalHost
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing
from ansible_collections.kvm.passthrough.tests.unit.support.zipl import ZiplHost

KERNELS = ("6.1.0-13-amd64",)
CHUNKS = 4
"""Into how many tests the moments of one case are split, for pytest to spread."""


def run(*present: str) -> Callable[[Any], None]:
    def on(machine: Any) -> None:
        procedure = build(machine.host, present)
        execute(machine.host, procedure, module="kernel_parameters", check_mode=False, lock_timeout=0)

    return on


def revert(machine: Any) -> None:
    take_back(machine)


def changed_before(prepare: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def prepared(root: Path) -> Any:
        on = prepare(root)
        run("intel_iommu=on")(on)
        return on

    return prepared


# -- GRUB --------------------------------------------------------------------------------------------------


def debian(root: Path) -> GrubHost:
    return GrubHost(root, boot.DEBIAN_13, kernels=KERNELS)


def ubuntu(root: Path) -> GrubHost:
    """A contradiction in one file, and the place for new parameters in another."""
    defaults = 'GRUB_CMDLINE_LINUX="intel_iommu=off"\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\n'
    return GrubHost(root, defaults, boot.UBUNTU_CLOUD_DROP_INS, kernels=KERNELS)


def suse(root: Path) -> GrubHost:
    return GrubHost(root, boot.OPENSUSE, kernels=KERNELS, flavour=boot.SUSE_FLAVOUR)


def last_look_fails(on: GrubHost) -> None:
    """The shell that evaluates the settings fails when everything is in place, so everything is undone."""
    evaluated: list[Sequence[str]] = []

    def answer(argv: Sequence[str]) -> Completed | None:
        if "-c" in argv:
            evaluated.append(argv)
        return Completed(tuple(argv), 1, "", "") if len(evaluated) == 3 else None

    on.intercept = answer


def by_hand(on: GrubHost) -> None:
    """What an administrator does: edit the file, and let the generator write to the real one."""
    on.write(boot.DEFAULTS, boot.DEBIAN_13.replace("intel_iommu=off", "intel_iommu=on"))
    on.update_grub()


# -- all of them -------------------------------------------------------------------------------------------


def updated(root: Path) -> OstreeHost:
    """An update waits for the next boot."""
    machine = OstreeHost(root)
    machine.upgrade()
    return machine


ENTRIES = tuple(map(systemd_boot.entry_path, systemd_boot.KERNELS))
IMAGES = tuple(map(systemd_boot.image_path, systemd_boot.KERNELS))
LINE = f"{systemd_boot.LINE}\n"
BLS_ENTRIES = tuple(map(grubby.entry_path, grubby.RHEL_9.kernels))

CASES = {
    "grub": {
        "debian": Case(debian, run("intel_iommu=on", "iommu=pt"), (boot.DEFAULTS, boot.CONFIG)),
        "a second change": Case(changed_before(debian), run("intel_iommu=on,sm_on"), (boot.DEFAULTS, boot.CONFIG)),
        "two files": Case(
            ubuntu,
            run("intel_iommu=on", "iommu=pt"),
            (boot.DEFAULTS, f"{boot.DEFAULTS}.d/50-cloudimg-settings.cfg", boot.CONFIG),
        ),
        "suse": Case(suse, run("iommu=pt"), (boot.DEFAULTS, boot.SUSE_FLAVOUR.config)),
        "rolling back": Case(debian, run("intel_iommu=on"), (boot.DEFAULTS, boot.CONFIG), last_look_fails),
        "revert": Case(changed_before(debian), revert, (boot.DEFAULTS, boot.CONFIG)),
    },
    "grub-bls": {
        "RHEL 9": Case(
            lambda root: GrubbyHost(root, settings=None),
            run("intel_iommu=on", "iommu=pt"),
            (grubby.DEFAULTS, *BLS_ENTRIES),
        ),
        "kernelopts of RHEL 8": Case(
            lambda root: GrubbyHost(root, RHEL_8), run("intel_iommu=on"), (grubby.ENVIRONMENT, grubby.DEFAULTS)
        ),
        "revert": Case(changed_before(GrubbyHost), revert, (grubby.DEFAULTS, grubby.SETTINGS, *BLS_ENTRIES)),
    },
    "systemd-boot": {
        "entries": Case(
            lambda root: SystemdBootHost(root, LINE),
            run("intel_iommu=on", "iommu=pt"),
            (systemd_boot.SETTINGS, *ENTRIES),
        ),
        "no settings": Case(SystemdBootHost, run("intel_iommu=on"), ENTRIES),
        "images": Case(
            lambda root: SystemdBootHost(root, LINE, layout="uki"),
            run("intel_iommu=on"),
            (systemd_boot.SETTINGS, *IMAGES),
        ),
        "revert": Case(
            changed_before(lambda root: SystemdBootHost(root, LINE)), revert, (systemd_boot.SETTINGS, *ENTRIES)
        ),
    },
    "uki": {
        "images": Case(
            lambda root: KINDS["uki"].make(root, "quiet intel_iommu=off"),
            run("intel_iommu=on"),
            (systemd_boot.SETTINGS, *IMAGES),
        ),
    },
    "extlinux": {
        "u-boot-update": Case(
            lambda root: ExtlinuxHost(root, 'U_BOOT_PARAMETERS="quiet"\n'),
            run("iommu=pt"),
            (extlinux.DEFAULTS, extlinux.CONFIG),
        ),
        "by hand": Case(
            lambda root: ExtlinuxHost(root, files={extlinux.CONFIG: extlinux.BY_HAND}),
            run("intel_iommu=on"),
            (extlinux.CONFIG,),
        ),
        "revert": Case(
            changed_before(lambda root: ExtlinuxHost(root, 'U_BOOT_PARAMETERS="quiet"\n')),
            revert,
            (extlinux.DEFAULTS, extlinux.CONFIG),
        ),
    },
    "rpm-ostree": {
        "nothing waits": Case(OstreeHost, run("intel_iommu=on", "iommu=pt"), (DEPLOYMENTS,)),
        "an update waits": Case(updated, run("intel_iommu=on", "iommu=pt"), (DEPLOYMENTS,)),
        "revert": Case(changed_before(OstreeHost), revert, (DEPLOYMENTS,)),
    },
    "transactional-update": {
        "a snapshot": Case(TransactionalHost, run("intel_iommu=on", "iommu=pt"), (boot.DEFAULTS, NEXT)),
    },
    # proxmox-boot-tool writes each entry in place: here it is ended between two files, never within one.
    "proxmox-boot-tool": {
        "systemd-boot": Case(ProxmoxHost, run("intel_iommu=on"), (proxmox.SETTINGS, *proxmox.entry_paths())),
        "GRUB": Case(
            lambda root: ProxmoxHost(root, proxmox.GRUB_LEGACY),
            run("intel_iommu=on"),
            (boot.DEFAULTS, *proxmox.configs()),
        ),
        "revert": Case(changed_before(ProxmoxHost), revert, (proxmox.SETTINGS, *proxmox.entry_paths())),
    },
    "zipl": {
        "sections": Case(
            lambda root: ZiplHost(root, zipl.UBUNTU), run("intel_iommu=on", "iommu=pt"), (zipl.CONFIG, zipl.BOOT_MAP)
        ),
        "entries": Case(
            lambda root: ZiplHost(root, zipl.RHEL, {version: zipl.entry(version) for version in zipl.KERNELS}),
            run("intel_iommu=on"),
            (zipl.BOOT_MAP, *map(zipl.entry_path, zipl.KERNELS)),
        ),
        "revert": Case(changed_before(lambda root: ZiplHost(root, zipl.UBUNTU)), revert, (zipl.CONFIG, zipl.BOOT_MAP)),
    },
}
"""Runs to be killed: boot loader -> name -> run."""

LEAST = {
    "grub": 500,
    "grub-bls": 200,
    "systemd-boot": 200,
    "uki": 40,
    "extlinux": 100,
    "rpm-ostree": 60,
    "transactional-update": 50,
    "proxmox-boot-tool": 150,
    "zipl": 150,
}
"""How many moments there are at least: fewer would mean that the harness has lost some of them."""


def every_case(chunks: int = 1) -> Iterator[Any]:
    for loader, cases in CASES.items():
        for name in cases:
            for chunk in range(chunks):
                label = f"{loader}, {name}" + (f", {chunk}" if chunks > 1 else "")
                yield pytest.param(loader, name, *([chunk] if chunks > 1 else []), id=label)


def moments(case: Case, scratch: Path, chunk: int = 0, chunks: int = 1) -> list[Point]:
    scratch.mkdir(parents=True)
    return points(case, scratch)[chunk::chunks]


@pytest.mark.parametrize(("loader", "name", "chunk"), list(every_case(CHUNKS)))
def test_killed_at_any_moment(
    tmp_path: Path, record_property: Callable[[str, object], None], loader: str, name: str, chunk: int
) -> None:
    case = CASES[loader][name]
    found = moments(case, tmp_path / "scratch", chunk, CHUNKS)
    bad = bad_outcomes(case, found, tmp_path)
    record_property(COUNTED, [loader, len(found), len(bad)])
    assert bad == []


@pytest.mark.parametrize(
    ("loader", "name"), [case for case in every_case() if not {"revert", "rolling back"} & set(case.values)]
)
def test_any_file_operation_may_fail(
    tmp_path: Path, record_property: Callable[[str, object], None], loader: str, name: str
) -> None:
    """A file system that is full, at whichever operation."""
    case = CASES[loader][name]
    (tmp_path / "scratch").mkdir()
    found = errors(case, errno.ENOSPC, tmp_path / "scratch")
    bad = bad_outcomes(case, found, tmp_path)
    record_property(COUNTED, [f"{loader}, file system full", len(found), len(bad)])
    assert found
    assert bad == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO], ids=errno.errorcode.get)
def test_a_file_system_that_fails_in_another_way(tmp_path: Path, number: int) -> None:
    case = CASES["grub"]["debian"]
    (tmp_path / "scratch").mkdir()
    found = errors(case, number, tmp_path / "scratch")
    assert len(found) > 30
    assert bad_outcomes(case, found, tmp_path) == []


def test_every_boot_loader_is_killed_often(tmp_path: Path) -> None:
    numbers = {
        loader: sum(len(moments(case, tmp_path / loader / name)) for name, case in cases.items())
        for loader, cases in CASES.items()
    }
    print(f"moments at which a run is killed: {numbers}, together {sum(numbers.values())}")
    assert set(numbers) == set(LOADERS) - {"bootc"}
    assert {loader: number for loader, number in numbers.items() if number < LEAST[loader]} == {}
    assert sum(numbers.values()) > 1500


def test_there_is_no_moment_at_which_bootc_could_be_killed(tmp_path: Path) -> None:
    """It writes nothing and runs nothing on a host that has what is wanted, and on any other it fails."""
    on = OstreeHost(tmp_path, programs=("bootc",))
    before = tree_listing(on.root)
    with at_call(0, lambda _unused: None) as calls:
        run("intel_iommu=off")(on)
        with pytest.raises(PassthroughError, match=r"kargs\.d"):
            run("intel_iommu=on")(on)
    assert not {"run", "write", "rename", "unlink"} & set(calls)
    assert tree_listing(on.root) == before


def test_a_file_that_is_written_in_place_does_not_pass(tmp_path: Path) -> None:
    case = Case(debian, by_hand, (boot.DEFAULTS, boot.CONFIG))
    found = bad_outcomes(case, moments(case, tmp_path / "scratch"), tmp_path)
    assert any("/boot/grub/grub.cfg is neither old nor new" in text for text in found)
    assert any("/boot/grub/grub.cfg.new is neither old nor new" in text for text in found)
