# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a large machine boots from: a Debian tree, made into a partitioned disk with a boot loader of its own.

Two artefacts: ``tree-NAME`` (the packages, slow, changes seldom) and ``image-NAME``
(configuration and boot loader, quick). Neither needs a loop device or root rights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from . import cache, cpio, debian, disk
from .first_boot import INITRAMFS_FILE, KERNEL_FILE, first_boot
from .qemu import VARIABLES_FILE, find_qemu
from .run import LabError, as_root, find_tool, run, step
from .second_kernel import SecondKernel
from .ssh_key import make_key, public_key

# Every large machine has these: what an operator and Ansible need on a host.
_PACKAGES = (
    "e2fsprogs", "zstd", "systemd", "systemd-sysv", "udev", "kmod", "dbus", "iproute2", "pciutils", "procps",
    "openssh-server", "sudo", "python3",
)  # fmt: skip

# Nothing of this is of use here, and each costs emulated seconds.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "logrotate.timer", "man-db.timer",
    "systemd-networkd-wait-online.service", "systemd-network-generator.service",
    "systemd-firstboot.service", "systemd-machine-id-commit.service", "systemd-pstore.service",
    "libvirt-guests.service", "getty@tty1.service", "grub-common.service", "rc-local.service",
    "keyboard-setup.service", "console-setup.service", "apparmor.service",
)  # fmt: skip

_CUSTOMIZE_HOOKS = (
    # "*" is no password at all, but unlike "!" it does not lock the account for sshd.
    "--customize-hook=chroot \"$1\" useradd --create-home --shell /bin/bash --password '*' ops",
    '--customize-hook=chroot "$1" systemctl enable systemd-networkd.service ssh.service',
    f'--customize-hook=chroot "$1" systemctl mask {" ".join(_MASKED)}',
)

_BUILD_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "sfdisk": "fdisk",
    "ssh-keygen": "openssh-client",
    "tar": "tar",
    "setpriv": "util-linux",
    "timeout": "coreutils",
}

COMMON_ROOTFS = Path(__file__).parent / "rootfs"


@dataclass(frozen=True)
class InitramfsGenerator:
    """What makes the initramfs, and its configuration, which is there before the kernel is installed.

    The root disk is all the initramfs has to find. A complete one takes boot loader and kernel many times
    longer under emulation, and so does every other time it is made.
    """

    package: str
    files: tuple[tuple[str, str], ...]

    @property
    def hooks(self) -> tuple[str, ...]:
        """Options of mmdebstrap that write the configuration."""
        return tuple(self._hooks())

    def _hooks(self) -> Iterator[str]:
        for path, content in self.files:
            text = content.replace("\n", "\\n")
            yield f'--essential-hook=mkdir -p "$1/$(dirname {path})" && printf \'{text}\' > "$1/{path}"'


INITRAMFS_TOOLS = InitramfsGenerator(
    "initramfs-tools",
    (
        ("etc/initramfs-tools/conf.d/lab", "MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n"),
        ("etc/initramfs-tools/modules", "virtio_pci\nvirtio_blk\next4\n"),
    ),
)
DRACUT = InitramfsGenerator(
    "dracut",
    (
        (
            "etc/dracut.conf.d/lab.conf",
            'dracutmodules="base dash kernel-modules rootfs-block udev-rules fs-lib shutdown"\n'
            'drivers="virtio_pci virtio_blk ext4"\ncompress="zstd -1"\n',
        ),
    ),
)


@dataclass(frozen=True)
class Image:
    """What makes one image.

    In ``rootfs`` is the program ``install-boot-loader``, which runs at the first boot, inside,
    where its tools see the real disk and the real firmware.
    """

    name: str
    packages: tuple[str, ...]
    """The kernel, the boot loader, and whatever else the common packages lack."""
    layout: disk.Layout
    hardware: tuple[str, ...]
    """QEMU's options for the bare machine and the drive ``root``, without memory."""
    rootfs: tuple[Path, ...]
    """Directories whose files are added to the packages."""
    generator: InitramfsGenerator = INITRAMFS_TOOLS
    second_kernel: SecondKernel | None = None
    additions: Callable[[Path, Path], Mapping[str, bytes]] | None = None
    """Makes further files, by their names, out of the directory of the image and the tree."""
    inputs: tuple[Path, ...] = ()
    """What ``additions`` reads."""
    uefi: bool = False

    @property
    def names(self) -> set[str]:
        """The cache's names of the two artefacts."""
        return {f"tree-{self.name}-{self._tree_key}", self._image_name}

    @property
    def _image_name(self) -> str:
        return f"image-{self.name}-{self._key}"

    def find(self) -> Path | None:
        """The directory of the image; None when the cache has none."""
        directory = cache.cache_directory() / self._image_name
        return directory if directory.is_dir() else None

    def build(self) -> Path:
        """The directory with ``disk.raw``, ``id_ed25519`` and, with UEFI, the firmware's variables.

        Built when the cache has none. Raises LabError with the end of the log when a step fails.
        """
        return cache.artefact(f"image-{self.name}", self._key, self._build)

    def _hooks(self) -> tuple[str, ...]:
        second = self.second_kernel.hooks if self.second_kernel else ()
        return (*self.generator.hooks, *_CUSTOMIZE_HOOKS, *second)

    def _all_packages(self) -> tuple[str, ...]:
        return (*_PACKAGES, self.generator.package, *self.packages)

    @cached_property
    def _tree_key(self) -> str:
        return cache.digest("1", debian.SUITE, self._all_packages(), self._hooks())

    @cached_property
    def _key(self) -> str:
        return cache.digest(
            "1", self._tree_key, COMMON_ROOTFS, *self.rootfs, *self.inputs, repr(self.layout),
            # Firmware has variables, which are part of the image.
            self.hardware if self.uefi else "",
        )  # fmt: skip

    def _build_tree(self, directory: Path) -> None:
        with step(f"installing Debian {debian.SUITE} for '{self.name}'"):
            debian.mmdebstrap(
                directory / "tree.tar",
                self._all_packages(),
                variant="minbase",
                log=directory / "build.log",
                hooks=self._hooks(),
            )

    def _build(self, directory: Path) -> None:
        qemu = find_qemu()
        archive = cache.artefact(f"tree-{self.name}", self._tree_key, self._build_tree) / "tree.tar"
        log = directory / "build.log"
        with step(f"making the disk of '{self.name}'"):
            make_key(directory, log)
            tree = directory / "tree"
            tree.mkdir()
            # Device nodes cannot be made in a user namespace, and devtmpfs has them all.
            unpack: list[str | Path] = ["tar", "-C", tree, "--numeric-owner", "--exclude=./dev/*", "-xf"]
            run(as_root([*unpack, archive]), timeout=600, log=log)
            _copy_newest(tree / "boot", "vmlinuz-*", directory / KERNEL_FILE)
            _copy_newest(tree / "boot", "initrd.img-*", directory / INITRAMFS_FILE)
            additions = directory / "additions.tar"
            self._write_additions(additions, directory, tree)
            run(as_root([*unpack, additions]), timeout=60, log=log)
            disk.write(self.layout, tree, directory / disk.DISK_FILE, log)
            run(as_root(["rm", "-rf", "--one-file-system", tree]), timeout=300, log=log)
            additions.unlink()
        if self.uefi:
            qemu.copy_variables(directory / VARIABLES_FILE)
        with step(f"first boot of '{self.name}': installing the boot loader"):
            hardware = [*self.hardware, "-m", "1024"]
            if self.uefi:
                hardware += qemu.uefi(directory / VARIABLES_FILE)
            root = f"/dev/vda{self.layout.root_number}"
            first_boot(directory, qemu, hardware, root=root, console="ttyS0")

    def _write_additions(self, target: Path, directory: Path, tree: Path) -> None:
        """The files this project adds to the packages, all owned by root, as a tar file."""
        entries = [
            cpio.file("etc/fstab", self.layout.fstab.encode()),
            cpio.file("etc/ssh/authorized_keys/ops", public_key(directory)),
            *(entry for rootfs in (COMMON_ROOTFS, *self.rootfs) for entry in cpio.files_of(rootfs)),
        ]
        if self.additions is not None:
            entries += [cpio.file(name, content) for name, content in self.additions(directory, tree).items()]
        cpio.write_tar(target, {entry.name: entry for entry in entries}.values())


def require_build_tools() -> None:
    """Raise LabError naming all programs a build needs and this machine lacks.

    A build takes minutes; it must not stop half-way for a package.
    """
    missing = [f"{tool} (package {package})" for tool, package in _BUILD_TOOLS.items() if find_tool(tool) is None]
    if missing:
        raise LabError(f"not installed: {', '.join(missing)}; tests/lab/apt-packages.txt lists all the lab needs")


def _copy_newest(directory: Path, pattern: str, target: Path) -> None:
    found = sorted(directory.glob(pattern))
    if not found:
        raise LabError(f"the tree has no {pattern} in /boot; was the kernel's installation cut short?")
    target.write_bytes(found[-1].read_bytes())
