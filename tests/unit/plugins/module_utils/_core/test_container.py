# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.container import container, container_image
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host


def write(root: Path, path: str, text: str) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


@pytest.mark.parametrize(
    ("path", "text", "shown"),
    [
        ("/run/systemd/container", "podman\n", "/run/systemd/container says podman"),
        ("/run/.containerenv", "", "/run/.containerenv is there"),
        ("/proc/1/environ", "PATH=/bin\0container=lxc\0", "process 1 was started with container=lxc"),
    ],
)
def test_what_shows_a_container(tmp_path: Path, path: str, text: str, shown: str) -> None:
    write(tmp_path, path, text)
    assert container(Host(str(tmp_path))) == shown


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/run/systemd/container", "\n"),
        ("/proc/1/environ", "container=\0PATH=/bin\0"),
        ("/proc/1/environ", "mycontainer=x\0"),
        ("/.dockerenv", ""),
    ],
)
def test_what_shows_none(tmp_path: Path, path: str, text: str) -> None:
    write(tmp_path, path, text)
    assert container(Host(str(tmp_path))) is None


def test_the_mark_of_an_image_is_told_apart(tmp_path: Path) -> None:
    assert container_image(Host(str(tmp_path))) is None
    write(tmp_path, "/.dockerenv", "")
    assert container_image(Host(str(tmp_path))) == "/.dockerenv is there"
