# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab from the command line: ``python3 -m tests.lab --help``, from the repository's root."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence

from . import DEFAULT, DEFAULT_LIMIT, LARGE, MACHINES, build, cache, console, qemu, small, start
from .machine import attach, find_machines
from .run import LabError, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    options = _parser().parse_args(arguments)
    # Without this, being ended would leave a half-built machine running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status: int = options.action(options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.lab",
        description="KVM hosts with PCI devices and an IOMMU, emulated.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("build", help="fill the cache, so that a start takes seconds")
    command.set_defaults(action=_build)
    command.add_argument("machine", choices=MACHINES, nargs="?", help="default: all")

    command = commands.add_parser("start", help="start a machine and leave it running")
    command.set_defaults(action=_start)
    command.add_argument("machine", choices=MACHINES)
    command.add_argument("--snapshot", help="a state of a large machine; 'machines' lists them, the first is taken")
    command.add_argument("--boot", action="store_true", help="of a large machine, boot it instead of restoring it")
    command.add_argument("--name", help="what to call it; default: the machine's name")
    command.add_argument("--limit", type=float, default=DEFAULT_LIMIT, metavar="SECONDS",
                         help="end it after this time (%(default).0f)")  # fmt: skip

    for name, action, text in (
        ("stop", _stop, "end a running machine and forget what happened on it"),
        ("console", console.main, "attach to its serial console; Ctrl-] leaves it"),
        ("inventory", _inventory, "print the path of its Ansible inventory"),
    ):
        command = commands.add_parser(name, help=text)
        command.set_defaults(action=action)
        command.add_argument("name", nargs="?", default=DEFAULT)

    command = commands.add_parser("ssh", help="log in to it, or run a command on it")
    command.set_defaults(action=_ssh)
    command.add_argument("name")
    command.add_argument("command", nargs=argparse.REMAINDER)

    command = commands.add_parser("machines", help="list the machines there are")
    command.set_defaults(action=_machines)

    command = commands.add_parser("status", help="list what runs and what is cached")
    command.set_defaults(action=_status)
    command.add_argument("name", nargs="?", help="only this machine, and whether it runs as exit status")

    command = commands.add_parser("prune", help="remove from the cache what nothing needs any more")
    command.set_defaults(action=_prune)
    return parser


def _build(options: argparse.Namespace) -> int:
    for machine in [options.machine] if options.machine else MACHINES:
        build(machine)
    say("all is built")
    return 0


def _machines(_options: argparse.Namespace) -> int:
    for name, large in LARGE.items():
        states = ", ".join(f"{state.name} ({state.about})" for state in large.states)
        print(f"{name}: a complete host on a disk, {large.about}; snapshots: {states}")
    for name, machine in small.MACHINES.items():
        print(f"{name}: {machine.about}")
    return 0


def _start(options: argparse.Namespace) -> int:
    machine = start(
        options.machine,
        snapshot=options.snapshot,
        boot=options.boot,
        name=options.name or options.machine,
        limit=options.limit,
    )
    print(machine.inventory)
    return 0


def _stop(options: argparse.Namespace) -> int:
    machines = find_machines(options.name)
    for machine in machines:
        machine.stop()
    if not machines:
        say(f"no machine '{options.name}' is running")
    return 0


def _ssh(options: argparse.Namespace) -> int:
    machine = attach(options.name)
    argv = [*machine.ssh_argv(), *options.command]
    sys.stdout.flush()
    os.execv(argv[0], argv)


def _inventory(options: argparse.Namespace) -> int:
    print(attach(options.name).inventory)
    return 0


def _status(options: argparse.Namespace) -> int:
    machines = find_machines(options.name)
    for machine in machines:
        state = f"process {machine.pid}, ssh port {machine.ssh_port}" if machine.running() else "ended"
        print(f"machine {machine.name}: {state}, from {machine.artefact}")
    if options.name:
        return 0 if any(machine.running() for machine in machines) else 1
    current = _current()
    for entry in sorted(cache.cache_directory().iterdir()):
        if entry.is_dir() and entry.name != "run":
            note = "" if entry.name in current else " (not needed any more)"
            print(f"cached {entry.name}: {_size(entry)} MiB{note}")
    return 0


def _size(entry: os.PathLike[str]) -> int:
    blocks = 0
    for directory, _unused, files in os.walk(entry):
        for file in files:
            blocks += os.lstat(os.path.join(directory, file)).st_blocks
    return blocks * 512 // 1024**2


def _current() -> set[str]:
    """The names of the artefacts that today's inputs lead to, and those running machines use."""
    in_use = {machine.artefact for machine in find_machines() if machine.running()}
    emulator = qemu.installed() or qemu.unpacked()
    large = {name for machine in LARGE.values() for name in machine.artefact_names(emulator)}
    return {*qemu.tree_names(), *large, *small.artefact_names(), *in_use, *_of_molecule()}


def _of_molecule() -> set[str]:
    """The names of what the scenarios of Molecule keep in the same cache."""
    try:
        from tests.molecule import collections, podman
    except ImportError:  # without the project's environment there is no YAML to read the scenarios with
        return {entry.name for entry in cache.cache_directory().glob("molecule-*-*")}
    return collections.artefact_names() | podman.artefact_names()


def _prune(_options: argparse.Namespace) -> int:
    for machine in find_machines():
        if not machine.running():
            machine.stop()
    known = {machine.directory for machine in find_machines()}
    for entry in cache.run_directory().iterdir():
        if entry not in known:
            shutil.rmtree(entry, ignore_errors=True)
    for name in cache.prune(_current()):
        say(f"removed {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
