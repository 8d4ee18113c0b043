# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible as an operator runs it, against a machine of the lab or others, with results a test can look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from tests.lab.run import LabError

HERE = Path(__file__).resolve().parent

# An emulated host takes 3-5 s per task, and update-initramfs minutes.
RUN_LIMIT = 1500.0

# Not part of what a module says: how Ansible itself describes the call.
NOISE = ("invocation", "_ansible_no_log", "_ansible_verbose_always", "_ansible_delegated_vars", "ansible_facts")

Execute = Callable[[Sequence[str], Mapping[str, str], float], tuple[int, str]]
"""Runs a program with an environment for at most so many seconds; returns its exit status and all it printed."""


@dataclass(frozen=True)
class Call:
    """A module of this collection, what it is asked for, and whether in check mode."""

    module: str
    arguments: Mapping[str, Any]
    check: bool = False


@dataclass(frozen=True)
class TaskResult:
    """How one task ended on one host."""

    task: str
    action: str
    host: str
    status: str
    result: dict[str, Any]

    @property
    def changed(self) -> bool:
        """Whether the task changed, or in check mode would change, something."""
        return bool(self.result.get("changed"))


@dataclass(frozen=True)
class Run:
    """How one call of Ansible ended: exit status, what a person saw, and every task's result."""

    rc: int
    output: str
    tasks: list[TaskResult]

    def of(self, action: str) -> list[TaskResult]:
        """The results of one module, by its short or full name, skipped ones left out."""
        short = action.split(".")[-1]
        return [task for task in self.tasks if task.action.split(".")[-1] == short and task.status != "skipped"]

    @property
    def only(self) -> TaskResult:
        """The result of a call that ran exactly one task."""
        assert len(self.tasks) == 1, self.output
        return self.tasks[0]


def execute_quietly(argv: Sequence[str], environment: Mapping[str, str], limit: float) -> tuple[int, str]:
    """The :data:`Execute` for tests: nothing is shown while it runs."""
    done = subprocess.run(
        argv,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=limit,
        check=False,
    )
    return done.returncode, done.stdout


class Reachable(Protocol):
    """What Ansible can be run against: a machine of the lab, say."""

    @property
    def inventory(self) -> Path:
        """The inventory that says how it is reached."""


class Controller:
    """Runs ``ansible`` and ``ansible-playbook`` against a machine, with the collection where make put it."""

    def __init__(
        self,
        machine: Reachable,
        *,
        inventories: Sequence[Path] = (),
        config: Path = HERE / "ansible.cfg",
        collections: Path | None = None,
        execute: Execute = execute_quietly,
    ) -> None:
        """Hold what is the same in every call.

        :param inventories: further inventories beside the machine's own, which only says how it is reached
        :param collections: where another copy of the collection is installed, and nothing else
        """
        self.inventories = (machine.inventory, *inventories)
        self._config = config
        self._collections = collections
        self._execute = execute

    def _environment(self, record: Path) -> dict[str, str]:
        """This collection, no configuration of the user's, and results written down."""
        collections = self._collections or os.environ.get("ANSIBLE_COLLECTIONS_PATH")
        if collections is None:
            raise LabError(
                "ANSIBLE_COLLECTIONS_PATH is not set: start this through make, which puts the collection there"
            )
        # PYTHONPATH has this checkout, where Ansible would look for what another copy lacks.
        dropped = ("ANSIBLE_", "PYTHONPATH") if self._collections else ("ANSIBLE_",)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(dropped)},
            "ANSIBLE_CONFIG": str(self._config),
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "record",
            "ANSIBLE_LOAD_CALLBACK_PLUGINS": "True",
            "KVM_PASSTHROUGH_RECORD": str(record),
            "LC_ALL": "C.UTF-8",
        }

    def module(
        self, name: str, arguments: Mapping[str, Any] | str = "", *, check: bool = False, become: bool = True
    ) -> TaskResult:
        """Run one module ad hoc, of this collection or by its full name; ``arguments`` as typed, or a mapping."""
        words = ["-m", name if "." in name else f"kvm.passthrough.{name}"]
        if arguments:
            words += ["-a", arguments if isinstance(arguments, str) else json.dumps(arguments)]
        words += ["-b"] if become else []
        words += ["--check"] if check else []
        return self.run("ansible", "kvm_hosts", *words).only

    def modules(self, calls: Sequence[Call]) -> list[TaskResult]:
        """Run modules in turn on the one host, each whatever the one before said; one play costs less than many."""
        tasks = [{f"kvm.passthrough.{call.module}": dict(call.arguments), "check_mode": call.check} for call in calls]
        run = self.play(tasks, "--become")
        assert len(run.tasks) == len(calls), run.output
        return run.tasks

    def play(self, tasks: Sequence[Mapping[str, Any]], *words: str) -> Run:
        """Run tasks on all hosts, without facts, each whatever became of the one before."""
        play = {"hosts": "kvm_hosts", "gather_facts": False, "ignore_errors": True, "tasks": list(tasks)}
        with tempfile.TemporaryDirectory(prefix="kvm-passthrough-play-") as directory:
            playbook = Path(directory) / "play.yml"
            playbook.write_text(json.dumps([play]), encoding="utf-8")
            run = self.run("ansible-playbook", str(playbook), *words, limit=RUN_LIMIT * len(tasks))
        ended = [replace(task, status="failed") if task.status == "ignored" else task for task in run.tasks]
        return replace(run, tasks=ended)

    def playbook(self, name: str, *words: str, check: bool = False) -> Run:
        """Run a playbook of this collection (``site``)."""
        return self.run("ansible-playbook", f"kvm.passthrough.{name}", *(["--check"] if check else []), *words)

    def run(self, program: str, *words: str, limit: float = RUN_LIMIT) -> Run:
        """Run a program of Ansible's from this Python's environment for at most ``limit`` seconds."""
        inventories = [word for path in self.inventories for word in ("-i", str(path))]
        argv = [str(Path(sys.executable).parent / program), *inventories, *words]
        with tempfile.TemporaryDirectory(prefix="kvm-passthrough-record-") as directory:
            record = Path(directory) / "tasks.jsonl"
            status, output = self._execute(argv, self._environment(record), limit)
            lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
        return Run(status, output, [TaskResult(**json.loads(line)) for line in lines])


def quadruple(ansible: Controller, module: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Check, run, check, run; the check predicted the run to the letter, and the second pair changes nothing."""
    check, run, check_again, run_again = ansible.modules(
        [Call(module, arguments, check) for check in (True, False, True, False)]
    )
    for task in (check, run, check_again, run_again):
        assert task.status == "ok", task.result["msg"]
    assert told(check.result) == told(run.result)
    assert run.changed
    assert run.result["actions"]
    assert not check_again.changed
    assert not run_again.changed
    assert run_again.result["actions"] == []
    assert told(check_again.result) == told(run_again.result)
    return run.result


def refusals(ansible: Controller, module: str, arguments: Mapping[str, Any]) -> list[str]:
    """The codes with which a module refuses something."""
    task = ansible.module(module, arguments)
    assert task.status == "failed", task.result
    return [problem["code"] for problem in task.result["problems"]]


def told(result: dict[str, Any]) -> dict[str, Any]:
    """What a module said, without what Ansible adds."""
    return {name: value for name, value in result.items() if name not in NOISE}
