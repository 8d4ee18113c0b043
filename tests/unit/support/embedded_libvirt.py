# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real libvirt with its QEMU driver inside the test's own process (``qemu:///embed``): no daemon, no root needed.

::

    libvirt = open_embedded()          # skips the test, with the reason, where libvirt or QEMU is missing
    domain = libvirt.define("a", devices="…")

libvirt allows one embedded driver per process, so all tests of a process share it; each makes its own domains.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, cast
from unittest import mock

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.connection import LibvirtConnection

NOBODY = 65534

Q35 = """<domain type='qemu'>
  <name>{name}</name>
  <description>kept as it is</description>
  <metadata><app:note xmlns:app='https://example.com/app'>kept</app:note></metadata>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type>{boot}</os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {devices}
    <graphics type='vnc' passwd='secret'/>
  </devices>
</domain>"""


class EmbeddedLibvirt:
    """The embedded driver."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self._numbers = itertools.count()

    @property
    def error(self) -> type[Exception]:
        """What libvirt's bindings raise."""
        import libvirt

        return cast("type[Exception]", libvirt.libvirtError)

    def connect(self, _uri: str = "") -> LibvirtConnection:
        """What the code under test uses; a :data:`_libvirt.connection.Connect`."""
        return LibvirtConnection(self.handle)

    def define(self, devices: str = "", boot: str = "<boot dev='hd'/>", xml: str = Q35) -> Any:
        """Define a domain with a new name; return libvirt's own object."""
        return self.handle.defineXML(xml.format(name=f"test-{next(self._numbers)}", devices=devices, boot=boot))

    def clean(self) -> None:
        """Remove every domain."""
        for domain in self.handle.listAllDomains():
            active, persistent = domain.isActive(), domain.isPersistent()
            if active:
                domain.destroy()
            if persistent:
                domain.undefine()


def open_embedded() -> EmbeddedLibvirt:
    """The embedded driver of this process; the test is skipped where it cannot be had."""
    try:
        return _open()
    except _Missing as missing:
        pytest.skip(str(missing))


def require_emulator(arch: str) -> None:
    """Skip the test where QEMU cannot emulate this architecture."""
    if shutil.which(f"qemu-system-{arch}") is None:
        pytest.skip(f"qemu-system-{arch} is not installed")


class _Missing(Exception):
    pass


@functools.lru_cache(maxsize=1)
def _open() -> EmbeddedLibvirt:
    try:
        import libvirt
    except ImportError:
        raise _Missing("the Python module libvirt is not installed") from None
    if shutil.which("qemu-system-x86_64") is None:
        raise _Missing("qemu-system-x86_64 is not installed")
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_event_loop, args=(libvirt,), daemon=True).start()
    # Kept short, since libvirt makes sockets below it.
    root = tempfile.mkdtemp(prefix="lv-")
    # Without this, a domain that is started wants the daemon virtlogd.
    os.mkdir(f"{root}/etc")
    with open(f"{root}/etc/qemu.conf", "w", encoding="utf-8") as stream:
        stream.write('stdio_handler = "file"\n')
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    places = dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), root)
    try:
        with mock.patch.dict(os.environ, places), _ordinary_user(root):
            return EmbeddedLibvirt(libvirt.open(f"qemu:///embed?root={root}"))
    except libvirt.libvirtError as error:
        raise _Missing(f"libvirt's QEMU driver cannot be opened ({error})") from None


def _event_loop(libvirt: Any) -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


@contextlib.contextmanager
def _ordinary_user(root: str) -> Iterator[None]:
    """Root's driver wants a user that the daemon's package makes; an ordinary user's wants none."""
    if os.geteuid() != 0:
        yield
        return
    for place in (root, f"{root}/etc"):
        os.chown(place, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
