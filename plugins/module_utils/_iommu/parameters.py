# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What IOMMU parameters of a kernel command line mean together, by the rules of the kernel's own parsers.

Sources: drivers/iommu/intel/iommu.c ``intel_iommu_setup``, drivers/iommu/amd/init.c ``parse_amd_iommu_options``,
arch/x86/kernel/pci-dma.c ``iommu_setup``, drivers/iommu/irq_remapping.c ``setup_irqremap`` and ``setup_nointremap``;
Documentation/admin-guide/kernel-parameters.txt. All take a list separated by commas and compare the beginning of
each item; a parameter given several times is read several times, in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .._boot.cmdline import CommandLine, Parameter

RELEVANT_KEYS = frozenset(
    (
        "amd_iommu",
        "amd_iommu_intr",
        "arm_smmu.disable_bypass",
        "arm_smmu_v3.disable_bypass",
        "initcall_blacklist",
        "intel_iommu",
        "intremap",
        "iommu",
        "iommu.forcedac",
        "iommu.passthrough",
        "iommu.strict",
        "iommufd.allow_unsafe_interrupts",
        "modprobe.blacklist",
        "module_blacklist",
        "nointremap",
        "pci",
        "pcie_acs_override",
        "s390_iommu",
        "vfio_iommu_type1.allow_unsafe_interrupts",
    )
)
RELEVANT_PREFIXES = ("vfio.", "vfio_pci.", "kvm.", "kvm_intel.", "kvm_amd.", "kvm_arm.")


@dataclass(frozen=True)
class Switch:
    """What a command line says about one thing that is on or off: ``on`` is None when it says nothing.

    ``decisive`` are the parameters that make it so; ``contradicting`` those that say otherwise and do not count.
    """

    on: bool | None = None
    decisive: tuple[Parameter, ...] = ()
    contradicting: tuple[Parameter, ...] = ()

    @property
    def text(self) -> str:
        """The decisive parameters as they stand on the command line."""
        return " ".join(parameter.text for parameter in self.decisive)


def relevant(line: CommandLine) -> list[str]:
    """The parameters that have to do with IOMMU, VFIO and KVM, as they stand on the command line."""
    return [
        parameter.text
        for parameter in line.parameters
        if parameter.key in RELEVANT_KEYS or parameter.key.startswith(RELEVANT_PREFIXES)
    ]


def intel_iommu(line: CommandLine) -> Switch:
    """``intel_iommu=``: the last ``on`` or ``off`` counts."""
    return _last([(parameter, verdict) for parameter in line.named("intel_iommu") for verdict in _verdicts(parameter)])


def amd_iommu(line: CommandLine) -> Switch:
    """``amd_iommu=``: ``off`` counts wherever it stands; there is no ``on``."""
    return _off_stays(line.named("amd_iommu"))


def iommu(line: CommandLine) -> Switch:
    """``iommu=``: ``off`` counts wherever it stands, and switches off every IOMMU of an x86 machine."""
    return _off_stays(line.named("iommu"))


def identity(line: CommandLine, on_x86: bool) -> Switch:
    """Whether devices get identity domains by default: ``iommu.passthrough=`` and, on x86, ``iommu=pt`` or ``nopt``.

    The last counts (``iommu_set_def_domain_type()`` in drivers/iommu/iommu.c, ``iommu_setup()``).
    """
    found: list[tuple[Parameter, bool]] = []
    for parameter in line.parameters:
        if parameter.key == "iommu.passthrough":
            value = boolean(parameter.value)
            found += [] if value is None else [(parameter, value)]
        elif parameter.key == "iommu" and on_x86:
            found += [
                (parameter, item.startswith("pt"))
                for item in _effective_items(parameter)
                if item.startswith(("pt", "nopt"))
            ]
    return _last(found)


def strict(line: CommandLine) -> Switch:
    """Whether a mapping is taken back at once: the last ``iommu.strict=``, unless an older spelling switches it on.

    ``iommu.strict=`` is an early parameter (``iommu_dma_setup()`` in drivers/iommu/iommu.c). ``intel_iommu=strict`` and
    ``amd_iommu=fullflush`` are none: wherever they stand, they are read after it, and call ``iommu_set_dma_strict()``.
    """
    values = [(parameter, boolean(parameter.value)) for parameter in line.named("iommu.strict")]
    found = [(parameter, value) for parameter, value in values if value is not None]
    for key, word in (("intel_iommu", "strict"), ("amd_iommu", "fullflush")):
        older = [parameter for parameter in line.named(key) if any(item.startswith(word) for item in items(parameter))]
        found += [(parameter, True) for parameter in older]
    return _last(found)


def boolean(value: str | None) -> bool | None:
    """A value as ``kstrtobool()`` (lib/kstrtox.c) reads it by its beginning; None when it is neither true nor false."""
    text = (value or "").lower()
    if text[:1] in ("y", "t", "1") or text[:2] == "on":
        return True
    if text[:1] in ("n", "f", "0") or text[:2] == "of":
        return False
    return None


def interrupt_remapping(line: CommandLine) -> Switch:
    """``intremap=`` and ``nointremap``: the last ``on`` or ``off`` counts, ``nointremap`` being ``off``."""
    found = []
    for parameter in line.parameters:
        if parameter.key == "nointremap":
            found.append((parameter, False))
        elif parameter.key == "intremap":
            found += [(parameter, verdict) for verdict in _verdicts(parameter)]
    return _last(found)


def without_off(parameters: Iterable[Parameter]) -> tuple[list[str], list[str]]:
    """How to take ``off`` out of parameters of one name and keep what else they say.

    :return: the parameters to set, and those to remove (as ``name=value``)
    """
    found = list(parameters)
    return _without(found, [parameter for parameter in found if False in _verdicts(parameter)], other_items(found))


def without_items(parameters: Iterable[Parameter], unwanted: frozenset[str]) -> tuple[list[str], list[str]]:
    """How to take certain items out of parameters of one name and keep what else they say; see :func:`without_off`."""
    found = list(parameters)
    guilty = [parameter for parameter in found if unwanted.intersection(items(parameter))]
    rest = [item for parameter in found for item in items(parameter) if item not in unwanted]
    return _without(found, guilty, list(dict.fromkeys(rest)))


def _without(found: list[Parameter], guilty: list[Parameter], rest: list[str]) -> tuple[list[str], list[str]]:
    if not guilty:
        return [], []
    if rest:
        return [f"{found[0].name}={','.join(rest)}"], []
    return [], list(dict.fromkeys(f"{parameter.name}={parameter.value}" for parameter in guilty))


def other_items(parameters: Iterable[Parameter]) -> list[str]:
    """The items of parameters of one name that are neither ``on`` nor ``off``, each once, in order."""
    rest = [item for parameter in parameters for item in items(parameter) if not item.startswith(("on", "off"))]
    return list(dict.fromkeys(rest))


def items(parameter: Parameter) -> list[str]:
    """The items of a value, which commas separate."""
    return [item for item in (parameter.value or "").split(",") if item]


def _effective_items(parameter: Parameter) -> list[str]:
    """The items that the kernel gets to see: ``iommu_setup()`` returns at ``usedac`` and reads no further."""
    found = items(parameter)
    if parameter.key == "iommu":
        end = next((index for index, item in enumerate(found) if item.startswith("usedac")), len(found))
        return found[:end]
    return found


def _verdicts(parameter: Parameter) -> list[bool]:
    """What a parameter says, item by item: True for ``on``, False for ``off``; other items say nothing."""
    return [item.startswith("on") for item in _effective_items(parameter) if item.startswith(("on", "off"))]


def _last(found: list[tuple[Parameter, bool]]) -> Switch:
    if not found:
        return Switch()
    decisive, verdict = found[-1]
    return Switch(verdict, (decisive,), tuple(parameter for parameter, other in found if other != verdict))


def _off_stays(parameters: Iterable[Parameter]) -> Switch:
    found = list(parameters)
    offs = tuple(parameter for parameter in found if False in _verdicts(parameter))
    if not offs:
        return Switch()
    return Switch(False, offs, tuple(parameter for parameter in found if True in _verdicts(parameter)))
