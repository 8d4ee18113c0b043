# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demonstration does, step by step, and what it checks at each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests import lab
from tests.lab.controller import Controller, Run, TaskResult

from . import comparison, stream

HERE = Path(__file__).resolve().parent
INVENTORY = HERE / "inventory"
DOMAIN = "guest2"
DRIVER = "vfio-pci"

_GUEST_LIMIT = 300.0


class Differs(Exception):
    """Something is not as it was asked for, so that the rest of the story makes no sense."""


class Story:
    """The demonstration on one running machine."""

    def __init__(self, machine: lab.Machine) -> None:
        self._machine = machine
        self._controller = Controller(
            machine, inventories=(INVENTORY,), config=HERE / "ansible.cfg", execute=self._execute
        )
        self._variables: dict[str, Any] = {}
        self._drivers: dict[str, str | None] = {}
        self._rows: list[comparison.Row] = []
        self.problems: list[str] = []

    def tell(self) -> None:
        """Go through all steps; ``problems`` has what differed at the end.

        :raises Differs: when going on makes no sense
        """
        steps: Sequence[tuple[str, Callable[[], None]]] = (
            ("What is asked for", self._show_inventory),
            ("Before: the IOMMU of this host is off", self._before),
            ("kvm.passthrough.site: from there to the running guest", self._site),
            ("What the guest itself says", self._guest),
            ("kvm.passthrough.site again: there is nothing left to do", self._again),
            ("Another reboot: the devices stay with VFIO", self._reboot),
            ("Asked for, and got", self._compare),
        )
        for number, (title, step) in enumerate(steps, 1):
            stream.say()
            stream.say(f"=== {stream.elapsed()}  {number}/{len(steps)}  {title}")
            step()

    # -- the steps --------------------------------------------------------------------------------------

    def _show_inventory(self) -> None:
        for path in sorted((INVENTORY / "group_vars").iterdir()):
            stream.say(f"{path.relative_to(HERE.parents[1])}:")
            _licence, text = path.read_text(encoding="utf-8").split("\n\n", 1)
            for line in text.splitlines():
                stream.say(f"    {line}".rstrip())
            self._variables.update(yaml.safe_load(text))

    def _before(self) -> None:
        result = self._module("iommu_info").result
        self._demand(result["state"] != "active", "The IOMMU is active already, so there is nothing to show.")

    def _site(self) -> None:
        boot = self._machine.wait_ssh()
        run = self._playbook("site")
        for action in ("kernel_parameters", "reboot", "vfio_devices", "domain_hostdevs"):
            self._demand(any(task.changed for task in run.of(action)), f"{action} changed nothing.")
        self._demand(self._machine.wait_ssh() != boot, "The host was not rebooted.")

    def _guest(self) -> None:
        functions = self._machine.guest_pci_list(DOMAIN, timeout=_GUEST_LIMIT)
        stream.say(f"PCI devices, listed by {DOMAIN}'s own kernel on its serial console:")
        for function in functions:
            stream.say(f"    {function.address} [{function.ids}] class {function.pci_class}")
        self._rows = comparison.compare(comparison.read_inventory(self._variables, DOMAIN), functions)

    def _again(self) -> None:
        boot = self._machine.wait_ssh()
        run = self._playbook("site")
        for task in run.tasks:
            self._demand(not task.changed, f"The second run changed something: {task.task}.")
        self._demand(self._machine.wait_ssh() == boot, "The second run rebooted the host.")

    def _reboot(self) -> None:
        boot = self._machine.wait_ssh()
        self._module("ansible.builtin.reboot", "reboot_timeout=900")
        if self._machine.wait_ssh() == boot:
            raise Differs("The host was not rebooted.")
        devices = [device["address"] for device in self._variables["vfio_host_devices"]]
        found = Controller(self._machine).module("pci_device_info", {"devices": devices})
        if found.status != "ok":
            raise Differs(f"pci_device_info failed: {found.result['msg']}")
        self._drivers = {device["address"]: device["driver"] for device in found.result["devices"]}
        for address, driver in self._drivers.items():
            stream.say(f"    {address}  {driver or 'no driver'}")
            self._demand(
                driver == DRIVER, f"After the reboot, {address} is bound to {driver or 'no driver'}, not {DRIVER}."
            )

    def _compare(self) -> None:
        stream.say(comparison.table(self._rows, self._drivers, DRIVER))
        for row in self._rows:
            for problem in row.problems:
                self._demand(False, f"{row.asked.host} ({row.asked.name}): {problem}.")

    # -- Ansible ----------------------------------------------------------------------------------------

    def _demand(self, holds: bool, problem: str) -> None:
        if not holds:
            stream.say(f"!!! {problem}")
            self.problems.append(problem)

    def _module(self, name: str, arguments: str = "") -> TaskResult:
        task = self._controller.module(name, arguments)
        if task.status != "ok":
            raise Differs(f"{name} failed.")
        return task

    def _playbook(self, name: str) -> Run:
        run = self._controller.playbook(name)
        if run.rc or not run.tasks:
            raise Differs(f"{name} failed.")
        return run

    def _execute(self, argv: Sequence[str], environment: Mapping[str, str], limit: float) -> tuple[int, str]:
        """Run Ansible where a person watches: what is typed, then what comes of it."""
        inventories = 2 * len(self._controller.inventories)
        shown = [f"'{word}'" if set(word) & set(" {\"'") else word for word in argv[1 + inventories :]]
        stream.say(f"$ {Path(argv[0]).name} -i inventory {' '.join(shown)}")
        try:
            return stream.run(argv, {**environment, **stream.colour()}, limit=limit)
        except stream.TimeUp as error:
            raise Differs(f"{' '.join(shown)}: {error}") from error
