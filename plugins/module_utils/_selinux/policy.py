# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SELinux policy in force, as the kernel and the configuration show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .._core.host import Host

SELINUXFS = "/sys/fs/selinux"
CONFIG = "/etc/selinux/config"
ENFORCING, PERMISSIVE, DISABLED = "enforcing", "permissive", "disabled"

# Older names that how-tos still have. ``virt_manage_sysfs`` was in no released policy; what was meant is the boolean
# that lets guests use sysfs, which Debian has to this day and Fedora had until 2013.
_RENAMED = {"virt_manage_sysfs": "virt_use_sysfs"}


@dataclass(frozen=True)
class Policy:
    """SELinux on one host."""

    mode: str
    """Whether it is enforcing, permissive, or disabled, now."""
    name: str
    """The type of policy that the configuration names (``targeted``, ``default``); empty when it names none."""
    runtime: Mapping[str, bool]
    """The booleans of the loaded policy and what they are now. Empty where SELinux is disabled."""
    renamed: Mapping[str, str]
    """Former names of booleans, and what they are called now."""

    @property
    def enabled(self) -> bool:
        """Whether the kernel has a policy loaded."""
        return self.mode != DISABLED

    @classmethod
    def of(cls, host: Host) -> Policy:
        """Read it.

        The kernel shows each boolean as a file with its value and its pending value, ``0 1`` (``sel_read_bool`` in
        security/selinux/selinuxfs.c).
        """
        enforce = host.attribute(f"{SELINUXFS}/enforce")
        mode = DISABLED if enforce is None else PERMISSIVE if enforce == "0" else ENFORCING
        name = _policy_name(host)
        runtime = {}
        for boolean in host.list_dir(f"{SELINUXFS}/booleans"):
            value = host.attribute(f"{SELINUXFS}/booleans/{boolean}")
            if value:
                runtime[boolean] = value.split()[0] != "0"
        return cls(mode, name, runtime, {**_RENAMED, **_substitutions(host, name)})


def _policy_name(host: Host) -> str:
    """SELINUXTYPE of selinux_config(5)."""
    found = ""
    for line in (host.attribute(CONFIG) or "").splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() == "SELINUXTYPE":
            found = value.strip()
    return found


def _substitutions(host: Host, policy: str) -> dict[str, str]:
    """The policy's own list of former names, booleans.subs_dist(5): pairs of the former and the present name."""
    text = host.attribute(f"/etc/selinux/{policy}/booleans.subs_dist") if policy else None
    pairs = [line.split() for line in (text or "").splitlines() if not line.lstrip().startswith("#")]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
