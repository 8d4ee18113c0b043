# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import (
    CommandLine,
    Parameter,
    Request,
    split_words,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.words import edited, placed_words

WORDS = [
    "quiet",
    "iommu=pt",
    "amd_iommu=pt",
    "vfio-pci.ids=1:2",
    "vfio_pci.ids=3:4",
    'dyndbg="file x  +p"',
    "--",
    "ö=1",
]


@pytest.mark.parametrize(
    ("text", "present", "absent", "expected"),
    [
        ("", ["a=1"], [], "a=1"),
        ("  quiet  ro\n", ["a=1"], [], "  quiet  ro a=1\n"),
        ("quiet ro", ["quiet"], [], "quiet ro"),
        ("quiet  a=1\tro", [], ["a"], "quiet\tro"),
        ("a=1  quiet ro", [], ["a", "quiet"], "ro"),
        ("a=1 quiet", [], ["a", "quiet"], ""),
        ("a=1 b a=2 c", ["a=3"], [], "a=3 b c"),
        ("b -- a=1", ["a=2"], [], "b a=2 -- a=1"),
        ("-- a=1", ["a=2"], [], "a=2 -- a=1"),
        ("amd_iommu=pt quiet", ["iommu=pt"], ["amd"], "amd_iommu=pt quiet iommu=pt"),
        ("vfio-pci.ids=1:2", ["vfio_pci.ids=3:4"], [], "vfio_pci.ids=3:4"),
        ("ro\r\n", ["a"], [], "ro a\r\n"),
    ],
)
def test_only_the_words_that_have_to_change(text: str, present: list[str], absent: list[str], expected: str) -> None:
    assert edited(text, Request.of(present, absent)) == expected


def test_only_the_given_parts_are_a_command_line() -> None:
    text = "# a=1 comment\nroot=x a=1\n# a=1\na=2 b\n"
    spans = [(14, 25), (31, 37)]
    assert edited(text, Request.of(["a=3"], []), spans) == "# a=1 comment\nroot=x a=3\n# a=1\nb\n"
    assert edited(text, Request.of(["c"], []), spans) == "# a=1 comment\nroot=x a=1\n# a=1\na=2 b c\n"


@given(st.text(st.sampled_from('ab= \t\n"-\r'), max_size=30))
def test_words_are_those_of_the_kernel(text: str) -> None:
    found = placed_words(text, [(0, len(text))])
    assert [word.text for word in found] == split_words(text)
    assert [text[word.start : word.end] for word in found] == split_words(text)


@given(
    st.lists(st.sampled_from(WORDS), max_size=6),
    st.sampled_from([" ", "  ", "\t", "\n", " \r\n"]),
    st.lists(st.sampled_from(["quiet", "iommu=on", "vfio-pci.ids=5:6", "console=a", "console=b"]), max_size=3),
    st.lists(st.sampled_from(["iommu", "amd_iommu=pt", "dyndbg", "ö"]), max_size=2),
)
def test_an_edit_means_what_the_pure_command_line_means(
    words: list[str], blank: str, present: list[str], absent: list[str]
) -> None:
    keys = {Parameter.parse(text).key for text in present}
    request = Request(
        tuple(Parameter.parse(text) for text in present),
        tuple(Parameter.parse(text) for text in absent if Parameter.parse(text).key not in keys),
    )
    text = blank.join(words)
    result = edited(text, request)
    assert CommandLine.parse(result) == request.apply(CommandLine.parse(text))
    assert edited(result, request) == result
