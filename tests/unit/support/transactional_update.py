# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A MicroOS-like host in a directory, and a stand-in for transactional-update that is as strict with its arguments.

What it does follows sbin/transactional-update.in: options, its lock, the exit status of ``run`` that nobody looks at,
the new default snapshot, rollback. A snapshot in the making is in /run here, and not among the others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed

from .boot import OPENSUSE, SUSE_FLAVOUR, GrubHost
from .kill import PROGRESS, progress_environment

CONFIG = "/boot/grub2/grub.cfg"
MOUNTS = "/proc/self/mounts"
DEFAULT = "/run/default-snapshot"
"""Where the stand-in keeps which snapshot is the default."""
NEXT = "/what-grub-reads"
"""A copy of grub.cfg of the default snapshot, changed when that changes."""
RUNNING = "12"

PROGRAM = r"""#!/bin/sh
usage () { echo "Syntax: transactional-update [option...]"; exit 1; }
@PROGRESS@
progress_made=1000  # the generator counts from 0
current=$(sed -n 's|.*subvol=/@/.snapshots/\([0-9]*\)/snapshot.*|\1|p' "$ROOT/proc/self/mounts")
set_default () {
  config=$ROOT/.snapshots/$1/snapshot/boot/grub2/grub.cfg
  if [ "$1" = "$current" ]; then config=$ROOT/boot/grub2/grub.cfg; fi
  cp "$config" "$ROOT/run/reads"
  echo "$1" >"$ROOT/run/default-snapshot"
  mv "$ROOT/run/reads" "$ROOT/what-grub-reads"
}
if [ -e "$ROOT/run/transactional-update.pid" ]; then
  echo "Couldn't get lock, is another instance already running?" >&2
  exit 1
fi
command=
base=$current
while [ $# -gt 0 ]; do
  case "$1" in
    -n|--non-interactive|--no-selfupdate) shift ;;
    -c|--continue) base=$2; shift 2 ;;
    run) shift; [ $# -gt 0 ] || usage; command=run; break ;;
    rollback) [ $# -eq 2 ] || usage; command=rollback; to=$2; shift 2 ;;
    *) usage ;;
  esac
done
[ -n "$command" ] || usage
if [ "$command" = rollback ]; then
  if [ "$to" != "$current" ] && [ ! -d "$ROOT/.snapshots/$to/snapshot" ]; then
    echo "ERROR: couldn't determine btrfs subvolume ID" >&2
    exit 1
  fi
  progress
  set_default "$to"
  progress
  exit 0
fi
made=$(ls "$ROOT/.snapshots" | sort -n | tail -n 1)
made=$((made + 1))
work=$ROOT/run/opened
rm -rf "$work"
progress
mkdir -p "$work"
if [ "$base" = "$current" ]; then
  cp -rp "$ROOT/boot" "$ROOT/etc" "$ROOT/usr" "$work"
else
  cp -rp "$ROOT/.snapshots/$base/snapshot/." "$work" || exit 1
fi
progress
# In the chroot the paths are those of the snapshot; its exit status is that of a pipeline into tee.
[ "$1 $2 $4" = "sh -c grub2-mkconfig" ] && [ $# -eq 5 ] || usage
ROOT=$work sh -c "$3" "$work/usr/sbin/$4" "$work$5"
progress
mkdir -p "$ROOT/.snapshots/$made"
mv "$work" "$ROOT/.snapshots/$made/snapshot"
progress
set_default "$made"
progress
echo "New default snapshot is #$made (/.snapshots/$made/snapshot)."
"""


class TransactionalHost(GrubHost):
    """A host in a directory whose root file system is a read-only snapshot."""

    def __init__(self, root: Path, defaults: str = OPENSUSE) -> None:
        super().__init__(root, defaults, kernels=("6.11.3-1-default", "6.11.8-1-default"), flavour=SUSE_FLAVOUR)
        self.write("/usr/sbin/transactional-update", PROGRAM.replace("@PROGRESS@", PROGRESS), 0o755)
        self.write("/usr/sbin/btrfs", "", 0o755)
        self._mount(RUNNING)
        # Numbers of snapshots say nothing about what a run came to: they are where no one compares them.
        self.path("/run/snapshots").joinpath(RUNNING).mkdir(parents=True)
        self.path("/.snapshots").symlink_to("run/snapshots")
        self.write(DEFAULT, RUNNING)
        self._show_next()

    @property
    def default(self) -> str:
        """The snapshot that is booted next."""
        return self.read(DEFAULT).strip()

    def next_config(self) -> str:
        """The grub.cfg GRUB will read."""
        return self.read(NEXT)

    def update(self) -> None:
        """Somebody installs an update: a snapshot waits for the next boot."""
        number = str(max(int(name) for name in os.listdir(self.path("/.snapshots"))) + 1)
        made = self.path(f"/.snapshots/{number}/snapshot")
        for name in ("boot", "etc", "usr"):
            shutil.copytree(self.path(name), made / name)
        (made / "usr/updated").touch()
        self.write(DEFAULT, number)
        self._show_next()

    def boot_default(self) -> None:
        """Reboot into the default snapshot."""
        if self.default != self._running():
            shutil.copy(self.path(f"/.snapshots/{self.default}/snapshot{CONFIG}"), self.path(CONFIG))
        self._mount(self.default)
        self.reboot()

    def _show_next(self) -> None:
        self.write(NEXT, self.read(CONFIG), 0o600)

    def _mount(self, number: str) -> None:
        options = f"ro,relatime,subvolid=268,subvol=/@/.snapshots/{number}/snapshot"
        self.write(MOUNTS, f"/dev/vda3 / btrfs {options} 0 0\n/dev/vda3 /.snapshots btrfs rw,relatime 0 0\n")

    def _running(self) -> str:
        return self.read(MOUNTS).partition("/.snapshots/")[2].partition("/")[0]

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        if argv[0] not in ("transactional-update", "btrfs"):
            return super()._run(argv, timeout, stdin)
        self.commands.append(tuple(argv))
        answer = self.intercept(argv) if self.intercept is not None else None
        if answer is not None:
            return answer
        if argv[0] == "btrfs":
            assert list(argv[1:]) == ["subvolume", "get-default", "/"], argv
            path = f"@/.snapshots/{self.default}/snapshot"
            return Completed(tuple(argv), 0, f"ID 270 gen 1044 top level 266 path {path}\n", "")
        done = subprocess.run(
            ["sh", str(self.path("/usr/sbin/transactional-update")), *argv[1:]],
            env={"PATH": os.environ["PATH"], "ROOT": str(self.root), **progress_environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)
