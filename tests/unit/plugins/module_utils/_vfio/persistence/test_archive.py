# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images are read as the kernel reads them, however they are compressed, and a damaged one is no image."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.archive import read
from ansible_collections.kvm.passthrough.tests.unit.support.initramfs import cpio

FILES = {
    "init": b"#!/bin/sh\n",
    "usr/lib/udev/rules.d/a.rules": b"rule" * 3000,
    "etc/modprobe.d/b.conf": b"",
    "x": b"1",
}


def program(*argv: str) -> Callable[[bytes], bytes]:
    return lambda data: subprocess.run(argv, input=data, capture_output=True, check=True).stdout


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": program("zstd", "-q", "-c"),
    "lz4": program("lz4", "-l", "-c"),
}


def host(root: Path) -> Host:
    """A machine whose decompressors are those of this one."""
    for name in ("zstd", "lz4", "lzop"):
        path = root / "usr/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        found = shutil.which(name)
        if found is not None:
            path.symlink_to(found)
    return Host(str(root))


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_any_compression(tmp_path: Path, name: str) -> None:
    if name in ("zstd", "lz4") and shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    early = cpio({"kernel/x86/microcode/AuthenticAMD.bin": b"\0" * 70})
    (tmp_path / "image").write_bytes(early + bytes(1024) + COMPRESSIONS[name](cpio(FILES)))
    found = read(host(tmp_path), "/image", {"a.rules", "b.conf"})
    assert found.names == {"kernel/x86/microcode/AuthenticAMD.bin", *FILES}
    assert found.files == {path: FILES[path] for path in ("usr/lib/udev/rules.d/a.rules", "etc/modprobe.d/b.conf")}


def test_of_files_that_come_twice_the_last_counts(tmp_path: Path) -> None:
    parts = [cpio({"a.rules": b"old"}), gzip.compress(cpio({"a.rules": b"newer"}) + cpio({"./a.rules": b"newest"}))]
    (tmp_path / "image").write_bytes(b"".join(parts))
    assert read(Host(str(tmp_path)), "/image", {"a.rules"}).files == {"a.rules": b"newest"}


@given(st.integers(0, len(gzip.compress(cpio(FILES), mtime=0)) - 1))
def test_an_image_that_ends_too_soon_is_none(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    root = tmp_path_factory.mktemp("image")
    (root / "image").write_bytes(gzip.compress(cpio(FILES), mtime=0)[:size])
    with pytest.raises(PassthroughError) as caught:
        read(Host(str(root)), "/image", ())
    assert caught.value.code == "image_unreadable"


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_a_decompressor_that_breaks_off_or_is_missing(tmp_path: Path, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    data = COMPRESSIONS[name](cpio({"init": b"", "big": bytes(range(256)) * 40000}))
    (tmp_path / "image").write_bytes(data[: len(data) // 2])
    with pytest.raises(PassthroughError) as caught:
        read(host(tmp_path), "/image", ())
    assert caught.value.code == "image_unreadable"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "image").rename(tmp_path / "elsewhere/image")
    with pytest.raises(PassthroughError) as caught:
        read(Host(str(tmp_path / "elsewhere")), "/image", ())
    assert caught.value.code == "command_missing"


@pytest.mark.parametrize("data", [b"", bytes(4096), b"MZ\x90\0" * 100, cpio(FILES)[:-513]])
def test_what_is_no_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "image").write_bytes(data)
    with pytest.raises(PassthroughError, match="/image is no initramfs") as caught:
        read(Host(str(tmp_path)), "/image", ())
    assert caught.value.code == "image_unreadable"
