# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The distributions that generate grub.cfg from settings, each in its own way."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.grub_layout import find_layout
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import configuration
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.tests.unit.support import boot
from ansible_collections.kvm.passthrough.tests.unit.support.boot import GrubHost
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import run
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash

RHEL_8_EFI = replace(boot.FEDORA_FLAVOUR, efi_config="/boot/efi/EFI/redhat/grub.cfg")

HOSTS: dict[str, dict[str, Any]] = {
    "debian": {"defaults": boot.DEBIAN_13},
    "ubuntu cloud image": {"defaults": boot.UBUNTU_CLOUD, "drop_ins": boot.UBUNTU_CLOUD_DROP_INS},
    "suse": {
        "defaults": boot.OPENSUSE,
        "flavour": boot.SUSE_FLAVOUR,
        "kernels": ["6.4.0-150600.23.30-default", "6.4.0-150600.23.33-default"],
    },
    "arch": {"defaults": boot.ARCH, "flavour": boot.ARCH_FLAVOUR, "kernels": ["linux", "linux-lts"]},
    "gentoo": {"defaults": boot.GENTOO, "flavour": boot.GENTOO_FLAVOUR, "kernels": ["6.6.67-gentoo-dist"]},
    "fedora without boot loader specification": {
        "defaults": boot.FEDORA,
        "flavour": boot.FEDORA_FLAVOUR,
        "kernels": ["6.11.4-301.fc41.x86_64", "0-rescue-0123456789abcdef0123456789abcdef"],
    },
    "rhel 8 on efi": {"defaults": boot.FEDORA, "flavour": RHEL_8_EFI, "kernels": ["4.18.0-553.el8_10.x86_64"]},
}


@pytest.mark.parametrize("name", HOSTS)
def test_check_run_check_run(tmp_path: Path, name: str) -> None:
    on = GrubHost(tmp_path, **HOSTS[name])
    before = tree_hash(on.root)
    comments = re.findall(r"^#.*$", on.read(boot.DEFAULTS), re.MULTILINE)
    expected = run(on, ["intel_iommu=on", "iommu=pt"], check=True)
    assert tree_hash(on.root) == before
    assert run(on, ["intel_iommu=on", "iommu=pt"]) == expected
    assert expected["changed"]
    assert expected["bootloader"]["name"] == "grub"
    assert expected["actions"][-1]["target"] == on.config
    assert re.findall(r"^#.*$", on.read(boot.DEFAULTS), re.MULTILINE) == comments

    found = configuration(on.host)
    assert [entry.as_result() for entry in found.entries] == expected["entries"]["after"]
    generated = [entry for entry in found.entries if entry.generated]
    assert len(generated) >= len(HOSTS[name].get("kernels", []))
    for entry in generated:
        assert ("intel_iommu=on iommu=pt" in str(entry.command_line)) is not entry.recovery
    generating = [command for command in on.commands if command[-2] == "-o"]
    assert [command[-3] for command in generating] == [Path(on.generator).name]

    on.reboot()
    after = tree_hash(on.root)
    for check in (True, False):
        again = run(on, ["intel_iommu=on", "iommu=pt"], check=check)
        assert (again["changed"], again["reboot_required"], again["actions"]) == (False, False, [])
    assert tree_hash(on.root) == after


def test_arch_has_fallback_entries_and_they_are_normal_ones(tmp_path: Path) -> None:
    on = GrubHost(tmp_path, **HOSTS["arch"])
    entries = run(on, ["iommu=pt"])["entries"]["after"]
    fallback = [entry for entry in entries if entry["title"].endswith("(fallback initramfs)")]
    assert [entry["command_line"] for entry in fallback] == ["root=UUID=1234-abcd rw loglevel=3 quiet iommu=pt"] * 2
    assert not any(entry["recovery"] for entry in entries)


def test_fedora_has_its_parameters_in_the_variable_of_all_entries(tmp_path: Path) -> None:
    on = GrubHost(tmp_path, **HOSTS["fedora without boot loader specification"])
    run(on, ["rhgb", "iommu=pt"])
    text = on.read(boot.DEFAULTS)
    assert text == boot.FEDORA + 'GRUB_CMDLINE_LINUX_DEFAULT="iommu=pt"\n'
    assert all("iommu=pt" in str(entry.command_line) for entry in configuration(on.host).entries if entry.generated)


def test_suse_reads_no_drop_ins(tmp_path: Path) -> None:
    on = GrubHost(tmp_path, **HOSTS["suse"], drop_ins={"x.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="x=1"\n'})
    assert run(on, ["quiet", "iommu=pt"])["configured"]["after"]["normal"].startswith("splash=silent preempt=full")
    assert on.read(f"{boot.DEFAULTS}.d/x.cfg") == 'GRUB_CMDLINE_LINUX_DEFAULT="x=1"\n'


def test_the_checker_of_the_distribution_reads_what_was_generated(tmp_path: Path) -> None:
    on = GrubHost(tmp_path, **HOSTS["suse"])
    on.write("/usr/bin/grub2-script-check", "#!/bin/sh\n", 0o755)
    before = on.read(on.config)
    asked = []

    def answer(argv: Any) -> None:
        if argv[0] == "grub2-script-check":
            asked.append(argv[1])
            raise FileNotFoundError

    on.intercept = answer
    with pytest.raises(PassthroughError):
        run(on, ["iommu=pt"])
    assert len(asked) == 1
    assert on.read(on.config) == before


# -- which layout ------------------------------------------------------------------------------------------


def _program(root: Path, name: str, link: str = "") -> None:
    path = root / "usr/sbin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if link:
        path.symlink_to(link)
    else:
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)


def _config(root: Path, path: str, text: str = "menuentry x { linux /vmlinuz }\n") -> None:
    (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (root / path.lstrip("/")).write_text(text)


NUMBERED = ("grub2-mkconfig", "grub2-script-check", "/boot/grub2/grub.cfg")
PLAIN = ("grub-mkconfig", "grub-script-check", "/boot/grub/grub.cfg")


def _found(root: Path) -> tuple[str, str, str]:
    layout = find_layout(Host(str(root)))
    return layout.generator, layout.checker, layout.config


def test_nothing_of_grub_is_there(tmp_path: Path) -> None:
    assert _found(tmp_path) == PLAIN


def test_the_generator_decides(tmp_path: Path) -> None:
    _program(tmp_path, "grub2-mkconfig")
    _config(tmp_path, "/boot/grub/grub.cfg")  # of a GRUB somebody once tried
    assert _found(tmp_path) == NUMBERED


@pytest.mark.parametrize(("real", "link", "expected"), [(NUMBERED, PLAIN, NUMBERED), (PLAIN, NUMBERED, PLAIN)])
def test_a_link_with_the_other_name_does_not_count(
    tmp_path: Path, real: tuple[str, ...], link: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    _program(tmp_path, real[0])
    _program(tmp_path, link[0], real[0])
    _config(tmp_path, NUMBERED[2])
    _config(tmp_path, PLAIN[2])
    assert _found(tmp_path) == expected


def test_of_two_generators_the_one_whose_file_is_there(tmp_path: Path) -> None:
    _program(tmp_path, PLAIN[0])
    _program(tmp_path, NUMBERED[0])
    _config(tmp_path, NUMBERED[2])
    assert _found(tmp_path) == NUMBERED


STUB = """\
search --no-floppy --root-dev-only --fs-uuid --set=dev 0123-4567
set prefix=($dev)/grub2

export $prefix
configfile $prefix/grub.cfg
"""


@pytest.mark.parametrize("efi", [True, False])
@pytest.mark.parametrize(
    ("text", "leads"),
    [
        (STUB, "/boot/grub2/grub.cfg"),
        ("menuentry x { linux /vmlinuz }\nmenuentry y { configfile /z }\n", "/boot/efi/EFI/redhat/grub.cfg"),
        ("insmod blscfg\nblscfg\n", "/boot/efi/EFI/redhat/grub.cfg"),
        ("menuentry 'cut off", "/boot/efi/EFI/redhat/grub.cfg"),
    ],
)
def test_the_file_on_the_efi_system_partition(tmp_path: Path, efi: bool, text: str, leads: str) -> None:
    _program(tmp_path, NUMBERED[0])
    _config(tmp_path, NUMBERED[2])
    _config(tmp_path, "/boot/efi/EFI/redhat/grub.cfg", text)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/grub2-efi.cfg").symlink_to("../boot/efi/EFI/redhat/grub.cfg")
    if efi:
        (tmp_path / "sys/firmware/efi").mkdir(parents=True)
    assert _found(tmp_path)[2] == (leads if efi else NUMBERED[2])


def test_remedies_name_what_the_administrator_has(tmp_path: Path) -> None:
    on = GrubHost(tmp_path, **HOSTS["suse"])
    on.write(on.config, "menuentry x {\n\tlinux\t/boot/vmlinuz-6.4.0-150600.23.33-default\n}\n")
    with pytest.raises(PassthroughError, match=r"grub2-mkconfig -o /boot/grub2/grub\.cfg"):
        run(on, ["iommu=pt"])
