# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._boot import entries
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import Request
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError

ENTRY = """\
# options commented=1
title   Arch Linux
linux\t/vmlinuz-linux
initrd  /initramfs-linux.img
options root=UUID=aa  ro
  options quiet intel_iommu=off\t
"""


def test_fields_are_those_systemd_boot_sees() -> None:
    assert [(field.key, field.value) for field in entries.fields(ENTRY)] == [
        ("title", "Arch Linux"),
        ("linux", "/vmlinuz-linux"),
        ("initrd", "/initramfs-linux.img"),
        ("options", "root=UUID=aa  ro"),
        ("options", "quiet intel_iommu=off"),
    ]
    assert str(entries.command_line(ENTRY)) == "root=UUID=aa ro quiet intel_iommu=off"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("options", ""),
        ("options\t a", "a"),
        ("options a\r\nlinux /x\r\n", "a"),
        ("options a\rb c\n", "a"),
        ('options "a b"\n', "a b"),
        ('options "a" "b"\n', 'a" "b'),
        ("options ä=ö \n", "ä=ö"),
        ("optionsa b\n", ""),
    ],
)
def test_odd_lines(text: str, line: str) -> None:
    assert str(entries.command_line(text)) == line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENTRY, ENTRY.replace("intel_iommu=off", "intel_iommu=on iommu=pt").replace(" quiet", "")),
        ("linux /x\n", "linux /x\noptions intel_iommu=on iommu=pt\n"),
        ("linux /x", "linux /x\noptions intel_iommu=on iommu=pt\n"),
        ("options intel_iommu=off\nx y\noptions intel_iommu=a b", "options intel_iommu=on\nx y\noptions b iommu=pt"),
        ("options quiet\r\nlinux /x\r\n", "options intel_iommu=on iommu=pt\r\nlinux /x\r\n"),
    ],
)
def test_an_edit_touches_the_words_only(text: str, expected: str) -> None:
    result = entries.with_request(text, Request.of(["intel_iommu=on", "iommu=pt"], ["quiet"]), "x.conf")
    assert " ".join(result.split()) == " ".join(expected.split())
    assert result.count("\n") == expected.count("\n")


def test_what_an_entry_cannot_say_is_refused() -> None:
    with pytest.raises(PassthroughError) as caught:
        entries.with_request("linux /x\n", Request.of(['"dyndbg=file x +p"'], []), "x.conf")
    assert caught.value.code == "value_not_representable"
    assert "x.conf" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("a-1.conf", "a-1"),
        ("a-1+3.conf", "a-1"),
        ("a-1+2-1.efi", "a-1"),
        ("a+deb13.conf", "a+deb13"),
        ("a+3x.conf", "a+3x"),
    ],
)
def test_counters_of_boot_attempts_are_no_part_of_the_name(name: str, identity: str) -> None:
    assert entries.identity(name) == identity


@given(st.text(st.sampled_from('ab=options "\t\n\r#-'), max_size=60))
def test_an_edit_of_any_text_is_right_or_refused(text: str) -> None:
    request = Request.of(["iommu=pt"], ["a"])
    try:
        result = entries.with_request(text, request, "x")
    except PassthroughError:
        return
    assert entries.command_line(result) == request.apply(entries.command_line(text))
    others = [[(f.key, f.value) for f in entries.fields(t) if f.key != "options"] for t in (text, result)]
    assert others[0] == others[1]
