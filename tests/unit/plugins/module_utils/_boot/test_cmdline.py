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
    broken_rule,
    may_share_a_root,
    roots,
    split_words,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError

NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True)
VALUES = (
    st.none()
    | st.from_regex(r"[A-Za-z0-9,:=/._-]{0,8}", fullmatch=True)
    | st.from_regex(r'"[a-z +=;,]{0,8}"', fullmatch=True)
)
TEXTS = st.builds(lambda name, value: name if value is None else f"{name}={value}", NAMES, VALUES)
# Few names, so that they meet.
CLOSE_TEXTS = st.builds(
    lambda name, value: name if value is None else f"{name}={value}",
    st.sampled_from(["iommu", "amd_iommu", "vfio-pci.ids", "vfio_pci.ids", "console", "quiet"]),
    st.sampled_from([None, "", "on", "off", "pt", "on,sm_on", '"a b"']),
)
LINES = st.lists(CLOSE_TEXTS, max_size=8).map(CommandLine.of)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    texts = draw(st.lists(CLOSE_TEXTS, max_size=4))
    absent = draw(st.lists(CLOSE_TEXTS, max_size=3))
    keys = {Parameter.parse(text).key for text in texts}
    return Request.of(texts, [text for text in absent if Parameter.parse(text).key not in keys])


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("quiet", "quiet", None),
        ("iommu=pt", "iommu", "pt"),
        ("acpi_osi=", "acpi_osi", ""),
        ('dyndbg="file x +p"', "dyndbg", "file x +p"),
        ('"dyndbg=file x +p"', "dyndbg", "file x +p"),  # how GRUB hands it over
        ('"two words"', "two words", None),
        ('name=""', "name", ""),
        ("a=b=c", "a", "b=c"),
        ("=a", "=a", None),
        ("=a=b", "=a", "b"),
        ('a=b"c d"', "a", 'b"c d"'),
    ],
)
def test_a_word_is_taken_apart_as_the_kernel_does(text: str, name: str, value: str | None) -> None:
    parameter = Parameter.parse(text)
    assert (parameter.name, parameter.value, str(parameter)) == (name, value, text)


def test_quotes_keep_spaces_and_init_arguments_are_no_parameters() -> None:
    line = CommandLine.parse('  a  dyndbg="file x +p;\tmodule y +p"\nb -- quiet --x ')
    assert [str(parameter) for parameter in line.parameters] == ["a", 'dyndbg="file x +p;\tmodule y +p"', "b"]
    assert line.init_arguments == ("quiet", "--x")
    assert not line.named("quiet")
    assert str(Request.of([], ["quiet"]).apply(line)).endswith("b -- quiet --x")


def test_dash_and_underscore_are_the_same_in_names_only() -> None:
    assert Parameter.parse("vfio-pci.ids=1-2").means(Parameter.parse("vfio_pci.ids=1-2"))
    assert not Parameter.parse("vfio-pci.ids=1-2").means(Parameter.parse("vfio-pci.ids=1_2"))
    assert not Parameter.parse("Quiet").means(Parameter.parse("quiet"))


@pytest.mark.parametrize(
    ("line", "present", "absent", "expected"),
    [
        ("quiet amd_iommu=pt", ["iommu=pt"], [], "quiet amd_iommu=pt iommu=pt"),
        ("intel_iommu=on,sm_on x", ["intel_iommu=on"], [], "intel_iommu=on x"),
        ("intel_iommu=on", ["intel_iommu=on"], [], "intel_iommu=on"),
        ("a vfio_pci.ids=1 b", ["vfio-pci.ids=2"], [], "a vfio-pci.ids=2 b"),
        ("a vfio_pci.ids=1 b", ["vfio-pci.ids=1"], [], "a vfio_pci.ids=1 b"),
        ("iommu=off a iommu=off b", ["iommu=pt"], [], "iommu=pt a b"),
        ("console=ttyS0 a", ["console=tty0", "console=ttyS0"], [], "console=tty0 console=ttyS0 a"),
        ("console=tty0 console=ttyS0 a", ["console=tty0", "console=ttyS0"], [], "console=tty0 console=ttyS0 a"),
        ("console=tty0 console=ttyS1 a", [], ["console=ttyS1"], "console=tty0 a"),
        ("console=tty0 a console=ttyS1", [], ["console"], "a"),
        ("quiet quiet=1 quieter", [], ["quiet"], "quieter"),
        ("x=on x=on", ["x=on"], [], "x=on x=on"),  # harmless, and left alone
        ('a dyndbg="file x +p" b', [], ['dyndbg="file x +p"'], "a b"),
        ("a", [], [], "a"),
        ("a -- b", ["c"], [], "a c -- b"),
    ],
)
def test_apply(line: str, present: list[str], absent: list[str], expected: str) -> None:
    assert str(Request.of(present, absent).apply(CommandLine.parse(line))) == expected


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("intel_iommu=on; reboot", "space outside"),
        ("intel_iommu=on iommu=pt", "space outside"),
        ("intel_iommu=on;reboot", "; has a meaning"),
        ("a=on\nquiet", "line break"),
        ("a=\0", "control character"),
        ("a=\x1b[0m", "control character"),
        ("a=\x85", "control character"),
        ("a=b\u2028c", "cannot be printed"),
        ("a=b\u00a0c", "not the plain one"),
        ("a=$(reboot)", "meaning"),
        ("a=`reboot`", "meaning"),
        ('a="$(reboot)"', "meaning"),
        ('a="`reboot`"', "meaning"),
        ('a="b\\"', "meaning"),
        ("a=${x}", "meaning"),
        ("memmap=4G$16G", "meaning"),
        ("a=b'c", "meaning"),
        ("a=b&c", "meaning"),
        ("a=b|c", "meaning"),
        ("a=b>c", "meaning"),
        ("a={b}", "meaning"),
        ('a="b', "pairs"),
        ('a="b"c"d"', "enclose the whole value"),
        ('a=b"c d"', "enclose the whole value"),
        ('"a=b" c', "enclose the whole value"),
        ("a=à", "0xa0"),
        ("--", "not a name"),
        ("-b", "not a name"),
        ("=x", "not a name"),
        ('""', "not a name"),
        ('"two words"', "not a name"),
        ("a b=c", "space outside"),
        ("\\a=1", "meaning"),
        ("115200", "bare number"),
        ("root=/dev/sda1", "boot loader itself"),
        ("BOOT_IMAGE=/x", "boot loader itself"),
        ("ro", "boot loader itself"),
    ],
)
def test_what_is_refused(text: str, rule: str) -> None:
    assert rule in (broken_rule(text) or "")
    for present, absent in (([text], []), ([], [text])):
        with pytest.raises(PassthroughError) as caught:
            Request.of(present, absent)
        assert caught.value.code == "invalid_parameter"
        assert caught.value.as_result()["value"] == text
        assert caught.value.as_result()["field"] == ("present" if present else "absent")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "quiet",
        "3",
        "8250.nr_uarts=4",
        "acpi_osi=!Windows",
        "acpi_osi=",
        "isolcpus=managed_irq,domain,2-7",
        "video=HDMI-A-1:1920x1080@60",
        "ip=[fe80::1]::::eth0:off",
        'dyndbg="file drivers/vfio/* +p; module x +p"',
        '"dyndbg=file x +p"',
        'acpi_osi="Windows 2009"',
        "vconsole.keymap=ö",
        'x="à"',
    ],
)
def test_what_is_accepted(text: str) -> None:
    assert broken_rule(text) is None
    assert Request.of([text], []).present[0].text == text


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(PassthroughError) as caught:
        Request.of(["a b", "ok", ""], ["x\n"])
    assert [problem.details["value"] for problem in caught.value.problems] == ["a b", "", "x\n"]


@pytest.mark.parametrize(
    ("present", "absent"),
    [(["a=1"], ["a=1"]), (["a=1"], ["a"]), (["a-b=1"], ["a_b=2"]), (["a"], ["a"])],
)
def test_a_name_in_both_lists_is_refused(present: list[str], absent: list[str]) -> None:
    with pytest.raises(PassthroughError) as caught:
        Request.of(present, absent)
    assert caught.value.code == "contradicting_parameters"


@given(st.lists(TEXTS))
def test_formatting_and_parsing_are_inverse(texts: list[str]) -> None:
    line = CommandLine.of(texts)
    assert CommandLine.parse(str(line)) == line
    assert split_words(" ".join(texts)) == texts


@given(st.text())
def test_any_text_can_be_read_and_reads_the_same_again(text: str) -> None:
    line = CommandLine.parse(text)
    again = CommandLine.parse(str(line))
    if text.count('"') % 2 == 0:
        assert again.parameters == line.parameters


@given(TEXTS)
def test_what_is_accepted_is_one_word_with_that_meaning(text: str) -> None:
    if broken_rule(text) is None:
        assert split_words(text) == [text]


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_no_accepted_text_ends_a_word_a_line_or_a_string(text: str) -> None:
    if broken_rule(text) is None:
        assert split_words(f"before {text} after") == ["before", text, "after"]
        assert not set(text) & set("$`\\'\n\0")


@given(LINES, requests())
def test_apply_meets_the_request_and_a_second_time_changes_nothing(line: CommandLine, request: Request) -> None:
    changed = request.apply(line)
    assert not request.unmet(changed)
    assert not request.contradicted(changed)
    assert request.apply(changed) == changed


@given(LINES, requests())
def test_other_parameters_keep_order_and_spelling(line: CommandLine, request: Request) -> None:
    def others(of: CommandLine) -> list[str]:
        return [parameter.text for parameter in of.parameters if parameter.key not in request.keys]

    assert others(request.apply(line)) == others(line)


@given(LINES, requests())
def test_absent_with_a_value_removes_exactly_that(line: CommandLine, request: Request) -> None:
    changed = request.apply(line)
    for key in request.keys:
        if not request.wanted(key):
            assert list(changed.named(key)) == [
                parameter for parameter in line.named(key) if not request.is_unwanted(parameter)
            ]


def test_the_part_of_a_request_that_is_about_some_names() -> None:
    request = Request.of(["a=1", "b-c=2"], ["d"])
    assert request.only(["b_c", "d"]) == Request.of(["b-c=2"], ["d"])
    assert request.only([]) == Request()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("root=/dev/a", "quiet", True), ("root=/dev/a", "root=/dev/a ro", True), ("root=/dev/a", "root=/dev/b", False)],
)
def test_root_file_systems(one: str, other: str, expected: bool) -> None:
    assert may_share_a_root(roots(CommandLine.parse(one)), roots(CommandLine.parse(other))) is expected
