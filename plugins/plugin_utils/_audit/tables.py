# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables that are scrolled sideways where they are too wide, by keyboard too."""

from __future__ import annotations

from collections.abc import Iterable

from .html import Attribute, Markup, tag


def table(columns: Iterable[str], rows: Iterable[Markup], label: str, class_: str | None = None) -> Markup:
    """A table.

    :param label: what it shows, for those who hear it
    """
    heads = tag("thead", tag("tr", [tag("th", name, scope="col") for name in columns]))
    return scroll(tag("table", heads, tag("tbody", rows), class_=class_, aria_label=label), aria_label=label)


def scroll(content: Markup, **attributes: Attribute) -> Markup:
    """A table with a place to scroll it in; ``attributes`` name it."""
    return tag("div", content, class_="scroll", tabindex="0", role="region", **attributes)
