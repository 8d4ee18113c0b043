# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The initramfs images of the installed kernels: where they are, and whether they have what they are to have.

Where tools and boot loaders keep them: /boot/initrd.img-VERSION (Debian), /boot/initramfs-VERSION.img (Fedora),
/boot/initrd-VERSION (SUSE), and one directory for each kernel on the boot partition where kernel-install manages it
(``$BOOT/ENTRY-TOKEN/VERSION/initrd…``, kernel-install(8)). A kernel may have several: what is built in /boot is copied
to the boot partition. All of them count, for nobody knows here which one is booted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..._core.errors import PassthroughError, Problem
from ..._core.host import Host
from . import archive
from .archive import Contents

BOOT_PARTITIONS = ("/boot", "/efi", "/boot/efi")
MODULES = "/lib/modules"

_IN_BOOT = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}")
_IN_DIRECTORY = ("initrd", "initramfs")
# Compressed modules: kernel/module/Makefile and Documentation/kbuild: .gz, .xz, .zst.
_MODULE = re.compile(r"(?:.*/)?([^/]+)\.ko(?:\.[a-z0-9]+)?")
_OF_KERNEL = re.compile(r"(?:usr/)?lib/modules/([^/]+)/")


@dataclass(frozen=True, order=True)
class Image:
    """An image and the kernel it is for; the version is empty where only the image itself can tell."""

    version: str
    path: str


@dataclass(frozen=True)
class Cargo:
    """What every image is to have: files, by the end of their path, each with its content, and drivers."""

    files: Mapping[str, bytes]
    """``udev/rules.d/70-kvm-passthrough.rules``: tools choose the directory before it. Empty content: not there."""
    drivers: tuple[str, ...]

    @property
    def file_names(self) -> frozenset[str]:
        """The names of the files, without any directory."""
        return frozenset(end.rpartition("/")[2] for end in self.files)

    def missing_from(self, host: Host, contents: Contents, version: str) -> list[str]:
        """What is wrong with an image, in words for a list: ``it lacks the module vfio-pci``."""
        wrong = []
        for end, wanted in sorted(self.files.items()):
            found = [content for name, content in contents.files.items() if f"/{name}".endswith(f"/{end}")]
            if not wanted:
                wrong += [f"it still has {end}"] if found else []
            elif not found:
                wrong.append(f"it lacks {end}")
            elif any(content != wanted for content in found):
                wrong.append(f"it has another {end} than /etc")
        version = version or _version_in(contents.names)
        versions = [version] if version else kernels(host)  # an image without any module may be for any of them
        for driver in self.drivers:
            is_module = any(_is_module(host, each, driver) for each in versions)
            if is_module and not any(_holds_module(name, driver) for name in contents.names):
                wrong.append(f"it lacks the module {driver}")
        return wrong


def find(host: Host) -> list[Image]:
    """All images of installed kernels. A kernel without one boots without, and is in no list."""
    found = []
    for version in kernels(host):
        places = [f"/boot/{pattern.format(version)}" for pattern in _IN_BOOT]
        for partition in BOOT_PARTITIONS:
            for token in host.list_dir(partition):
                directory = f"{partition}/{token}/{version}"
                places += [f"{directory}/{name}" for name in host.list_dir(directory) if name.startswith(_IN_DIRECTORY)]
        # /boot may be the EFI partition, and /efi a link to it: each file once.
        real = dict.fromkeys(host.real_path(path) for path in places if host.exists(path) and not host.is_dir(path))
        found += [Image(version, path) for path in real]
    return found


def kernels(host: Host) -> list[str]:
    """The versions of the installed kernels: those with a list of modules, which a removed one leaves none of."""
    return [version for version in host.list_dir(MODULES) if host.exists(f"{MODULES}/{version}/modules.dep")]


def unified_images(host: Host) -> list[str]:
    """Kernels with the initramfs in one file of theirs, which firmware or systemd-boot starts."""
    found = []
    for partition in BOOT_PARTITIONS:
        directory = f"{partition}/EFI/Linux"
        found += [f"{directory}/{name}" for name in host.list_dir(directory) if name.endswith(".efi")]
    return found


def complaints(host: Host, images: Iterable[Image], cargo: Cargo, tool: str) -> list[Problem]:
    """What is wrong with images, a problem for each: ``initramfs_incomplete`` or what :func:`.archive.read` raises."""
    problems = []
    for image in images:
        try:
            wrong = cargo.missing_from(host, archive.read(host, image.path, cargo.file_names), image.version)
        except PassthroughError as error:
            problems += error.problems
            continue
        if wrong:
            problems.append(
                Problem(
                    "initramfs_incomplete",
                    f"{tool} ended well, but {image.path} is not as it is to be: {'; '.join(wrong)}.",
                    "Look at what the settings of the tool leave out (update_initramfs in update-initramfs.conf, "
                    "omit_drivers and omit_dracutmodules of dracut, a preset of mkinitcpio that names a configuration "
                    "of its own), and build the images by hand to see what it says.",
                    {"image": image.path},
                )
            )
    return problems


def _version_in(names: Collection[str]) -> str:
    """The kernel an image has modules of; empty without any."""
    return next((match[1] for match in map(_OF_KERNEL.match, sorted(names)) if match), "")


def _is_module(host: Host, version: str, driver: str) -> bool:
    """Whether a driver is a module of a kernel, rather than built in or not there at all."""
    text = host.attribute(f"{MODULES}/{version}/modules.dep") or ""
    return any(_holds_module(line.partition(":")[0], driver) for line in text.splitlines())


def _holds_module(path: str, driver: str) -> bool:
    """Whether a path is that of a module: names are the same with dashes and underscores, files may be compressed."""
    name = _MODULE.fullmatch(path)
    return name is not None and name[1].replace("-", "_") == driver.replace("-", "_")
