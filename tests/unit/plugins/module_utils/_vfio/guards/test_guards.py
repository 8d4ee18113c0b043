# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each guard: what it stands against, what it lets pass, and what it says when it cannot know."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.guards.base import Change, Finding, GuardContext
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.guards.registry import (
    FORCIBLE_CODES,
    GUARDS,
    check_device,
)
from ansible_collections.kvm.passthrough.tests.unit.support.iommu import answering
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

NIC, NIC2, DISK, DISK2 = "0000:01:00.0", "0000:01:00.1", "0000:02:00.0", "0000:03:00.0"


class Machine:
    """A tree with two network cards and two NVMe disks that nothing uses, and the output of ``ip`` and ``zpool``."""

    def __init__(self, root: Path) -> None:
        self.tree = tree = SysfsTree(root)
        for number, address in enumerate((NIC, NIC2)):
            macs = {f"eth{number}": f"52:54:00:00:00:0{number}"}
            tree.add_device(address, pci_class=0x020000, driver="igb", group=number, interfaces=macs)
        for number, address in enumerate((DISK, DISK2)):
            tree.add_device(address, pci_class=0x010802, driver="nvme", group=10 + number)
            tree.write(f"{tree.device_path(address)}/nvme/nvme{number}/model", "")
            self.block(f"nvme{number}n1", f"{tree.device_path(address)}/nvme/nvme{number}", f"259:{number * 16}")
        self.mounts: list[str] = []
        self.mount("0:21", "/proc", "proc", "proc")
        self.swap()
        tree.write("/proc/iomem", "00000000-00000fff : Reserved\n")
        tree.path("/proc/1/fd").mkdir(parents=True)
        tree.path("/proc/1/fd/0").symlink_to("/dev/null")
        self.addresses: list[dict[str, Any]] = [
            {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "scope": "host"}]}
        ]
        self.routes: dict[str, list[dict[str, Any]]] = {"-4": [], "-6": []}
        self.zpool: str | None = None

    # -- building ----------------------------------------------------------------------------------------

    def block(self, name: str, within: str, number: str, on: Sequence[str] = (), dm: Optional[str] = None) -> None:
        """A disk, or (``on``) a device over others."""
        tree = self.tree
        tree.add_block_device(name, within, number)
        tree.path(f"/sys/class/block/{name}/holders").mkdir()
        for lower in on:
            tree.link(f"/sys/class/block/{name}/slaves/{lower}", tree_place(tree, lower))
            tree.link(f"/sys/class/block/{lower}/holders/{name}", tree_place(tree, name))
        if dm is not None:
            tree.write(f"/sys/class/block/{name}/dm/name", f"{dm}\n")
            tree.path("/dev/mapper").mkdir(parents=True, exist_ok=True)
            tree.path(f"/dev/mapper/{dm}").symlink_to(f"../{name}")
        tree.write(f"/dev/{name}", "")

    def partition(self, disk: str, number: int, device: str) -> str:
        name = f"{disk}p{number}" if disk[-1].isdigit() else f"{disk}{number}"
        self.block(name, tree_place(self.tree, disk), device)
        self.tree.write(f"/sys/class/block/{name}/partition", f"{number}\n")
        return name

    def virtual(self, name: str, number: str, *on: str, dm: Optional[str] = None) -> str:
        self.block(name, "/sys/devices/virtual/block", number, on, dm)
        return name

    def mount(self, number: str, point: str, fs_type: str, source: str) -> None:
        self.mounts.append(f"{len(self.mounts) + 20} 1 {number} / {point} rw shared:1 - {fs_type} {source} rw")
        self.tree.write("/proc/self/mountinfo", "".join(f"{line}\n" for line in self.mounts))

    def swap(self, *paths: str) -> None:
        lines = [f"{path}\tpartition\t1000\t0\t-2" for path in paths]
        self.tree.write("/proc/swaps", "\n".join(["Filename\tType\tSize\tUsed\tPriority", *lines, ""]))

    def interface(self, name: str, *over: str, master: bool = False) -> str:
        """An interface stacked on others."""
        tree = self.tree
        tree.write(f"/sys/devices/virtual/net/{name}/address", "52:54:00:ff:ff:ff\n")
        tree.link(f"/sys/class/net/{name}", f"/sys/devices/virtual/net/{name}")
        for lower in over:
            tree.link(f"/sys/class/net/{lower}/upper_{name}", f"/sys/devices/virtual/net/{name}")
            if master:
                tree.link(f"/sys/class/net/{lower}/master", f"/sys/devices/virtual/net/{name}")
        return name

    def address(self, interface: str, local: str, scope: str = "global") -> None:
        self.addresses.append({"ifname": interface, "addr_info": [{"local": local, "scope": scope}]})

    def open_file(self, pid: int, target: str, cmdline: str = "", descriptor: int = 30) -> None:
        self.tree.path(f"/proc/{pid}/fd").mkdir(parents=True, exist_ok=True)
        self.tree.path(f"/proc/{pid}/fd/{descriptor}").symlink_to(target)
        self.tree.write(f"/proc/{pid}/comm", "qemu-system-x86\n").write(f"/proc/{pid}/cmdline", cmdline)

    # -- asking ------------------------------------------------------------------------------------------

    def run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        if argv[0] == "zpool" and self.zpool is not None:
            return Completed(tuple(argv), 0, self.zpool, "")
        if argv[0] != "ip":
            raise FileNotFoundError(argv[0])
        listed = self.addresses if "addr" in argv else self.routes["-4" if "-4" in argv else "-6"]
        return Completed(tuple(argv), 0, json.dumps(listed), "")

    def findings(self, address: str, change: Change = Change.BIND) -> list[Finding]:
        host = self.tree.host(runner=self.run)
        bus = Bus(host)
        return check_device(bus.device(PciAddress.parse(address)), GuardContext(host, bus), change)

    def only(self, address: str, code: str, change: Change = Change.BIND) -> str:
        """The message of the one finding there is, which has this code."""
        found = self.findings(address, change)
        assert [(finding.code, finding.certain) for finding in found] == [(code, True)]
        assert found[0].device == address
        return found[0].message

    def unknown(self, address: str) -> list[str]:
        found = self.findings(address)
        assert not any(finding.certain for finding in found)
        return [finding.code for finding in found]


def tree_place(tree: SysfsTree, block: str) -> str:
    return tree.host().real_path(f"/sys/class/block/{block}")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_unused_device_passes(machine: Machine) -> None:
    for address in (NIC, NIC2, DISK, DISK2):
        for change in Change:
            assert machine.findings(address, change) == []


def test_registry() -> None:
    codes = [guard.code for guard in GUARDS]
    assert len(set(codes)) == len(codes)
    assert not {"bridge", "no_iommu"} & set(FORCIBLE_CODES)
    problem = Finding("boot_disk", NIC, "No.", "Leave it.", forcible=True).as_problem()
    assert "force" in problem.remedy
    assert problem.details == {"device": NIC, "forcible": True}
    assert "force" not in Finding("bridge", NIC, "No.", "Leave it.", forcible=False).as_problem().remedy


# -- boot_disk ---------------------------------------------------------------------------------------------


def test_mounted_partition(machine: Machine) -> None:
    machine.partition("nvme0n1", 1, "259:1")
    machine.mount("259:1", "/boot/efi", "vfat", "/dev/nvme0n1p1")
    assert "nvme0n1 behind 0000:02:00.0: mounted at /boot/efi (nvme0n1p1)" in machine.only(DISK, "boot_disk")
    assert machine.findings(DISK2) == []


def test_lvm_on_dm_crypt_on_a_partition(machine: Machine) -> None:
    machine.partition("nvme0n1", 3, "259:3")
    machine.virtual("dm-0", "253:0", "nvme0n1p3", dm="luks")
    machine.virtual("dm-1", "253:1", "dm-0", dm="vg-root")
    machine.mount("253:1", "/", "ext4", "/dev/mapper/vg-root")
    assert "mounted at / (vg-root on luks on nvme0n1p3)" in machine.only(DISK, "boot_disk")
    assert machine.findings(DISK2) == []


def test_md_over_two_disks(machine: Machine) -> None:
    machine.virtual("md0", "9:0", machine.partition("nvme0n1", 2, "259:2"), machine.partition("nvme1n1", 2, "259:18"))
    machine.mount("9:0", "/", "xfs", "/dev/md0")
    for address, disk in ((DISK, "nvme0n1p2"), (DISK2, "nvme1n1p2")):
        assert f"mounted at / (md0 on {disk})" in machine.only(address, "boot_disk")


def test_swap(machine: Machine) -> None:
    machine.virtual("dm-0", "253:0", machine.partition("nvme0n1", 1, "259:1"), dm="vg-swap")
    machine.swap("/dev/dm-0", "/swapfile")
    assert "swap space (vg-swap on nvme0n1p1)" in machine.only(DISK, "boot_disk")
    assert machine.findings(DISK2) == []


def test_btrfs_over_two_disks(machine: Machine) -> None:
    """mountinfo names one member, with an anonymous device number."""
    first = machine.partition("nvme0n1", 1, "259:1")
    for name in (first, "nvme1n1"):
        machine.tree.link(f"/sys/fs/btrfs/0f1e/devices/{name}", tree_place(machine.tree, name))
    machine.tree.write("/sys/fs/btrfs/0f1e/label", "data\n")
    machine.tree.path("/sys/fs/btrfs/features").mkdir()
    machine.mount("0:40", "/srv/vm\\040images", "btrfs", f"/dev/{first}")
    assert "member of the file system data, mounted at /srv/vm images (nvme0n1p1)" in machine.only(DISK, "boot_disk")
    assert "member of the file system data, mounted at /srv/vm images." in machine.only(DISK2, "boot_disk")


def test_bcachefs(machine: Machine) -> None:
    machine.tree.link("/sys/fs/bcachefs/0f1e/dev-0/block", tree_place(machine.tree, "nvme0n1"))
    machine.mount("0:40", "/srv", "bcachefs", "/dev/nvme0n1:/dev/nvme7n1")
    assert "mounted at /srv" in machine.only(DISK, "boot_disk")
    assert machine.findings(DISK2) == []


@pytest.mark.parametrize("flags", ["0100002", "0100001", "02100002"])
def test_a_disk_that_a_program_writes_to(machine: Machine, flags: str) -> None:
    """A guest's raw disk, Ceph: nothing is mounted, and nothing is stacked on it."""
    machine.open_file(4711, "/dev/nvme0n1", "qemu\0-name\0guest=db\0")
    machine.tree.write("/proc/4711/fdinfo/30", f"pos:\t0\nflags:\t{flags}\nmnt_id:\t25\n")
    message = machine.only(DISK, "boot_disk")
    assert "nvme0n1 behind 0000:02:00.0: open for writing by the running domain db (process 4711)" in message
    assert machine.findings(DISK2) == []


def test_a_partition_that_a_program_writes_to(machine: Machine) -> None:
    machine.open_file(4711, f"/dev/{machine.partition('nvme0n1', 1, '259:1')}")
    machine.tree.write("/proc/4711/fdinfo/30", "flags:\t0100002\n")
    assert "open for writing by process 4711 (qemu-system-x86) (nvme0n1p1)" in machine.only(DISK, "boot_disk")


@pytest.mark.parametrize("fdinfo", ["pos:\t0\nflags:\t0100000\n", "", None])
def test_a_disk_that_a_program_reads_is_free(machine: Machine, fdinfo: Optional[str]) -> None:
    """udev and monitoring look at every disk now and then; and a process may be gone by the time it is looked at."""
    machine.open_file(4711, "/dev/nvme0n1")
    if fdinfo is not None:
        machine.tree.write("/proc/4711/fdinfo/30", fdinfo)
    assert machine.findings(DISK) == []


def test_loop_device_over_a_disk(machine: Machine) -> None:
    loop = machine.virtual("loop0", "7:0")
    machine.tree.write(f"/sys/class/block/{loop}/loop/backing_file", "/dev/nvme0n1\n")
    machine.mount("7:0", "/srv", "ext4", "/dev/loop0")
    assert "nvme0n1 behind 0000:02:00.0: mounted at /srv (loop0)" in machine.only(DISK, "boot_disk")
    machine.tree.write(f"/sys/class/block/{loop}/loop/backing_file", "/var/lib/images/a.img\n")
    assert machine.findings(DISK) == []


def test_a_disk_of_a_virtual_function(machine: Machine) -> None:
    tree = machine.tree
    tree.add_device("0000:05:00.0", pci_class=0x010802, driver="nvme", group=30, totalvfs=7)
    vf = str(tree.add_vfs("0000:05:00.0", 2, driver="nvme", first_group=31)[1])
    machine.block("nvme7n1", f"{tree.device_path(vf)}/nvme/nvme7", "259:112")
    machine.mount("259:112", "/srv", "xfs", "/dev/nvme7n1")
    found = machine.findings("0000:05:00.0")
    assert [finding.code for finding in found] == ["boot_disk", "has_vfs"]
    assert vf in found[0].message
    machine.only(vf, "boot_disk")
    assert machine.findings("0000:05:10.0") == []


def test_multipath(machine: Machine) -> None:
    machine.virtual("dm-0", "253:0", "nvme0n1", "nvme1n1", dm="mpatha")
    machine.partition("dm-0", 1, "253:1")
    machine.mount("253:1", "/", "ext4", "/dev/mapper/mpatha1")
    for address in (DISK, DISK2):
        assert "mounted at / (dm-0p1 on mpatha)" in machine.only(address, "boot_disk")


def test_nvme_multipath(machine: Machine) -> None:
    """The disk is the subsystem's; below each controller there is only a hidden path."""
    tree = machine.tree
    subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys2"
    for number, address in enumerate(("0000:05:00.0", "0000:06:00.0")):
        tree.add_device(address, pci_class=0x010802, driver="nvme", group=30 + number)
        controller = f"{tree.device_path(address)}/nvme/nvme{2 + number}"
        machine.block(f"nvme2c{2 + number}n1", controller, f"0:{90 + number}")
        tree.link(f"{subsystem}/nvme{2 + number}", controller)
    machine.block("nvme2n1", subsystem, "259:40")
    tree.link("/sys/class/nvme-subsystem/nvme-subsys2", subsystem)
    machine.mount("259:40", "/", "ext4", "/dev/nvme2n1")
    for address in ("0000:05:00.0", "0000:06:00.0"):
        assert "nvme2n1" in machine.only(address, "boot_disk")
    assert machine.findings(DISK) == []


def test_usb_disk_behind_its_controller(machine: Machine) -> None:
    tree = machine.tree
    tree.add_device("0000:05:00.0", pci_class=0x0C0330, driver="xhci_hcd", group=30)
    tree.add_device("0000:05:00.1", pci_class=0x0C0330, driver="xhci_hcd", group=31)
    within = f"{tree.device_path('0000:05:00.0')}/usb1/1-1/1-1:1.0/host6/target6:0:0/6:0:0:0/block"
    machine.block("sda", within, "8:0")
    machine.mount("8:0", "/", "ext4", "/dev/sda")
    assert "sda" in machine.only("0000:05:00.0", "boot_disk")
    assert machine.findings("0000:05:00.1") == []


def test_active_volumes_that_nobody_mounted(machine: Machine) -> None:
    machine.virtual("dm-0", "253:0", machine.partition("nvme0n1", 1, "259:1"), dm="vg-guest")
    assert "part of vg-guest, which is active" in machine.only(DISK, "boot_disk")


def test_fstab(machine: Machine) -> None:
    tree = machine.tree
    machine.partition("nvme0n1", 1, "259:1")
    tree.path("/dev/disk/by-uuid").mkdir(parents=True)
    tree.path("/dev/disk/by-uuid/AB-CD").symlink_to("../../nvme0n1p1")
    tree.write(
        "/etc/fstab", "# comment\n\nUUID=AB-CD /boot/efi vfat umask=0077 0 1\n/dev/nvme1n1 /mnt/usb ext4 noauto\n"
    )
    assert "to be mounted at /boot/efi by /etc/fstab (nvme0n1p1)" in machine.only(DISK, "boot_disk")
    assert machine.findings(DISK2) == []
    tree.write("/etc/fstab", "/dev/nvme1n1 none swap sw 0 0\n")
    assert "swap space by /etc/fstab" in machine.only(DISK2, "boot_disk")
    assert machine.findings(DISK) == []


def test_mounts_of_other_namespaces(machine: Machine) -> None:
    tree = machine.tree
    tree.path("/proc/self/ns").mkdir()
    tree.path("/proc/self/ns/mnt").symlink_to("mnt:[1]")
    tree.path("/proc/77/ns").mkdir(parents=True)
    tree.path("/proc/77/ns/mnt").symlink_to("mnt:[2]")
    tree.write("/proc/77/mountinfo", "1 1 259:0 / /srv rw - ext4 /dev/nvme0n1 rw\n")
    assert "mounted at /srv" in machine.only(DISK, "boot_disk")


def test_zfs(machine: Machine) -> None:
    machine.partition("nvme0n1", 3, "259:3")
    machine.mount("0:50", "/", "zfs", "rpool/ROOT/debian")
    assert machine.unknown(DISK) == ["boot_disk"]
    machine.zpool = (
        "rpool\t460G\t1G\n\tmirror-0\t460G\n\t/dev/nvme0n1p3\t-\n\t/dev/gone\t-\ntank\t1G\n\t/dev/nvme1n1\t-\n"
    )
    assert "member of the ZFS pool rpool (nvme0n1p3)" in machine.only(DISK, "boot_disk")
    assert "member of the ZFS pool tank" in machine.only(DISK2, "boot_disk")


def test_many_mount_points_are_not_all_listed(machine: Machine) -> None:
    for point in ("/var/lib", "/home", "/", "/srv", "/home"):
        machine.mount("259:0", point, "ext4", "/dev/nvme0n1")
    assert "mounted at /, /srv, /home and 1 more" in machine.only(DISK, "boot_disk")


def test_lines_of_swaps_that_are_none(machine: Machine) -> None:
    machine.tree.write("/proc/swaps", "Filename\n\n\t\n/dev/nvme0n1 partition\n")
    assert "swap space" in machine.only(DISK, "boot_disk")


@pytest.mark.parametrize("missing", ["/proc/self/mountinfo", "/proc/swaps"])
def test_unreadable_storage_evidence(machine: Machine, missing: str) -> None:
    machine.tree.path(missing).unlink()
    assert machine.unknown(DISK) == ["boot_disk"]
    assert machine.findings(NIC) == []  # has no disk, so nothing has to be known


# -- management_network ------------------------------------------------------------------------------------


def test_addresses(machine: Machine) -> None:
    machine.address("eth0", "fe80::1", "link")
    assert machine.findings(NIC) == []
    machine.address("eth0", "2001:db8::1")
    assert "eth0 of 0000:01:00.0 carries the host's address 2001:db8::1" in machine.only(NIC, "management_network")
    assert machine.findings(NIC2) == []


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_default_route(machine: Machine, family: str) -> None:
    machine.routes[family] = [{"dst": "default", "dev": "eth0"}, {"type": "unreachable", "dst": "default", "dev": "lo"}]
    assert f"the IPv{family[1]} default route" in machine.only(NIC, "management_network")
    machine.routes[family] = [{"dst": "default", "nexthops": [{"dev": "eth1"}, {"dev": "lo"}]}]
    assert machine.findings(NIC) == []
    assert "default route" in machine.only(NIC2, "management_network")


@pytest.mark.parametrize("master", ["bond0", "team0", "vrf-management"])
def test_what_has_two_cards_as_its_ports(machine: Machine, master: str) -> None:
    """To the kernel a bond, a team and a VRF are alike: netdev_master_upper_dev_link()."""
    machine.interface(master, "eth0", "eth1", master=True)
    assert machine.findings(NIC) == []
    machine.address(master, "192.0.2.1")
    for address in (NIC, NIC2):
        assert f"192.0.2.1 (through {master})" in machine.only(address, "management_network")


def test_vlan_on_a_bridge_on_a_bond(machine: Machine) -> None:
    machine.interface("bond0", "eth0", "eth1", master=True)
    machine.interface("br0", "bond0", master=True)
    machine.interface("br0.7", "br0")
    machine.address("br0.7", "192.0.2.1")
    machine.routes["-4"] = [{"dst": "default", "dev": "br0.7"}]
    message = machine.only(NIC2, "management_network")
    assert (
        "default route (through br0.7 on br0 on bond0); the host's address 192.0.2.1 (through br0.7 on br0 on bond0)"
    ) in message


def test_bridge_on_a_vlan(machine: Machine) -> None:
    machine.interface("eth0.5", "eth0")
    machine.interface("br5", "eth0.5", master=True)
    machine.interface("macvlan0", "eth1")
    machine.address("br5", "192.0.2.1")
    assert "(through br5 on eth0.5)" in machine.only(NIC, "management_network")
    assert machine.findings(NIC2) == []
    machine.address("macvlan0", "192.0.2.2")
    assert "(through macvlan0)" in machine.only(NIC2, "management_network")


def test_a_bridge_for_guests_only(machine: Machine) -> None:
    machine.interface("br0", "eth0", master=True)
    assert machine.findings(NIC) == []


def test_open_vswitch(machine: Machine) -> None:
    machine.interface("ovs-system", "eth0", master=True)
    assert "Open vSwitch" in machine.only(NIC, "management_network")
    assert machine.findings(NIC2) == []


@pytest.mark.parametrize("address", ["fe80::1", "192.0.2.9"])
def test_ssh_connection(machine: Machine, address: str) -> None:
    """sudo hides it from this process; the shell above still has it."""
    tree = machine.tree
    machine.address("eth0", address, "link" if address.startswith("fe80") else "global")
    tree.write("/proc/self/stat", "900 (python3) S 800 1 1").write("/proc/self/environ", "PATH=/bin\0")
    tree.write("/proc/800/stat", "800 (su) do) S 700 1 1").write("/proc/800/environ", "")
    shown = f"{address}%eth0" if address.startswith("fe80") else address
    tree.write("/proc/700/stat", "700 (sh) S 1 1 1").write(
        "/proc/700/environ", f"A=1\0SSH_CONNECTION=192.0.2.7 50000 {shown} 22\0"
    )
    tree.write("/proc/1/stat", "1 (systemd) S 0 1 1")
    assert f"the SSH connection of this run ({address})" in machine.only(NIC, "management_network")


def test_a_pf_answers_for_its_vfs(machine: Machine) -> None:
    tree = machine.tree
    tree.add_device("0000:05:00.0", pci_class=0x020000, driver="igb", group=30, totalvfs=7)
    vf = str(tree.add_vfs("0000:05:00.0", 2, driver="igbvf", first_group=31)[1])
    tree.add_interface("eth7", "52:54:00:00:00:07", tree.device_path(vf))
    machine.address("eth7", "192.0.2.1")
    found = machine.findings("0000:05:00.0")
    assert [finding.code for finding in found] == ["management_network", "has_vfs"]
    assert vf in found[0].message
    assert "eth7" in machine.only(vf, "management_network")
    assert machine.findings("0000:05:10.0") == []


@pytest.mark.parametrize("printed", ["no JSON", "5", "[1]", '{"ifname": "eth0"}'])
def test_unreadable_network_evidence(machine: Machine, printed: str) -> None:
    machine.run = lambda argv, timeout, stdin: Completed(tuple(argv), 0, printed, "")  # type: ignore[method-assign]
    assert machine.unknown(NIC) == ["management_network"]
    assert machine.findings(DISK) == []  # has no interface, so nothing has to be known


def test_without_iproute(machine: Machine) -> None:
    machine.run = answering({})  # type: ignore[method-assign, assignment]
    assert machine.unknown(NIC) == ["management_network"]


# -- in_use_by_domain --------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", list(Change))
def test_open_group(machine: Machine, change: Change) -> None:
    machine.tree.bind(NIC, "vfio-pci").bind(NIC2, "vfio-pci")
    machine.open_file(4711, "/dev/vfio/vfio")
    assert machine.findings(NIC, change) == []
    machine.open_file(4711, "/dev/vfio/0", "qemu\0-name\0guest=web,debug-threads=on\0", descriptor=31)
    assert "is in use by the running domain web (process 4711)" in machine.only(NIC, "in_use_by_domain", change)
    assert machine.findings(NIC2, change) == []


def test_a_mate_of_a_device_in_use(machine: Machine) -> None:
    machine.tree.add_device("0000:05:00.0", driver="mlx5_vfio_pci", group=30)
    machine.tree.add_device("0000:05:00.1", group=30)
    machine.open_file(4711, "/dev/vfio/30", "dpdk-testpmd\0-n\0")
    assert "process 4711 (qemu-system-x86)" in machine.only("0000:05:00.1", "in_use_by_domain")


def test_open_device(machine: Machine) -> None:
    """With iommufd there is a file per device."""
    machine.tree.bind(NIC, "vfio-pci")
    machine.tree.path(f"{machine.tree.device_path(NIC)}/vfio-dev/vfio3").mkdir(parents=True)
    machine.open_file(4711, "/dev/vfio/devices/vfio3", "qemu\0-name\0web\0")
    assert "domain web (process 4711)" in machine.only(NIC, "in_use_by_domain")


def test_unreadable_process_evidence(machine: Machine) -> None:
    machine.tree.path("/proc/1/fd/0").unlink()
    assert machine.findings(NIC) == []  # no VFIO driver in its group, so nobody can have it open
    assert machine.unknown(DISK) == ["boot_disk"]  # a program may write to it
    machine.tree.bind(NIC, "vfio-pci")
    assert machine.unknown(NIC) == ["in_use_by_domain"]


# -- in_domain_definition ----------------------------------------------------------------------------------

DEFINITION = """\
<!--
WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE
OVERWRITTEN AND LOST. Changes to this xml configuration should be made using:
  virsh edit web
or other application using the libvirt API.
-->

<domain type='kvm'>
  <name>web</name>
  <uuid>b0a1f2b8-3a53-4a8e-93a5-1d1f0a3b5c11</uuid>
  <devices>
    <hostdev mode='subsystem' type='pci' managed='{managed}'>
      <driver name='vfio'/>
      <source>
        <address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
      </source>
      <address type='pci' domain='0x0000' bus='0x03' slot='0x00' function='0x0'/>
    </hostdev>
    <hostdev mode='subsystem' type='usb' managed='yes'>
      <source>
        <address bus='1' device='0'/>
      </source>
    </hostdev>
    <interface type='hostdev' managed='no'>
      <mac address='52:54:00:6d:90:02'/>
      <source>
        <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x1'/>
      </source>
    </interface>
  </devices>
</domain>
"""


def test_a_domain_that_expects_a_device_to_be_bound(machine: Machine) -> None:
    machine.tree.write("/etc/libvirt/qemu/web.xml", DEFINITION.format(managed="no"))
    for address in (NIC, NIC2):
        machine.tree.bind(address, "vfio-pci")
        assert f"domain web is defined with {address} and managed='no'" in machine.only(
            address, "in_domain_definition", Change.RELEASE
        )
        assert not machine.findings(address, Change.RELEASE)[0].refuses
        assert machine.findings(address, Change.ASSIGN) == []
    assert machine.findings(DISK2, Change.RELEASE) == []  # where the guest sees it is another address


def test_a_domain_that_takes_the_device_by_itself(machine: Machine) -> None:
    machine.tree.write("/etc/libvirt/qemu/web.xml", DEFINITION.format(managed="yes"))
    assert machine.findings(NIC, Change.RELEASE) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        DEFINITION.format(managed="no")[:-20],
        DEFINITION.format(managed="no").replace("domain type", "network type").replace("</domain", "</network"),
        DEFINITION.format(managed="no").replace("slot='0x00'", "slot='0x99'"),
        DEFINITION.format(managed="no").replace("type='pci'", "type='mdev'").replace("'hostdev'", "'bridge'"),
    ],
)
def test_files_that_define_no_device(machine: Machine, text: str) -> None:
    machine.tree.write("/etc/libvirt/qemu/web.xml", text)
    machine.tree.write("/etc/libvirt/qemu/web.xml~", DEFINITION.format(managed="no"))
    assert machine.findings(NIC, Change.RELEASE) == []


def namespace(machine: Machine, process: str, kind: str, number: int) -> None:
    path = machine.tree.path(f"/proc/{process}/ns/{kind}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(f"{kind}:[{number}]")


def test_in_a_container_nothing_is_known(machine: Machine) -> None:
    """Its mounts, its processes and its network are not the host's, however complete they look."""
    namespace(machine, "self", "pid", 4026532201)
    machine.tree.bind(NIC2, "vfio-pci")
    assert machine.unknown(DISK) == ["boot_disk", "management_network"]
    assert machine.unknown(NIC) == ["management_network"]
    assert machine.unknown(NIC2) == ["in_use_by_domain"]
    assert "in a container" in machine.findings(NIC)[0].message


def test_in_another_network_namespace_interfaces_are_not_known(machine: Machine) -> None:
    namespace(machine, "self", "pid", 4026531836)
    namespace(machine, "1", "net", 4026531840)
    namespace(machine, "self", "net", 4026532500)
    machine.tree.path("/sys/class/net/eth0").unlink()
    assert machine.unknown(NIC) == ["management_network"]
    machine.tree.path("/proc/self/ns/net").unlink()
    namespace(machine, "self", "net", 4026531840)
    assert machine.findings(NIC) == []


# -- the others --------------------------------------------------------------------------------------------


def test_bridge(machine: Machine) -> None:
    machine.tree.add_device("0000:00:01.0", driver="pcieport", bridge=True, group=30)
    machine.tree.add_device("0000:00:02.0", pci_class=0x060700, bridge=False, group=31)
    machine.tree.path(f"{machine.tree.device_path('0000:00:02.0')}/pci_bus").mkdir()
    machine.only("0000:00:01.0", "bridge")
    machine.only("0000:00:02.0", "bridge")


@pytest.mark.parametrize("pci_class", [0x060000, 0x060100, 0x0C0500, 0x050000, 0x058000, 0x080600])
def test_system_device(machine: Machine, pci_class: int) -> None:
    machine.tree.add_device("0000:00:1f.0", pci_class=pci_class, group=30)
    assert f"0x{pci_class >> 8:04x}" in machine.only("0000:00:1f.0", "system_device")


def test_console_display(machine: Machine) -> None:
    for number in range(2):
        machine.tree.add_device(f"0000:05:00.{number}", pci_class=0x030000, group=30, boot_vga=number == 0)
    machine.only("0000:05:00.0", "console_display")
    assert machine.findings("0000:05:00.1") == []


IOMEM = """\
00000000-00000fff : Reserved
c0000000-febfffff : PCI Bus 0000:00
  d0000000-e1ffffff : PCI Bus 0000:05
    d0000000-dfffffff : 0000:05:00.0
      d0000000-d02fffff : {name}
    e0000000-e1ffffff : 0000:06:00.0
  fd000000-fdffffff : 0000:07:00.0
"""


@pytest.mark.parametrize("name", ["BOOTFB", "efifb", "simple-framebuffer.0", "simplefb"])
def test_the_console_in_the_memory_of_a_display(machine: Machine, name: str) -> None:
    machine.tree.write("/proc/iomem", IOMEM.format(name=name))
    for bus in (5, 6, 7):
        machine.tree.add_device(f"0000:{bus:02x}:00.0", pci_class=0x030000, group=30 + bus, boot_vga=False)
    assert f"({name} in /proc/iomem)" in machine.only("0000:05:00.0", "console_display")
    assert machine.findings("0000:06:00.0") == []
    assert machine.findings("0000:07:00.0") == []


def test_a_display_whose_driver_has_taken_over(machine: Machine) -> None:
    machine.tree.write("/proc/iomem", IOMEM.format(name="amdgpu"))
    machine.tree.add_device("0000:05:00.0", pci_class=0x030000, group=30, boot_vga=False)
    assert machine.findings("0000:05:00.0") == []


def test_without_root_rights_the_nesting_is_still_there(machine: Machine) -> None:
    zeroed = re.sub(r"[0-9a-f]{8}-[0-9a-f]{8}", "00000000-00000000", IOMEM.format(name="BOOTFB"))
    machine.tree.write("/proc/iomem", zeroed).add_device("0000:05:00.0", pci_class=0x030000, group=30)
    machine.only("0000:05:00.0", "console_display")


def test_unreadable_framebuffer_evidence(machine: Machine) -> None:
    machine.tree.path("/proc/iomem").unlink()
    machine.tree.add_device("0000:05:00.0", pci_class=0x030000, group=30, boot_vga=False)
    assert machine.unknown("0000:05:00.0") == ["console_display"]
    assert machine.findings(NIC) == []  # draws nothing, so nothing has to be known


@pytest.fixture
def cards(machine: Machine) -> Machine:
    """Two graphics cards with the nodes of their drivers, and a card's connector."""
    for number, address in enumerate(("0000:05:00.0", "0000:06:00.0")):
        machine.tree.add_device(address, pci_class=0x030000, driver="amdgpu", group=30 + number, boot_vga=False)
        for name in (f"card{number}", f"card{number}/card{number}-DP-1", f"renderD{128 + number}"):
            node = f"{machine.tree.device_path(address)}/drm/{name}"
            machine.tree.write(f"{node}/uevent", "")
            machine.tree.link(f"/sys/class/drm/{name.rpartition('/')[2]}", node)
    return machine


@pytest.mark.parametrize("node", ["card1", "renderD129"])
def test_display_in_use(cards: Machine, node: str) -> None:
    cards.open_file(900, f"/dev/dri/{node}")
    cards.open_file(900, f"/dev/dri/{node}", descriptor=31)
    message = cards.only("0000:06:00.0", "display_in_use")
    assert message.endswith(f"0000:06:00.0: /dev/dri/{node} by process 900 (qemu-system-x86).")
    assert cards.findings("0000:05:00.0") == []
    assert cards.findings("0000:06:00.0", Change.ASSIGN) == []  # whoever had it open, it is gone


def test_a_card_of_which_nobody_knows_who_has_it_open(cards: Machine) -> None:
    cards.tree.path("/proc/1/fd/0").unlink()
    assert cards.unknown("0000:06:00.0") == ["display_in_use"]
    assert cards.findings(NIC) == []  # no graphics card


def test_has_vfs(machine: Machine) -> None:
    machine.tree.add_device("0000:05:00.0", driver="igb", group=30, totalvfs=7)
    assert machine.findings("0000:05:00.0") == []
    machine.tree.add_vfs("0000:05:00.0", 2, first_group=31)
    assert "0000:05:10.0, 0000:05:10.2" in machine.only("0000:05:00.0", "has_vfs")


def test_no_iommu(machine: Machine) -> None:
    machine.tree.add_device("0000:05:00.0")
    assert "though other devices of this host are" in machine.only("0000:05:00.0", "no_iommu")


def test_no_iommu_at_all(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path).add_device("0000:05:00.0")
    bus = Bus(tree.host())
    found = check_device(bus.devices()[0], GuardContext(tree.host(), bus))
    assert [finding.code for finding in found] == ["no_iommu"]
    assert "no active IOMMU" in found[0].message
    assert "iommu_info" in found[0].remedy
    assert not found[0].forcible


# -- no_iommu: groups that come with drivers ---------------------------------------------------------------


def findings_of(machine: Machine, address: str, change: Change = Change.BIND) -> list[tuple[str, str, bool]]:
    return [(finding.code, finding.severity.value, finding.certain) for finding in machine.findings(address, change)]


@pytest.mark.parametrize("unit", ["smmu3.0x0000000009050000", "arm-smmu.0.auto", "virtio4"])
def test_a_group_that_no_driver_has_made_yet_is_undecided(machine: Machine, unit: str) -> None:
    machine.tree.write(f"/sys/class/iommu/{unit}/uevent", "").add_device("0000:05:00.0")
    assert findings_of(machine, "0000:05:00.0") == [("no_iommu", "warning", False)]
    finding = machine.findings("0000:05:00.0")[0]
    assert finding.is_undecided
    assert not finding.refuses
    assert "is not known before a driver has probed" in finding.message


@pytest.mark.parametrize("unit", ["dmar0", "ivhd0", "s390-iommu.00000000", "iommu-phb0000"])
def test_units_that_know_their_devices_leave_nothing_undecided(machine: Machine, unit: str) -> None:
    machine.tree.write(f"/sys/class/iommu/{unit}/uevent", "").add_device("0000:05:00.0")
    assert findings_of(machine, "0000:05:00.0") == [("no_iommu", "error", True)]


def test_a_driver_without_a_group_says_that_there_will_be_none(machine: Machine) -> None:
    machine.tree.write("/sys/class/iommu/smmu3.0x0/uevent", "").add_device("0000:05:00.0", driver="edu")
    assert findings_of(machine, "0000:05:00.0") == [("no_iommu", "error", True)]


def test_a_group_that_vfio_made_up(machine: Machine) -> None:
    machine.tree.add_device("0000:05:00.0", driver="vfio-pci", group=30).add_device("0000:06:00.0", group=31)
    for group in (30, 31):
        machine.tree.write(f"/sys/kernel/iommu_groups/{group}/name", "vfio-noiommu\n" if group == 30 else "dmar\n")
    assert "enable_unsafe_noiommu_mode" in machine.only("0000:05:00.0", "no_iommu", Change.ASSIGN)
    assert machine.findings("0000:06:00.0") == []


# -- no_interrupt_remapping --------------------------------------------------------------------------------


def x86(machine: Machine, *, remapped: bool) -> SysfsTree:
    """An active VT-d with or without interrupt remapping, as /proc/interrupts shows it."""
    prefix = "IR-" if remapped else ""
    machine.tree.write("/proc/sys/kernel/arch", "x86_64\n").add_vtd()
    return machine.tree.write("/proc/interrupts", f"  24:  0  {prefix}PCI-MSI 327680-edge  xhci_hcd\n")


def test_interrupts_that_are_not_remapped(machine: Machine) -> None:
    x86(machine, remapped=False)
    message = machine.only(NIC, "no_interrupt_remapping")
    assert "/proc/interrupts has no name with IR-" in message
    assert "VFIO refuses 0000:01:00.0 when a guest is started" in message
    machine.tree.add_device("0000:05:00.0")
    machine.only("0000:05:00.0", "no_iommu")  # which is the greater trouble


def test_interrupts_that_are_remapped(machine: Machine) -> None:
    x86(machine, remapped=True)
    assert machine.findings(NIC) == []


@pytest.mark.parametrize("module", ["vfio_iommu_type1", "iommufd"])
def test_vfio_that_was_told_to_do_without_remapping(machine: Machine, module: str) -> None:
    x86(machine, remapped=False).write(f"/sys/module/{module}/parameters/allow_unsafe_interrupts", "Y\n")
    assert machine.findings(NIC) == []


def test_remapping_that_is_not_known_is_no_objection(machine: Machine) -> None:
    machine.tree.write("/proc/sys/kernel/arch", "x86_64\n").add_vtd(table=False, ecap=None)
    assert machine.findings(NIC) == []


# -- reserved_region ---------------------------------------------------------------------------------------


def test_a_region_that_stays_mapped(machine: Machine) -> None:
    """The group as a whole is refused, whichever of its devices the firmware means."""
    machine.tree.add_group(30, reserved=["0x7b800000 0x7fffffff direct", "0xfee00000 0xfeefffff msi"])
    for address in ("0000:05:00.0", "0000:05:00.1"):
        machine.tree.add_device(address, group=30)
        assert "(0x7b800000-0x7fffffff)" in machine.only(address, "reserved_region")


@pytest.mark.parametrize("kind", ["direct-relaxable", "msi", "reserved"])
def test_regions_that_the_kernel_gives_up_or_needs_anyway(machine: Machine, kind: str) -> None:
    machine.tree.add_group(30, reserved=[f"0x7b800000 0x7fffffff {kind}"]).add_device("0000:05:00.0", group=30)
    assert machine.findings("0000:05:00.0") == []


# -- no_reset ----------------------------------------------------------------------------------------------


def test_a_device_that_cannot_be_reset_is_a_warning(machine: Machine) -> None:
    machine.tree.add_device("0000:00:14.0", group=30, reset_methods=None)
    assert findings_of(machine, "0000:00:14.0") == [("no_reset", "warning", True)]
    assert not machine.findings("0000:00:14.0")[0].refuses


def test_resetting_that_was_switched_off(machine: Machine) -> None:
    machine.tree.add_device("0000:00:14.0", group=30, attributes={"reset_method": "\n", "reset": ""})
    assert findings_of(machine, "0000:00:14.0") == [("no_reset", "warning", True)]


def test_before_linux_5_15_only_the_attribute_reset_tells(machine: Machine) -> None:
    machine.tree.add_device("0000:00:14.0", group=30, reset_methods=None, attributes={"reset": ""})
    assert machine.findings("0000:00:14.0") == []


def test_a_function_that_is_reset_with_its_bus(machine: Machine) -> None:
    """The audio part of a graphics card: the bus has nothing but what goes to the same guest."""
    tree = machine.tree.add_device("0000:00:01.0", driver="pcieport", bridge=True, group=30)
    for function in range(2):
        tree.add_device(f"0000:05:00.{function}", group=31, parent="0000:00:01.0", reset_methods=None)
    assert machine.findings("0000:05:00.1") == []
    tree.add_device("0000:05:01.0", group=32, parent="0000:00:01.0")
    assert findings_of(machine, "0000:05:00.1") == [("no_reset", "warning", True)]
    assert machine.findings("0000:05:01.0") == []  # it has a reset of its own


def test_a_bus_with_a_bridge_on_it_takes_more_than_the_group_along(machine: Machine) -> None:
    tree = machine.tree.add_device("0000:00:01.0", driver="pcieport", bridge=True, group=30)
    tree.add_device("0000:05:00.0", group=30, parent="0000:00:01.0", reset_methods=None)
    assert machine.findings("0000:05:00.0") == []
    tree.add_device("0000:05:01.0", bridge=True, group=30, parent="0000:00:01.0")
    assert findings_of(machine, "0000:05:00.0") == [("no_reset", "warning", True)]


# -- usb_in_use --------------------------------------------------------------------------------------------

USB, USB2 = "0000:00:14.0", "0000:05:00.0"
MULTIMEDIA_KEYS = (
    "3f000301ff 0 0 483ffff17aff32d bfd4444600000000 1 130c730b17c000 267bfad9415fed 9e168000004400 10000002"
)


@pytest.fixture
def usb(machine: Machine) -> SysfsTree:
    for number, address in enumerate((USB, USB2)):
        machine.tree.add_device(address, pci_class=0x0C0330, driver="xhci_hcd", group=30 + number)
    return machine.tree


def behind(tree: SysfsTree, address: str) -> str:
    return f"{tree.device_path(address)}/usb1/1-1/1-1:1.0/0003:046D:C31C.0001"


def test_the_only_keyboard(machine: Machine, usb: SysfsTree) -> None:
    usb.add_keyboard(3, behind(usb, USB))
    assert "behind it: Test Keyboard 3" in machine.only(USB, "usb_in_use")
    assert machine.findings(USB2) == []
    assert machine.findings(USB, Change.ASSIGN) == []  # whoever has it, it is not the host


@pytest.mark.parametrize("other", ["/sys/devices/platform/i8042/serio0", "a controller"])
def test_a_second_keyboard_elsewhere(machine: Machine, usb: SysfsTree, other: str) -> None:
    usb.add_keyboard(3, behind(usb, USB)).add_keyboard(4, behind(usb, USB2) if other == "a controller" else other)
    assert machine.findings(USB) == []
    assert machine.findings(USB2) == []


def test_a_keyboard_that_a_program_makes_helps_nobody(machine: Machine, usb: SysfsTree) -> None:
    usb.add_keyboard(3, behind(usb, USB)).add_keyboard(4, "/sys/devices/virtual")
    machine.only(USB, "usb_in_use")
    machine.tree.path("/sys/class/input/input3").unlink()
    assert machine.findings(USB) == []


@pytest.mark.parametrize("keys", [MULTIMEDIA_KEYS, "8000 10000000000000 0", "0", "", "no number"])
def test_buttons_are_no_keyboard(machine: Machine, usb: SysfsTree, keys: str) -> None:
    usb.add_keyboard(3, behind(usb, USB), keys)
    assert machine.findings(USB) == []


def test_a_keyboard_behind_something_else_than_usb(machine: Machine, usb: SysfsTree) -> None:
    usb.add_keyboard(3, f"{usb.device_path(NIC)}/i2c-0")
    assert machine.findings(NIC) == []


def test_two_controllers_of_one_group_leave_together(machine: Machine) -> None:
    tree = machine.tree
    for function in range(2):
        tree.add_device(f"0000:05:00.{function}", pci_class=0x0C0330, driver="xhci_hcd", group=30)
        tree.add_keyboard(function, behind(tree, f"0000:05:00.{function}"))
    machine.only("0000:05:00.0", "usb_in_use")


def test_two_controllers_that_are_asked_for_together(machine: Machine, usb: SysfsTree) -> None:
    usb.add_keyboard(3, behind(usb, USB)).add_keyboard(4, behind(usb, USB2))
    host = usb.host(runner=machine.run)
    bus = Bus(host)
    context = GuardContext(host, bus, [PciAddress.parse(USB), PciAddress.parse(USB2)])
    assert [finding.code for finding in check_device(bus.device(PciAddress.parse(USB)), context)] == ["usb_in_use"]


# -- devices that VFIO has already -------------------------------------------------------------------------


def test_who_gave_a_device_up_is_not_asked_again(machine: Machine) -> None:
    """What watches over the taking is past; what would hinder a guest is not."""
    tree = machine.tree.add_group(30, reserved=["0x0 0xfff direct"])
    tree.add_device("0000:05:00.0", pci_class=0x030000, driver="vfio-pci", group=30, boot_vga=True)
    device = Bus(tree.host()).device(PciAddress.parse("0000:05:00.0"))
    assert Change.towards_guest(device) is Change.ASSIGN
    assert [code for code, *_rest in findings_of(machine, "0000:05:00.0", Change.ASSIGN)] == ["reserved_region"]
    assert [code for code, *_rest in findings_of(machine, "0000:05:00.0")] == ["reserved_region", "console_display"]


# -- what cannot be read -----------------------------------------------------------------------------------


def test_a_device_of_which_little_can_be_read(machine: Machine) -> None:
    """A container, a policy of SELinux: no traceback, and nothing made up."""
    machine.tree.add_device(USB, pci_class=0x0C0330, group=30)
    for name in ("reset_method", "driver_override", "boot_vga", "numa_node"):
        machine.tree.path(f"{machine.tree.device_path(USB)}/{name}").unlink(missing_ok=True)
    machine.tree.path("/sys/kernel/iommu_groups/30/reserved_regions").unlink()
    machine.tree.path("/sys/class/input/input9").mkdir(parents=True)
    assert {code for code, severity, _certain in findings_of(machine, USB) if severity == "error"} == set()
