# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which boot loader started this host, by what it left behind in the running system, not by which files lie around.

Every boot loader brings its own evidence; this file only weighs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from .._core.container import container, container_image
from .._core.errors import PassthroughError
from .._core.host import Host
from .bootc import Bootc
from .extlinux import Extlinux
from .grub import Grub
from .grubby import GrubWithEntries
from .loader import BootLoader, Candidate, Detection
from .proxmox import ProxmoxBootTool
from .rpm_ostree import RpmOstree
from .systemd_boot import SystemdBoot, UnifiedKernelImage
from .transactional_update import TransactionalUpdate
from .unhandled import unhandled_loaders
from .zipl import Zipl

AUTO = "auto"

LOADERS: dict[str, Callable[[Host], BootLoader[Any]]] = {
    "grub": Grub,
    "grub-bls": GrubWithEntries,
    "systemd-boot": SystemdBoot,
    "uki": UnifiedKernelImage,
    "extlinux": Extlinux,
    "rpm-ostree": RpmOstree,
    "bootc": Bootc,
    "transactional-update": TransactionalUpdate,
    "proxmox-boot-tool": ProxmoxBootTool,
    "zipl": Zipl,
}
"""The boot loaders this collection configures, by the name of the option ``bootloader``."""

Found = Sequence["tuple[Candidate, list[str]]"]


def detect(host: Host, wanted: str = AUTO) -> Detection:
    """Find out what this host boots with.

    :param wanted: ``auto``, or the name of a loader that is to be taken without proof from the running system, or
        although another one looks active, too. What proves only others, or shows that the files of this one are not
        there, is an error all the same. In a container, whose running system is its host's, nothing but a name will do
    :raises PassthroughError: ``no_boot_loader``, ``bootloader_ambiguous``, ``bootloader_unsupported``,
        ``bootloader_incomplete``, ``bootloader_unproved``
    """
    loaders = [make(host) for make in LOADERS.values()]
    candidates: list[Candidate] = [*loaders, *unhandled_loaders(host)]
    found = _leading([(candidate, candidate.evidence()) for candidate in candidates])
    shown = container(host) or (None if found else container_image(host))
    if shown:
        name, evidence = _in_container(shown, wanted)
    else:
        name, evidence = _decide(found, wanted)
    if not name:
        name = _unproved_choice(loaders, candidates, wanted)
        evidence = [f"the task says bootloader: {name}; the running system neither proves nor contradicts it"]
    loader = next((loader for loader in loaders if loader.name == name), None)
    if loader is None:
        raise _unsupported(found, evidence)
    missing = loader.missing()
    if missing:
        boots = "This container is to have" if shown else "This host boots with"
        raise PassthroughError(
            "bootloader_incomplete",
            f"{boots} {loader.title} ({'; '.join(evidence)}), but {_lacking(missing)}.",
            "Nothing was changed. Mount or install what is missing.",
            evidence=evidence,
            missing={name: missing},
        )
    return Detection(name, tuple(evidence), shown)


def _in_container(shown: str, wanted: str) -> tuple[str, list[str]]:
    """The name of the loader whose files are to be changed in a container, and why it is that one.

    What runs there was started by the boot loader of the container's host, so it says nothing about these files: they
    are for a machine that is made of them later, or for a test.
    """
    if wanted == AUTO:
        raise PassthroughError(
            "no_boot_loader",
            f"This is a container ({shown}): it has no boot loader, and its kernel is that of its host.",
            "Run this module on the machine that boots the kernel. Where the files of this container are to become "
            f"a machine's, name its boot loader: bootloader: {' or '.join(LOADERS)}.",
            evidence=[shown],
        )
    return wanted, [f"the task says bootloader: {wanted}", f"this is a container ({shown}), which it did not start"]


def _leading(found: Found) -> Found:
    """Those with evidence, without those that another one of them only drives."""
    active = [(candidate, evidence) for candidate, evidence in found if evidence]
    driven = {name for candidate, _unused in active for name in candidate.drives}
    return [(candidate, evidence) for candidate, evidence in active if candidate.name not in driven]


def _decide(found: Found, wanted: str) -> tuple[str, list[str]]:
    """The name of the one loader that is proved, and its evidence; an empty name when none is."""
    proved = {candidate.name: evidence for candidate, evidence in found}
    if wanted in proved:
        return wanted, proved[wanted]
    if len(found) > 1:
        listed = "; ".join(f"{candidate.title} ({', '.join(evidence)})" for candidate, evidence in found)
        handled = [name for name in proved if name in LOADERS]
        raise PassthroughError(
            "bootloader_ambiguous",
            f"The evidence conflicts, this host could boot with each of these: {listed}. Nothing was changed.",
            "Remove what is left of the one that is no longer used"
            + (f", or say which one it is: bootloader: {' or '.join(handled)}." if handled else "."),
            found=list(proved),
            evidence=[text for evidence in proved.values() for text in evidence],
        )
    if not found:
        return "", []
    if wanted != AUTO:
        raise _unsupported(found, found[0][1], wanted)
    return found[0][0].name, found[0][1]


def _unproved_choice(loaders: Sequence[BootLoader[Any]], candidates: Sequence[Candidate], wanted: str) -> str:
    """The name of the loader the task insists on, when nothing in the running system proves any."""
    if wanted != AUTO:
        return wanted
    missing = {loader.name: loader.missing() for loader in loaders}
    complete = [loader for loader in loaders if not missing[loader.name]]
    if complete:
        raise PassthroughError(
            "bootloader_unproved",
            " ".join(
                f"The files of {loader.title} are there, but nothing shows that it started the running system: "
                f"{loader.doubt()}."
                for loader in complete
            ),
            "Reboot through it once (a kexec or an emulator's -kernel goes past it), or set "
            f"bootloader: {' or '.join(loader.name for loader in complete)} when you know that the next boot goes "
            "through it.",
            evidence=[],
        )
    raise PassthroughError(
        "bootloader_unsupported",
        "No boot loader this release handles was found: "
        + "; ".join(f"for {loader.title}, {_lacking(missing[loader.name])}" for loader in loaders)
        + f". Looked for traces of {', '.join(candidate.title for candidate in candidates)}.",
        _handled(loaders),
        evidence=[],
        missing=missing,
    )


def _unsupported(found: Found, evidence: Sequence[str], wanted: str = AUTO) -> PassthroughError:
    """The running system was started by something else than what is handled, or than what is wanted."""
    (candidate, _unused) = found[0]
    handled = candidate.name in LOADERS
    problem = f"and not with {wanted}" if handled else "which this release does not handle"
    return PassthroughError(
        "bootloader_unsupported",
        f"This host boots with {candidate.title} ({'; '.join(evidence)}), {problem}. Nothing was changed.",
        f"Set bootloader: auto or bootloader: {candidate.name}."
        if handled
        else "Set the parameters with the tool of that boot loader. "
        f"This release handles {', '.join(sorted(LOADERS))}.",
        found=[candidate.name],
        evidence=list(evidence),
    )


def _handled(loaders: Sequence[BootLoader[Any]]) -> str:
    return f"This release changes kernel parameters for {', '.join(loader.title for loader in loaders)}."


def _lacking(missing: Sequence[str]) -> str:
    """What is not there, in words."""
    hint = " (is /boot mounted?)" if any(path.startswith("/boot/") for path in missing) else ""
    return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there{hint}"
