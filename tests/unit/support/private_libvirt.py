# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real libvirt with its network driver, in a daemon of the test's own that sees the PCI devices of a file tree.

::

    with private_libvirt(tree) as libvirt:      # skips the test, with the reason, where that is impossible here
        libvirt.connect()

``qemu:///embed`` has no networks, so it takes a ``libvirtd``: an ordinary user's, which wants neither root nor a
service manager, in a mount namespace in which ``/sys`` has the devices of the tree. As root the namespace is made
directly, as an ordinary user within a user namespace, where the system allows that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.connection import LibvirtConnection
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

NOBODY = 65534

# The tree's devices take the place of the machine's, except for those that are no PCI devices (processors, memory).
_SCRIPT = """
set -eu
tree=$1; shift
mount --make-rprivate /
mkdir -p "$tree/sys/devices/system"
mount --rbind /sys/devices/system "$tree/sys/devices/system"
for place in devices bus/pci class/net kernel/iommu_groups; do
    if [ -d "/sys/$place" ]; then mount --rbind "$tree/sys/$place" "/sys/$place"; fi
done
exec "$@"
"""


class PrivateLibvirt:
    """A daemon of this test's."""

    def __init__(self, handle: Any, uri: str) -> None:
        self.handle = handle
        self.uri = uri
        """What other programs reach it by."""

    def connect(self, _uri: str = "") -> LibvirtConnection:
        """What the code under test uses; a :data:`_libvirt.connection.Connect`."""
        return LibvirtConnection(self.handle)

    def define_domain(self, devices: str, name: str = "web01") -> Any:
        """Define a domain with these devices."""
        return self.handle.defineXML(
            f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>"
            "<os><type arch='x86_64' machine='q35'>hvm</type></os>"
            f"<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{devices}</devices></domain>"
        )

    def connect_guest(self, network: str, owner: str, number: int) -> None:
        """Give a VF of an active network to a guest, as libvirt's QEMU driver does when it starts one."""
        uuid = f"5e8a0f66-2b1f-4a3f-9d65-1f2a3c4d5e{number:02x}"
        self.handle.networkLookupByName(network).portCreateXML(
            f"<networkport><uuid>{uuid}</uuid><owner><name>{owner}</name><uuid>{uuid}</uuid></owner>"
            f"<mac address='52:54:00:00:01:{number:02x}'/></networkport>"
        )

    def clean(self) -> None:
        """Remove every domain and every network."""
        for thing in (*self.handle.listAllDomains(), *self.handle.listAllNetworks()):
            active, persistent = thing.isActive(), thing.isPersistent()
            if active:
                thing.destroy()
            if persistent:
                thing.undefine()


@contextlib.contextmanager
def private_libvirt(tree: SysfsTree) -> Iterator[PrivateLibvirt]:
    """A daemon that sees the PCI devices of ``tree``; skips the test where it cannot be had."""
    libvirt = pytest.importorskip("libvirt")
    daemon = shutil.which("libvirtd") or shutil.which("libvirtd", path="/usr/sbin")
    if daemon is None:
        pytest.skip("libvirtd is not installed")
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    with tempfile.TemporaryDirectory(prefix="lvd-") as place:  # short, since libvirt makes sockets below it
        os.chmod(place, 0o755)
        home = Path(place, "home")
        home.mkdir()
        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
        # libvirt asks every QEMU that it finds in PATH what it can do, and there is one for each architecture.
        programs = Path(place, "bin")
        programs.mkdir()
        emulator = shutil.which("qemu-system-x86_64")
        if emulator is None:
            pytest.skip("qemu-system-x86_64 is not installed")
        Path(programs, "qemu-system-x86_64").symlink_to(emulator)
        script = Path(place, "start")
        script.write_text(_SCRIPT, encoding="utf-8")
        log = Path(place, "log")
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [*_namespace(str(script), str(tree.root)), "env", f"PATH={programs}", daemon],
                env={
                    **os.environ,
                    **dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(home)),
                    "LIBVIRT_LOG_OUTPUTS": "3:stderr",
                },
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            uri = f"qemu+unix:///session?socket={home}/libvirt/libvirt-sock"
            handle = _connected(libvirt, process, uri, log)
            try:
                yield PrivateLibvirt(handle, uri)
            finally:
                handle.close()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def _namespace(script: str, tree: str) -> list[str]:
    """The command that runs the rest of it as an ordinary user in a mount namespace with the tree's ``/sys``."""
    if os.geteuid() == 0:
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        return ["unshare", "--mount", "sh", script, tree, *drop]
    back = ["unshare", "--user", f"--map-user={os.geteuid()}"]
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", script, tree, *back]


def _connected(libvirt: Any, process: subprocess.Popen[bytes], uri: str, log: Path) -> Any:
    """A connection to the daemon, once it answers."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            handle = libvirt.open(uri)
            handle.listAllNetworks()
            return handle
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                pytest.skip("this libvirtd has no network driver")
            time.sleep(0.1)
    said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    if process.poll() is None or ("not permitted" not in said):
        pytest.fail(f"libvirtd does not answer: {said}")
    pytest.skip(f"no mount namespace can be made here: {said.strip()}")
