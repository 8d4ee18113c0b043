# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a small machine runs: a Debian kernel, and an initramfs that is the whole system.

The packages are unpacked and not installed, so that those of a foreign architecture need
nothing that could run them. What their installation would have made is in ``rootfs``, or
made here: the modules' indexes, which depmod makes for any architecture.
"""

from __future__ import annotations

import re
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import cache, cpio, debian
from ..run import LabError, require_tool, run, step

KERNEL_FILE, INITRAMFS_FILE, KEY_FILE, DISK_FILE = "vmlinuz", "initrd", "id_ed25519", "disk"
_USER_ID = 1000  # of ops, in rootfs/etc/passwd

_ROOTFS = Path(__file__).parent / "rootfs"
_PACKAGES = (
    # Instead of initramfs-tools, which the kernel's package would bring with all it needs.
    "tiny-initramfs",
    "base-files", "bash", "coreutils", "dash", "findutils", "grep", "hostname", "iproute2", "kmod", "mount", "pciutils",
    "procps", "sed", "util-linux", "dropbear-bin", "openssh-sftp-server", "sudo", "python3",
)  # fmt: skip

# Unpacking costs emulated seconds, so what nothing here uses stays out.
_LEFT_OUT = re.compile(
    r"""
    (?:dev|boot/(?:vmlinuz|System\.map)|var/(?:lib|cache|log)|lib/modules|usr/lib/modules)(?:/.*|[-].*)?$
    | (?:usr/)?lib/(?:linux-image[^/]*|systemd|udev|tmpfiles\.d|sysusers\.d|klibc.*|init|lsb)/
    | usr/share/(?!misc/pci\.ids$)
    | usr/lib/[^/]+/(?:gconv|perl.*|krb5|engines-3|ossl-modules)/
    | usr/lib/python3[^/]*/(?:test|idlelib|ensurepip|pydoc_data|lib2to3|turtledemo|tkinter|config-[^/]*)/
    | usr/lib/python3[^/]*/lib-dynload/_(?:test|ctypes_test|xxtest)
    | usr/bin/(?:ssh|perl|dpkg|localedef|x86_64-)
    | usr/lib/openssh/ssh-
    """,
    re.VERBOSE,
)

# All indexes of the modules are there, as on any host; of the files only these and what they need.
_MODULES = re.compile(
    r"""
    (?:arch/[^/]+/kvm | virt | drivers/(?:vfio|iommu|virtio|pci)) /
    | drivers/(?:net/(?:virtio_net|dummy) | nvme/host/nvme | uio/uio_pci_generic | usb/host/[uex]hci-(?:pci|hcd)) \.ko
    | drivers/net/ethernet/intel/(?:igb|igbvf|e1000e) /
    | drivers/(?:block/virtio_blk | char/hw_random/virtio-rng | s390/net/(?:virtio_ccw|ism)) \.ko
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Addition:
    """What a system has beyond the others: packages, module files (a regular expression), a folder beside ``rootfs``."""

    name: str
    packages: tuple[str, ...]
    modules: str
    disk_size: int
    """How big the empty disk is that machines with this system get copies of, in bytes."""

    @property
    def rootfs(self) -> Path:
        """Its files, laid over those that every system has."""
        return _ROOTFS.with_name(f"rootfs-{self.name}")


@dataclass(frozen=True)
class System:
    """A Debian release on an architecture, both as Debian calls them."""

    architecture: str
    suite: str = debian.SUITE
    addition: Addition | None = None

    @property
    def kind(self) -> str:
        """The cache's word for it."""
        # No kind may begin with another one, by which the cache finds what is left of a build.
        return f"small-{f'{self.addition.name}-' if self.addition else ''}{self.architecture}-{self.suite}"

    @property
    def name(self) -> str:
        """The cache's name of it."""
        return f"{self.kind}-{self._key()}"

    def _key(self) -> str:
        added = self.addition
        more = (added.packages, added.modules, str(added.disk_size), added.rootfs) if added else ()
        return cache.digest("1", self.kind, _PACKAGES, _LEFT_OUT.pattern, _MODULES.pattern, _ROOTFS, *more)

    def build(self) -> Path:
        """The directory with kernel, initramfs and ssh key, built when the cache has none.

        Raises LabError with the end of the log when a step fails.
        """
        return cache.artefact(self.kind, self._key(), self._build)

    def _build(self, directory: Path) -> None:
        log, archive = directory / "build.log", directory / "packages.tar"
        with step(f"fetching Debian {self.suite} for {self.architecture}"):
            debian.mmdebstrap(
                archive,
                [f"linux-image-{self.architecture}", *_PACKAGES, *(self.addition.packages if self.addition else ())],
                variant="extract",
                log=log,
                suite=self.suite,
                architecture=self.architecture,
            )
        with step(f"making the initramfs for {self.architecture}"):
            run([require_tool("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-C", "lab",
                 "-f", directory / KEY_FILE], timeout=60, log=log)  # fmt: skip
            with tarfile.open(archive) as packages, (directory / INITRAMFS_FILE).open("wb") as stream:
                members = {member.name.removeprefix("./"): member for member in packages.getmembers()}
                release = _extract_kernel(packages, members, directory)
                modules = _index_modules(
                    packages, members, directory / "modules", release, log, self.addition.modules if self.addition else ""
                )
                key = (directory / f"{KEY_FILE}.pub").read_bytes()
                trees = [_ROOTFS, *([self.addition.rootfs] if self.addition else [])]
                cpio.write(stream, _entries(packages, members, modules, release, trees, key))
            if self.addition:
                with (directory / DISK_FILE).open("wb") as disk:
                    disk.truncate(self.addition.disk_size)
            shutil.rmtree(directory / "modules")
            archive.unlink()


def _read(packages: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = packages.extractfile(member)
    assert stream is not None, member.name
    return stream.read()


def _extract_kernel(packages: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], directory: Path) -> str:
    """Write the kernel to its file; returns its release."""
    releases = [name.removeprefix("boot/vmlinuz-") for name in members if name.startswith("boot/vmlinuz-")]
    if len(releases) != 1:
        raise LabError(f"the packages have {len(releases)} kernels and not one: {', '.join(releases)}")
    (directory / KERNEL_FILE).write_bytes(_read(packages, members[f"boot/vmlinuz-{releases[0]}"]))
    return releases[0]


def _index_modules(
    packages: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], root: Path, release: str, log: Path, more: str
) -> Iterator[tuple[str, bytes]]:
    """Make the modules' indexes as the kernel's installation does, of all modules, below ``root``.

    Returns name and content of each file to ship, below the directory of the modules; ``more`` are those of an
    :class:`Addition`.
    """
    top = root / "lib" / "modules" / release
    inside = re.compile(rf"(?:usr/)?lib/modules/{re.escape(release)}/(.+)")
    for name, member in members.items():
        match = inside.fullmatch(name)
        if match and member.isreg():
            target = top / match[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_read(packages, member))
    run([require_tool("depmod", "kmod"), "-b", root, release], timeout=300, log=log)
    return _module_files(top, more)


def _module_files(top: Path, more: str) -> Iterator[tuple[str, bytes]]:
    for index in sorted(top.glob("modules.*")):
        yield index.name, index.read_bytes()
    for file in sorted(shipped_modules((top / "modules.dep").read_text(encoding="utf-8"), more)):
        yield file, (top / file).read_bytes()


def shipped_modules(dependencies: str, more: str = "") -> set[str]:
    """The module files that are shipped, those they depend on included, out of the text of modules.dep.

    ``more`` is a regular expression for further ones.
    """
    needs = {name: words.split() for name, _colon, words in (line.partition(":") for line in dependencies.splitlines())}
    patterns = [_MODULES, *([re.compile(more, re.VERBOSE)] if more else [])]
    wanted = {name for name in needs if any(each.match(name.removeprefix("kernel/")) for each in patterns)}
    return wanted.union(*(needs[name] for name in wanted))


def _entries(
    packages: tarfile.TarFile,
    members: Mapping[str, tarfile.TarInfo],
    modules: Iterator[tuple[str, bytes]],
    release: str,
    trees: Iterable[Path],
    public_key: bytes,
) -> Iterable[cpio.Entry]:
    """The initramfs: the packages' files, then what is added, each directory before what is in it.

    What is in a later one of ``trees`` takes the place of what an earlier one has.
    """
    added: dict[str, cpio.Entry] = {}

    def add(entry: cpio.Entry) -> None:
        parent = entry.name.rpartition("/")[0]
        if parent and parent not in added:
            add(cpio.directory(parent))
        added[entry.name] = entry

    for name, member in sorted(members.items()):
        if name and not _LEFT_OUT.match(name):
            entry = _entry(packages, name, member)
            if entry is not None:
                add(entry)
    for name in ("dev", "proc", "sys", "run", "root", "var/lib", "var/log"):
        add(cpio.directory(name))
    add(cpio.directory("tmp", 0o1777))
    add(cpio.directory("var/tmp", 0o1777))
    # Through the link, where there is one, the kernel would replace it by a directory.
    library = "usr/lib" if members["lib"].issym() else "lib"
    for name, content in modules:
        add(cpio.file(f"{library}/modules/{release}/{name}", content))
    for tree in trees:
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                permissions = 0o755 if path.stat().st_mode & 0o100 else 0o644
                add(cpio.file(str(path.relative_to(tree)), path.read_bytes(), permissions))
    for name in ("home/ops", "home/ops/.ssh"):
        add(cpio.Entry(name, stat.S_IFDIR | 0o700, owner=_USER_ID, group=_USER_ID))
    add(cpio.Entry("home/ops/.ssh/authorized_keys", stat.S_IFREG | 0o600, public_key, _USER_ID, _USER_ID))
    return added.values()


def _entry(packages: tarfile.TarFile, name: str, member: tarfile.TarInfo) -> cpio.Entry | None:
    """A member of the packages' archive as one of the initramfs; None for what an initramfs need not have."""
    if member.isdir():
        kind, content = stat.S_IFDIR, b""
    elif member.issym():
        kind, content = stat.S_IFLNK, member.linkname.encode()
    elif member.isfile() or member.islnk():
        kind, content = stat.S_IFREG, _read(packages, member)
    else:
        return None
    return cpio.Entry(name, kind | member.mode, content, member.uid, member.gid)
