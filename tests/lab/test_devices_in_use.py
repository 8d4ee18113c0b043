# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guards on a host that uses something of everything, each beside a device that looks alike and is free."""

from __future__ import annotations

import time

import pytest

from tests import lab

from .controller import Controller, quadruple

pytestmark = pytest.mark.lab("amd-in-use")

# The storage of the host; its root file system is on a logical volume over two of the disks since it was booted.
STORAGE = r"""
set -e
export DM_DISABLE_UDEV=1
device=/sys/bus/pci/devices/0000:00
# A controller that is one of several paths (nvme0c1n1) has the disk that is used elsewhere (nvme0n1).
disk() { basename $device:$1.0/nvme/nvme*/nvme*n1 | sed 's/c[0-9]*n/n/'; }
modprobe -a loop btrfs usb-storage sd_mod usbhid hid-generic
mkdir -p /srv/paths /srv/pool /srv/usb

losetup /dev/loop0 /dev/$(disk 0a)
mkswap -q /dev/loop0
swapon /dev/loop0

mke2fs -q -t ext4 /dev/$(disk 0b)
mount /dev/$(disk 0b) /srv/paths

mkfs.btrfs -q -L pool -d raid1 -m raid1 /dev/$(disk 0d) /dev/$(disk 0e)
mount /dev/$(disk 0d) /srv/pool

tries=0
until test -e $device:11.0/usb*/*/*/host*/target*/*/block/sd?; do
    tries=$((tries + 1)); test $tries -lt 100; sleep 0.2
done
sd=$(basename $device:11.0/usb*/*/*/host*/target*/*/block/sd?)
mke2fs -q -t ext4 /dev/$sd
mount /dev/$sd /srv/usb

setsid sleep 100000 <>/dev/$(disk 16) >/dev/null 2>&1 &
setsid sleep 100000 </dev/dri/$(basename $device:14.0/drm/card*) >/dev/null 2>&1 &
"""

# The way to the host: a VLAN on a bridge on a bond of two cards. At the other end of the wire, in a network namespace,
# is the only card that leads out, and a relay between the two.
NETWORK = r"""
set -e
device=/sys/bus/pci/devices/0000:00
card() { basename $device:$1.0/net/*; }
modprobe bonding max_bonds=0
modprobe -a bridge 8021q macvlan
first=$(card 18) second=$(card 19) third=$(card 1a) opposite=$(card 1b)
management=$(basename $device:02.0/virtio*/net/*)

ip link add bond0 type bond mode active-backup miimon 100
for name in $first $second; do
    ip link set $name down
    ip link set $name master bond0
done
ip link add br0 type bridge
ip link set bond0 master br0
ip link add link br0 name br0.7 type vlan id 7
for name in bond0 br0 br0.7; do
    ip link set $name up
done
ip address add 192.0.2.2/24 dev br0.7

ip link set $third up
ip link add link $third name macvlan0 type macvlan
ip link set macvlan0 up
ip -6 route add default dev macvlan0 table 100

cat >/run/relay.py <<'END'
import asyncio

async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def relay(reader, writer):
    there, back = await asyncio.open_connection("192.0.2.2", 22)
    await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)

async def main():
    async with await asyncio.start_server(relay, "10.0.2.15", 22) as server:
        await server.serve_forever()

asyncio.run(main())
END

ip netns add outside
cat >/run/go-outside <<END
sleep 1
ip route del default
ip link set $opposite netns outside
ip link set $management netns outside
exec ip netns exec outside sh -e -c '
    ip link set lo up
    ip link set $opposite up
    ip link add link $opposite name wire.7 type vlan id 7
    ip link set wire.7 up
    ip address add 192.0.2.1/24 dev wire.7
    ip link set $management up
    ip address add 10.0.2.15/24 dev $management
    ip route add default via 10.0.2.2
    exec python3 /run/relay.py
'
END
setsid sh -e -x /run/go-outside </dev/null >/run/go-outside.log 2>&1 &
"""

CHAIN = "through br0.7 on br0 on bond0"
ROOT = "mounted at / (labhost-root on md0)"

USED = {
    "0000:00:08.0": ("boot_disk", (ROOT,)),
    "0000:00:09.0": ("boot_disk", (ROOT,)),
    "0000:00:0a.0": ("boot_disk", ("swap space (loop0)",)),
    "0000:00:0b.0": ("boot_disk", ("mounted at /srv/paths",)),
    "0000:00:0c.0": ("boot_disk", ("mounted at /srv/paths",)),
    "0000:00:0d.0": ("boot_disk", ("member of the file system pool, mounted at /srv/pool",)),
    "0000:00:0e.0": ("boot_disk", ("member of the file system pool, mounted at /srv/pool",)),
    "0000:00:10.0": ("usb_in_use", ("behind it: QEMU QEMU USB Keyboard",)),
    "0000:00:11.0": ("boot_disk", ("mounted at /srv/usb",)),
    "0000:00:13.0": ("console_display", ("the display the host booted with",)),
    "0000:00:14.0": ("display_in_use", ("/dev/dri/card", "(sleep)")),
    "0000:00:16.0": ("boot_disk", ("open for writing by process", "(sleep)")),
    "0000:00:18.0": ("management_network", (f"the SSH connection of this run (192.0.2.2) ({CHAIN})",)),
    "0000:00:19.0": ("management_network", (f"the SSH connection of this run (192.0.2.2) ({CHAIN})",)),
    "0000:00:1a.0": ("management_network", ("the IPv6 default route (through macvlan0)",)),
}
# A disk, a USB controller, a graphics card, a network card.
FREE = ("0000:00:0f.0", "0000:00:12.0", "0000:00:15.0", "0000:01:00.0")


def listed(*addresses: str) -> dict[str, object]:
    return {"devices": [{"address": address} for address in addresses], "persistent": False}


def wait_for_the_way_in(machine: lab.Machine) -> None:
    """Until ssh comes in over the VLAN."""
    deadline = time.monotonic() + 120
    while machine.ssh("echo $SSH_CONNECTION", check=False).stdout.split()[2:3] != ["192.0.2.2"]:
        assert time.monotonic() < deadline, "the machine does not answer at the other end of the wire"
        time.sleep(1)


def test_what_the_host_uses_is_refused_and_what_looks_alike_is_free(small_machine: lab.Machine) -> None:
    small_machine.ssh("sudo sh -s", stdin=STORAGE)
    small_machine.ssh("sudo sh -s", stdin=NETWORK)
    wait_for_the_way_in(small_machine)
    assert small_machine.ssh("findmnt -no SOURCE /").stdout.strip() == "/dev/mapper/labhost-root"

    ansible = Controller(small_machine)
    before = small_machine.drivers()
    devices = {device["address"]: device for device in ansible.module("pci_device_info").result["devices"]}
    refusals = {
        address: [finding for finding in device["obstacles"] if finding["severity"] == "error"]
        for address, device in devices.items()
    }
    assert {address: [finding["code"] for finding in refusals[address]] for address in (*USED, *FREE)} == {
        **{address: [code] for address, (code, _phrases) in USED.items()},
        **{address: [] for address in FREE},
    }
    for address, (_code, phrases) in USED.items():
        message = refusals[address][0]["message"]
        assert [phrase for phrase in phrases if phrase not in message] == [], message

    # All are refused at once, each with what it was said to be used for.
    refused = ansible.module("vfio_devices", listed(*FREE, *USED))
    assert refused.status == "failed"
    assert {(problem["device"], problem["code"], problem["message"]) for problem in refused.result["problems"]} == {
        (address, refusals[address][0]["code"], refusals[address][0]["message"]) for address in USED
    }

    # A code forces what has this code, and nothing else.
    disk, card = "0000:00:08.0", "0000:00:18.0"
    part = ansible.module("vfio_devices", {**listed(disk, card), "force": ["management_network"]}, check=True)
    assert [(problem["device"], problem["code"]) for problem in part.result["problems"]] == [(disk, "boot_disk")]
    codes = sorted({code for code, _phrases in USED.values()})
    forced = ansible.module("vfio_devices", {**listed(*USED), "force": codes}, check=True)
    assert forced.status == "ok", forced.result["msg"]
    assert forced.changed
    assert small_machine.drivers() == before

    quadruple(ansible, "vfio_devices", listed(*FREE))
    assert {small_machine.drivers()[address] for address in FREE} == {"vfio-pci"}
    quadruple(ansible, "vfio_devices", {**listed(*FREE), "state": "released"})
    assert small_machine.drivers() == before
