# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the host is reached: default routes, addresses, the SSH connection, and what carries them.

Sources: ip-address(8), ip-route(8) (JSON output), Documentation/ABI/testing/sysfs-class-net (``upper_*``, ``master``).
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cached_property
from typing import Any

from .._core.errors import PassthroughError
from .._core.host import Host
from .evidence import EvidenceMissing, evidence
from .topology import CLASS_NET

OVS_DATAPATH = "ovs-system"


class Network:
    """What the network interfaces of the host are used for. Everything is read on first use and then kept."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def uses(self, interface: str) -> list[str]:
        """What an interface carries for the host, itself or through the interfaces above it, as phrases.

        Each names what lies in between: ``the IPv4 default route (through br0.7 on br0 on bond0)``.

        :raises EvidenceMissing: when addresses or routes cannot be read
        """
        found = []
        for upper, chain in self._with_uppers(interface).items():
            through = f" (through {' on '.join(chain)})" if chain else ""
            found += [f"{purpose}{through}" for purpose in self._direct_uses.get(upper, [])]
            if upper == OVS_DATAPATH:
                # The kernel does not say which of the datapath's own interfaces goes out by which port.
                found.append("a port of Open vSwitch, which may carry the host's own traffic")
        return found

    def _with_uppers(self, interface: str) -> dict[str, list[str]]:
        """The interface and everything stacked on it (bond, team, bridge, VLAN, macvlan, VRF), nearest first.

        With each, what it reaches the interface by: itself, and what it is stacked on in turn.
        """
        found: dict[str, list[str]] = {interface: []}
        waiting = [interface]
        while waiting:
            lower = waiting.pop(0)
            directory = f"{CLASS_NET}/{lower}"
            uppers = [entry[len("upper_") :] for entry in self._host.list_dir(directory) if entry.startswith("upper_")]
            master = self._host.link_name(f"{directory}/master")
            for upper in uppers + ([master] if master is not None else []):
                if upper not in found:
                    found[upper] = [upper, *found[lower]]
                    waiting.append(upper)
        return found

    @evidence
    def _direct_uses(self) -> dict[str, list[str]]:
        uses: dict[str, list[str]] = defaultdict(list)
        for family, name in (("-4", "IPv4"), ("-6", "IPv6")):
            for interface in self._default_routes(family):
                uses[interface].append(f"the {name} default route")
        for item in self._ip("addr", "show"):
            for address in item.get("addr_info", []):
                local = str(address.get("local", ""))
                if local and local == self._ssh_address:
                    uses[item["ifname"]].insert(0, f"the SSH connection of this run ({local})")
                elif local and address.get("scope") not in ("link", "host"):
                    uses[item["ifname"]].append(f"the host's address {local}")
        return uses

    def _default_routes(self, family: str) -> list[str]:
        interfaces = []
        for route in self._ip(family, "route", "show", "table", "all", "default"):
            hops = [route, *route.get("nexthops", [])]
            interfaces += [str(hop["dev"]) for hop in hops if "dev" in hop]
        return list(dict.fromkeys(interfaces))

    def _ip(self, *arguments: str) -> list[dict[str, Any]]:
        try:
            printed = self._host.run(["ip", "-j", *arguments]).stdout
        except PassthroughError as error:
            raise EvidenceMissing(f"addresses and routes cannot be listed ({error})") from error
        try:
            listed = json.loads(printed or "[]")
        except ValueError:
            listed = None
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise EvidenceMissing(f"the output of 'ip -j {' '.join(arguments)}' is no list in JSON")
        return listed

    @cached_property
    def _ssh_address(self) -> str | None:
        """The local address of the SSH connection this run came in by.

        sudo takes SSH_CONNECTION out of the environment, but the shell that sshd started still has it.
        """
        pid = "self"
        while True:
            environment = self._host.attribute(f"/proc/{pid}/environ") or ""
            for variable in environment.split("\0"):
                words = variable.partition("SSH_CONNECTION=")[2].split()
                if variable.startswith("SSH_CONNECTION=") and len(words) == 4:
                    return words[2].partition("%")[0]
            # The command's name is in parentheses and may hold any character, so count from behind it.
            fields = (self._host.attribute(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
            if len(fields) < 2 or fields[1] == "0":
                return None
            pid = fields[1]
