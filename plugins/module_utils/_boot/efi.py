# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What boot loaders tell the system they start, in EFI variables (systemd.io/BOOT_LOADER_INTERFACE)."""

from __future__ import annotations

from .._core.host import Host

VARIABLES = "/sys/firmware/efi/efivars"
LOADER_GUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
"""The vendor GUID of the Boot Loader Interface."""


def loader_variable(host: Host, name: str) -> str:
    """A text variable of the Boot Loader Interface; empty when it is not there.

    :param name: ``LoaderInfo``, ``StubInfo``, …
    """
    path = f"{VARIABLES}/{name}-{LOADER_GUID}"
    if not host.exists(path):
        return ""
    # Four bytes of attributes, then UTF-16 (Linux, Documentation/filesystems/efivarfs.rst).
    return host.read_bytes(path)[4:].decode("utf-16-le", "replace").rstrip("\0")


def variable_evidence(host: Host, name: str, beginning: str = "") -> list[str]:
    """What a variable says, as evidence, when it says something that begins so, in any case; empty otherwise."""
    text = loader_variable(host, name)
    if not text or not text.lower().startswith(beginning.lower()):
        return []
    return [f"the EFI variable {name} says {text!r}"]
