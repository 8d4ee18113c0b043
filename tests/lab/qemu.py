# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulator: the installed one when it is new enough, else Debian's, unpacked into the cache."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache as remembered
from pathlib import Path

from . import cache, debian
from .run import LabError, find_tool, run, step

# The 82576 ("igb") came with QEMU 8.0. Snapshots, hot-plug and SR-IOV together were proved
# with 10.0, the version of Debian 13, so an older one is not trusted with them.
_MINIMUM = (10, 0)
_PACKAGES = ("qemu-system-x86", "qemu-utils", "seabios")
_KIND = "qemu"


@dataclass(frozen=True)
class Qemu:
    """How to call the emulator and its disk tool.

    ``identity`` tells one emulator from another: a snapshot belongs to the one that wrote it.
    """

    system: tuple[str, ...]
    img: tuple[str, ...]
    identity: str
    environment: Mapping[str, str] = field(default_factory=dict)


def tree_name() -> str:
    """The cache's name of the unpacked emulator."""
    return f"{_KIND}-{_tree_key()}"


def _tree_key() -> str:
    return cache.digest("1", debian.SUITE, _PACKAGES)


def unpacked() -> Qemu:
    """How the emulator in the cache is called, whether it is there or not."""
    return _from_tree(cache.cache_directory() / tree_name())


@remembered
def find_qemu() -> Qemu:
    """The emulator to use, fetched first when needed.

    Raises LabError when this is not an x86-64 machine or the packages cannot be had.
    """
    if platform.machine() != "x86_64":
        raise LabError(f"the lab runs on x86_64 machines, this is {platform.machine()}")
    return installed() or _from_tree(cache.artefact(_KIND, _tree_key(), _build_tree))


def installed() -> Qemu | None:
    """The emulator of this machine; None when it has none that is new enough."""
    system, img = find_tool("qemu-system-x86_64"), find_tool("qemu-img")
    if not system or not img:
        return None
    version = run([system, "--version"], timeout=30, check=False).stdout
    match = re.search(r"version (\d+)\.(\d+)\S*(?: \([^)]*\))?", version)
    if not match or (int(match[1]), int(match[2])) < _MINIMUM:
        return None
    # A distribution may build it without the device (RHEL does).
    if run([system, "-device", "igb,help"], timeout=30, check=False).returncode != 0:
        return None
    return Qemu((system,), (img,), match[0])


def _build_tree(directory: Path) -> None:
    with step(f"fetching QEMU from Debian {debian.SUITE}"):
        # As a tar file: unpacked by ourselves, the files belong to whoever runs the lab.
        archive = directory / "tree.tar"
        log = directory / "build.log"
        debian.mmdebstrap(archive, _PACKAGES, variant="extract", log=log)
        tree = directory / "tree"
        tree.mkdir()
        run(["tar", "-C", tree, "--no-same-owner", "--exclude=./dev/*", "-xf", archive], timeout=300, log=log)
        archive.unlink()
        run([*_from_tree(directory).system, "-device", "igb,help"], timeout=60, log=log)


def _from_tree(directory: Path) -> Qemu:
    """Call the unpacked programs through their own dynamic linker.

    So they run with the C library they were built for, without root rights and without a
    chroot, and see the lab's files under their ordinary names.
    """
    usr = directory / "tree" / "usr"
    libraries = usr / "lib" / "x86_64-linux-gnu"
    linker = (str(usr / "lib64" / "ld-linux-x86-64.so.2"), "--library-path", f"{libraries}:{libraries}/pulseaudio")
    firmware = [word for name in ("qemu", "seabios") for word in ("-L", str(usr / "share" / name))]
    return Qemu(
        system=(*linker, str(usr / "bin" / "qemu-system-x86_64"), *firmware),
        img=(*linker, str(usr / "bin" / "qemu-img")),
        identity=directory.name,
        # Else it would look for its modules in the file system of this machine.
        environment={"QEMU_MODULE_DIR": str(libraries / "qemu")},
    )
