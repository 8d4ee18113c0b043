# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.shell import (
    OPAQUE,
    AssignmentEdit,
    ShellSyntaxError,
    apply_changes,
    assignments,
    evaluate,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host


def summary(text: str) -> list[tuple[str, str, bool]]:
    return [(found.name, found.decoded, found.conditional) for found in assignments(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=b", [("A", "b", False)]),
        ("A=", [("A", "", False)]),
        ("  export A=\"b c\" B='d e' # A=x\n", [("A", "b c", False), ("B", "d e", False)]),
        ("# A=1\nA=2", [("A", "2", False)]),
        ('A="x # y" B=1', [("A", "x # y", False), ("B", "1", False)]),
        ('A="$A more"', [("A", f"{OPAQUE} more", False)]),
        ('A="${A:-"x y"} z"', [("A", f"{OPAQUE} z", False)]),
        ("A=`( . /etc/os-release && echo ${NAME} )`\nB=1", [("A", OPAQUE, False), ("B", "1", False)]),
        ('A="$(echo ")" \')\' "A=1")x"', [("A", f"{OPAQUE}x", False)]),
        ('A="a\\\nb"', [("A", "ab", False)]),
        ("A='a\nB=1'\nC=2", [("A", "a\nB=1", False), ("C", "2", False)]),
        (r'A="\"x\$y\z\\"', [("A", '"x$y\\z\\', False)]),
        (r"A=a\ b", [("A", "a b", False)]),
        ("A=1 command", []),
        ("echo A=1", []),
        ("[ -e /x ] && A=1", [("A", "1", True)]),
        ("true ||\nA=1\nB=2", [("A", "1", True), ("B", "2", False)]),
        ("A=1 && B=2", [("A", "1", False), ("B", "2", True)]),
        ("if true; then\n A=1\nelse B=2; fi\nC=3", [("A", "1", True), ("B", "2", True), ("C", "3", False)]),
        ("case $x in\n a) A=1 ;;\nesac\nB=2", [("A", "1", True), ("B", "2", False)]),
        ("for x in 1 2; do A=$x; done; B=2", [("A", OPAQUE, True), ("B", "2", False)]),
        ("f() { A=1; }\nB=2", [("A", "1", True), ("B", "2", False)]),
        ("( A=1 )\nB=2", [("A", "1", True), ("B", "2", False)]),
        ("A=1 | cat", [("A", "1", True)]),
        ("A+=' x'", [("A", " x", False)]),
        ("A=1\r\nB=2\r\n", [("A", "1\r", False), ("B", "2\r", False)]),
        ("echo > A=1 B=2", []),
        (". /etc/x\nA=1", [("A", "1", False)]),
    ],
)
def test_assignments(text: str, expected: list[tuple[str, str, bool]]) -> None:
    assert summary(text) == expected


@pytest.mark.parametrize("text", ["cat <<EOF\nA=1\nEOF\n", 'A="x', "A='x", "A=`x", "A=$(x", "A=${x"])
def test_what_is_not_understood(text: str) -> None:
    with pytest.raises(ShellSyntaxError):
        assignments(text)


def edit(text: str, *, remove: str = "", replace: tuple[str, str] = ("", ""), add: str = "") -> str:
    (assignment,) = assignments(text)
    editing = AssignmentEdit(assignment)
    for word in assignment.words:
        if word.value == remove:
            editing.remove(word)
        if word.value == replace[0]:
            editing.replace(word, replace[1])
    if add:
        editing.add(add)
    return apply_changes(text, editing.changes())


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ('A="a b c" # x\n', {"remove": "b"}, 'A="a c" # x\n'),
        ('A="a b c"', {"remove": "a"}, 'A="b c"'),
        ('A="a  b  c"', {"remove": "c"}, 'A="a  b"'),
        ('A="a"', {"remove": "a"}, 'A=""'),
        ("A=a", {"remove": "a"}, "A="),
        ('A="a a b"', {"remove": "a"}, 'A="b"'),
        ("A='a b'", {"replace": ("b", 'x="1 2"')}, "A='a x=\"1 2\"'"),
        ('A="a b"', {"replace": ("b", 'x="1 2"')}, 'A="a x=\\"1 2\\""'),
        ("A=a", {"replace": ("a", "b c")}, 'A="b c"'),
        ("A=a", {"add": "b"}, 'A="a b"'),
        ("A=", {"add": "b"}, 'A="b"'),
        ("A=''", {"add": "b"}, "A='b'"),
        ('A=""', {"add": 'x="1 2"'}, 'A="x=\\"1 2\\""'),
        ('A="a "', {"add": "b"}, 'A="a b"'),
        ("A=$A", {"add": "b"}, 'A=$A" b"'),
        (r"A=a\ b", {"add": "c"}, r'A=a\ b" c"'),
        ("A=\"a\"' b'", {"add": "c"}, "A=\"a\"' b c'"),
        ('A="a -- b"', {"add": "c"}, 'A="a c -- b"'),
        ("A=a", {"remove": "a", "add": "b"}, 'A="b"'),
        ('A="a \\\n  b"', {"remove": "b", "add": "c"}, 'A="a\\\n c"'),
        ("A=a\r\n", {"add": "b"}, 'A="a\r b"\n'),
        ('A="a `id` b"', {"remove": "b"}, 'A="a `id`"'),
    ],
)
def test_edits_touch_only_the_words_meant(text: str, arguments: dict[str, Any], expected: str) -> None:
    assert edit(text, **arguments) == expected


def test_evaluate_sources_in_order_and_keeps_what_files_print_out_of_the_values() -> None:
    texts = {"/a": 'echo hello; A="x y"\nset -- 1 2 3', "/b": "A=\"$A\n'z'\"\nunset B"}
    assert evaluate(Host(), texts, ["A", "B"]) == {"A": "x y\n'z'", "B": ""}


@pytest.mark.parametrize("text", ["A=(", "false", "exit 3", "[ -e /nowhere ] && A=1", "A=\0", "A=" + "x" * 200_000])
def test_evaluate_refuses_what_the_generator_could_not_source(text: str) -> None:
    with pytest.raises(PassthroughError) as caught:
        evaluate(Host(), {"/etc/default/grub": text}, ["A"])
    assert caught.value.code == "settings_not_evaluated"
    assert "/etc/default/grub" in str(caught.value)


PLAIN = st.text(alphabet="ab= \t\\\"'$`;#é-", max_size=12)


@settings(max_examples=40)
@given(PLAIN)
def test_a_quoted_value_is_decoded_as_a_shell_does(value: str) -> None:
    text = f"A={shlex.quote(value)}"
    assert assignments(text)[0].decoded == value
    double = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")
    assert assignments(f'A="{double}"')[0].decoded == value == evaluate(Host(), {"/a": f'A="{double}"'}, ["A"])["A"]


@given(st.text(alphabet="AB=\"' \n\\$`(){};&|#<>x"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = assignments(text)
    except ShellSyntaxError:
        return
    for assignment in found:
        assert len(assignment.decoded) == len(assignment.atoms)
        for atom in assignment.atoms:
            assert text[atom.start : atom.end] == atom.source
