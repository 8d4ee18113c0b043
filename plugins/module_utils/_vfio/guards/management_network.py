# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An interface by which the host is reached stays with the host."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice, is_vfio_driver
from ..evidence import demand_the_hosts_network
from .base import Change, Guard, GuardContext, Reason


class ManagementNetwork(Guard):
    """This run's connection, default routes and addresses of the host, through whatever is stacked on the interface.

    A physical function is also answered for by its virtual functions, which go when its driver goes.
    """

    code = "management_network"
    changes = frozenset((Change.BIND, Change.REMOVE))

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        vfs = [context.bus.device(address) for address in device.vfs if address in context.bus]
        for function in (device, *vfs):
            if function.driver is not None and not is_vfio_driver(function.driver):
                demand_the_hosts_network(context.host)
            of_vf = "" if function is device else f", of its virtual function {function.address},"
            for interface in context.topology.interfaces(function):
                uses = context.network.uses(interface)
                if uses:
                    yield Reason(
                        f"The interface {interface} of {device.address}{of_vf} carries {'; '.join(uses)}.",
                        "Move addresses and routes to another interface first.",
                    )
