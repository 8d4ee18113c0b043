# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""File trees of Proxmox VE hosts, and a stand-in for proxmox-boot-tool.

The stand-in does what proxmox-boot-tool and zz-proxmox-boot (proxmox-kernel-helper 8) do on ``refresh``, reduced to
what matters here: the same checks, the same entries, written in the same way. The look at the partitions is the
real shell script, with functions in the place of findmnt, mount and umount.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.proxmox import LOOK
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed

from .boot import Flavour, GrubHost
from .kill import PROGRESS, progress_environment

PARTITIONS = "/etc/kernel/proxmox-boot-uuids"
SETTINGS = "/etc/kernel/cmdline"
TOOL = "/usr/sbin/proxmox-boot-tool"
UUIDS = ("AAAA-0001", "BBBB-0002")
KERNELS = ("6.8.12-1-pve", "6.8.12-4-pve")
LINE = "root=ZFS=rpool/ROOT/pve-1 boot=zfs quiet intel_iommu=off\n"
GRUB_SETTINGS = """\
GRUB_DEFAULT=0
GRUB_TIMEOUT=5
GRUB_DISTRIBUTOR="Proxmox VE"
GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=off"
GRUB_CMDLINE_LINUX="root=ZFS=rpool/ROOT/pve-1 boot=zfs"
"""

FLAVOUR = Flavour("Proxmox VE GNU/Linux", reads_drop_ins=True, kernel_directory="")

PRETENDED_MOUNTS = r"""
findmnt () { [ "$*" = "-rn -o TARGET -S UUID=$uuid" ] || exit 9; }
mount () { [ "$*" = "-t vfat -o ro /dev/disk/by-uuid/$uuid /mnt" ] || exit 9; }
umount () { [ "$*" = /mnt ] || exit 9; }
cd () { if [ "$1" = /mnt ]; then command cd "$ROOT/esp/$uuid"; else command cd "$1"; fi; }
"""

FAKE_TOOL = r"""
set -e
@PROGRESS@
if [ "$#" != 1 ] || [ "$1" != refresh ]; then echo "USAGE: $0 <commands> [ARGS]" >&2; exit 1; fi
list=$ROOT/etc/kernel/proxmox-boot-uuids
if [ ! -f "$list" ]; then echo "No $list found, skipping ESP sync." >&2; exit 0; fi
first_line () {
  while IFS= read -r line || [ -n "$line" ]; do break; done <"$1"
  echo "$line"
}
if [ -f "$ROOT/etc/kernel/cmdline" ]; then
  CMDLINE=$(first_line "$ROOT/etc/kernel/cmdline")
  echo ${CMDLINE} | grep -q 'root=' || { echo "No root= parameter in /etc/kernel/cmdline found!" >&2; exit 1; }
else
  CMDLINE=$(sed -E 's/\binitrd=[^ ]* *//g' "$ROOT/proc/cmdline")
fi
grub=
cat "$list" | while IFS= read -r uuid; do
  echo "$uuid" | grep -qE '[0-9a-fA-F]{4}-[0-9a-fA-F]{4}' || continue
  [ -e "$ROOT/dev/disk/by-uuid/$uuid" ] || { echo "WARN: $uuid does not exist" >&2; continue; }
  esp=$ROOT/esp/$uuid
  if [ -e "$esp/EFI/proxmox/grubx64.efi" ]; then grub=1; fi
  efi=
  if [ -d "$ROOT/sys/firmware/efi" ] && [ "$grub" != 1 ]; then
    efi=1
    [ -f "$esp/loader/loader.conf" ] || { echo "no loader.conf - skipping" >&2; continue; }
    [ -d "$esp/EFI/proxmox" ] || { echo "no EFI/proxmox - skipping" >&2; continue; }
  elif [ ! -d "$esp/grub" ]; then
    echo "no grub directory - skipping" >&2
    continue
  fi
  for image in "$ROOT"/boot/vmlinuz-*; do
    version=${image##*/vmlinuz-}
    if [ ! -f "$ROOT/boot/initrd.img-$version" ]; then echo "no initrd - skipping" >&2; continue; fi
    progress
    if [ -z "$efi" ]; then cp "$image" "$ROOT/boot/initrd.img-$version" "$esp/"; continue; fi
    mkdir -p "$esp/EFI/proxmox/$version"
    cp "$image" "$ROOT/boot/initrd.img-$version" "$esp/EFI/proxmox/$version/"
    progress
    cat >"$esp/loader/entries/proxmox-$version.conf" <<EOF
title    Proxmox Virtual Environment
version  $version
options  ${CMDLINE}
linux    /EFI/proxmox/$version/vmlinuz-$version
initrd   /EFI/proxmox/$version/initrd.img-$version
EOF
    progress
  done
  if [ -z "$efi" ]; then
    progress
    KILL_AT= KILL_LOG= sh "$ROOT/usr/sbin/grub-mkconfig" -o "$esp/grub/grub.cfg" >/dev/null
    progress
  fi
done
"""

SYSTEMD_BOOT = "systemd-boot"
GRUB_UEFI = "GRUB, UEFI"
GRUB_LEGACY = "GRUB, legacy BIOS"
BOTH = "GRUB on the second partition"
MODES = (SYSTEMD_BOOT, GRUB_UEFI, GRUB_LEGACY, BOTH)


def entry_paths() -> list[str]:
    """The entries of systemd-boot on all partitions."""
    return [f"/esp/{uuid}/loader/entries/proxmox-{version}.conf" for uuid in UUIDS for version in KERNELS]


def configs() -> list[str]:
    """The grub.cfg of all partitions."""
    return [f"/esp/{uuid}/grub/grub.cfg" for uuid in UUIDS]


class ProxmoxHost(GrubHost):
    """A Proxmox VE host in a directory, with two boot partitions in ``esp/UUID``."""

    def __init__(
        self,
        root: Path,
        mode: str = SYSTEMD_BOOT,
        line: str | None = LINE,
        defaults: str = GRUB_SETTINGS,
        files: Mapping[str, str] | None = None,
    ) -> None:
        """:param mode: one of :data:`MODES`
        :param line: of /etc/kernel/cmdline, None without one
        """
        self._refreshes = 0
        super().__init__(root, defaults, kernels=KERNELS, flavour=FLAVOUR)
        for version in KERNELS:
            self.write(f"/boot/initrd.img-{version}", version)
        self.write(TOOL, "", 0o755)
        self.write(PARTITIONS, "".join(f"{uuid}\n" for uuid in UUIDS))
        if mode != GRUB_LEGACY:
            self.path("/sys/firmware/efi").mkdir(parents=True)
        for number, uuid in enumerate(UUIDS):
            self.write(f"/dev/disk/by-uuid/{uuid}", "")
            if mode == SYSTEMD_BOOT or (mode == BOTH and number == 0):
                self.write(f"/esp/{uuid}/loader/loader.conf", "timeout 3\ndefault proxmox-*\n")
                self.path(f"/esp/{uuid}/loader/entries").mkdir()
                self.path(f"/esp/{uuid}/EFI/proxmox").mkdir(parents=True)
            else:
                self.path(f"/esp/{uuid}/grub").mkdir(parents=True)
                if mode != GRUB_LEGACY:
                    self.write(f"/esp/{uuid}/EFI/proxmox/grubx64.efi", "")
        if line is not None:
            self.write(SETTINGS, line)
        running = "BOOT_IMAGE=/vmlinuz-6.8.12-4-pve root=ZFS=/ROOT/pve-1 ro "
        if mode in (SYSTEMD_BOOT, BOTH):
            running = "initrd=\\EFI\\proxmox\\6.8.12-4-pve\\initrd.img-6.8.12-4-pve "
        self.write("/proc/cmdline", running + "root=ZFS=rpool/ROOT/pve-1 boot=zfs quiet intel_iommu=off\n")
        for path, text in (files or {}).items():
            self.write(path, text)
        assert self.refresh().returncode == 0
        self._refreshes = 0

    def lines(self) -> dict[str, list[str]]:
        """The command lines of all normal entries on each partition."""
        found: dict[str, list[str]] = {}
        for uuid in UUIDS:
            esp = self.path(f"/esp/{uuid}")
            texts = [path.read_text() for path in sorted(esp.glob("loader/entries/proxmox-*.conf"))]
            texts += [path.read_text() for path in esp.glob("grub/grub.cfg")]
            words = [line.split(None, 1) for text in texts for line in text.split("\n") if line.strip()]
            found[uuid] = [rest for first, *rests in words for rest in rests if first in ("options", "linux")]
            found[uuid] = [line for line in found[uuid] if "root=ZFS" in line and " single " not in line]
        return found

    def refresh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the tool."""
        self._refreshes += 1
        # Whoever is killed in here is killed once, and not again when things are brought back.
        progress = progress_environment() if self._refreshes == 1 else {}
        return subprocess.run(
            ["sh", "-c", FAKE_TOOL.replace("@PROGRESS@", PROGRESS), "proxmox-boot-tool", *(arguments or ("refresh",))],
            env={"PATH": os.environ["PATH"], "ROOT": str(self.root), **progress},
            capture_output=True,
            text=True,
            check=False,
        )

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        if argv[0] == "unshare":
            self.commands.append(tuple(argv))
            assert list(argv[1:7]) == ["--mount", "--propagation", "private", "sh", "-c", LOOK]
            assert argv[7] == "sh"
            done = subprocess.run(
                ["sh", "-c", PRETENDED_MOUNTS + LOOK, "sh", *argv[8:]],
                env={"PATH": os.environ["PATH"], "ROOT": str(self.root)},
                capture_output=True,
                check=False,
            )
            return Completed(tuple(argv), done.returncode, done.stdout.decode("utf-8", "replace"), str(done.stderr))
        if "proxmox-boot-tool" in argv:
            self.commands.append(tuple(argv))
            answer = self.intercept(argv) if self.intercept is not None else None
            if answer is not None:
                return answer
            tool = self.refresh(*argv[argv.index("proxmox-boot-tool") + 1 :])
            return Completed(tuple(argv), tool.returncode, tool.stdout, tool.stderr)
        return super()._run(argv, timeout, stdin)
