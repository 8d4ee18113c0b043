# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drawings of the page, as SVG within it. Sizes are attributes, since the page allows no styles in elements."""

from __future__ import annotations

from collections.abc import Sequence

from .html import Markup, tag

# Drawn for a field of 24 by 24 with a pen of 1.8.
_ICONS = {
    "network": "M4 6h16v9H4z M8 15v4h8v-4 M8 6v3 M12 6v3 M16 6v3",
    "storage": "M4 7c0-4 16-4 16 0v10c0 4-16 4-16 0z M4 7c0 4 16 4 16 0 M4 12c0 4 16 4 16 0",
    "display": "M3 5h18v11H3z M8 20h8 M12 16v4",
    "audio": "M4 9v6h4l5 4V5L8 9z M16 9c2 2 2 4 0 6 M18.5 6.5c4 4 4 7 0 11",
    "usb": "M12 21V4 M9 7l3-4 3 4 M12 17l-5-3v-3 M12 14l5-3V8 M6 9h2v2H6z M16 6h2v2h-2z",
    "bus": "M3 9h18v6H3z M7 9V5 M12 9V5 M17 9V5 M7 15v4 M12 15v4 M17 15v4",
    "bridge": "M2 17c3-8 17-8 20 0 M2 17h20 M7 17v-4 M12 17v-6 M17 17v-4",
    "accelerator": "M6 6h12v12H6z M9.5 9.5h5v5h-5z M9 6V3 M15 6V3 M9 21v-3 M15 21v-3 M6 9H3 M6 15H3 M21 9h-3 M21 15h-3",
    "other": "M6 6h12v12H6z M9 6V3 M15 6V3 M9 21v-3 M15 21v-3 M6 9H3 M6 15H3 M21 9h-3 M21 15h-3",
    "guest": "M3 5h18v12H3z M8 21h8 M7 9h6 M7 12h4",
    "pool": "M12 4l8 4-8 4-8-4z M4 12l8 4 8-4 M4 16l8 4 8-4",
    "shield": "M12 3l8 3v6c0 5-4 8-8 9-4-1-8-4-8-9V6z",
    "lost": "M5 5l14 14 M19 5L5 19",
}


def sprite() -> Markup:
    """The drawings themselves; :func:`icon` refers to them."""
    return tag(
        "svg",
        [tag("symbol", tag("path", d=path), id=f"i-{name}", viewBox="0 0 24 24") for name, path in _ICONS.items()],
        width=0,
        height=0,
        class_="unseen",
        aria_hidden="true",
    )


def icon(name: str) -> Markup:
    """A drawing beside a text that says the same."""
    return tag("svg", tag("use", href=f"#i-{name}"), class_="icon", aria_hidden="true")


def stacked_bar(parts: Sequence[tuple[str, str, int]], label: str | None, class_: str) -> Markup:
    """A bar of shares.

    :param parts: class, name, and how many
    :param label: what it shows, or None when the numbers stand beside it
    """
    total = sum(number for _class, _name, number in parts) or 1
    drawn, left = [], 0.0
    for name, word, number in parts:
        width = 100 * number / total
        if number:
            drawn.append(
                tag(
                    "rect",
                    tag("title", f"{word}: {number}"),
                    x=f"{left:.2f}%",
                    y=0,
                    width=f"{width:.2f}%",
                    height="100%",
                    class_=name,
                )
            )
        left += width
    text = ", ".join(f"{word}: {number}" for _class, word, number in parts if number)
    spoken = f"{label}: {text}" if label else text
    return tag("svg", drawn, class_=f"bar {class_}", role="img", aria_label=spoken)
