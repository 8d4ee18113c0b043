# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of hosts of different kinds, and what the modules answer on them, for the tests of the audit.

Every answer is one that the code behind a module gave about a file tree; only how Ansible wraps answers (and what it
says of a host that it cannot reach) is written down here, as ansible-core 2.19 was seen to do it.
"""

from __future__ import annotations

import base64
import copy
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import Procedure, execute
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH, Record
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.report import iommu_report
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.connection import Connection
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.domain_hostdevs import build as build_hostdevs
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.hostdev_info import hostdev_report
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.hostdev_network import build as build_network
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.info import devices_report

from .domains import hostdev_xml
from .iommu import REMAPPED, TYPE1_KO, VFIO_KO, ready_host
from .kernel import FakeKernel
from .machine import TWINS, hypervisor
from .sysfs import SysfsTree

NAMES = """\
8086  Intel Corporation
\t10c9  82576 Gigabit Network Connection
\t10ca  82576 Virtual Function
\t10d3  82574L Gigabit Network Connection
\t1533  I210 Gigabit Network Connection
\t3e98  CoffeeLake-S GT2 [UHD Graphics 630]
\ta36d  Cannon Lake PCH USB 3.1 xHCI Host Controller
\ta348  Cannon Lake PCH cAVS
\ta305  Z390 Chipset LPC/eSPI Controller
\ta323  Cannon Lake PCH SMBus Controller
\t3ec2  8th Gen Core Processor Host Bridge/DRAM Registers
\t1901  6th-10th Gen Core Processor PCIe Controller (x16)
\ta340  Cannon Lake PCH PCI Express Root Port #21
10de  NVIDIA Corporation
\t1e87  TU104 [GeForce RTX 2080 Rev. A]
\t10f8  TU104 HD Audio Controller
\t1ad8  TU104 USB 3.1 Host Controller
144d  Samsung Electronics Co Ltd
\ta808  NVMe SSD Controller SM981/PM981/PM983
14e4  Broadcom Inc. and subsidiaries
\t1657  NetXtreme BCM5719 Gigabit Ethernet PCIe
15b3  Mellanox Technologies
\t1016  MT27710 Family [ConnectX-4 Lx Virtual Function]
1022  Advanced Micro Devices, Inc. [AMD]
\t1480  Starship/Matisse Root Complex
"""

MANAGEMENT = "enp3s0"
HOSTILE = "<script>alert('x')</script>&\"{{ 7 * 7 }}"


# -- libvirt, as far as it is asked --------------------------------------------------------------------------


class Domain:
    """A domain of a libvirt that has nothing but definitions."""

    persistent = True

    def __init__(self, name: str, devices: str = "", live: str | None = None) -> None:
        self.name = name
        self.uuid = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        self.active = live is not None
        self._devices, self._live = devices, live

    def config_xml(self) -> str:
        return self._xml(self._devices)

    def live_xml(self) -> str:
        return self._xml(self._live or "")

    def _xml(self, devices: str) -> str:
        name = self.name.replace("&", "&amp;").replace("<", "&lt;")
        return (
            f"<domain type='kvm'><name>{name}</name><uuid>{self.uuid}</uuid><memory>65536</memory>"
            f"<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{devices}</devices></domain>"
        )


class Network:
    """A network of it, in which nobody has a port."""

    persistent = active = autostart = True

    def __init__(self, name: str, forward: str) -> None:
        self.name = name
        self.uuid = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        self._forward = forward

    def config_xml(self) -> str:
        return f"<network><name>{self.name}</name><uuid>{self.uuid}</uuid>{self._forward}</network>"

    live_xml = config_xml

    def port_xmls(self) -> Sequence[str]:
        return []


class Libvirt:
    """The daemon."""

    uri = "qemu:///system"
    version = qemu_version = (10, 0, 0)

    def __init__(self, domains: Sequence[Domain] = (), networks: Sequence[Network] = ()) -> None:
        self._domains, self._networks = domains, networks

    def domain(self, name: str) -> Domain:
        for domain in self._domains:
            if domain.name == name:
                return domain
        raise PassthroughError("domain_not_found", f"There is no domain {name!r}.", "Define it.", domain=name)

    def domains(self) -> Sequence[Domain]:
        return self._domains

    def network(self, name: str) -> Network | None:
        return next((network for network in self._networks if network.name == name), None)

    def networks(self) -> Sequence[Network]:
        return self._networks


# -- answers --------------------------------------------------------------------------------------------------

UNREACHABLE: dict[str, Any] = {
    "changed": False,
    "msg": "Task failed: Failed to connect to the host via ssh: ssh: connect to host kvm7 port 22: No route to host",
    "unreachable": True,
}
NO_PYTHON: dict[str, Any] = {
    "changed": False,
    "failed": False,
    "failed_when_result": False,
    "module_stderr": "/bin/sh: 1: /usr/bin/python3.13: not found\n",
    "module_stdout": "",
    "msg": "The module interpreter '/usr/bin/python3.13' was not found.",
    "rc": 127,
}
NO_BINDINGS: dict[str, Any] = {
    "changed": False,
    "code": "python_module_missing",
    "failed": False,
    "failed_when_result": False,
    "missing": ["libvirt"],
    "msg": "The Python module libvirt cannot be imported by /usr/bin/python3.11 nor by any of /usr/bin/python3. "
    "Install python3-libvirt (SUSE: python3-libvirt-python) and python3-lxml on this host.",
}
SKIPPED: dict[str, Any] = {
    "changed": False,
    "false_condition": "vfio_audit_libvirt | bool",
    "skip_reason": "Conditional result was False",
    "skipped": True,
}
NO_STATE: dict[str, Any] = {
    "changed": False,
    "failed": False,
    "failed_when_result": False,
    "msg": f"file not found: {STATE_PATH}",
}


def registered(query: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a task registers, with ``failed_when: false``."""
    try:
        result = query()
    except PassthroughError as error:
        result = error.as_result()
    answer: dict[str, Any] = json.loads(json.dumps({**result, "changed": False}))
    return {**answer, "failed": False, "failed_when_result": False}


def registered_loop(
    items: Sequence[Mapping[str, Any]], query: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """What a task registers that asks in a loop."""
    return {"changed": False, "results": [{**registered(lambda: query(item)), "item": item} for item in items]}  # noqa: B023


def answers(
    host: Host,
    libvirt: Libvirt | None = None,
    networks: Sequence[Mapping[str, Any]] = (),
    domains: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What the tasks of the role register on a host.

    :param networks: ``vfio_guest_networks`` of the inventory
    :param domains: ``vfio_guest_domains``
    """

    def connect(_uri: str) -> Connection:
        return libvirt  # type: ignore[return-value]  # it has what a query asks for, and nothing that changes anything

    def hostdevs() -> dict[str, Any]:
        return hostdev_report(host, {"uri": Libvirt.uri, "path": None}, connect)

    def predicted(procedure: Procedure[Any]) -> dict[str, Any]:
        return execute(host, procedure, module="audit", check_mode=True)

    def network(item: Mapping[str, Any]) -> dict[str, Any]:
        return predicted(build_network(host, {"uri": Libvirt.uri, "state": "active", "managed": True, **item}, connect))

    def domain(item: Mapping[str, Any]) -> dict[str, Any]:
        hostdevs = [{"managed": True, "assigned": True, **one} for one in item["hostdevs"]]
        options = {"uri": Libvirt.uri, "scope": "config", "timeout": 60, "state": item.get("state", "present")}
        return predicted(build_hostdevs(host, {**options, "domain": item["name"], "hostdevs": hostdevs}, connect))

    state: dict[str, Any] = NO_STATE
    if host.exists(STATE_PATH):
        content = base64.b64encode(host.read_bytes(STATE_PATH)).decode()
        state = {"changed": False, "content": content, "encoding": "base64", "failed": False}
    return {
        "iommu_info": registered(lambda: iommu_report(host, with_groups=True)),
        "pci_device_info": registered(lambda: devices_report(host, None)),
        "hostdev_info": NO_BINDINGS if libvirt is None else registered(hostdevs),
        "state": state,
        "vfio_devices": SKIPPED,
        "hostdev_network": registered_loop(networks, network),
        "domain_hostdevs": registered_loop(domains, domain),
    }


def ip_of(interface: str) -> Callable[[Sequence[str], float, str | None], Completed]:
    """A runner on which ``ip`` tells that this interface has the host's address."""
    has = [{"ifname": interface, "addr_info": [{"family": "inet", "local": "192.0.2.7", "scope": "global"}]}]
    route = [{"dst": "default", "gateway": "192.0.2.1", "dev": interface}]

    def run(argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        if argv[0] != "ip":
            raise FileNotFoundError(argv[0])
        return Completed(tuple(argv), 0, json.dumps(has if "addr" in argv else route if "-4" in argv else []), "")

    return run


# -- kinds of hosts --------------------------------------------------------------------------------------------


def _prepared(root: Path) -> SysfsTree:
    tree = ready_host(root).write("/usr/share/misc/pci.ids", NAMES).write("/proc/iomem", "")
    tree.write("/proc/self/mountinfo", "25 1 259:0 / / rw shared:1 - ext4 /dev/nvme0n1 rw\n").write("/proc/swaps", "")
    tree.link("/proc/1/fd/0", "/dev/null")
    return tree


def workstation(tree: SysfsTree, gpu: str = "vfio-pci", groups: bool = True) -> SysfsTree:
    """A desktop board with a graphics card to give away, and all that a board has besides."""

    def add(address: str, ids: str, pci_class: int, driver: str | None, group: int, **more: Any) -> None:
        tree.add_device(address, ids=ids, pci_class=pci_class, driver=driver, group=group if groups else None, **more)

    add("0000:00:00.0", "8086:3ec2", 0x060000, None, 0)
    add("0000:00:01.0", "8086:1901", 0x060400, "pcieport", 1, bridge=True)
    add("0000:00:02.0", "8086:3e98", 0x030000, "i915", 2, boot_vga=True)
    add("0000:00:14.0", "8086:a36d", 0x0C0330, "xhci_hcd", 3)
    add("0000:00:1b.0", "8086:a340", 0x060400, "pcieport", 4, bridge=True)
    add("0000:00:1f.0", "8086:a305", 0x060100, None, 5)
    add("0000:00:1f.3", "8086:a348", 0x040300, "snd_hda_intel", 5)
    add("0000:00:1f.4", "8086:a323", 0x0C0500, "i801_smbus", 5)
    tree.add_keyboard(0, f"{tree.device_path('0000:00:14.0')}/usb1/1-1")
    add("0000:01:00.0", "10de:1e87", 0x030000, gpu, 1, boot_vga=False)
    add("0000:01:00.1", "10de:10f8", 0x040300, gpu, 1)
    add("0000:01:00.2", "10de:1ad8", 0x0C0330, gpu, 1)
    add("0000:02:00.0", "144d:a808", 0x010802, "nvme", 6, nvme="nvme0")
    add("0000:03:00.0", "8086:1533", 0x020000, "igb", 7, interfaces={MANAGEMENT: "52:54:00:00:03:00"})
    add("0000:04:00.0", "144d:a808", 0x010802, "nvme", 8)
    return tree


GPU = ("0000:01:00.0", "0000:01:00.1", "0000:01:00.2")


def gaming(root: Path) -> dict[str, Any]:
    """VT-d at work; a guest runs with the graphics card."""
    tree = workstation(_prepared(root)).add_vtd().write("/proc/interrupts", REMAPPED)
    devices = "".join(map(hostdev_xml, GPU))
    return answers(tree.host(runner=ip_of(MANAGEMENT)), Libvirt([Domain("win11", devices, devices), Domain("dev")]))


def switched_off(root: Path) -> dict[str, Any]:
    """VT-d, switched off by a parameter; no libvirt."""
    tree = workstation(_prepared(root), "nouveau", groups=False).add_vtd(active=False).set_cmdline("intel_iommu=off")
    return answers(tree.host(runner=ip_of(MANAGEMENT)))


def no_firmware(root: Path) -> dict[str, Any]:
    """No IOMMU in the firmware."""
    tree = workstation(_prepared(root), "nouveau", groups=False)
    return answers(tree.host(runner=ip_of(MANAGEMENT)), Libvirt())


def _hypervisor(root: Path) -> FakeKernel:
    """A machine with VT-d at work, and with names for its devices."""
    kernel = hypervisor(root)
    tree = kernel.tree
    tree.write("/proc/sys/kernel/arch", "x86_64\n").write("/dev/kvm", "").set_cpu().write("/proc/interrupts", REMAPPED)
    tree.add_vtd().add_modules(available=[VFIO_KO, TYPE1_KO])
    tree.write("/usr/share/misc/pci.ids", NAMES).write("/proc/iomem", "")
    return kernel


def server(root: Path) -> dict[str, Any]:
    """Network cards: VFs in a pool, one that two guests have, one that is gone, one that somebody took back."""
    kernel = _hypervisor(root)
    tree = kernel.tree
    twice = hostdev_xml("0000:05:00.0")
    four = "".join(hostdev_xml(f"0000:02:00.{function}") for function in (0, 1))
    records = [
        Record(
            "driver",
            "0000:06:00.0 8086:10d3",
            {"driver": "e1000e", "driver_override": None},
            {"driver": "vfio-pci", "driver_override": "vfio-pci"},
            module="vfio_devices",
            time="2026-11-20T10:00:00Z",
        ),
        Record(
            "sriov",
            "0000:01:00.0 8086:10c9",
            {"count": 0, "drivers_autoprobe": True},
            {"count": 7, "drivers_autoprobe": True},
            module="sriov_vfs",
            time="2026-11-20T10:01:00Z",
        ),
    ]
    data = {"version": 1, "records": [record.to_json() for record in records]}
    tree.write(STATE_PATH, json.dumps(data))
    libvirt = Libvirt(
        [Domain("web01", twice), Domain("web02", twice + hostdev_xml("0000:0f:00.0")), Domain("db01", four)],
        [Network("vf-pool", "<forward mode='hostdev' managed='yes'><pf dev='enp1s0'/></forward>")],
    )
    return answers(kernel, libvirt)


def guests(root: Path) -> dict[str, Any]:
    """Guests and a pool, and an inventory that asks for something else."""
    kernel = _hypervisor(root)
    first, second = TWINS
    libvirt = Libvirt(
        [Domain("web01", hostdev_xml(first)), Domain("web02", hostdev_xml(second)), Domain("db01"), Domain("db02")],
        [Network("vf-pool", "<forward mode='hostdev' managed='yes'><pf dev='enp1s0'/></forward>")],
    )
    return answers(
        kernel,
        libvirt,
        networks=[{"name": "vf-pool", "pf": "enp1s0", "vlan": 42}, {"name": "old-pool", "state": "absent"}],
        domains=[
            {"name": "web01", "state": "exact", "hostdevs": [{"device": first}]},
            {"name": "web02", "state": "exact", "hostdevs": []},
            {"name": "db01", "hostdevs": [{"device": second}]},
            {"name": "db02", "hostdevs": [{"device": first}]},
            {"name": "web09", "hostdevs": [{"device": "0000:02:00.0"}]},
        ],
    )


def amd(root: Path) -> dict[str, Any]:
    """AMD-Vi at work; the graphics card waits for a guest, and firmware keeps memory for a disk."""
    tree = workstation(_prepared(root)).add_amdvi().set_cpu("AuthenticAMD", "fpu svm")
    tree.write("/proc/interrupts", REMAPPED)
    regions = "0x00000000fee00000 0x00000000feefffff msi\n0x000000007b800000 0x000000007fffffff direct\n"
    tree.write("/sys/kernel/iommu_groups/8/reserved_regions", regions)
    return answers(tree.host(runner=ip_of(MANAGEMENT)), Libvirt([Domain("render")]))


def mainframe(root: Path) -> dict[str, Any]:
    """IBM Z."""
    tree = SysfsTree(root).write("/proc/sys/kernel/arch", "s390x\n").write("/dev/kvm", "").write("/proc/iomem", "")
    tree.write("/usr/share/misc/pci.ids", NAMES).write("/proc/self/mountinfo", "").write("/proc/swaps", "")
    tree.write("/proc/cpuinfo", "vendor_id       : IBM/S390\nfeatures\t: esan3 zarch stfle msa sie\n")
    tree.add_modules(available=[VFIO_KO, TYPE1_KO])
    for number, driver in enumerate(("vfio-pci", "mlx5_core", None), 1):
        address = f"{number:04x}:00:00.0"
        tree.add_zpci(address, number, ids="15b3:1016", pci_class=0x020000, driver=driver, group=number)
        tree.set_zpci(address, uid=number, fid=number)
    return answers(tree.host(runner=ip_of("enc1000")), Libvirt([Domain("linux1", hostdev_xml("0001:00:00.0"))]))


def arm(root: Path) -> dict[str, Any]:
    """An Arm SMMU."""
    tree = _prepared(root).write("/proc/sys/kernel/arch", "aarch64\n").add_smmu()
    tree.add_device("0000:00:01.0", ids="8086:10d3", pci_class=0x020000, driver="e1000e", group=0)
    return answers(tree.host(runner=ip_of(MANAGEMENT)))


def container(root: Path) -> dict[str, Any]:
    """Where there is nothing to be seen."""
    return answers(SysfsTree(root).write("/run/.containerenv", "").host(runner=ip_of("eth0")))


def hostile(root: Path) -> dict[str, Any]:
    """A host that says of its devices, its guests and its kernel whatever it likes."""
    tree = workstation(_prepared(root)).add_vtd().write("/proc/interrupts", REMAPPED)
    tree.write("/usr/share/misc/pci.ids", f"10de  {HOSTILE}\n\t1e87  {HOSTILE}\n")
    tree.write("/proc/sys/kernel/osrelease", f"6.1{HOSTILE}\n").write("/sys/block/nvme0n1/device/model", HOSTILE)
    evil = hostdev_xml(GPU[0])
    found = answers(tree.host(runner=ip_of(MANAGEMENT)), Libvirt([Domain(HOSTILE, evil), Domain("b", evil)]))
    # What no kernel would say, but another program in the module's place may.
    evil_answers: dict[str, Any] = _everywhere(found, HOSTILE)
    return evil_answers


def _everywhere(value: Any, evil: str) -> Any:
    """Every text that is no address and no code, with something evil at its end."""
    if isinstance(value, dict):
        return {name: item if name in _KEPT else _everywhere(item, evil) for name, item in value.items()}
    if isinstance(value, list):
        return [_everywhere(item, evil) for item in value]
    return f"{value}{evil}" if isinstance(value, str) else value


_KEPT = frozenset({"address", "device", "pci_class", "content"})

KINDS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "gaming": gaming,
    "server": server,
    "amd": amd,
    "mainframe": mainframe,
    "arm": arm,
    "switched-off": switched_off,
    "no-firmware": no_firmware,
    "container": container,
}


def kinds(root: Path) -> dict[str, dict[str, Any]]:
    """One host of each kind, and those that cannot be looked at."""
    found = {name: make(root / name) for name, make in KINDS.items()}
    found["unreachable"] = {"iommu_info": UNREACHABLE, **dict.fromkeys(("pci_device_info", "hostdev_info"), SKIPPED)}
    found["no-python"] = dict.fromkeys(("iommu_info", "pci_device_info", "hostdev_info", "state"), NO_PYTHON)
    found["never-asked"] = {}
    return found


def fleet(root: Path, size: int) -> dict[str, dict[str, Any]]:
    """So many hosts of all kinds in turn."""
    made = list(kinds(root).items())
    return {
        f"{name}{number // len(made) + 1}.example.com": copy.deepcopy(results)
        for number in range(size)
        for name, results in [made[number % len(made)]]
    }
