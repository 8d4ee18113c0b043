# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk of the lab host: a Debian tree, made into a partitioned disk that boots by its own GRUB.

Two artefacts: ``tree`` (the packages, slow, changes seldom) and ``image`` (configuration
and boot loader, quick). Neither needs a loop device or root rights.
"""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

from . import cache, debian, guest, intel
from .qemu import Qemu, find_qemu
from .run import LabError, as_root, find_tool, require_tool, run, step, tail

_PACKAGES = (
    "linux-image-amd64", "initramfs-tools", "e2fsprogs", "zstd", "busybox-static", "grub-pc",
    "systemd", "systemd-sysv", "udev", "kmod", "dbus", "iproute2", "pciutils", "procps",
    "openssh-server", "sudo", "python3", "python3-lxml", "python3-libvirt",
    "libvirt-daemon-system", "libvirt-clients", "qemu-system-x86",
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

# The root disk is all the initramfs has to find. A complete one (MODULES=most) takes GRUB
# and the kernel many times longer under emulation, and so does every update-initramfs.
_INITRAMFS_HOOK = (
    "--essential-hook="
    'mkdir -p "$1/etc/initramfs-tools/conf.d" && '
    'printf "MODULES=list\\nCOMPRESS=zstd\\nCOMPRESSLEVEL=1\\n" > "$1/etc/initramfs-tools/conf.d/lab" && '
    'printf "virtio_pci\\nvirtio_blk\\next4\\n" > "$1/etc/initramfs-tools/modules"'
)
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

DISK_FILE, KEY_FILE = "disk.raw", "id_ed25519"
_DISK_SIZE = 4 * 1024**3
_PARTITION_START = 1024**2
_ROOT_UUID = "6b767000-6c61-4b00-8000-000000000001"
_FIRST_BOOT_TIMEOUT = 600
_FIRST_BOOT_INIT = "/usr/lib/kvm-passthrough-lab/first-boot"


def names() -> set[str]:
    """The cache's names of the two artefacts."""
    return {f"tree-{_tree_key()}", f"image-{_image_key()}"}


def find() -> Path | None:
    """The directory of the image; None when the cache has none."""
    directory = cache.cache_directory() / f"image-{_image_key()}"
    return directory if directory.is_dir() else None


def _tree_key() -> str:
    return cache.digest("1", debian.SUITE, _PACKAGES, _MASKED, _INITRAMFS_HOOK, _CUSTOMIZE_HOOKS)


def _image_key() -> str:
    return cache.digest("1", _tree_key(), intel.FILES / "rootfs", intel.FILES / "guest", _ROOT_UUID, str(_DISK_SIZE))


def require_build_tools() -> None:
    """Raise LabError naming all programs a build needs and this machine lacks.

    A build takes minutes; it must not stop half-way for a package.
    """
    missing = [f"{tool} (package {package})" for tool, package in _BUILD_TOOLS.items() if find_tool(tool) is None]
    if missing:
        raise LabError(f"not installed: {', '.join(missing)}; tests/lab/apt-packages.txt lists all the lab needs")


def build() -> Path:
    """The directory with ``disk.raw`` and ``id_ed25519``, built when the cache has none.

    Raises LabError with the end of the log when a step fails.
    """
    return cache.artefact("image", _image_key(), _build_image)


def _build_tree(directory: Path) -> None:
    with step(f"installing Debian {debian.SUITE} for the lab host"):
        debian.mmdebstrap(
            directory / "tree.tar",
            _PACKAGES,
            variant="minbase",
            log=directory / "build.log",
            hooks=(_INITRAMFS_HOOK, *_CUSTOMIZE_HOOKS),
        )


def _build_image(directory: Path) -> None:
    qemu = find_qemu()
    archive = cache.artefact("tree", _tree_key(), _build_tree) / "tree.tar"
    log = directory / "build.log"
    with step("making the disk"):
        run([require_tool("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-C", "lab",
             "-f", directory / KEY_FILE], timeout=60, log=log)  # fmt: skip
        tree = directory / "tree"
        tree.mkdir()
        # Device nodes cannot be made in a user namespace, and devtmpfs has them all.
        run(as_root(["tar", "-C", tree, "--numeric-owner", "--exclude=./dev/*", "-xf", archive]), timeout=600, log=log)
        _copy_newest(tree / "boot", "vmlinuz-*", directory / "vmlinuz")
        _copy_newest(tree / "boot", "initrd.img-*", directory / "initrd.img")
        additions = directory / "additions.tar"
        _write_additions(additions, directory, (tree / "usr" / "bin" / "busybox").read_bytes())
        run(as_root(["tar", "-C", tree, "--numeric-owner", "-xf", additions]), timeout=60, log=log)
        _make_disk(tree, directory / DISK_FILE, log)
        run(as_root(["rm", "-rf", "--one-file-system", tree]), timeout=300, log=log)
        additions.unlink()
    with step("first boot: installing GRUB"):
        _first_boot(qemu, directory)


def _copy_newest(directory: Path, pattern: str, target: Path) -> None:
    found = sorted(directory.glob(pattern))
    if not found:
        raise LabError(f"the tree has no {pattern} in /boot; was the kernel's installation cut short?")
    target.write_bytes(found[-1].read_bytes())


def _write_additions(target: Path, directory: Path, busybox: bytes) -> None:
    """The files this project adds to the packages, all owned by root, as a tar file."""
    guest_files = intel.FILES / "guest"
    images = "var/lib/libvirt/images"
    public_key = (directory / f"{KEY_FILE}.pub").read_bytes()
    generated = {
        "etc/fstab": f"UUID={_ROOT_UUID} / ext4 noatime,errors=remount-ro 0 1\n".encode(),
        "etc/ssh/authorized_keys/ops": public_key,
        f"{images}/guest-vmlinuz": (directory / "vmlinuz").read_bytes(),
        f"{images}/guest-initrd.img": guest.initramfs(busybox, (guest_files / "init").read_bytes()),
        **{f"{images}/{domain}.xml": (guest_files / f"{domain}.xml").read_bytes() for domain in intel.DOMAINS},
    }
    rootfs = intel.FILES / "rootfs"
    with tarfile.open(target, "w") as archive:
        for path in sorted(rootfs.rglob("*")):
            if path.is_file():
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                _add(archive, str(path.relative_to(rootfs)), path.read_bytes(), mode)
        for name, content in generated.items():
            _add(archive, name, content, 0o644)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), mode, int(time.time())
    archive.addfile(member, io.BytesIO(content))


def _make_disk(tree: Path, disk: Path, log: Path) -> None:
    """A DOS partition table with one bootable partition that holds the tree.

    mke2fs writes the file system at the partition's offset, so no loop device is needed.
    """
    mke2fs = require_tool("mke2fs", "e2fsprogs")
    sfdisk = require_tool("sfdisk", "fdisk")
    with disk.open("wb") as stream:
        stream.truncate(_DISK_SIZE)
    run([sfdisk, "--quiet", disk], stdin=f"label: dos\nstart={_PARTITION_START // 512}, type=83, bootable\n",
        timeout=60, log=log)  # fmt: skip
    kibibytes = (_DISK_SIZE - _PARTITION_START) // 1024
    run(
        as_root([mke2fs, "-q", "-F", "-t", "ext4", "-L", "labhost", "-U", _ROOT_UUID,
                 "-E", f"offset={_PARTITION_START},lazy_itable_init=0", "-d", tree, disk, f"{kibibytes}k"]),
        timeout=600, log=log,
    )  # fmt: skip


def _first_boot(qemu: Qemu, directory: Path) -> None:
    """Let the machine install its own boot loader; raises LabError with the console's end."""
    serial = directory / "first-boot-serial.log"
    command: list[str | Path] = [
        # It is our child itself, so that the time limit ends it, and it ends when we are killed.
        require_tool("setpriv", "util-linux"), "--pdeathsig", "KILL",
        *qemu.system, *intel.BASE, "-m", "1024", "-no-reboot", "-serial", f"file:{serial}",
        "-drive", f"if=none,id=root,format=raw,cache=unsafe,discard=unmap,file={directory / DISK_FILE}",
        *intel.ROOT_DISK,
        "-kernel", directory / "vmlinuz", "-initrd", directory / "initrd.img",
        "-append", f"root=/dev/vda1 console=ttyS0 quiet panic=-1 init={_FIRST_BOOT_INIT}",
    ]  # fmt: skip
    try:
        run(command, timeout=_FIRST_BOOT_TIMEOUT, log=directory / "build.log", env=qemu.environment)
    except LabError as error:
        raise LabError(f"{error}\nthe end of {serial}:\n{tail(serial)}") from error
    if "LAB-FIRST-BOOT-DONE" not in serial.read_text(errors="replace"):
        raise LabError(f"GRUB could not be installed; the end of {serial}:\n{tail(serial)}")
