# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a small machine runs: a Debian kernel, and an initramfs that is the whole system.

The packages are unpacked and not installed, so that those of a foreign architecture need
nothing that could run them. What their installation would have made is in ``rootfs``, or
made here: the modules' indexes, which depmod makes for any architecture.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import cache, cpio, debian
from ..run import LabError, require_tool, run, step
from ..ssh_key import make_key

KERNEL_FILE, INITRAMFS_FILE, EMPTY_DISK_FILE = "vmlinuz", "initrd", "empty.raw"
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
MODULES = r"""
    (?:arch/[^/]+/kvm | virt | drivers/(?:vfio|iommu|virtio|pci)) /
    | drivers/(?:net/(?:virtio_net|dummy) | nvme/host/nvme | uio/uio_pci_generic | usb/host/[uex]hci-(?:pci|hcd)) \.ko
    | drivers/net/ethernet/intel/(?:igb|igbvf|e1000e) /
    | drivers/(?:block/virtio_blk | char/hw_random/virtio-rng | s390/net/(?:virtio_ccw|ism)) \.ko
    """

_KERNEL = re.compile(r"boot/vmlinuz-([^/]+)|(?:usr/)?lib/modules/([^/]+)/vmlinuz")


@dataclass(frozen=True)
class Kernel:
    """A kernel, unpacked: its release, the file, and what is to be in the directory of its modules, by name."""

    release: str
    image: bytes
    modules: Mapping[str, bytes]

    def modules_of(self, *names: str) -> list[str]:
        """The files of these modules and what they need, as far as they are not built in, in the order to load them."""
        needs = _dependencies(self.modules["modules.dep"].decode())
        files = {file.rpartition("/")[2].partition(".")[0]: file for file in needs}
        wanted = [files[name] for name in names if name in files]
        return list(dict.fromkeys(file for name in wanted for file in (*reversed(needs[name]), name)))


@dataclass(frozen=True)
class System:
    """A Debian release on an architecture, both as Debian calls them, with what is in it beside the common packages."""

    architecture: str
    suite: str = debian.SUITE
    packages: tuple[str, ...] = ()
    kept: str = "$."
    """A pattern of paths that stay in although they usually do not."""
    modules: str = MODULES
    """A pattern of module files."""
    variant: str = ""
    """The name of one that has more than the others; the files of the folder ``rootfs-NAME`` are laid over theirs."""
    disk_size: int = 0
    """How big the empty disk beside it is, of which machines get copies, in bytes."""

    @property
    def kind(self) -> str:
        """The cache's word for it."""
        # No kind may begin with another one, by which the cache finds what is left of a build.
        return f"small-{f'{self.variant}-' if self.variant else ''}{self.architecture}-{self.suite}"

    @property
    def name(self) -> str:
        """The cache's name of it."""
        return f"{self.kind}-{self.key}"

    @property
    def key(self) -> str:
        """What it is made of, in short."""
        more = (self.packages, self.kept) if self.packages else ()
        size = (str(self.disk_size),) if self.disk_size else ()
        return cache.digest("1", self.kind, _PACKAGES, _LEFT_OUT.pattern, self.modules, *self._trees, *more, *size)

    @property
    def _trees(self) -> list[Path]:
        return [_ROOTFS, *([_ROOTFS.with_name(f"rootfs-{self.variant}")] if self.variant else [])]

    def build(self) -> Path:
        """The directory with kernel, initramfs and ssh key, built when the cache has none.

        Raises LabError with the end of the log when a step fails.
        """
        return cache.artefact(self.kind, self.key, self._build)

    def _build(self, directory: Path) -> None:
        kernel, entries = self.make(directory)
        (directory / KERNEL_FILE).write_bytes(kernel.image)
        with step(f"making the initramfs for {self.architecture}"), (directory / INITRAMFS_FILE).open("wb") as stream:
            cpio.write(stream, entries)
        if self.disk_size:
            with (directory / EMPTY_DISK_FILE).open("wb") as disk:
                disk.truncate(self.disk_size)

    def make(self, directory: Path) -> tuple[Kernel, list[cpio.Entry]]:
        """Fetch the packages, and put an ssh key into ``directory``; the kernel, and all files of the system.

        Raises LabError with the end of the log when a step fails.
        """
        log = directory / "build.log"
        packages = (f"linux-image-{self.architecture}", *_PACKAGES, *self.packages)
        key = make_key(directory, log)
        with self._fetched(packages, directory) as (archive, members):
            kernel = _unpack_kernel(archive, members, directory / "modules", self.modules, log)
            return kernel, list(_entries(archive, members, kernel, self._trees, key, re.compile(self.kept)))

    def other_kernel(self, package: str, suite: str, directory: Path) -> Kernel:
        """Another kernel for this system, with the same modules. Raises LabError with the end of the log."""
        # Instead of initramfs-tools, as in _PACKAGES.
        with replace(self, suite=suite)._fetched((package, "tiny-initramfs"), directory) as (archive, members):
            return _unpack_kernel(archive, members, directory / "modules", self.modules, directory / "build.log")

    @contextlib.contextmanager
    def _fetched(
        self, packages: Sequence[str], directory: Path
    ) -> Iterator[tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]]]:
        """The packages with all they need, unpacked into one archive, and its members by their paths."""
        archive = directory / "packages.tar"
        with step(f"fetching Debian {self.suite} for {self.architecture}"):
            debian.mmdebstrap(
                archive,
                packages,
                variant="extract",
                log=directory / "build.log",
                suite=self.suite,
                # An older release is asked for because of what its kernel lacks.
                fallback=debian.NEXT_SUITE if self.suite == debian.SUITE else None,
                architecture=self.architecture,
            )
        with tarfile.open(archive) as stream:
            yield stream, {member.name.removeprefix("./"): member for member in stream.getmembers()}
        archive.unlink()


def _read(packages: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = packages.extractfile(member)
    assert stream is not None, member.name
    return stream.read()


def _unpack_kernel(
    packages: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], scratch: Path, wanted: str, log: Path
) -> Kernel:
    """The one kernel of the packages; ``wanted`` is a pattern of the module files that are shipped.

    The indexes are of all modules, made as the kernel's installation does, below ``scratch``.
    """
    # Packages from Debian 14 on have it beside its modules, and their installation copies it.
    kernels = {match[1] or match[2]: name for name in members if (match := _KERNEL.fullmatch(name))}
    if len(kernels) != 1:
        raise LabError(f"the packages have {len(kernels)} kernels and not one: {', '.join(kernels)}")
    ((release, name),) = kernels.items()
    top = scratch / "lib" / "modules" / release
    inside = re.compile(rf"(?:usr/)?lib/modules/{re.escape(release)}/(.+)")
    for path, member in members.items():
        match = inside.fullmatch(path)
        if match and member.isreg():
            target = top / match[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_read(packages, member))
    run([require_tool("depmod", "kmod"), "-b", scratch, release], timeout=300, log=log)
    files = {index.name: index.read_bytes() for index in sorted(top.glob("modules.*"))}
    for file in sorted(shipped_modules(files["modules.dep"].decode(), wanted)):
        files[file] = (top / file).read_bytes()
    shutil.rmtree(scratch)
    return Kernel(release, _read(packages, members[name]), files)


def _dependencies(text: str) -> dict[str, list[str]]:
    """The text of modules.dep: each module file, and those it needs."""
    return {name: words.split() for name, _colon, words in (line.partition(":") for line in text.splitlines())}


def shipped_modules(dependencies: str, wanted: str = MODULES) -> set[str]:
    """The module files that are shipped, those they depend on included, out of the text of modules.dep."""
    needs = _dependencies(dependencies)
    pattern = re.compile(wanted, re.VERBOSE)
    chosen = {name for name in needs if pattern.match(name.removeprefix("kernel/"))}
    return chosen.union(*(needs[name] for name in chosen))


def _entries(
    packages: tarfile.TarFile,
    members: Mapping[str, tarfile.TarInfo],
    kernel: Kernel,
    trees: Iterable[Path],
    public_key: bytes,
    kept: re.Pattern[str],
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
        if name and (kept.match(name) or not _LEFT_OUT.match(name)):
            entry = _entry(packages, name, member)
            if entry is not None:
                add(entry)
    for name in ("dev", "proc", "sys", "run", "root", "var/lib", "var/log"):
        add(cpio.directory(name))
    add(cpio.directory("tmp", 0o1777))
    add(cpio.directory("var/tmp", 0o1777))
    # Through the link, where there is one, the kernel would replace it by a directory.
    library = "usr/lib" if members["lib"].issym() else "lib"
    for name, content in kernel.modules.items():
        add(cpio.file(f"{library}/modules/{kernel.release}/{name}", content))
    for tree in trees:
        for entry in cpio.files_of(tree):
            add(entry)
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
