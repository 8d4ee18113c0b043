# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTML that cannot be broken by what it says: a text is escaped because it is one, not because somebody thought of it.

::

    tag("p", "as it is: ", tag("code", name), class_="note")
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Optional, Union

_VOID = frozenset({"meta", "link", "input", "br"})
_ESCAPES = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        '"': "&quot;",
        "'": "&#39;",
        # A page goes through Ansible's templates on its way into a file.
        "{": "&#123;",
        "}": "&#125;",
    }
)
# What no HTML document may have (HTML Standard, "control character reference"), and lone surrogates.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Markup:
    """HTML that is meant as such. Only this module and what is shipped with the collection makes any."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


Content = Union[str, int, Markup, None, Iterable["Content"]]
Attribute = Optional[Union[str, int, bool]]


def escape(text: str) -> str:
    """A text as HTML, for elements and for attributes in quotes."""
    return _FORBIDDEN.sub("\ufffd", str(text)).translate(_ESCAPES)


def join(*content: Content) -> Markup:
    """Texts and HTML one after the other; None is nothing."""
    return Markup("".join(_pieces(content)))


def tag(element: str, /, *content: Content, **attributes: Attribute) -> Markup:
    """An element.

    :param attributes: ``class_`` is ``class``, ``aria_label`` is ``aria-label``. None and False leave one out, True
        gives it without a value.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if element in _VOID:
        return Markup(f"<{element}{given}>")
    return Markup(f"<{element}{given}>{''.join(_pieces(content))}</{element}>")


def _pieces(content: Content) -> Iterable[str]:
    if content is None:
        return
    if isinstance(content, Markup):
        yield content.text
    elif isinstance(content, (str, int)):
        yield escape(str(content))
    else:
        for item in content:
            yield from _pieces(item)


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
