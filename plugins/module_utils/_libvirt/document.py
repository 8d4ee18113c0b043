# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI devices of the host put into, changed in and taken out of the text of a definition."""

from __future__ import annotations

from collections.abc import Mapping

from .._core.errors import PassthroughError
from .._pci.address import PciAddress
from .definition import Definition, ascii_text, c14n, parse_xml
from .text import DomainText


def spliced(text: str, texts: Mapping[PciAddress, str | None]) -> str:
    """A definition with other devices of the host, every other byte as it was.

    :param texts: for each device the new element, or None for none. One that is there keeps its place; new ones come
        after the last device, in this order.
    :raises PassthroughError: ``domain_xml_invalid``
    """
    document = DomainText(text)
    definition = Definition(text)
    numbers = {element: number for number, element in enumerate(definition.device_elements)}
    replaced: dict[int, str | None] = {}
    for one in definition.hostdevs:
        if one.source in texts:
            replaced[numbers[one.element]] = _written(texts[one.source])
    there = {one.source for one in definition.hostdevs}
    added = [_written(new) for source, new in texts.items() if source not in there]
    result = document.with_devices(replaced, [new for new in added if new is not None])
    # What was cut and joined means what an XML library makes of the same change.
    if c14n(definition.with_hostdevs(dict(texts))) != c14n(Definition(result).root):
        raise PassthroughError(
            "internal_error",
            "The definition would not be the same outside its devices of the host, so it was left alone.",
            "This is a defect of the collection; please report it, with the definition.",
        )
    return result


def _written(text: str | None) -> str | None:
    """An element as it is written: in ASCII, which is the same whatever encoding the document says it has."""
    return None if text is None else ascii_text(parse_xml(text))
