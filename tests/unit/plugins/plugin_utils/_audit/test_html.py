# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.plugin_utils._audit.html import Content, Markup, escape, join, tag
from ansible_collections.kvm.passthrough.tests.unit.support.html import Element, parse


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (tag("p", "a", 1, None, ["b", [tag("b", "c")]]), "<p>a1b<b>c</b></p>"),
        (tag("p", "<b>", Markup("<i>x</i>")), "<p>&lt;b&gt;<i>x</i></p>"),
        (tag("td", class_="a", aria_label='say "x"', hidden=True, title=None, open=False, data_n=0),
         '<td class="a" aria-label="say &quot;x&quot;" hidden data-n="0"></td>'),
        (tag("input", type="search"), '<input type="search">'),
        (tag("meta", name="x"), '<meta name="x">'),
        (join("a & b", tag("br")), "a &amp; b<br>"),
        (tag("p", "{{ 7 * 7 }}"), "<p>&#123;&#123; 7 * 7 &#125;&#125;</p>"),
        (tag("p", "a\0b\x1b[31m\ud800\n\t"), "<p>a\ufffdb\ufffd[31m\ufffd\n\t</p>"),
    ],
)  # fmt: skip
def test_elements(made: Markup, text: str) -> None:
    assert str(made) == text


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]) | st.sampled_from("<>&'\"{}`=/!-")))
def test_any_text_comes_out_as_it_went_in(text: str) -> None:
    assert html.unescape(escape(text)) == text
    contents: list[Content] = [text]
    [element] = parse(str(tag("p", contents, title=text)))
    assert (element.attributes, element.children) == ({"title": text}, [text] if text else [])


def test_the_parser_of_these_tests_refuses_what_is_not_well_formed() -> None:
    for broken in ("<p><b></p></b>", "<p>", "</p>"):
        with pytest.raises(AssertionError):
            parse(broken)
    [outer] = parse("<div><br>a<p class=x>b</p></div>")
    assert [child.name if isinstance(child, Element) else child for child in outer.children] == ["br", "a", "p"]
    assert outer.text == "ab"
