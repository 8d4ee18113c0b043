# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kernel_parameters promises whatever boots the host."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import CommandLine
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.detect import LOADERS, detect
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import configuration
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.tests.unit.support.loaders import KINDS, Kind
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import refused, run
from ansible_collections.kvm.passthrough.tests.unit.support.systemd_boot import LOADER_INFO, STUB_INFO, efi_text
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing

EVERY_KIND = pytest.mark.parametrize("kind", [pytest.param(kind, id=name) for name, kind in KINDS.items()])
PLAIN = "quiet intel_iommu=off"


def lines(on: Any) -> list[CommandLine]:
    """What the settings give to a new kernel, and what every entry of this system has."""
    found = configuration(on.host)
    entries = [entry for entry in found.entries if (entry.generated or entry.in_place) and not entry.recovery]
    assert entries
    return [found.normal, *(entry.command_line for entry in entries)]


def texts(on: Any, key: str) -> set[tuple[str, ...]]:
    """The parameters of a name in each of those."""
    return {tuple(parameter.text for parameter in line.named(key)) for line in lines(on)}


def test_all_are_here() -> None:
    assert {kind.loader for kind in KINDS.values()} == set(LOADERS) - {"bootc"}


@EVERY_KIND
def test_it_is_proved(tmp_path: Path, kind: Kind) -> None:
    assert detect(kind.make(tmp_path, PLAIN).host).name == kind.loader


# -- names match as wholes ---------------------------------------------------------------------------------

CLOSE = "amd_iommu=pt iommu=soft intel_iommu=on,sm_on my.vfio-pci.ids=9:9 vfio_pci.ids=1:2 vfio_pci.idsx=3"


@EVERY_KIND
def test_names_that_contain_each_other(tmp_path: Path, kind: Kind) -> None:
    on = kind.make(tmp_path, CLOSE)
    result = run(on, ["iommu=pt", "intel_iommu=on", "vfio-pci.ids=8086:10ca"])
    assert result["changed"]
    assert texts(on, "iommu") == {("iommu=pt",)}
    assert texts(on, "amd_iommu") == {("amd_iommu=pt",)}
    assert texts(on, "intel_iommu") == {("intel_iommu=on",)}
    assert texts(on, "vfio_pci.ids") == {("vfio-pci.ids=8086:10ca",)}  # the kernel has one name for both
    assert texts(on, "vfio_pci.idsx") == {("vfio_pci.idsx=3",)}
    assert texts(on, "my.vfio_pci.ids") == {("my.vfio-pci.ids=9:9",)}
    kind.boot(on)
    run(on, [], ["iommu", "vfio_pci.ids"])
    assert texts(on, "iommu") == texts(on, "vfio_pci.ids") == {()}
    assert texts(on, "amd_iommu") == {("amd_iommu=pt",)}
    kind.boot(on)
    run(on, [], ["amd_iommu=off", "intel_iommu"])
    assert texts(on, "amd_iommu") == {("amd_iommu=pt",)}  # another value than the one that is to go
    assert texts(on, "intel_iommu") == {()}


# -- values ------------------------------------------------------------------------------------------------

VALUES = {
    "spaces": 'dyndbg="file drivers/vfio/* +p; module vfio_pci +p"',
    "equals signs": "netconsole=a=b=c,==",
    "commas and colons": "vfio-pci.ids=8086:10ca:ffff:*,1234:11e8",
    "characters of sed and shell": "x=*.[a-z]^%@!?#~+,/",
    "the whole in quotes": '"dyndbg=file x +p"',
    "not ASCII": "vconsole.font=größe",
}


@EVERY_KIND
@pytest.mark.parametrize("name", VALUES)
def test_hostile_but_legal_values(tmp_path: Path, kind: Kind, name: str) -> None:
    value = VALUES[name]
    wanted = CommandLine.parse(value).parameters[0]
    on = kind.make(tmp_path, PLAIN)
    if (" " in value and not kind.takes_spaces) or (not value.isascii() and not kind.takes_all_of_unicode):
        refused(on, "value_not_representable", [value])
        return
    before = [line.parameters for line in lines(on)]
    assert run(on, [value])["changed"]
    for line in lines(on):
        assert [parameter.meaning for parameter in line.named(wanted.key)] == [wanted.meaning]
    assert not run(on, [value])["changed"]
    kind.boot(on)
    assert run(on, [], [wanted.name])["changed"]
    assert [line.parameters for line in lines(on)] == before


@EVERY_KIND
@pytest.mark.parametrize(
    "text", ["iommu=pt\nroot=/dev/sda", "iommu=pt\r", "iommu=\x1b[2J", "a\0b", "iommu=pt\u2028", "iommu=pt quiet"]
)
def test_what_could_become_more_than_one_parameter(tmp_path: Path, kind: Kind, text: str) -> None:
    on = kind.make(tmp_path, PLAIN)
    before = tree_listing(on.root)
    for present, absent in (([text], []), ([], [text])):
        with pytest.raises(PassthroughError) as caught:
            run(on, present, absent)
        assert caught.value.code == "invalid_parameter"
        assert caught.value.as_result()["value"] == text
        assert re.search("line break|control character|cannot be printed|space outside", str(caught.value))
    assert tree_listing(on.root) == before


# -- all of them, and what comes later -----------------------------------------------------------------------


@EVERY_KIND
def test_a_contradiction_goes_everywhere(tmp_path: Path, kind: Kind) -> None:
    on = kind.make(tmp_path, "quiet intel_iommu=off splash intel-iommu=sm_off")
    run(on, ["intel_iommu=on"])
    assert texts(on, "intel_iommu") == {("intel_iommu=on",)}
    assert "off" not in "".join(map(str, lines(on)))


@EVERY_KIND
def test_the_default_kernel_alone_or_a_refusal(tmp_path: Path, kind: Kind) -> None:
    on = kind.make(tmp_path, PLAIN)
    if kind in (KINDS["grub-bls, RHEL 9"], KINDS["grub-bls, RHEL 8"], KINDS["zipl"]):
        assert run(on, ["intel_iommu=on"], kernels="default")["changed"]
        entries = [entry.command_line for entry in configuration(on.host).entries]
        assert sum("intel_iommu=on" in str(line) for line in entries) == 1
        return
    error = refused(on, "kernels_default_unsupported", ["intel_iommu=on"], kernels="default")
    assert "kernels: all" in error.problems[0].remedy


# -- refused -----------------------------------------------------------------------------------------------


@EVERY_KIND
def test_a_file_system_that_is_mounted_read_only(tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    on = kind.make(tmp_path, PLAIN)
    access = os.access
    for path in kind.written:
        directory = str(on.path(path).parent)
        # What access(2) answers on a read-only mount, to root too.
        monkeypatch.setattr(
            os, "access", lambda at, mode, no=directory: not (mode == os.W_OK and at == no) and access(at, mode)
        )
        error = refused(on, "file_unwritable", ["intel_iommu=on"])
        assert os.path.dirname(path) in str(error)
        assert "mounted read-only" in str(error)
        assert "remount" in error.problems[0].remedy
        assert not run(on, ["intel_iommu=off"])["changed"]  # nothing to write, nothing to complain about


CONFLICTS = {
    "systemd-boot": {LOADER_INFO: efi_text("systemd-boot 257.8")},
    "uki": {STUB_INFO: efi_text("systemd-stub 257.8")},
    "transactional-update": {
        "/usr/sbin/transactional-update": b"",
        "/proc/self/mounts": b"/dev/vda3 / btrfs ro,subvol=/@/.snapshots/1/snapshot 0 0\n",
    },
}
"""What a boot loader that is no longer used, or that was only tried, may have left in the running system."""


# A boot loader that drives another one does not contradict it.
@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("grub", "systemd-boot"),
        ("grub", "uki"),
        ("grub-bls, RHEL 9", "systemd-boot"),
        ("grub-bls, RHEL 9", "uki"),
        ("rpm-ostree", "transactional-update"),
    ],
)
def test_two_that_look_active(tmp_path: Path, name: str, other: str) -> None:
    on = KINDS[name].make(tmp_path, PLAIN)
    evidence = detect(on.host).evidence
    for path, content in CONFLICTS[other].items():
        target = on.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o755)
    error = refused(on, "bootloader_ambiguous", ["iommu=pt"])
    assert error.as_result()["found"] == [KINDS[name].loader, other]
    told = error.as_result()["evidence"]
    assert set(evidence) < set(told)
    assert all(text in str(error) for text in told)
    assert f"bootloader: {KINDS[name].loader} or {other}" in error.problems[0].remedy


def test_an_unknown_boot_loader(tmp_path: Path) -> None:
    """Nothing is there that this collection knows: the error lists what was looked for."""
    on = KINDS["grub"].make(tmp_path, PLAIN)
    for path in ("/boot/grub/grub.cfg", "/usr/sbin/grub-mkconfig", "/etc/default/grub"):
        on.path(path).unlink()
    on.write("/proc/cmdline", "root=/dev/sda1 quiet\n")
    error = refused(on, "bootloader_unsupported", ["iommu=pt"])
    assert set(error.as_result()["missing"]) == set(LOADERS)
    for make in LOADERS.values():
        assert make(on.host).title in str(error)
    for name in ("composefs", "SUSE on IBM Z", "sdbootutil"):  # what is only known to be refused
        assert name in str(error)
