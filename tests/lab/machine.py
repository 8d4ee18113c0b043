# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running machine of the lab: starting, reaching and ending it, whatever its hardware and its system.

Each machine has a directory below ``<cache>/run`` (its disk, logs, inventory) and one for
its sockets, with a short name, because the name of a Unix socket is limited to 107 bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

from . import cache, guest, inventory, second_kernel
from .qemu import VARIABLES_FILE, Qemu
from .qmp import Qmp
from .run import LabError, require_tool, run, say, tail

USER = "ops"
MANAGEMENT_MAC = "52:54:00:6b:76:01"
BOOT_TIMEOUT = 600
_RESTORE_TIMEOUT = 120
_STOP_TIMEOUT = 15
_POWER_OFF_TIMEOUT = 120
_RECORD_FILE, _PID_FILE = "machine.json", "pid"
DISK_FILE, STATE_FILE = "disk.qcow2", "state"
"""The files of a machine that was saved; with UEFI there is VARIABLES_FILE, too."""

_HAS_SYSTEMD = "test -d /run/systemd/system"
# Ends the connections first, which would hang otherwise, and writes everything back: a boot loader replays no journal.
# On IBM Z, QEMU takes the next boot from the kernel only when its memory is to be cleared before.
_REBOOT_BY_HAND = """
for clear in /sys/firmware/reipl/*/clear; do test ! -e $clear || echo 1 | sudo tee $clear >/dev/null; done
sudo setsid sh -c 'sleep 0.5; busybox killall dropbear; sleep 0.5; sync; mount -o remount,ro /; busybox reboot -f' \
    </dev/null >/dev/null 2>&1 &
"""


@dataclass(frozen=True)
class Hardware:
    """What is emulated, by which emulator: all of QEMU's options but those that ``launch`` adds.

    The card of the network ``management`` is part of it, and so are, of a machine with a
    disk, those of the drive ``root``, of one without, kernel and initramfs.
    """

    qemu: Qemu
    options: tuple[str, ...]


@dataclass(frozen=True)
class _Record:
    """What another process has to know to reach a machine."""

    name: str
    pid: int
    ssh_port: int
    key: str
    sockets: str
    artefact: str


class Machine:
    """A machine of the lab. As a context manager it is stopped at the end, whatever happens.

    ``settle``, ``reboot``, ``restart``, ``save`` and what is about nested guests are for one with a disk.
    """

    def __init__(self, directory: Path, record: _Record, process: subprocess.Popen[bytes] | None = None) -> None:
        """Use ``launch`` or ``attach``; ``process`` is what has to be waited for at the end."""
        self.directory = directory
        self._record = record
        self._process = process

    @property
    def name(self) -> str:
        """Its name, also that of its directory."""
        return self._record.name

    @property
    def pid(self) -> int:
        """The process id of its emulator."""
        return self._record.pid

    @property
    def ssh_port(self) -> int:
        """The port on 127.0.0.1 that leads to its ssh server."""
        return self._record.ssh_port

    @property
    def artefact(self) -> str:
        """The cached artefact it was started from."""
        return self._record.artefact

    @property
    def key(self) -> Path:
        """The private ssh key of the user ``ops``."""
        return Path(self._record.key)

    @property
    def serial_log(self) -> Path:
        """All it wrote to its serial console."""
        return self.directory / "serial.log"

    @property
    def console_socket(self) -> Path:
        """The Unix socket of its serial console."""
        return Path(self._record.sockets) / "console"

    @property
    def inventory(self) -> Path:
        """An Ansible inventory with this machine as ``labhost`` in the group ``kvm_hosts``."""
        return self.directory / "inventory.yml"

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(keep_logs=error is not None)

    def running(self) -> bool:
        """Whether its emulator still runs."""
        return _is_ours(self.pid, self.directory)

    def qmp(self) -> Qmp:
        """A connection to its emulator; raises LabError when it does not run."""
        try:
            return Qmp(Path(self._record.sockets) / "qmp")
        except OSError as error:
            raise LabError(f"machine '{self.name}' does not run{_log_ends(self.directory)}") from error

    def ssh_argv(self, *options: str) -> list[str]:
        """The ssh command line that leads to it, without the command to run."""
        return [
            require_tool("ssh", "openssh-client"), *inventory.SSH_OPTIONS, "-i", str(self.key),
            "-o", "ControlMaster=auto", "-o", f"ControlPath={self._record.sockets}/ssh", "-o", "ControlPersist=60",
            "-p", str(self.ssh_port), *options, f"{USER}@127.0.0.1",
        ]  # fmt: skip

    def ssh(
        self, command: str, *, check: bool = True, timeout: float = 120, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on it as ``ops`` (who may use sudo without a password).

        Returns exit status and both outputs. Raises LabError when it takes longer than
        ``timeout`` seconds or, with ``check``, fails.
        """
        called = f"on machine '{self.name}', {command.strip()}"
        result = run([*self.ssh_argv(), command], check=False, timeout=timeout, stdin=stdin, called=called)
        if check and result.returncode != 0:
            said = (result.stderr + result.stdout).strip()
            raise LabError(f"{called} failed with exit status {result.returncode}:\n{said}")
        return result

    def wait_for(self, condition: str, timeout: float = 60) -> None:
        """Wait until a condition of a shell holds on it; raises LabError when it does not in time."""
        words = shlex.join(["sh", "-c", f"until {condition}; do sleep 0.2; done"])
        self.ssh(f"timeout {timeout:.0f} {words}", timeout=timeout + 60)

    def boot_id(self) -> str | None:
        """Which boot this is; None when ssh does not answer."""
        try:
            result = self._knock("cat /proc/sys/kernel/random/boot_id")
        except LabError:
            return None
        return result.stdout.strip() if result.returncode == 0 else None

    def _knock(self, command: str) -> subprocess.CompletedProcess[str]:
        # A connection of its own, since a shared one may belong to the boot before.
        argv = [*self.ssh_argv("-o", "ControlPath=none", "-o", "ConnectTimeout=8"), command]
        return run(argv, check=False, timeout=20)

    def wait_ssh(self, timeout: float = BOOT_TIMEOUT, *, other_than: str | None = None) -> str:
        """Wait until ssh answers, and return the boot's id.

        With ``other_than``, a boot id, wait for another boot than that one. Raises
        LabError with the end of the serial log when the emulator ends or time is up.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            boot = self.boot_id()
            if boot and boot != other_than:
                return boot
            if not self.running():
                raise LabError(f"the emulator of '{self.name}' ended{_log_ends(self.directory)}")
            time.sleep(0.5)
        raise LabError(f"machine '{self.name}' does not answer on ssh after {timeout:.0f} s{_log_ends(self.directory)}")

    def settle(self, timeout: float = 300) -> None:
        """Wait until all its services are up and all its devices have their drivers.

        An emulated host answers on ssh long before it has created its virtual functions, or
        /dev/kvm where its processor can virtualise. A real-time kernel, which the second one is,
        has no KVM on a processor whose clock is not constant, as emulated ones are. A small machine
        answers when all that is done.
        """
        self.ssh(
            f"{_HAS_SYSTEMD} || exit 0; "
            "sudo systemctl is-system-running --wait >/dev/null; sudo udevadm settle --timeout=120 && "
            "timeout 120 sh -c 'until test -e /dev/kvm || uname -r | grep -q -e -rt- || "
            '! grep -qwE "svm|vmx" /proc/cpuinfo; do sleep 0.2; done\'',
            timeout=timeout,
        )

    def install_second_kernel(self, timeout: float = 900) -> str:
        """Install the kernel package that waits in its image, with dpkg; returns the kernel's release."""
        package = self.ssh(f"dpkg-deb --field {second_kernel.PACKAGE} Package").stdout.strip()
        self.ssh(f"sudo dpkg --install {second_kernel.PACKAGE}", timeout=timeout)
        return package.removeprefix("linux-image-")

    def remove_second_kernel(self, timeout: float = 900) -> None:
        """Remove it again, also while it runs."""
        self.ssh(
            "echo linux-base linux-base/removing-running-kernel boolean false | sudo debconf-set-selections && "
            f"sudo DEBIAN_FRONTEND=noninteractive dpkg --purge $(dpkg-deb --field {second_kernel.PACKAGE} Package)",
            timeout=timeout,
        )

    def reboot(self, timeout: float = BOOT_TIMEOUT) -> float:
        """Reboot from inside and wait until it is up and settled; returns the seconds that took."""
        before = time.monotonic()
        boot = self.wait_ssh(60)
        # The connection may go down before the command's answer comes back.
        self.ssh(f"{_HAS_SYSTEMD} && exec sudo systemctl --no-block reboot; {_REBOOT_BY_HAND}", check=False)
        self.wait_ssh(timeout, other_than=boot)
        self.settle()
        return time.monotonic() - before

    def restart(self, hardware: Hardware, *, limit: float) -> None:
        """Shut it down from inside and boot the same disk with other hardware; after ``limit`` seconds it is ended.

        Returns when it is up and settled. Raises LabError when it does not go down, or not come up.
        """
        self.ssh("sudo systemctl --no-block poweroff", check=False)
        deadline = time.monotonic() + _POWER_OFF_TIMEOUT
        while self.running():
            if time.monotonic() > deadline:
                raise LabError(f"machine '{self.name}' does not go down{_log_ends(self.directory)}")
            time.sleep(0.2)
        if self._process is not None:
            self._process.wait(_STOP_TIMEOUT)
        drives = _drives(hardware.qemu, self.directory)
        sockets = Path(self._record.sockets)
        self._process, pid = _start_process(
            hardware, drives, self.directory, sockets, self.ssh_port, limit, restore=False
        )
        self._record = replace(self._record, pid=pid)
        _write_record(self.directory, self._record)
        with self.qmp() as qmp:
            qmp.execute("cont")
        self.wait_ssh()
        self.settle()

    def set_clock(self) -> None:
        """Give it the time of this machine: a restored one believes it is when it was saved."""
        self.ssh(f"sudo date --utc --set=@{time.time():.0f} >/dev/null")

    def drivers(self) -> dict[str, str]:
        """The driver of every PCI device, by address; empty for none."""
        command = (
            "cd /sys/bus/pci/devices; for d in *; do echo $d $(basename -a $(readlink $d/driver) 2>/dev/null); done"
        )
        pairs = [line.partition(" ") for line in self.ssh(command).stdout.splitlines()]
        return {address: driver for address, _blank, driver in pairs}

    def etc(self) -> list[str]:
        """All of /etc but the machine's id, new at each boot: names, types, modes, owners, link targets, contents."""
        what = "sudo find . -xdev ! -path ./machine-id"
        files = f"{what} -printf '%p %y %m %u:%g %l\\n' && {what} -type f -exec sha256sum {{}} +"
        return sorted(self.ssh(f"cd /etc && {files}").stdout.splitlines())

    def guest_serial(self, domain: str) -> str:
        """What a nested guest wrote to its serial console; empty when it never ran."""
        return self.ssh(f"sudo cat {guest.serial_log_path(domain)} 2>/dev/null || true").stdout

    def guest_pci_list(self, domain: str, timeout: float = 240) -> list[guest.PciFunction]:
        """The PCI functions a started nested guest reports, waiting until it has.

        Raises LabError with the end of the guest's console when time is up.
        """
        deadline = time.monotonic() + timeout
        while True:
            serial = self.guest_serial(domain)
            functions = guest.parse_pci_list(serial)
            if functions is not None:
                return functions
            if time.monotonic() > deadline:
                lines = "\n".join(serial.splitlines()[-25:])
                raise LabError(f"guest '{domain}' listed no devices in {timeout:.0f} s; its console ends:\n{lines}")
            time.sleep(1)

    def wait_guest_off(self, domain: str) -> None:
        """Wait until a nested guest has ended."""
        self.wait_for(f"! sudo virsh domstate {domain} | grep -q running")

    def save(self, directory: Path) -> None:
        """Freeze the machine as files in ``directory``, and end it."""
        self.ssh("sync")
        with self.qmp() as qmp:
            qmp.execute("stop")
            # The default limit is meant for a network.
            qmp.execute("migrate-set-parameters", max_bandwidth=1 << 40)
            qmp.migrate("migrate", directory / STATE_FILE, _RESTORE_TIMEOUT)
        self._end_process()
        for name in (DISK_FILE, VARIABLES_FILE):
            if (self.directory / name).exists():
                (self.directory / name).rename(directory / name)
        self.stop()

    def stop(self, *, keep_logs: bool = False) -> None:
        """End the emulator and remove the machine's files, or all but its logs.

        Does nothing a second time. Raises LabError when the emulator does not end.
        """
        self._end_process()
        shutil.rmtree(self._record.sockets, ignore_errors=True)
        for entry in self.directory.glob("*"):
            if not keep_logs or entry.suffix != ".log":
                entry.unlink()
        if not keep_logs and self.directory.is_dir():
            self.directory.rmdir()

    def _end_process(self) -> None:
        with contextlib.suppress(LabError), self.qmp() as qmp:
            qmp.execute("quit")
        self._wait_end()
        if self._process is not None:
            self._process.wait(_STOP_TIMEOUT)

    def _wait_end(self) -> None:
        for ending in (None, signal.SIGTERM, signal.SIGKILL):
            if ending is not None and self.running():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, ending)
            deadline = time.monotonic() + _STOP_TIMEOUT
            while self.running():
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            else:
                return
        raise LabError(f"the emulator of '{self.name}' (process {self.pid}) does not end")


def launch(
    hardware: Hardware,
    key: Path,
    *,
    name: str,
    limit: float,
    artefact: str,
    disk: Path | None = None,
    variables: Path | None = None,
    state: Path | None = None,
) -> Machine:
    """Start a machine that lets ``key`` in; it has not necessarily booted yet.

    With ``disk`` its drive ``root`` is an overlay of that one. With ``variables`` it has
    UEFI firmware with a copy of these. With ``state`` it continues where that was saved,
    else it boots. ``artefact`` is the name of what in the cache it is
    started from. After ``limit`` seconds it is ended, whatever became of the process that
    started it. Raises LabError when a machine of this name runs, or the emulator does not start.
    """
    directory = cache.run_directory() / name
    for leftover in find_machines(name):
        if leftover.running():
            raise LabError(f"machine '{name}' is running already; 'stop {name}' ends it")
        leftover.stop()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    sockets = Path(tempfile.mkdtemp(prefix="kvm-lab-"))
    try:
        if disk:
            _make_overlay(hardware.qemu, disk, directory / DISK_FILE)
        if variables:
            shutil.copyfile(variables, directory / VARIABLES_FILE)
        drives = _drives(hardware.qemu, directory)
        port = _free_port()
        process, pid = _start_process(hardware, drives, directory, sockets, port, limit, restore=state is not None)
        record = _Record(name, pid, port, str(key), str(sockets), artefact)
        _write_record(directory, record)
    except BaseException:
        shutil.rmtree(sockets, ignore_errors=True)
        raise
    machine = Machine(directory, record, process)
    try:
        machine.inventory.write_text(inventory.text(port, key, sockets), encoding="utf-8")
        with machine.qmp() as qmp:
            if state is not None:
                qmp.migrate("migrate-incoming", state, _RESTORE_TIMEOUT)
            qmp.execute("cont")
    except BaseException:
        machine.stop(keep_logs=True)
        raise
    return machine


def _make_overlay(qemu: Qemu, backing: Path, overlay: Path) -> None:
    backing_format = "qcow2" if backing.suffix == ".qcow2" else "raw"
    run([*qemu.img, "create", "-q", "-f", "qcow2", "-b", backing, "-F", backing_format, overlay],
        timeout=60, env=qemu.environment)  # fmt: skip


def _drives(qemu: Qemu, directory: Path) -> tuple[str, ...]:
    """The options for the drive ``root`` and the firmware's variables, where a machine has them."""
    options: tuple[str, ...] = ()
    if (directory / DISK_FILE).exists():
        options += ("-drive", f"if=none,id=root,format=qcow2,cache=unsafe,discard=unmap,file={directory / DISK_FILE}")
    if (directory / VARIABLES_FILE).exists():
        options += qemu.uefi(directory / VARIABLES_FILE)
    return options


def _write_record(directory: Path, record: _Record) -> None:
    (directory / _RECORD_FILE).write_text(json.dumps(asdict(record)), encoding="utf-8")


def _start_process(
    hardware: Hardware,
    drives: tuple[str, ...],
    directory: Path,
    sockets: Path,
    port: int,
    limit: float,
    *,
    restore: bool,
) -> tuple[subprocess.Popen[bytes], int]:
    """Start the emulator, paused; returns, once it takes commands, our child and the emulator's process id.

    They differ: the child is ``timeout``, which ends the emulator when nobody else does.
    """
    pid_file, log = directory / _PID_FILE, directory / "qemu.log"
    command = [
        require_tool("timeout", "coreutils"), "--kill-after=10", f"{limit:.0f}",
        *hardware.qemu.system, "-name", f"kvm-lab-{directory.name}",
        "-S", "-pidfile", str(pid_file),
        *(("-incoming", "defer") if restore else ()),
        "-chardev", f"socket,id=console,path={sockets}/console,server=on,wait=off,logfile={directory}/serial.log",
        "-serial", "chardev:console",
        "-qmp", f"unix:{sockets}/qmp,server=on,wait=off",
        *drives,
        "-netdev", f"user,id=management,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22",
        *hardware.options,
    ]  # fmt: skip
    with log.open("w", encoding="utf-8") as stream:
        # In a session of its own: Ctrl-C in the terminal is for the caller, who stops it properly.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            env={**os.environ, **hardware.qemu.environment}, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise LabError(f"the emulator did not start:\n{tail(log)}")
        # QEMU makes the monitor's socket before it reads disks and writes the pid file last.
        with contextlib.suppress(OSError, ValueError):
            pid = int(pid_file.read_text())
            Qmp(sockets / "qmp").__exit__(None, None, None)
            return process, pid
        time.sleep(0.05)
    process.terminate()
    process.wait(_STOP_TIMEOUT)
    raise LabError(f"the emulator does not answer:\n{tail(log)}")


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _is_ours(pid: int, directory: Path) -> bool:
    """Whether this process is the emulator of that machine, and not a later one with its number."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return str(directory / _PID_FILE).encode() in words


def _log_ends(directory: Path) -> str:
    serial, log = directory / "serial.log", directory / "qemu.log"
    return f"\nthe end of {serial}:\n{tail(serial)}\nthe end of {log}:\n{tail(log)}"


def find_machines(name: str | None = None) -> list[Machine]:
    """The machines that have a directory, running or not; with ``name`` only that one."""
    found = []
    for file in sorted(cache.run_directory().glob(f"{name or '*'}/{_RECORD_FILE}")):
        try:
            found.append(Machine(file.parent, _Record(**json.loads(file.read_text(encoding="utf-8")))))
        except (OSError, ValueError, TypeError):
            say(f"{file} cannot be read; 'prune' removes it")
    return found


def attach(name: str) -> Machine:
    """The running machine of that name, started by any process; raises LabError when there is none."""
    for machine in find_machines(name):
        if machine.running():
            return machine
    raise LabError(f"no machine '{name}' is running; 'start {name}' starts it")
