# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.config_space import Reader, Serial, read_serial
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import config_space

SERIAL = "00-1b-21-ff-ff-aa-bb-cc"


def reader(space: bytes) -> Reader:
    return lambda offset, length: space[offset : offset + length]


def header(identity: int, following: int) -> bytes:
    return (following << 20 | 1 << 16 | identity).to_bytes(4, "little")


def with_headers(headers: dict[int, bytes]) -> bytes:
    space = bytearray(config_space())
    for offset, content in headers.items():
        space[offset : offset + len(content)] = content
    return bytes(space)


@given(serial=st.binary(min_size=8, max_size=8), before=st.integers(0, 40))
def test_a_serial_number_behind_other_capabilities(serial: bytes, before: int) -> None:
    found = read_serial(reader(config_space(serial=serial.hex(), before=before)))
    assert found.readable
    assert found.number == (None if serial in (bytes(8), b"\xff" * 8) else serial.hex("-"))


@given(
    st.binary(max_size=600),
    st.dictionaries(
        st.integers(0x40, 0x3FF).map(lambda number: number * 4),
        st.builds(
            header, st.sampled_from([0, 1, 2, 3, 0xFFFF]), st.sampled_from([0, 0xFC, 0x100, 0x200, 0xFF8, 0xFFC])
        ),
    ),
)
def test_any_configuration_space_gives_an_answer(start: bytes, headers: dict[int, bytes]) -> None:
    space = bytearray(with_headers(headers))
    space[: len(start)] = start
    for size in (0, 64, 256, 0x104, len(space)):
        found = read_serial(reader(bytes(space[:size])))
        assert found.number is None or found.readable


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (config_space(serial=SERIAL), Serial(SERIAL, True)),
        (config_space(serial=SERIAL, size=0x106), Serial(None, False)),
        (config_space(serial=SERIAL, size=256), Serial(None, True)),
        (config_space(serial=SERIAL, size=64), Serial(None, False)),
        (b"", Serial(None, False)),
        # Nothing answers any more: ones everywhere. Nothing there but a bridge without access to 0x100: ones there.
        (b"\xff" * 4096, Serial(None, False)),
        (config_space(size=256) + b"\xff" * (4096 - 256), Serial(None, True)),
        # A list that runs in a circle, one that leaves the space, one that ends in ones.
        (with_headers({0x100: header(1, 0x140), 0x140: header(2, 0x100)}), Serial(None, True)),
        (with_headers({0x100: header(1, 0x0FC)}), Serial(None, True)),
        (with_headers({0x100: header(1, 0x140), 0x140: b"\xff" * 4}), Serial(None, True)),
        # The last capability's body would be beyond the end.
        (with_headers({0x100: header(1, 0xFFC), 0xFFC: header(3, 0)}), Serial(None, False)),
    ],
)
def test_configuration_spaces(space: bytes, expected: Serial) -> None:
    assert read_serial(reader(space)) == expected


def test_little_is_read() -> None:
    read: list[tuple[int, int]] = []
    space = config_space(serial=SERIAL, before=2)

    def counting(offset: int, length: int) -> bytes:
        read.append((offset, length))
        return space[offset : offset + length]

    assert read_serial(counting).number == SERIAL
    assert sum(length for _unused, length in read) == 3 * 4 + 8
