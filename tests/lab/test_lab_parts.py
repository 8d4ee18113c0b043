# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the lab that need no machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import cache, debian, guest
from tests.lab.run import LabError, run

ONE_LINE = """\
# deb http://commented.invalid/debian trixie main
deb-src http://mirror.invalid/debian trixie main
deb [arch=amd64 signed-by=/key] http://mirror.invalid/debian trixie main contrib # comment
"""
DEB822 = """\
Types: deb
URIs: http://mirror.invalid/security
Suites: trixie-security
Components: main

Types: deb deb-src
# a comment between
URIs: http://one.invalid/debian http://two.invalid/debian
Suites: trixie
 trixie-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .

Enabled: no
Types: deb
URIs: http://off.invalid/debian
Suites: trixie
Components: main
"""


def test_one_line_sources() -> None:
    assert list(debian.parse_sources(ONE_LINE, deb822=False)) == [
        ("http://mirror.invalid/debian", ["trixie"], ["main", "contrib"])
    ]


def test_deb822_sources() -> None:
    assert list(debian.parse_sources(DEB822, deb822=True)) == [
        ("http://mirror.invalid/security", ["trixie-security"], ["main"]),
        ("http://one.invalid/debian", ["trixie", "trixie-updates"], ["main"]),
        ("http://two.invalid/debian", ["trixie", "trixie-updates"], ["main"]),
    ]


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ('ID=debian\nVERSION_CODENAME="trixie"\n', "http://one.invalid/debian"),
        ("ID=debian\nVERSION_CODENAME=bookworm\n", None),
        ("ID=ubuntu\nVERSION_CODENAME=trixie\n", None),
    ],
)
def test_mirror_is_that_of_the_machines_own_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: str, expected: str | None
) -> None:
    monkeypatch.delenv(debian.MIRROR_VARIABLE, raising=False)
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "os-release").write_text(identity)
    (tmp_path / "apt/sources.list.d/debian.sources").write_text(DEB822)
    assert debian.find_mirror(tmp_path) == expected


def test_pci_list_of_a_guest_is_read_once_it_is_complete() -> None:
    serial = "noise\r\nPCI-LIST-BEGIN\r\n0000:01:00.0 0x020000 8086:10ca\r\n"
    assert guest.parse_pci_list(serial) is None
    assert guest.parse_pci_list(serial + "PCI-LIST-END\r\n") == [
        guest.PciFunction("0000:01:00.0", "0x020000", "8086:10ca")
    ]


def test_artefact_is_built_once_and_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def build(directory: Path) -> None:
        (directory / "file").write_text("built")

    def fail(directory: Path) -> None:
        (directory / "build.log").write_text("why")
        raise LabError("no")

    with pytest.raises(LabError, match=r"^no$"):
        cache.artefact("thing", "1", fail)
    assert [path.name for path in cache.cache_directory().glob("thing-*")] == ["thing-1.tmp"]
    built = cache.artefact("thing", "1", build)
    assert (built / "file").read_text() == "built"
    assert cache.artefact("thing", "1", fail) == built
    assert cache.prune({"thing-2"}) == ["thing-1"]


def test_failing_command_shows_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(LabError, match=r"(?s)exit status 3; the end of .*log:\nwhy$"):
        run(["sh", "-c", "echo why >&2; exit 3"], timeout=10, log=log)
    with pytest.raises(LabError, match=r"^the command took longer than 0 s"):
        run(["sleep", "5"], timeout=0.1, called="the command")
    with pytest.raises(LabError, match=r"^cannot run /nonexistent: No such file or directory$"):
        run(["/nonexistent"], timeout=1)
