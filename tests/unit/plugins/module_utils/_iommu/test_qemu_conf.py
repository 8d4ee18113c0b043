# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.qemu_conf import ConfSyntaxError, parse

DISTRIBUTED = """\
# Master configuration file for the QEMU driver.
# All settings described here are optional - if omitted, sensible
# defaults are used.

#user = "libvirt-qemu"
user = "qemu" # who runs it
group='kvm'
dynamic_ownership=1;
#cgroup_device_acl = [
#    "/dev/null"
#]
cgroup_device_acl = [
    "/dev/null", '/dev/full',

    "/dev/kvm" ,
]
namespaces = [ ]
keepalive_interval = -1
motto = \"\"\"two
lines # no comment\"\"\"
"""


def test_a_file_as_people_write_it() -> None:
    assert parse(DISTRIBUTED) == {
        "user": "qemu",
        "group": "kvm",
        "dynamic_ownership": 1,
        "cgroup_device_acl": ["/dev/null", "/dev/full", "/dev/kvm"],
        "namespaces": [],
        "keepalive_interval": -1,
        "motto": "two\nlines # no comment",
    }


def test_of_a_name_that_is_given_twice_the_first_counts() -> None:
    assert parse('user = "a"\nuser = "b"') == {"user": "a"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("user =", 1),
        ("user = " + "9" * 5000, 1),
        ("\nuser = " + "[" * 5000, 2),
        ("user", 1),
        ('user = "qemu', 1),
        ('\nuser = "qemu" group = "kvm"', 2),
        ("\n\nuser = qemu", 3),
        ('list = [ "a" "b" ]', 1),
        ('list = [ "a",\n', 2),
        ("list = [ , ]", 1),
        ("= 1", 1),
        ("[", 1),
    ],
)
def test_what_libvirt_refuses_is_refused_with_the_line(text: str, line: int) -> None:
    with pytest.raises(ConfSyntaxError, match=f"line {line} "):
        parse(text)


SCALARS = st.integers(-99, 99) | st.text(st.characters(exclude_characters='"\r\n', exclude_categories=["Cs"]))
NAMES = st.from_regex(r"\A[A-Za-z][A-Za-z0-9_]*\Z")
SPACE = st.sampled_from(["", " ", "\t", "  "])
BREAK = st.sampled_from(["", "\n", " \n ", "\r\n"])


@st.composite
def written(draw: st.DrawFn) -> tuple[Mapping[str, object], str]:
    """Settings, and a file that has them."""

    def text(value: object) -> str:
        if isinstance(value, list):
            items = [draw(BREAK) + text(item) + draw(BREAK) for item in value]
            return f"[{','.join(items)}{draw(st.sampled_from(['', ','])) if items else ''}]"
        return str(value) if isinstance(value, int) else f'"{value}"'

    settings = draw(st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=4), max_size=4))
    lines = [
        f"{draw(SPACE)}{name}{draw(SPACE)}={draw(SPACE)}{text(value)}{draw(st.sampled_from(['', ';', ' # why']))}\n"
        for name, value in settings.items()
    ]
    return settings, "# before\n" + "\n".join(lines)


@given(written())
def test_what_is_written_is_read(case: tuple[Mapping[str, object], str]) -> None:
    settings, text = case
    assert parse(text) == settings


@given(st.text(st.sampled_from("ab1=[]\"', #;\n\r\t-")))
def test_every_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfSyntaxError):
        assert all(name.isidentifier() for name in parse(text))
