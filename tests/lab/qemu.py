# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulators: the installed one when it is new enough, else Debian's, unpacked into the cache."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache as remembered
from pathlib import Path
from typing import NamedTuple

from . import cache, debian
from .run import LabError, find_tool, run, step

# The 82576 ("igb") came with QEMU 8.0. Snapshots, hot-plug and SR-IOV together were proved
# with 10.0, the version of Debian 13, so an older one is not trusted with them.
_MINIMUM = (10, 0)


VARIABLES_FILE = "efivars.fd"
"""What a copy of the firmware's variables is called, beside the disk of a machine."""


class Firmware(NamedTuple):
    """UEFI firmware, and where its variables are a file of their own, one with none in it."""

    code: Path
    variables: Path | None = None


@dataclass(frozen=True)
class _Emulator:
    """An emulator by its architecture: Debian's packages, and a device that a distribution may have left out."""

    kind: str
    packages: tuple[str, ...]
    needed_device: str
    firmware: tuple[tuple[str, ...], ...] = ()
    """Where packages put its UEFI firmware and the file with its variables, below /usr/share; the first is Debian's."""
    disk_tool: bool = False
    """Whether machines with a disk run on it, which takes qemu-img."""


_EMULATORS = {
    "x86_64": _Emulator(
        "qemu",
        ("qemu-system-x86", "qemu-utils", "seabios", "ovmf"),
        "igb",
        # Debian's, Fedora's, SUSE's and Arch's, all without Secure Boot
        (
            ("OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd"),
            ("edk2/ovmf/OVMF_CODE.fd", "edk2/ovmf/OVMF_VARS.fd"),
            ("qemu/ovmf-x86_64-4m-code.bin", "qemu/ovmf-x86_64-4m-vars.bin"),
            ("edk2/x64/OVMF_CODE.4m.fd", "edk2/x64/OVMF_VARS.4m.fd"),
        ),
        disk_tool=True,
    ),
    "aarch64": _Emulator(
        "qemu-aarch64",
        ("qemu-system-arm", "qemu-utils", "qemu-efi-aarch64"),
        "igb",
        # Debian's, Fedora's and SUSE's
        (
            ("qemu-efi-aarch64/QEMU_EFI.fd",),
            ("edk2/aarch64/QEMU_EFI.fd",),
            ("qemu/aavmf-aarch64-code.bin",),
        ),
        disk_tool=True,
    ),
    "s390x": _Emulator("qemu-s390x", ("qemu-system-s390x", "qemu-utils"), "zpci", disk_tool=True),
}


@dataclass(frozen=True)
class Qemu:
    """How to call an emulator and its disk tool (empty where no machine has a disk).

    ``identity`` tells one emulator from another: a snapshot belongs to the one that wrote it.
    ``firmware`` is for machines with UEFI.
    """

    system: tuple[str, ...]
    img: tuple[str, ...]
    identity: str
    environment: Mapping[str, str] = field(default_factory=dict)
    firmware: Firmware | None = None

    def uefi(self, variables: Path | None = None) -> tuple[str, ...]:
        """The options that start a machine with UEFI, and with its ``variables`` in that file, a copy of its own."""
        assert self.firmware is not None, "this emulator has no machines with UEFI"
        if variables is None:
            return ("-bios", str(self.firmware.code))
        return (
            "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={self.firmware.code}",
            "-drive", f"if=pflash,unit=1,format=raw,file={variables}",
        )  # fmt: skip

    def copy_variables(self, target: Path) -> None:
        """Make a file with the variables of a firmware that was never started."""
        template = self.firmware.variables if self.firmware else None
        assert template is not None, "this emulator's firmware has no file of its own for its variables"
        # Not its mode: the template may be read-only.
        shutil.copyfile(template, target)


def tree_names() -> set[str]:
    """The cache's names of the unpacked emulators."""
    return {_tree_name(emulator) for emulator in _EMULATORS.values()}


def _tree_name(emulator: _Emulator) -> str:
    return f"{emulator.kind}-{_tree_key(emulator)}"


def _tree_key(emulator: _Emulator) -> str:
    return cache.digest("1", debian.SUITE, emulator.packages)


def unpacked(architecture: str = "x86_64") -> Qemu:
    """How the emulator in the cache is called, whether it is there or not."""
    return _from_tree(architecture, cache.cache_directory() / _tree_name(_EMULATORS[architecture]))


@remembered
def find_qemu(architecture: str = "x86_64") -> Qemu:
    """The emulator of this architecture, fetched first when needed.

    Raises LabError when this is not an x86-64 machine or the packages cannot be had.
    """
    if platform.machine() != "x86_64":
        raise LabError(f"the lab runs on x86_64 machines, this is {platform.machine()}")
    emulator = _EMULATORS[architecture]

    def build(directory: Path) -> None:
        _build_tree(architecture, directory)

    return installed(architecture) or _from_tree(
        architecture, cache.artefact(emulator.kind, _tree_key(emulator), build)
    )


def installed(architecture: str = "x86_64") -> Qemu | None:
    """The emulator of this machine; None when it has none that is new enough and complete."""
    emulator = _EMULATORS[architecture]
    system, img = find_tool(f"qemu-system-{architecture}"), find_tool("qemu-img")
    if not system or (emulator.disk_tool and not img):
        return None
    version = run([system, "--version"], timeout=30, check=False).stdout
    match = re.search(r"version (\d+)\.(\d+)\S*(?: \([^)]*\))?", version)
    if not match or (int(match[1]), int(match[2])) < _MINIMUM:
        return None
    # A distribution may build it without the device (RHEL does).
    if run(_showing_device((system,), emulator), timeout=30, check=False).returncode != 0:
        return None
    firmware = _find_firmware(emulator, Path("/usr/share"))
    if emulator.firmware and not firmware:
        return None
    return Qemu((system,), (img,) if img else (), match[0], firmware=firmware)


def _showing_device(system: tuple[str, ...], emulator: _Emulator) -> tuple[str, ...]:
    return (*system, "-device", f"{emulator.needed_device},help")


def _find_firmware(emulator: _Emulator, share: Path) -> Firmware | None:
    for names in emulator.firmware:
        files = [share / name for name in names]
        if all(file.is_file() for file in files):
            return Firmware(*files)
    return None


def _build_tree(architecture: str, directory: Path) -> None:
    emulator = _EMULATORS[architecture]
    with step(f"fetching QEMU for {architecture} from Debian {debian.SUITE}"):
        # As a tar file: unpacked by ourselves, the files belong to whoever runs the lab.
        archive = directory / "tree.tar"
        log = directory / "build.log"
        debian.mmdebstrap(archive, emulator.packages, variant="extract", log=log)
        tree = directory / "tree"
        tree.mkdir()
        run(["tar", "-C", tree, "--no-same-owner", "--exclude=./dev/*", "-xf", archive], timeout=300, log=log)
        archive.unlink()
        run(_showing_device(_from_tree(architecture, directory).system, emulator), timeout=60, log=log)


def _from_tree(architecture: str, directory: Path) -> Qemu:
    """Call the unpacked programs through their own dynamic linker.

    So they run with the C library they were built for, without root rights and without a
    chroot, and see the lab's files under their ordinary names.
    """
    emulator = _EMULATORS[architecture]
    usr = directory / "tree" / "usr"
    libraries = usr / "lib" / "x86_64-linux-gnu"
    linker = (str(usr / "lib64" / "ld-linux-x86-64.so.2"), "--library-path", f"{libraries}:{libraries}/pulseaudio")
    data = [word for name in ("qemu", "seabios") for word in ("-L", str(usr / "share" / name))]
    return Qemu(
        system=(*linker, str(usr / "bin" / f"qemu-system-{architecture}"), *data),
        img=(*linker, str(usr / "bin" / "qemu-img")) if emulator.disk_tool else (),
        identity=directory.name,
        # Else it would look for its modules in the file system of this machine.
        environment={"QEMU_MODULE_DIR": str(libraries / "qemu")},
        firmware=_find_firmware(emulator, usr / "share"),
    )
