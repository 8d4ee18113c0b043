# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole of vfio_devices with each tool that builds an initramfs: bind and release, failures, being killed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence import dracut, mkinitcpio
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.modprobe import MODPROBE_PATH
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.rules import RULES_PATH
from ansible_collections.kvm.passthrough.tests.unit.support.devices import OWN, quadruple, run
from ansible_collections.kvm.passthrough.tests.unit.support.initramfs import (
    DracutStandIn,
    InitramfsToolsStandIn,
    MkinitcpioStandIn,
    contents,
)
from ansible_collections.kvm.passthrough.tests.unit.support.kernel import FakeKernel
from ansible_collections.kvm.passthrough.tests.unit.support.kill import Case, bad_outcomes, points
from ansible_collections.kvm.passthrough.tests.unit.support.machine import KERNELS, TWINS, VF0, hypervisor
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash, tree_listing

SHARE = 6
"""One in so many of the moments at which a run may be killed is judged by each case."""
FEDORA = "/boot/initramfs-{}.img"
BLS = "/efi/0123456789abcdef0123456789abcdef/{}/initrd"

TOOLS: dict[str, tuple[Any, dict[str, str], tuple[str, ...]]] = {
    "initramfs-tools": (InitramfsToolsStandIn, {}, tuple(f"/boot/initrd.img-{version}" for version in KERNELS)),
    "dracut": (DracutStandIn, {}, tuple(f"/boot/initrd.img-{version}" for version in KERNELS)),
    "dracut, Fedora": (DracutStandIn, {"layout": FEDORA}, tuple(FEDORA.format(version) for version in KERNELS)),
    "dracut, kernel-install": (DracutStandIn, {"layout": BLS}, tuple(BLS.format(version) for version in KERNELS)),
    "mkinitcpio": (MkinitcpioStandIn, {}, ("/boot/initramfs-linux.img", "/boot/initramfs-linux-fallback.img")),
}


def machine(name: str, root: Path) -> FakeKernel:
    tool, options, _images = TOOLS[name]
    return hypervisor(root).install(tool, *KERNELS, **options)


@pytest.mark.parametrize("name", TOOLS)
def test_bind_and_release(tmp_path: Path, name: str) -> None:
    kernel = machine(name, tmp_path)
    before = tree_listing(kernel.root, OWN)
    quadruple(kernel, VF0, TWINS[0], options={"disable_idle_d3": True})
    for image in TOOLS[name][2]:
        names, carried = contents(kernel, image)
        assert any(each.endswith("/vfio-pci.ko.xz") for each in names)
        assert sorted(carried.values()) == sorted(kernel.read_bytes(path) for path in (MODPROBE_PATH, RULES_PATH))
        assert b"options vfio-pci disable_idle_d3=Y\n" in carried["etc/modprobe.d/kvm-passthrough.conf"]
    # One goes, the other stays, and so the images change.
    quadruple(kernel, VF0, state="released")
    for image in TOOLS[name][2]:
        assert sorted(contents(kernel, image)[1].values()) == sorted(
            kernel.read_bytes(path) for path in (MODPROBE_PATH, RULES_PATH)
        )
    quadruple(kernel, TWINS[0], state="released")
    if "vfio-pci" in kernel.loaded:
        kernel.run(["modprobe", "-r", "vfio-pci"])
    assert tree_listing(kernel.root, OWN) == before


@pytest.mark.parametrize("name", TOOLS)
def test_a_failing_build_leaves_every_image_whole(tmp_path: Path, name: str) -> None:
    kernel = machine(name, tmp_path)
    before = tree_listing(kernel.root, OWN)
    assert kernel.initramfs is not None
    kernel.initramfs.fails = True
    with pytest.raises(PassthroughError) as caught:
        run(kernel, VF0)
    assert caught.value.code == "command_failed"
    assert caught.value.extra["not_undone"] == []
    assert tree_listing(kernel.root, OWN) == before


@pytest.mark.parametrize("name", TOOLS)
@pytest.mark.parametrize("flaw", ["ignores_settings", "lacks_modules"])
def test_an_image_that_is_not_right_is_an_error_and_never_used(tmp_path: Path, name: str, flaw: str) -> None:
    kernel = machine(name, tmp_path)
    before = tree_listing(kernel.root, OWN)
    assert kernel.initramfs is not None
    setattr(kernel.initramfs, flaw, True)
    with pytest.raises(PassthroughError) as caught:
        run(kernel, VF0)
    assert caught.value.code == "initramfs_incomplete"
    assert tree_listing(kernel.root, OWN) == before


def test_a_new_image_has_the_mode_of_the_old_one(tmp_path: Path) -> None:
    kernel = machine("dracut, Fedora", tmp_path)
    os.chmod(kernel.path(FEDORA.format(KERNELS[0])), 0o640)
    run(kernel, VF0)
    modes = [stat.S_IMODE(os.stat(kernel.path(FEDORA.format(version))).st_mode) for version in KERNELS]
    assert modes == [0o640, 0o600]


def test_one_build_serves_all_copies_of_an_image(tmp_path: Path) -> None:
    kernel = machine("dracut", tmp_path)
    kernel.tree.write(f"/efi/debian/{KERNELS[0]}/initrd.img-{KERNELS[0]}", "old copy")
    run(kernel, VF0)
    copies = [f"/boot/initrd.img-{KERNELS[0]}", f"/efi/debian/{KERNELS[0]}/initrd.img-{KERNELS[0]}"]
    assert kernel.read_bytes(copies[0]) == kernel.read_bytes(copies[1])
    assert len([argv for argv in kernel.commands if "dracut" in argv]) == len(KERNELS)


def test_boot_loaders_are_told_of_new_images(tmp_path: Path) -> None:
    """Debian's hooks, and zipl, which writes down where images are on the disk."""

    class WithBootLoaders(DracutStandIn):
        def run(self, argv: Sequence[str]) -> Completed | None:
            if argv[0] == "zipl":
                assert all(old.exists() for old in self.path("/boot").glob("initrd.img-*"))
                kept.append(sorted(path.name for path in self.path("/boot").glob(".*.old")))
                return Completed(tuple(argv), 0, "", "")
            if argv[0] == "run-parts":
                hooks.append(list(argv[1:]))
                return Completed(tuple(argv), 0, "", "")
            return super().run(argv)

    kept: list[list[str]] = []
    hooks: list[list[str]] = []
    kernel = hypervisor(tmp_path).install(WithBootLoaders, *KERNELS)
    for program in ("zipl", "run-parts"):
        kernel.tree.write(f"/usr/sbin/{program}", "").path(f"/usr/sbin/{program}").chmod(0o755)
    kernel.tree.write("/etc/zipl.conf", "").write("/etc/initramfs/post-update.d/zz-something", "")
    run(kernel, VF0)
    assert kept == [[f".initrd.img-{version}.kvm-passthrough.old" for version in KERNELS]]
    assert hooks == [
        [f"--arg={version}", f"--arg=/boot/initrd.img-{version}", dracut.POST_UPDATE_HOOKS] for version in KERNELS
    ]
    assert list(tmp_path.glob("boot/.*")) == []


def test_dracut_without_an_image_that_is_known(tmp_path: Path) -> None:
    kernel = machine("dracut", tmp_path)
    kernel.tree.write("/proc/sys/kernel/osrelease", f"{KERNELS[0]}\n")
    kernel.tree.path(f"/boot/initrd.img-{KERNELS[0]}").unlink()
    with pytest.raises(PassthroughError) as caught:
        run(kernel, VF0)
    assert caught.value.code == "initramfs_not_found"
    kernel.tree.write("/proc/sys/kernel/osrelease", "6.0.0-removed-by-an-upgrade\n")
    run(kernel, VF0)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text.replace('#ALL_config="', 'ALL_config="'), "initramfs_settings_ignored"),
        (lambda text: text.replace('#default_config="', 'default_config="'), "initramfs_settings_ignored"),
        (lambda text: text + 'default_image="/boot/$name.img"\n', "preset_unreadable"),
        (lambda text: text + "if true; then\n", "preset_unreadable"),
        (lambda text: text + "x='open\n", "preset_unreadable"),
    ],
)
def test_presets_of_mkinitcpio_that_get_in_the_way(tmp_path: Path, change: Callable[[str], str], code: str) -> None:
    kernel = machine("mkinitcpio", tmp_path)
    kernel.tree.write(f"{mkinitcpio.PRESETS}/linux.preset", change(MkinitcpioStandIn.PRESET))
    before = tree_hash(kernel.root, OWN)
    with pytest.raises(PassthroughError) as caught:
        run(kernel, VF0)
    assert caught.value.code == code
    assert tree_hash(kernel.root, OWN) == before


def test_a_file_system_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = machine("dracut", tmp_path)
    read_only = {"/etc/udev/rules.d", "/etc/modprobe.d", "/boot"}
    monkeypatch.setattr(kernel, "is_writable", lambda path: path not in read_only)
    before = tree_hash(kernel.root, OWN)
    with pytest.raises(PassthroughError) as caught:
        run(kernel, VF0)
    assert {problem.code for problem in caught.value.problems} == {"file_unwritable"}
    paths = {problem.details["path"] for problem in caught.value.problems}
    assert {MODPROBE_PATH, RULES_PATH, f"/boot/initrd.img-{KERNELS[0]}"} <= paths
    assert tree_hash(kernel.root, OWN) == before
    run(kernel, VF0, persistent=False)


# -- killed ------------------------------------------------------------------------------------------------


class Killable:
    """The machine as the kill harness wants it: what the kernel has in memory survives only in its tree."""

    def __init__(self, root: Path, name: str, *, bound: bool) -> None:
        self.root = root
        self.name = name
        self.host: FakeKernel = machine(name, root)
        if bound:
            run(self.host, VF0, TWINS[0])


def bind_both(killable: Any) -> None:
    _awake(killable)
    run(killable.host, VF0, TWINS[0])


def release_both(killable: Any) -> None:
    _awake(killable)
    run(killable.host, VF0, TWINS[0], state="released")


def _awake(killable: Any) -> None:
    """A module that a killed process was loading is loaded, and wholly: the kernel does not stop half-way."""
    kernel = killable.host
    for driver in kernel.drivers:
        if kernel.exists(f"/sys/bus/pci/drivers/{driver}") and driver not in kernel.loaded:
            kernel.loaded.append(driver)
            kernel.add_module(driver)


@pytest.mark.parametrize("name", ["initramfs-tools", "dracut, kernel-install", "mkinitcpio"])
@pytest.mark.parametrize("bound", [False, True], ids=["bind", "release"])
def test_killed_at_any_moment(tmp_path: Path, name: str, bound: bool) -> None:
    case = Case(
        lambda root: Killable(root, name, bound=bound),
        release_both if bound else bind_both,
        TOOLS[name][2],
    )
    (tmp_path / "scratch").mkdir()
    found = points(case, tmp_path / "scratch")
    print(f"{name}: {len(found)} moments")
    assert len(found) > 30
    # Most moments are the same for every tool and take a whole run each: every case judges others of them.
    chosen = found[(list(TOOLS).index(name) + 3 * bound) % SHARE :: SHARE]
    # What the running kernel has is what it has when a run is killed half-way, and update-initramfs writes beside the
    # image; the next run goes on from there.
    outcomes = bad_outcomes(case, chosen, tmp_path)
    unfinished = re.compile(r": (?:/sys/\S+|/boot/initrd\.img-\S+\.new) is neither old nor new")
    assert [text for text in outcomes if not unfinished.search(text)] == []
