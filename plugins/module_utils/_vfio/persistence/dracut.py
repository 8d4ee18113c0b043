# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""dracut (Fedora, RHEL, SUSE; Debian and Ubuntu where it was chosen).

What dracut copies by itself depends on its version and on ``hostonly``: /etc/modprobe.d only with it, rules of
/etc/udev/rules.d only when a module asks for them. So the drop-in names every file.

dracut builds in a directory of its own and then copies the result over the old image, and removes that when the copy
fails (no space left). ``--regenerate-all`` also guesses where images are, and makes some that nobody boots. So it is
asked for one image at a time, in another place.

Sources: dracut.conf(5), dracut(8); dracut.sh of 059 and 106.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Callable

from ..._core.errors import PassthroughError, Problem
from ..._core.files import FileState
from ..._core.host import Host
from . import images
from .images import Image
from .initramfs import BUILD_TIMEOUT, Inspect, replace_images

DROP_IN_PATH = "/etc/dracut.conf.d/kvm-passthrough.conf"
POST_UPDATE_HOOKS = "/etc/initramfs/post-update.d"

_ZIPL_CONF = "/etc/zipl.conf"
_DROP_IN = """\
# Written by kvm.passthrough.vfio_devices, which replaces or removes the whole file.
add_drivers+=" {drivers} "
install_items+=" {files} "
"""


class Dracut:
    """A drop-in adds drivers and files; dracut builds the images, now and for each kernel to come."""

    name = "dracut"

    def is_used(self, host: Host) -> bool:
        """See :class:`.initramfs.Initramfs`."""
        return host.which("dracut") is not None

    def obstacle(self, host: Host) -> Problem | None:
        """The running kernel's image has to be known: one in a place that nobody looks at would be left as it is."""
        running = host.attribute("/proc/sys/kernel/osrelease")
        found = {image.version for image in self.images(host)}
        # The running kernel may have been removed by an upgrade: then its image does not matter.
        if running in found or (found and running not in images.kernels(host)):
            return None
        return Problem(
            "initramfs_not_found",
            f"dracut is installed, but there is no initramfs of the running kernel {running} in any place where one "
            f"is known to be: in /boot, and in the kernel's directory on the boot partition "
            f"({', '.join(images.BOOT_PARTITIONS)}).",
            "Mount the boot partition if it is not mounted. Set persistent to false to bind the devices until the "
            "next reboot only.",
            {"kernel": running},
        )

    def settings(self, drivers: Collection[str], carried: Collection[str]) -> Mapping[str, FileState]:
        """See :class:`.initramfs.Initramfs`. The shell is for the rules' and modprobe's commands."""
        if not drivers:
            return {DROP_IN_PATH: FileState(None)}
        text = _DROP_IN.format(drivers=" ".join(sorted(drivers)), files=" ".join([*sorted(carried), "/bin/sh"]))
        return {DROP_IN_PATH: FileState(text.encode())}

    def images(self, host: Host) -> list[Image]:
        """See :class:`.initramfs.Initramfs`."""
        return images.find(host)

    def build(self, host: Host, inspect: Inspect) -> None:
        """See :class:`.initramfs.Initramfs`."""
        found = self.images(host)
        with _zipl(host, found):
            for version, group in itertools.groupby(found, key=lambda image: image.version):
                replace_images(host, _command(version), list(group), inspect)
        _tell_boot_loaders(host, found)


def _command(version: str) -> Callable[[str], list[str]]:
    """The hooks are for an image in its place; Debian's dracut 106 asks for this variable before it runs them."""
    return lambda path: ["env", "NO_POST_UPDATE_HOOKS=1", "dracut", "--force", path, version]


def _tell_boot_loaders(host: Host, found: Sequence[Image]) -> None:
    """Debian's policy for initramfs images: boot loaders that keep copies or places of them have hooks."""
    if host.list_dir(POST_UPDATE_HOOKS) and host.which("run-parts") is not None:
        for image in found:
            if image.path == f"/boot/initrd.img-{image.version}":
                argv = ["run-parts", f"--arg={image.version}", f"--arg={image.path}", POST_UPDATE_HOOKS]
                host.run(argv, timeout=BUILD_TIMEOUT)


@contextlib.contextmanager
def _zipl(host: Host, found: Sequence[Image]) -> Iterator[None]:
    """IBM Z boots from a list of disk blocks, which zipl writes.

    The old images keep their blocks, under a second name, until the new list is there: a host that loses power in
    between boots as before.
    """
    if host.which("zipl") is None or not host.exists(_ZIPL_CONF):
        yield
        return
    kept = [(image.path, _second_name(image.path)) for image in found]
    for path, second in kept:
        _link(host, path, second)
    yield
    host.run(["zipl"], timeout=BUILD_TIMEOUT)
    for _unused, second in kept:
        with contextlib.suppress(OSError):
            os.unlink(host.path(second))


def _second_name(path: str) -> str:
    directory, name = os.path.split(path)
    return f"{directory}/.{name}.kvm-passthrough.old"


def _link(host: Host, path: str, second: str) -> None:
    """Keep a file's content under a second name, unless a killed run did: then the list of blocks means that one."""
    try:
        os.link(host.path(path), host.path(second))
    except FileExistsError:
        pass
    except OSError as error:
        raise PassthroughError(
            "file_unwritable", f"{path} cannot be kept as {second}: {error.strerror or error}.", path=second
        ) from error
