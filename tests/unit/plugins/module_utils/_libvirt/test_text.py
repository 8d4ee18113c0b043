# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of a domain: devices come in, and no other byte changes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.text import MAX_BYTES, MAX_DEPTH, DomainText

NEW = '<hostdev a="1">\n  <source/>\n</hostdev>'


def test_a_device_comes_after_the_last_one_and_is_indented_like_it() -> None:
    text = "<domain>\n  <devices>\n     <disk  a='1'/>\n  </devices>\n</domain>\n"
    assert DomainText(text).with_devices({}, [NEW]) == (
        "<domain>\n  <devices>\n     <disk  a='1'/>\n"
        '     <hostdev a="1">\n       <source/>\n     </hostdev>\n  </devices>\n</domain>\n'
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "<domain>\n\t<devices>\n\t</devices>\n</domain>",
            "<domain>\n\t<devices>\n\t  <a/>\n\t</devices>\n</domain>",
        ),
        ("<domain>\n  <devices />\n</domain>", "<domain>\n  <devices>\n    <a/>\n  </devices>\n</domain>"),
        ("<domain><devices/></domain>", "<domain><devices>\n  <a/>\n</devices></domain>"),
        ("<domain><devices></devices></domain>", "<domain><devices>\n  <a/></devices></domain>"),
        ("<domain><devices><b/></devices></domain>", "<domain><devices><b/>\n  <a/></devices></domain>"),
        ("<domain>\n  <os/>\n</domain>", "<domain>\n  <os/>\n  <devices>\n    <a/>\n  </devices>\n</domain>"),
        ("<domain><os/></domain>", "<domain><os/>\n  <devices>\n    <a/>\n  </devices>\n</domain>"),
        # What looks like the end and is none.
        (
            "<domain><!-- </devices> --><devices><b x='&lt;/devices>'><![CDATA[</devices>]]></b></devices></domain>",
            "<domain><!-- </devices> --><devices><b x='&lt;/devices>'><![CDATA[</devices>]]></b>\n  <a/></devices>"
            "</domain>",
        ),
        (
            "<domain>\n <metadata><devices>\n</devices></metadata>\n <devices>\n  <!-- b -->\n </devices>\n</domain>",
            "<domain>\n <metadata><devices>\n</devices></metadata>\n <devices>\n  <!-- b -->\n   <a/>\n </devices>\n"
            "</domain>",
        ),
        (
            "<domain>\r\n  <devices>\r\n    <b/>\r\n  </devices>\r\n</domain>\r\n",
            "<domain>\r\n  <devices>\r\n    <b/>\r\n    <a/>\r\n  </devices>\r\n</domain>\r\n",
        ),
        (
            "<?xml version='1.0' encoding='ISO-8859-1'?>\n<domain><name>ä</name><devices/></domain>",
            "<?xml version='1.0' encoding='ISO-8859-1'?>\n<domain><name>ä</name><devices>\n  <a/>\n</devices></domain>",
        ),
    ],
)
def test_where_a_device_comes(text: str, expected: str) -> None:
    assert DomainText(text).with_devices({}, ["<a/>"]) == expected


def test_devices_are_replaced_where_they_are() -> None:
    text = "<domain>\n  <devices>\n    <a x='>'/><b/>\n    <c>\n    </c><!-- c -->\n  </devices>\n</domain>"
    document = DomainText(text)
    assert [text[span.start : span.end] for span in document.devices] == ["<a x='>'/>", "<b/>", "<c>\n    </c>"]
    assert document.with_devices({2: NEW, 0: "<d/>"}, []) == (
        "<domain>\n  <devices>\n    <d/><b/>\n"
        '    <hostdev a="1">\n      <source/>\n    </hostdev><!-- c -->\n  </devices>\n</domain>'
    )
    assert document.with_devices({}, []) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<domain>", "malformed"),
        ("<domain/>", "nothing in it"),
        ("<domain>&nbsp;</domain>", "malformed"),
        ("<!DOCTYPE domain><domain></domain>", "document type declaration"),
        ("<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>", "document type declaration"),
        ("<!DOCTYPE d SYSTEM 'http://example.com/d.dtd'><domain></domain>", "document type declaration"),
        ("<domain>\ud800</domain>", "no encoding"),
        ("<domain>" + "<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH + "</domain>", "more than 256 deep"),
        ("<domain>" + " " * MAX_BYTES + "</domain>", "4194304 at most"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(PassthroughError, match=re.escape(words)) as caught:
        DomainText(text)
    assert caught.value.code == "domain_xml_invalid"


def test_entities_that_grow_are_refused_before_they_grow() -> None:
    laughs = "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 12))
    with pytest.raises(PassthroughError, match="document type declaration"):
        DomainText(f"<!DOCTYPE d [<!ENTITY l0 'ha'>{laughs}]><domain>&l11;</domain>")


def test_the_largest_and_the_deepest_that_is_taken() -> None:
    deep = MAX_DEPTH - 1
    DomainText("<domain>" + "<a>" * deep + "</a>" * deep + "</domain>")
    frame = "<domain></domain>"
    DomainText("<domain>" + " " * (MAX_BYTES - len(frame)) + "</domain>")


BLANKS = st.sampled_from(["", " ", "\n", "\n    ", "\r\n  ", "\t"])
PIECES = st.sampled_from(
    [
        "<disk/>",
        "<disk a='/>'/>",
        "<b></b>",
        "<b >t&amp;</b >",
        "<!-- </devices> -->",
        "<?pi x?>",
        "<q:a/>",
        "<![CDATA[>]]>",
    ]
)


@given(st.lists(st.tuples(BLANKS, PIECES)), BLANKS, BLANKS, st.sampled_from(["<devices>", "<devices >"]))
def test_whatever_stands_there_stays(pieces: list[tuple[str, str]], last: str, outer: str, tag: str) -> None:
    content = "".join(blank + piece for blank, piece in pieces) + last
    text = f"<domain xmlns:q='urn:q'>{outer}{tag}{content}</devices>{outer}</domain>"
    document = DomainText(text)
    assert [text[span.start : span.end] for span in document.devices] == [
        piece for _blank, piece in pieces if piece[1] not in "!?"
    ]
    changed = DomainText(text).with_devices({}, ["<new/>", NEW])
    start, end = changed.index("<new/>"), changed.index("</hostdev>") + len("</hostdev>")
    before, after = changed[:start], changed[end:]
    # Taken out again with the blanks around it, nothing is missing.
    assert text.startswith(before.rstrip())
    assert text.endswith(after.lstrip())
    assert len(before.rstrip()) + len(after.lstrip()) >= len(text) - len(last) - len(outer)
    assert "".join((before + after).split()) == "".join(text.split())
