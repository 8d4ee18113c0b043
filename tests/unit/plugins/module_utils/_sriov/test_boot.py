# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The script that makes the VFs at every boot is read back as it was written, and does what it says in a real shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._sriov.actions import PfState
from ansible_collections.kvm.passthrough.plugins.module_utils._sriov.boot import (
    RATES_UNIT_PATH,
    SCRIPT_PATH,
    UNIT_PATH,
    WANTS_PATH,
    BootVfs,
    PersistentPf,
    parse,
    render,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._sriov.settings import VfSettings
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

from .test_settings import ANY

FIRST, SECOND = "0000:01:00.0", "0000:07:00.0"
IDS = (0x8086, 0x10C9, 0x1AF4, 0x1100)


def pf(
    address: str, count: int = 4, vfs: tuple[tuple[int, VfSettings], ...] = (), autoprobe: bool = False
) -> PersistentPf:
    return PersistentPf(PciAddress.parse(address), IDS, PfState(count, autoprobe), vfs)


PFS = st.builds(
    PersistentPf,
    address=st.builds(PciAddress, st.integers(0, 0x10000), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7)),
    ids=st.tuples(*[st.integers(0, 0xFFFF)] * 4),
    state=st.builds(PfState, st.integers(1, 0xFFFF), st.none() | st.booleans()),
    vfs=st.dictionaries(st.integers(0, 300), ANY.filter(lambda settings: settings.to_json() != {}), max_size=3).map(
        lambda found: tuple(sorted(found.items(), key=lambda item: item[0]))
    ),
)


@given(st.lists(PFS, max_size=3, unique_by=lambda item: item.address))
def test_what_is_written_is_read_back(pfs: list[PersistentPf]) -> None:
    assert parse(render(pfs)) == sorted(pfs, key=lambda item: item.address)


def test_lines_of_an_editor_are_not_ours() -> None:
    text = render([pf(FIRST, vfs=((0, VfSettings(trust=True)),))])
    edited = text.replace("trust on", "trust on query_rss on").replace("exit", "make_vfs 0000:zz:00.0 4\nexit")
    assert parse(edited) == [pf(FIRST)]


def test_files_come_and_go_in_an_order_in_which_none_lacks_another(tmp_path: Path) -> None:
    host = SysfsTree(tmp_path).host()
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    empty = BootVfs.observe(host)
    assert empty.obstacle is None
    assert empty.plan([]) == []
    actions = empty.plan([pf(FIRST)])
    assert [action.target for action in actions] == [SCRIPT_PATH, UNIT_PATH, RATES_UNIT_PATH, WANTS_PATH]
    for action in actions:
        action.apply(host)
    full = BootVfs.observe(host)
    assert full.plan([pf(FIRST)]) == []
    assert full.pfs == (pf(FIRST),)
    assert [action.target for action in full.plan([pf(FIRST), pf(SECOND)])] == [SCRIPT_PATH]
    assert [action.target for action in full.plan([])] == [WANTS_PATH, RATES_UNIT_PATH, UNIT_PATH, SCRIPT_PATH]


def test_without_systemd_it_cannot_be(tmp_path: Path) -> None:
    obstacle = BootVfs.observe(SysfsTree(tmp_path).host()).obstacle
    assert obstacle is not None
    assert obstacle.code == "persistence_unsupported"


# -- in a shell ----------------------------------------------------------------------------------------------

IP = """#!/bin/sh
echo "$@" >>{log}
case "$*" in *refused*|*"vf 3"*) echo "RTNETLINK answers: Operation not supported" >&2; exit 2 ;; esac
if [ -e {busy} ]; then rm {busy}; echo "RTNETLINK answers: Resource temporarily unavailable" >&2; exit 2; fi
"""
# As nvme-cli 2 prints it.
NVME = """#!/bin/sh
echo "$@" >>{log}
case "$1" in
virt-mgmt)
    case "$*" in *"-n 9") echo "NVMe status: Invalid Number of Controller Resources(0x121)" >&2; exit 1 ;; esac ;;
list-secondary) cat <<'END' ;;
{{
  "num":2,
  "secondary-controllers":[
    {{
      "secondary-controller-identifier":7,
      "primary-controller-identifier":0,
      "secondary-controller-state":0,
      "virtual-function-number":1,
      "num-virtual-queues":0,
      "num-virtual-interrupts":0
    }},
    {{
      "secondary-controller-identifier":11,
      "primary-controller-identifier":0,
      "secondary-controller-state":0,
      "virtual-function-number":2,
      "num-virtual-queues":0,
      "num-virtual-interrupts":0
    }}
  ]
}}
END
esac
"""
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.fixture(name="tree")
def tree_fixture(tmp_path: Path) -> SysfsTree:
    tree = SysfsTree(tmp_path / "root")
    tree.add_device(
        FIRST, ids="8086:10c9", driver="igb", totalvfs=7, interfaces={"enp1s0": "52:54:00:00:01:00", "eth9": "0:0"}
    )
    tree.write("/sys/class/net/enp1s0/phys_port_name", "p0\n").write("/sys/class/net/eth9/phys_port_name", "pf0vf3\n")
    tree.add_device(SECOND, ids="8086:10c9", driver="igb", totalvfs=7, interfaces={"enp7s0": "52:54:00:00:07:00"})
    return tree


class Boot:
    """A run of the script on a tree of plain files."""

    def __init__(
        self,
        tree: SysfsTree,
        pfs: list[PersistentPf],
        shell: str = SHELLS[0],
        busy: bool = False,
        phase: str = "vfs",
    ) -> None:
        bin_directory, log, flag = tree.root / "bin", tree.root / "log", tree.root / "busy"
        bin_directory.mkdir(exist_ok=True)
        for name, text in (("ip", IP), ("nvme", NVME)):
            (bin_directory / name).write_text(text.format(log=log, busy=flag))
            (bin_directory / name).chmod(0o755)
        log.write_text("")
        if busy:
            flag.write_text("")
        text = render(pfs).replace("devices=/sys", f"devices={tree.root}/sys").replace("patience=300", "patience=2")
        words = [shell, "sh"] if shell == "busybox" else [shell]
        path = f"{bin_directory}:/usr/bin:/bin"
        self.done = subprocess.run(
            [*words, "-s", phase],
            input=text,
            env={"PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        self.commands = log.read_text().splitlines()
        self.tree = tree

    def number(self, address: str) -> str:
        return self.tree.path(f"{self.tree.device_path(address)}/sriov_numvfs").read_text().strip()

    def autoprobe(self, address: str) -> str:
        return self.tree.path(f"{self.tree.device_path(address)}/sriov_drivers_autoprobe").read_text().strip()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_makes_and_sets_what_it_names(tree: SysfsTree, shell: str) -> None:
    settings = VfSettings(mac="52:54:00:00:00:01", vlan=7, vlan_qos=3, vlan_protocol="802.1q", trust=True)
    boot = Boot(tree, [pf(FIRST, vfs=((0, settings),)), pf(SECOND, 2, autoprobe=True)], shell, busy=True)
    assert (boot.done.returncode, boot.done.stderr) == (0, "")
    assert [(boot.number(address), boot.autoprobe(address)) for address in (FIRST, SECOND)] == [("4", "0"), ("2", "1")]
    # The first attempt met a driver that was not ready.
    assert boot.commands == [
        "link set dev enp1s0 vf 0 mac 52:54:00:00:00:01",
        "link set dev enp1s0 vf 0 mac 52:54:00:00:00:01",
        "link set dev enp1s0 vf 0 vlan 7 qos 3 proto 802.1Q",
        "link set dev enp1s0 vf 0 trust on",
    ]


@pytest.mark.parametrize("shell", SHELLS)
def test_another_card_in_the_same_place_gets_nothing(tree: SysfsTree, shell: str) -> None:
    tree.set_attribute(FIRST, "subsystem_device", "0x9999")
    boot = Boot(tree, [pf(FIRST, vfs=((0, VfSettings(trust=True)),)), pf(SECOND)], shell)
    assert boot.done.returncode == 1
    assert f"{FIRST}: there is another device now, with the ids 0x8086 0x10c9 0x1af4 0x9999" in boot.done.stderr
    assert [boot.number(address) for address in (FIRST, SECOND)] == ["0", "4"]
    assert boot.commands == []


@pytest.mark.parametrize("shell", SHELLS)
def test_a_card_without_a_driver_is_waited_for_and_does_not_stop_the_others(tree: SysfsTree, shell: str) -> None:
    tree.bind(FIRST, None)
    boot = Boot(tree, [pf(FIRST), pf("0000:09:00.0"), pf(SECOND)], shell)
    assert boot.done.returncode == 1
    assert boot.done.stderr.splitlines() == [
        f"{address}: no such device, or no driver has taken it" for address in (FIRST, "0000:09:00.0")
    ]
    assert boot.number(SECOND) == "4"


@pytest.mark.parametrize("shell", SHELLS)
def test_virtual_functions_that_are_there_stay(tree: SysfsTree, shell: str) -> None:
    tree.set_attribute(FIRST, "sriov_numvfs", "2").set_attribute(SECOND, "sriov_numvfs", "4")
    trust = ((1, VfSettings(trust=True)),)
    boot = Boot(tree, [pf(FIRST, vfs=trust), pf(SECOND, vfs=trust)], shell)
    assert boot.done.stderr == f"{FIRST}: somebody else made 2 virtual functions instead of 4\n"
    assert [boot.number(address) for address in (FIRST, SECOND)] == ["2", "4"]
    assert boot.commands == ["link set dev enp7s0 vf 1 trust on"]


@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_driver_refuses_is_told_and_the_rest_is_set(tree: SysfsTree, shell: str) -> None:
    boot = Boot(tree, [pf(FIRST, vfs=((2, VfSettings(trust=True)), (3, VfSettings(trust=True))))], shell)
    assert boot.done.returncode == 1
    assert boot.done.stderr == f"{FIRST} 3 trust on: RTNETLINK answers: Operation not supported\n"
    assert boot.commands[0] == "link set dev enp1s0 vf 2 trust on"


@pytest.mark.parametrize("shell", SHELLS)
def test_secondary_controllers_of_a_drive(tree: SysfsTree, shell: str) -> None:
    drive = "0000:08:00.0"
    tree.add_device(drive, ids="8086:10c9", driver="nvme", totalvfs=2, nvme="nvme3")
    given = VfSettings(queues=3, interrupts=2)
    boot = Boot(tree, [pf(drive, 2, vfs=((0, VfSettings(queues=0, interrupts=0)), (1, given)))], shell)
    assert (boot.done.returncode, boot.done.stderr) == (0, "")
    listed = "list-secondary /dev/nvme3 -o json"
    assert boot.commands == [
        listed,
        *(f"virt-mgmt /dev/nvme3 -c 7 {words}" for words in ("-r 0 -a 7 -n 0", "-r 0 -a 8 -n 0", "-r 1 -a 8 -n 0")),
        listed,
        *(f"virt-mgmt /dev/nvme3 -c 11 {words}" for words in ("-r 0 -a 7 -n 0", "-r 0 -a 8 -n 3", "-r 1 -a 8 -n 2")),
        "virt-mgmt /dev/nvme3 -c 11 -r 0 -a 9 -n 0",
    ]
    assert Boot(tree, [pf(drive, 2, vfs=((1, given),))], shell, phase="rates").commands == []

    refused = Boot(tree, [pf(drive, 2, vfs=((0, VfSettings(queues=9, interrupts=1)),))], shell)
    assert refused.done.returncode == 1
    assert "Invalid Number of Controller Resources" in refused.done.stderr
    assert "queues 9 interrupts 1" in refused.done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_rates_wait_for_the_network(tree: SysfsTree, shell: str) -> None:
    pfs = [pf(address, vfs=((1, VfSettings(trust=True, max_tx_rate=50)),)) for address in (FIRST, SECOND)]
    assert Boot(tree, pfs[:1], shell).commands == ["link set dev enp1s0 vf 1 trust on"]
    later = Boot(tree, pfs, shell, phase="rates")
    assert later.commands == ["link set dev enp1s0 vf 1 max_tx_rate 50"]
    assert (later.done.returncode, later.number(SECOND)) == (0, "0")
