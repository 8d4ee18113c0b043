# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters of the running kernel that somebody set for the IOMMU and that do nothing there.

Sources: ``intel_iommu_setup()`` in drivers/iommu/intel/iommu.c, ``parse_amd_iommu_options()`` in drivers/iommu/amd/
init.c, ``iommu_setup()`` in arch/x86/kernel/pci-dma.c and ``gart_parse_options()`` in amd_gart_64.c there,
``setup_irqremap()`` in drivers/iommu/irq_remapping.c, early parameters of drivers/iommu/iommu.c. All compare the
beginning of each item and pass over what they do not know.

The lists of items hold those of all kernels, past ones and well-known patched ones included: which of them the running
kernel knows cannot be asked, and a warning that is wrong is worse than one that is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._boot.cmdline import Parameter
from . import arm, parameters, s390, x86
from .machine import Machine
from .platform import Blocker, Platform


@dataclass(frozen=True)
class _Reader:
    """Who reads a parameter: a kind of IOMMU (every one of x86 when ``platform`` is None), and the items it knows."""

    platform: str | None
    platform_name: str
    items: tuple[str, ...]


_READERS = {
    "intel_iommu": _Reader(
        "intel_vtd",
        "Intel VT-d",
        (
            *("on", "off", "igfx_off", "forcedac", "strict", "sp_off", "sm_on", "sm_off", "tboot_noforce"),
            # Until 4.19, until 5.12; in Debian's kernels; in Proxmox VE's.
            *("ecs_off", "pasid28", "nobounce", "intgpu_off", "relax_rmrr"),
        ),
    ),
    "amd_iommu": _Reader(
        "amd_vi",
        "AMD-Vi",
        (
            *("off", "fullflush", "force_enable", "force_isolation", "pgtbl_v1", "pgtbl_v2", "irtcachedis"),
            *("nohugepages", "v2_pgsizes_only", "pgsize_4k"),
        ),
    ),
    "iommu": _Reader(
        None,
        "x86",
        (
            *("off", "force", "noforce", "biomerge", "panic", "nopanic", "merge", "nomerge", "forcesac", "allowdac"),
            *("nodac", "usedac", "soft", "pt", "nopt", "calgary"),
            *("fullflush", "nofullflush", "noagp", "noaperture", "allowed", "memaper", "leak"),
            *"0123456789",  # the size of a GART IOMMU
        ),
    ),
    "intremap": _Reader(None, "x86", ("on", "off", "nosid", "no_x2apic_optout", "nopost", "posted_msi")),
}
_BOOLEANS = ("iommu.passthrough", "iommu.strict", "iommu.forcedac")

# What a mistyped name may have been meant for, and names that look like one of them and are right.
_KNOWN = (*_READERS, *_BOOLEANS, "nointremap", "amd_iommu_intr", "amd_iommu_dump", "s390_iommu")
_CORRECT = frozenset((*_KNOWN, "iommufd"))

# Where the meaning of these parameters is known; elsewhere (PowerPC has an iommu= of its own) nothing is said.
_ARCHITECTURES = x86.ARCHITECTURES | arm.ARCHITECTURES | s390.ARCHITECTURES

_INSTEAD = {
    "intel_iommu": "intel_iommu=on is what switches it on.",
    "amd_iommu": "AMD-Vi is on by itself.",
    "iommu": "iommu=pt is what chooses identity domains; no value of iommu= switches an IOMMU on.",
    "intremap": "intremap=on is what switches interrupt remapping on.",
}


def ineffective(machine: Machine, platform: Platform | None, is_active: bool) -> tuple[Blocker, ...]:
    """A warning for every parameter that does nothing on this host, each once, in the order of the command line.

    Where the IOMMU is active, a parameter for the IOMMU of another vendor is none: in a fleet, all hosts are often
    given the same ones (``intel_iommu=on amd_iommu=pgtbl_v2``), and nobody waits for its effect here.

    :param platform: the kind of IOMMU of the host, or None when it is not known
    """
    if machine.architecture not in _ARCHITECTURES:
        return ()
    on_x86 = machine.architecture in x86.ARCHITECTURES
    reasons = {
        parameter.text: _reason(parameter, platform, on_x86)
        for parameter in machine.command_line.parameters
        if not (is_active and platform is not None and _is_for_others(parameter, platform))
    }
    return tuple(
        Blocker(
            "parameter_without_effect",
            "warning",
            f"The kernel was started with {text}, which does not do what it seems to: {reason}",
            "Remove it with kvm.passthrough.kernel_parameters, or correct it.",
        )
        for text, reason in reasons.items()
        if reason is not None
    )


def _is_for_others(parameter: Parameter, platform: Platform) -> bool:
    """Whether a parameter is read by the driver of another vendor's IOMMU only."""
    reader = _READERS.get(parameter.key)
    return reader is not None and reader.platform not in (None, platform.code)


def _reason(parameter: Parameter, platform: Platform | None, on_x86: bool) -> str | None:
    """Why a parameter does nothing, as the end of a sentence; None when it does something, or is about other things."""
    key = parameter.key
    if key in _BOOLEANS:
        return "it takes 0 or 1." if parameters.boolean(parameter.value) is None else None
    reader = _READERS.get(key)
    if reader is None:
        meant = next((known for known in _KNOWN if _one_slip_apart(key, known)), None)
        return None if meant is None or key in _CORRECT else f"the kernel has no such parameter. {meant} may be meant."
    if not on_x86:
        instead = " iommu.passthrough=1 is what chooses identity domains here." if key == "iommu" else ""
        return f"{key} is for x86 processors.{instead}"
    if platform is not None and _is_for_others(parameter, platform):
        return f"{key} is for {reader.platform_name}, and this host has {platform.name}."
    return _unknown_items(parameter, reader)


def _unknown_items(parameter: Parameter, reader: _Reader) -> str | None:
    """Why no item of a value means anything (one that does is enough to keep the parameter)."""
    found = parameters.items(parameter)
    if not found:
        return f"it needs a value. {_INSTEAD[parameter.key]}"
    unknown = [item for item in found if not item.startswith(reader.items)]
    if not unknown:
        return None
    if len(unknown) < len(found):
        return f"the kernel does not know {', '.join(unknown)}; the rest of the value counts."
    return f"the kernel does not know {', '.join(unknown)}. {_INSTEAD[parameter.key]}"


def _one_slip_apart(written: str, meant: str) -> bool:
    """Whether one character is missing, too many, wrong, or swapped with its neighbour."""
    if written == meant or abs(len(written) - len(meant)) > 1:
        return False
    start = next((i for i, (a, b) in enumerate(zip(written, meant)) if a != b), min(len(written), len(meant)))
    rest, right = written[start:], meant[start:]
    return (
        rest[1:] == right
        or rest == right[1:]
        or rest[1:] == right[1:]
        or (rest[:2] == right[:2][::-1] and rest[2:] == right[2:])
    )
