# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the lab that need no machine."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests import lab
from tests.lab import cache, cpio, debian, guest, platform_table
from tests.lab.disk import Layout
from tests.lab.first_boot import first_boot
from tests.lab.image import INITRAMFS_TOOLS
from tests.lab.machine import _Record
from tests.lab.qemu import Firmware, Qemu
from tests.lab.run import LabError, require_tool, run
from tests.lab.small.system import shipped_modules

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


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("E: Failed to fetch http://mirror.invalid/pool/l/linux_1_s390x.deb  404  Not Found [IP: 192.0.2.1 80]", True),
        ("E: Failed to fetch http://mirror.invalid/dists/x/Release  404  Not Found [IP: 192.0.2.1 80]", False),
        ("E: Failed to fetch http://mirror.invalid/l_1_s390x.deb  Could not resolve 'mirror.invalid'", False),
        ("E: Unable to locate package linux-image-nosuch", False),
    ],
)
def test_mirror_without_packages_it_lists_is_told_from_other_failures(log: str, expected: bool) -> None:
    assert debian.lacks_packages(f"Get:1 something\n{log}\nE: more\n") is expected


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


def test_waiting_for_a_condition_ends_when_it_holds_or_when_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell of this machine stands for that of an emulated one."""
    machine = lab.Machine(tmp_path, _Record("here", 0, 0, "", "", ""))
    monkeypatch.setattr(machine, "ssh_argv", lambda: ["sh", "-c"])
    log = tmp_path / "it's here"
    machine.wait_for(f"""echo "tried '$(date)'" >>"{log}"; test $(wc -l <"{log}") -ge 3""")
    assert len(log.read_text().splitlines()) == 3
    machine.wait_for("! false | grep -q x")
    with pytest.raises(LabError, match=r"(?s)on machine 'here', timeout 1 sh -c .* failed with exit status 124"):
        machine.wait_for("false", timeout=1)


def test_archive_of_an_initramfs_is_what_the_kernel_documents() -> None:
    stream = io.BytesIO()
    cpio.write(stream, [cpio.directory("d"), cpio.file("d/f", b"abcde", 0o755), cpio.link("l", "d/f")])
    archive = stream.getvalue()
    assert len(archive) % 512 == 0
    seen = []
    while archive:
        fields = [int(archive[start : start + 8], 16) for start in range(6, 110, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[110 : 110 + name_size]
        assert archive[:6] == b"070701"
        assert name.endswith(b"\0")
        begin = -(-(110 + name_size) // 4) * 4
        seen.append((name[:-1].decode(), mode, archive[begin : begin + size]))
        archive = archive[begin + -(-size // 4) * 4 :].lstrip(b"\0")
    assert seen == [
        ("d", 0o040755, b""),
        ("d/f", 0o100755, b"abcde"),
        ("l", 0o120777, b"d/f"),
        ("TRAILER!!!", 0, b""),
    ]


def test_files_of_a_folder_belong_to_root_also_as_a_tar_file(tmp_path: Path) -> None:
    folder, archive = tmp_path / "rootfs", tmp_path / "tar"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/settings").write_text("a=b\n")
    (folder / "init").write_text("#!/bin/sh\n")
    (folder / "init").chmod(0o700)
    cpio.write_tar(archive, [cpio.directory("dev"), *cpio.files_of(folder), cpio.link("sbin", "usr/sbin")])
    with tarfile.open(archive) as stream:
        seen = [(member.name, member.mode, member.uid, member.gid, member.linkname) for member in stream]
        content = stream.extractfile("etc/settings")
        assert content is not None
        assert content.read() == b"a=b\n"
    assert seen == [
        ("dev", 0o755, 0, 0, ""),
        ("etc/settings", 0o644, 0, 0, ""),
        ("init", 0o755, 0, 0, ""),
        ("sbin", 0o777, 0, 0, "usr/sbin"),
    ]


@pytest.mark.parametrize(
    ("console", "status", "problem"),
    [
        ("LAB-FIRST-BOOT-DONE", 0, None),
        ("grub-install: no\nLAB-FIRST-BOOT-FAILED", 0, "(?s)the boot loader could not be installed;.*grub-install: no"),
        ("panic", 3, "(?s)exit status 3; the end of .*panic"),
    ],
)
def test_first_boot_is_believed_when_the_machine_says_that_it_is_done(
    tmp_path: Path, console: str, status: int, problem: str | None
) -> None:
    # It notes how it was called, and writes to the console, the argument after -serial.
    script = """printf '%s\\n' "$@" >called; while [ "$1" != -serial ]; do shift; done
              echo "$0" >"${2#file:}"; exit """
    emulator = Qemu(("env", "-C", str(tmp_path), "sh", "-c", f"{script}{status}", console), (), "1")

    def boot() -> None:
        first_boot(tmp_path, emulator, ["-m", "1024"], root="/dev/vda2", console="ttyS0")

    if problem is None:
        boot()
    else:
        with pytest.raises(LabError, match=problem):
            boot()
    assert (tmp_path / "called").read_text().splitlines() == [
        *("-m", "1024", "-no-reboot", "-serial", f"file:{tmp_path}/first-boot-serial.log"),
        *("-drive", f"if=none,id=root,format=raw,cache=unsafe,discard=unmap,file={tmp_path}/disk.raw"),
        *("-kernel", f"{tmp_path}/vmlinuz", "-initrd", f"{tmp_path}/initrd.img", "-append"),
        "root=/dev/vda2 console=ttyS0 quiet panic=-1 init=/usr/lib/kvm-passthrough-lab/first-boot",
    ]


def test_modules_are_shipped_with_those_they_need() -> None:
    dependencies = """\
kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz kernel/virt/lib/irqbypass.ko.xz
kernel/drivers/vfio/vfio.ko.xz:
kernel/drivers/net/ethernet/intel/igb/igb.ko.xz: kernel/drivers/i2c/algos/i2c-algo-bit.ko.xz
kernel/drivers/i2c/algos/i2c-algo-bit.ko.xz:
kernel/drivers/net/ethernet/intel/ice/ice.ko.xz:
"""
    assert shipped_modules(dependencies) == {
        "kernel/drivers/vfio/pci/vfio-pci.ko.xz",
        "kernel/drivers/vfio/vfio.ko.xz",
        "kernel/virt/lib/irqbypass.ko.xz",
        "kernel/drivers/net/ethernet/intel/igb/igb.ko.xz",
        "kernel/drivers/i2c/algos/i2c-algo-bit.ko.xz",
    }


def test_disk_with_one_partition_has_a_boot_record() -> None:
    layout = Layout(100)
    assert layout.table == "label: dos\nstart=2048, size=202752, type=83, bootable\n"
    assert layout.fstab == "UUID=6b767000-6c61-4b00-8000-000000000001 / ext4 noatime,errors=remount-ro 0 1\n"
    assert layout.root_start + layout.root_size == 100 * 1024**2
    assert layout.root_number == 1


def test_disk_with_an_efi_system_partition_leaves_room_for_the_second_partition_table(tmp_path: Path) -> None:
    layout = Layout(100, esp=32)
    assert layout.table == "label: gpt\nstart=2048, size=65536, type=uefi\nstart=67584, size=135168, type=linux\n"
    assert layout.fstab.splitlines()[1] == "UUID=6B76-7000 /boot/efi vfat umask=0077 0 1"
    assert layout.root_number == 2
    # sfdisk itself finds nothing to mend in it.
    disk = tmp_path / "disk"
    with disk.open("wb") as stream:
        stream.truncate(layout.mebibytes * 1024**2)
    run([require_tool("sfdisk", "fdisk"), "--quiet", disk], stdin=layout.table, timeout=60)
    shown = run([require_tool("sfdisk", "fdisk"), "--json", disk], timeout=60).stdout
    esp, root = json.loads(shown)["partitiontable"]["partitions"]
    assert esp["type"] == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    assert (root["start"] * 512, root["size"] * 512) == (layout.root_start, layout.root_size)


def test_configuration_of_the_initramfs_is_written_as_it_stands(tmp_path: Path) -> None:
    for hook in INITRAMFS_TOOLS.hooks:
        run(["sh", "-c", hook.removeprefix("--essential-hook="), "exec", tmp_path], timeout=10)
    for path, content in INITRAMFS_TOOLS.files:
        assert (tmp_path / path).read_text() == content


def test_firmware_with_variables_is_two_flash_drives_and_each_machine_writes_to_its_own_copy(tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.write_bytes(b"empty")
    template.chmod(0o444)
    qemu = Qemu(("qemu",), (), "1", firmware=Firmware(tmp_path / "code", template))
    qemu.copy_variables(tmp_path / "copy")
    options = qemu.uefi(tmp_path / "copy")
    assert f"if=pflash,unit=0,format=raw,readonly=on,file={tmp_path}/code" in options
    assert f"if=pflash,unit=1,format=raw,file={tmp_path}/copy" in options
    assert (tmp_path / "copy").stat().st_mode & 0o200
    assert Qemu(("qemu",), (), "1", firmware=Firmware(tmp_path / "code")).uefi() == ("-bios", str(tmp_path / "code"))


PAGE = f"before\n{platform_table._BEGIN}\n{platform_table._END}\nafter\n"
RESULT: dict[str, Any] = {
    "state": "unsupported",
    "platform": None,
    "kernel": "6.1.0-50-amd64",
    "evidence": ["the kernel 6.1.0-50-amd64 was built without CONFIG_X", "a | b"],
    "recommended_parameters": ["intel_iommu=on"],
    "parameters_to_remove": ["iommu=off"],
    "blockers": [{"code": "no_kvm", "severity": "warning"}],
}


def test_row_of_the_table_has_nothing_that_an_update_changes() -> None:
    assert platform_table.format_row("a host", RESULT) == (
        "| a host | `unsupported` | – | the kernel RELEASE was built without CONFIG_X; a \\| b "
        "| `intel_iommu=on`, remove `iommu=off` | `no_kvm` (warning) |"
    )


def test_rows_are_replaced_one_by_one_and_keep_their_order() -> None:
    row = {title: platform_table.format_row(title, RESULT) for title in ("one", "two", "gone")}
    titles = ["one", "two"]
    page = platform_table.replace_rows(PAGE, {"two": row["two"], "gone": row["gone"]}, titles)
    page = platform_table.replace_rows(page, {"one": row["one"]}, titles)
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert platform_table.read_rows(page) == {"one": row["one"], "two": row["two"]}
    assert list(platform_table.read_rows(page)) == titles
    # What did not change is written as it was.
    assert platform_table.replace_rows(page, {"one": row["one"]}, titles) == page


def test_page_without_the_markers_is_refused() -> None:
    with pytest.raises(LabError, match="between which the table stands"):
        platform_table.read_rows("nothing here")


def test_unknown_machines_and_snapshots_are_named() -> None:
    with pytest.raises(LabError, match="there is no machine 'sparc'; there is: intel, grub-efi"):
        lab.start("sparc")
    with pytest.raises(LabError, match="the machine 'amd' has no snapshots"):
        lab.start("amd", snapshot="fresh")
    with pytest.raises(LabError, match="there is no snapshot 'old' of 'intel'; there is: fresh, iommu"):
        lab.start("intel", snapshot="old")
