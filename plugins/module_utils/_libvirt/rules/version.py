# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host's libvirt knows."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from ..element import bindings
from .context import Context

# What everybody has, and saying it changes nothing.
_HARMLESS = {"assigned": True}


def known(context: Context) -> Iterator[Problem]:
    """A setting is not older than the libvirt that has to understand it; an older one drops it without a word.

    Source: the version in which libvirt's "Domain XML format" says each was introduced (``since`` of the field).
    """
    for subject in context.requested:
        for field, binding in bindings(subject.hostdev):
            value = None if subject.asked is None else getattr(subject.asked, field)
            if binding.since is None or binding.since <= context.version or value in (None, _HARMLESS.get(field)):
                continue
            yield subject.problem(
                "libvirt_too_old",
                f"{binding.option} needs libvirt {_text(binding.since)}, but this host has {_text(context.version)}, "
                "which would ignore it without a word.",
                f"Leave {binding.option} out, or update libvirt on the host.",
                field,
                binding.shown(value),
                needed=_text(binding.since),
                version=_text(context.version),
            )


def _text(version: tuple[int, int, int]) -> str:
    return ".".join(str(number) for number in version)
