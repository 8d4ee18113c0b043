# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual functions at every boot: a script that makes them, and units of systemd that run it in time.

A unit and no udev rule, because others have to wait for it: libvirt looks for the VFs of its guests when it starts, and
the network is configured when the interfaces are there. Neither waits for what an event's rule does. The unit does not
wait for events either: the driver of a PF may have been loaded by the initramfs, before there were rules, and
``sriov_numvfs`` takes a number only once a driver is bound. So the script waits until it is, for a limited time.

Rates are set later, when the network is configured: drivers compare them with the speed of the link (igb, ixgbe), and
it is only then that the link comes up.

A PF is known by its address and its ids, so another card in the same place gets no VFs. VFs that are there are left
alone, whatever their number, so the unit can be started again at any time.

Sources: systemd.unit(5), systemd.special(7) (network-pre.target), bootup(7).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .._core import files
from .._core.errors import PassthroughError, Problem
from .._core.files import FileState
from .._core.host import Host
from .._core.plan import WriteFile
from .._pci.address import PciAddress
from .._pci.device import PciDevice
from .actions import PfState
from .settings import VfSettings

UNIT = "kvm-passthrough-sriov.service"
RATES_UNIT = "kvm-passthrough-sriov-rates.service"
SCRIPT_PATH = "/etc/kvm-passthrough/sriov-vfs"
UNIT_PATH = f"/etc/systemd/system/{UNIT}"
RATES_UNIT_PATH = f"/etc/systemd/system/{RATES_UNIT}"
# What "systemctl enable" would do by a link.
WANTS_PATH = "/etc/systemd/system/multi-user.target.d/kvm-passthrough-sriov.conf"

_BY = "Written by kvm.passthrough.sriov_vfs, which replaces or removes the whole file."

# Units of libvirt, as one daemon or as several; those that are not there are no harm.
_LIBVIRT = " ".join(f"{name}.service" for name in ("libvirtd", "virtqemud", "virtnetworkd", "virtnodedevd", "virtxend"))

# Without default dependencies: basic.target may itself come after the network (cloud-init).
_UNIT = f"""\
# {_BY}
[Unit]
Description=SR-IOV virtual functions (kvm.passthrough)
DefaultDependencies=no
Conflicts=shutdown.target
After=systemd-modules-load.service systemd-udevd.service systemd-udev-trigger.service
Before=network-pre.target {_LIBVIRT} shutdown.target
Wants=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {SCRIPT_PATH} vfs
TimeoutStartSec=300
"""

_RATES_UNIT = f"""\
# {_BY}
[Unit]
Description=Rates of SR-IOV virtual functions (kvm.passthrough)
After={UNIT} network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {SCRIPT_PATH} rates
"""

_WANTS = f"""\
# {_BY}
[Unit]
Wants={UNIT} {RATES_UNIT}
"""

_FIXED = {UNIT_PATH: _UNIT, RATES_UNIT_PATH: _RATES_UNIT, WANTS_PATH: _WANTS}

_SCRIPT = """\
#!/bin/sh
# Written by kvm.passthrough.sriov_vfs, which reads it, too: it replaces or removes the whole file.
# The virtual functions of this host, which systemd makes at every boot (kvm-passthrough-sriov.service), and their
# rates, which wait for the network (kvm-passthrough-sriov-rates.service).

phase=$1
devices=/sys/bus/pci/devices
patience=300 # tenths of a second, for all waiting together: no boot hangs for a card that was taken out
status=0
made=

complain() {
    echo "$*" >&2
    status=1
}

until_it_works() {
    until "$@"; do
        [ $patience -gt 0 ] || return 1
        patience=$((patience - 1))
        sleep 0.1
    done
}

has_driver() {
    [ -e $devices/$1/driver ]
}

# address vendor device subsystem_vendor subsystem_device number drivers_autoprobe
make_vfs() {
    directory=$devices/$1
    until_it_works has_driver $1 || { complain "$1: no such device, or no driver has taken it"; return; }
    found="$(cat $directory/vendor) $(cat $directory/device)"
    found="$found $(cat $directory/subsystem_vendor) $(cat $directory/subsystem_device)"
    [ "$found" = "$2 $3 $4 $5" ] || { complain "$1: there is another device now, with the ids $found"; return; }
    if [ "$phase" = rates ]; then
        [ $(cat $directory/sriov_numvfs) != $6 ] || made="$made $1 "
        return
    fi
    [ ! -e $directory/sriov_drivers_autoprobe ] || [ $7 = keep ] || echo $7 >$directory/sriov_drivers_autoprobe
    # While the driver is still at work with the card, this waits in the kernel.
    case $(cat $directory/sriov_numvfs) in
        $6) ;;
        0) echo $6 >$directory/sriov_numvfs || { complain "$1: the kernel refused $6 virtual functions"; return; } ;;
        *) complain "$1: somebody else made $(cat $directory/sriov_numvfs) virtual functions instead of $6"; return ;;
    esac
    made="$made $1 "
}

# A name per attempt: udev may rename the interface at this very moment.
set_now() {
    said="it has no network interface"
    for interface in $devices/$1/net/*; do
        [ -e $interface ] || continue
        case $(cat $interface/phys_port_name 2>/dev/null) in *pf*vf* | *pf*sf*) continue ;; esac
        shift
        said=$(ip link set dev ${interface##*/} vf "$@" 2>&1)
        return
    done
    return 1
}

# address index, and words of ip-link(8)
set_vf() {
    [ "$phase" != vfs ] || set_soon "$@"
}

set_rate() {
    [ "$phase" != rates ] || set_soon "$@"
}

set_soon() {
    case $made in *" $1 "*) ;; *) return ;; esac
    until_it_works set_now "$@" || complain "$*: $said"
}

# The first virtual function has the number 1 in the list of secondary controllers.
secondary_controller() {
    nvme list-secondary $1 -o json | tr '{},' '\n\n\n' | awk -F: -v number=$(($2 + 1)) '
        /"secondary-controller-identifier"/ { id = $2 + 0 }
        /"virtual-function-number"/ && $2 + 0 == number { print id }'
}

set_controller_now() {
    said="it has no NVMe controller"
    for found in $devices/$1/nvme/nvme*; do
        [ -e $found ] || continue
        controller=/dev/${found##*/}
        id=$(secondary_controller $controller $2)
        [ -n "$id" ] || { said="$controller lists no such secondary controller"; return 1; }
        said=$(nvme virt-mgmt $controller -c $id -r 0 -a 7 -n 0 2>&1 &&
            nvme virt-mgmt $controller -c $id -r 0 -a 8 -n $4 2>&1 &&
            nvme virt-mgmt $controller -c $id -r 1 -a 8 -n $6 2>&1) || return 1
        [ $4 = 0 ] || said=$(nvme virt-mgmt $controller -c $id -r 0 -a 9 -n 0 2>&1)
        return
    done
    return 1
}

# address index queues NUMBER interrupts NUMBER
set_controller() {
    [ "$phase" = vfs ] || return 0
    case $made in *" $1 "*) ;; *) return ;; esac
    until_it_works set_controller_now "$@" || complain "$*: $said"
}

"""

_MAKE = re.compile(
    r"^make_vfs (?P<address>[0-9a-f:.]+) 0x(?P<vendor>[0-9a-f]{4}) 0x(?P<device>[0-9a-f]{4}) "
    r"0x(?P<subsystem_vendor>[0-9a-f]{4}) 0x(?P<subsystem_device>[0-9a-f]{4}) "
    r"(?P<count>[0-9]{1,5}) (?P<autoprobe>0|1|keep)$",
    re.MULTILINE,
)
_SET = re.compile(
    r"^set_(?:vf|rate|controller) (?P<address>[0-9a-f:.]+) (?P<index>[0-9]{1,5}) (?P<words>[A-Za-z0-9:._ ]+)$", re.M
)
_AUTOPROBE: dict[str, bool | None] = {"0": False, "1": True, "keep": None}
_AUTOPROBE_WORDS = {value: word for word, value in _AUTOPROBE.items()}


@dataclass(frozen=True)
class PersistentPf:
    """A PF and what it is to have at every boot."""

    address: PciAddress
    ids: tuple[int, int, int, int]
    """Vendor, device, subsystem vendor, subsystem device."""
    state: PfState
    vfs: tuple[tuple[int, VfSettings], ...]

    @classmethod
    def of(cls, device: PciDevice, state: PfState, vfs: Mapping[int, VfSettings]) -> PersistentPf:
        """The PF with what is asked for."""
        ids = (device.vendor_id, device.device_id, device.subsystem_vendor_id, device.subsystem_device_id)
        asked = {index: settings for index, settings in vfs.items() if settings.to_json()}
        return cls(device.address, ids, state, tuple(sorted(asked.items(), key=lambda item: item[0])))


def render(pfs: Collection[PersistentPf]) -> str:
    """The script for these PFs; empty without any. All VFs are made before the first is set."""
    if not pfs:
        return ""
    ordered = sorted(pfs, key=lambda item: item.address)
    lines = [
        f"make_vfs {pf.address} {' '.join(f'0x{number:04x}' for number in pf.ids)} {pf.state.count} "
        f"{_AUTOPROBE_WORDS[pf.state.drivers_autoprobe]}"
        for pf in ordered
    ]
    lines += [
        f"{_setter(part)} {pf.address} {index} {' '.join(part.words())}"
        for pf in ordered
        for index, settings in pf.vfs
        for part in settings.parts()
    ]
    return _SCRIPT + "".join(f"{line}\n" for line in [*lines, "exit $status"])


def _setter(part: VfSettings) -> str:
    """The function of the script for one setting."""
    if part.is_nvme:
        return "set_controller"
    return "set_rate" if part.is_rate else "set_vf"


def parse(text: str) -> list[PersistentPf]:
    """The PFs of a script that :func:`render` made; what else it may hold is not seen."""
    settings: dict[str, dict[int, VfSettings]] = {}
    for match in _SET.finditer(text):
        vfs = settings.setdefault(match["address"], {})
        index = int(match["index"])
        try:
            vfs[index] = VfSettings.from_words(match["words"].split()).over(vfs.get(index, VfSettings()))
        except ValueError:  # edited by hand
            continue
    found = []
    for match in _MAKE.finditer(text):
        names = ("vendor", "device", "subsystem_vendor", "subsystem_device")
        vendor, device, subsystem_vendor, subsystem_device = (int(match[name], 16) for name in names)
        try:
            address = PciAddress.parse(match["address"])
        except PassthroughError:  # edited by hand; no device has that address, so the line is of no effect
            continue
        found.append(
            PersistentPf(
                address,
                (vendor, device, subsystem_vendor, subsystem_device),
                PfState(int(match["count"]), _AUTOPROBE[match["autoprobe"]]),
                tuple(sorted(settings.get(match["address"], {}).items(), key=lambda item: item[0])),
            )
        )
    return found


@dataclass(frozen=True)
class BootVfs:
    """The files as they are, by path, and the PFs they name."""

    files: Mapping[str, FileState]
    pfs: tuple[PersistentPf, ...]
    obstacle: Problem | None
    """Why no VFs can be made at every boot here."""

    @classmethod
    def observe(cls, host: Host) -> BootVfs:
        """Read the files.

        :raises PassthroughError: ``file_unreadable``
        """
        found = {path: files.observe(host, path) for path in (SCRIPT_PATH, *_FIXED)}
        return cls(found, tuple(parse(found[SCRIPT_PATH].text)), _obstacle(host))

    def plan(self, pfs: Collection[PersistentPf]) -> list[WriteFile]:
        """What makes exactly the VFs of these PFs at every boot, and nothing when that is so."""
        wanted = {
            SCRIPT_PATH: FileState(render(pfs).encode() if pfs else None, 0o755),
            **{path: FileState(text.encode() if pfs else None) for path, text in _FIXED.items()},
        }
        actions = [
            (WriteFile if pfs else _RemoveFile)(path, self.files[path], state)
            for path, state in wanted.items()
            if not self.files[path].is_like(state)
        ]
        # What needs another file comes after it, and goes before it.
        return actions if pfs else actions[::-1]


class _RemoveFile(WriteFile):
    """Remove a file, and the folder that an earlier run made for it, as far as that is empty."""

    def apply(self, host: Host) -> None:
        super().apply(host)
        if self.target in (SCRIPT_PATH, WANTS_PATH):
            files.remove_directories(host, [os.path.dirname(self.target)])


def _obstacle(host: Host) -> Problem | None:
    if host.is_dir("/run/systemd/system"):  # sd_booted(3)
        return None
    return Problem(
        "persistence_unsupported",
        "This host was not booted by systemd, and a unit of systemd is what makes virtual functions at every boot.",
        "Set persistent to false to have them until the next boot, and run the module again after it.",
    )
