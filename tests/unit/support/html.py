# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTML as a tree, of documents that close what they open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Optional, Union

VOID = ("meta", "link", "input", "br")


@dataclass
class Element:
    """An element."""

    name: str
    attributes: dict[str, Optional[str]] = field(default_factory=dict)
    children: list[Union[Element, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def classes(self) -> list[str]:
        """Its classes."""
        return (self.attributes.get("class") or "").split()

    def all(self, name: str | None = None, class_: str | None = None) -> Iterator[Element]:
        """It and those in it, of some name and some class, in the order of the document."""
        if name in (None, self.name) and (class_ is None or class_ in self.classes):
            yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.all(name, class_)


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].name == tag, f"</{tag}> within <{self._open[-1].name}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        children = self._open[-1].children
        if children and isinstance(children[-1], str):
            children[-1] += data
        else:
            children.append(data)

    def closed(self) -> Element:
        assert self._open == [self.root], f"<{self._open[-1].name}> is not closed"
        return self.root


def parse(text: str) -> list[Element]:
    """The outermost elements of a document, or of a part of one.

    :raises AssertionError: when something is not closed, or closed in the wrong order
    """
    builder = _Builder()
    builder.feed(text)
    builder.close()
    return [child for child in builder.closed().children if isinstance(child, Element)]
