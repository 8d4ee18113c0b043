# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""File trees of hosts that boot with GRUB, and a generator that derives grub.cfg from the settings it sources."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host, run_subprocess

from .kill import PROGRESS, progress_environment
from .tree import HostTree

DEFAULTS = "/etc/default/grub"
CONFIG = "/boot/grub/grub.cfg"
GENERATOR = "/usr/sbin/grub-mkconfig"

DEBIAN_12 = """\
# If you change this file, run 'update-grub' afterwards to update
# /boot/grub/grub.cfg.
# For full documentation of the options in this file, see:
#   info -f grub -n 'Simple configuration'

GRUB_DEFAULT=0
GRUB_TIMEOUT=5
GRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX=""

# Uncomment to disable graphical terminal
#GRUB_TERMINAL=console
"""

DEBIAN_13 = """\
# If you change this file or any /etc/default/grub.d/*.cfg file,
# run 'update-grub' afterwards to update /boot/grub/grub.cfg.

GRUB_DEFAULT=0
GRUB_TIMEOUT=5
GRUB_DISTRIBUTOR=`( . /etc/os-release && echo ${NAME} )`
GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=off"
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
"""

UBUNTU_CLOUD = """\
GRUB_DEFAULT=0
GRUB_TIMEOUT_STYLE=hidden
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=`( . /etc/os-release; echo ${NAME:-Ubuntu} ) 2>/dev/null || echo Ubuntu`
GRUB_CMDLINE_LINUX_DEFAULT="quiet splash"
GRUB_CMDLINE_LINUX=""
"""

UBUNTU_CLOUD_DROP_INS = {
    "50-cloudimg-settings.cfg": """\
# Cloud Image specific Grub settings for Generic Cloud Images
# CLOUD_IMG: This file was created/modified by the Cloud Image build process

# Set the recordfail timeout
GRUB_RECORDFAIL_TIMEOUT=0

# Do not wait on grub prompt
GRUB_TIMEOUT=0

# Set the default commandline
GRUB_CMDLINE_LINUX_DEFAULT="console=tty1 console=ttyS0"

# Set the grub console type
GRUB_TERMINAL=console
""",
    "kdump-tools.cfg": """\
GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=512M-:192M"
""",
}

OPENSUSE = """\
# If you change this file, run 'grub2-mkconfig -o /boot/grub2/grub.cfg' afterwards to update
# /boot/grub2/grub.cfg.

# Uncomment to set your own custom distributor. If you leave it unset or empty, the default
# policy is to determine the value from /etc/os-release
GRUB_DISTRIBUTOR=
GRUB_DEFAULT=saved
GRUB_TIMEOUT=8
GRUB_CMDLINE_LINUX_DEFAULT="splash=silent preempt=full mitigations=auto quiet security=apparmor"
GRUB_CMDLINE_LINUX=""

# Uncomment to automatically save last booted menu entry in GRUB2 environment
GRUB_SAVEDEFAULT="true"
GRUB_CMDLINE_XEN_DEFAULT="vga=gfx-1024x768x16"
"""

ARCH = """\
# GRUB boot loader configuration

GRUB_DEFAULT=0
GRUB_TIMEOUT=5
GRUB_DISTRIBUTOR="Arch"
GRUB_CMDLINE_LINUX_DEFAULT="loglevel=3 quiet"
GRUB_CMDLINE_LINUX=""

# Uncomment to disable generation of recovery mode menu entries
GRUB_DISABLE_RECOVERY=true
"""

GENTOO = """\
# Copyright 1999-2020 Gentoo Authors
# To populate all changes in this file you need to regenerate your
# grub configuration file afterwards:
#     'grub-mkconfig -o /boot/grub/grub.cfg'

GRUB_DISTRIBUTOR="Gentoo"

# Append parameters to the linux kernel command line
#GRUB_CMDLINE_LINUX=""
#
# Append parameters to the linux kernel command line for non-recovery entries
#GRUB_CMDLINE_LINUX_DEFAULT=""
"""

FEDORA = """\
GRUB_TIMEOUT=5
GRUB_DISTRIBUTOR="$(sed 's, release .*$,,g' /etc/system-release 2>/dev/null || echo Fedora)"
GRUB_DEFAULT=saved
GRUB_DISABLE_SUBMENU=true
GRUB_TERMINAL_OUTPUT="console"
GRUB_CMDLINE_LINUX="rd.lvm.lv=fedora/root rhgb quiet"
GRUB_DISABLE_RECOVERY="true"
GRUB_ENABLE_BLSCFG=false
"""


@dataclass(frozen=True)
class Flavour:
    """What one distribution's GRUB 2 does in its own way."""

    system: str
    number: str = ""
    """What stands after ``grub`` in the names of its programs and of its directory in /boot."""
    reads_drop_ins: bool = False
    mount: str = "ro"
    fallback: bool = False
    """Whether each kernel has an entry with a fallback initramfs, too (Arch)."""
    kernel_directory: str = "/boot"
    """How GRUB names the directory with the kernels: empty where /boot is a file system of its own."""
    efi_config: str = ""
    """The grub.cfg GRUB reads on an EFI system, where it is not the one in /boot; /etc/grub2-efi.cfg leads there."""

    @property
    def generator(self) -> str:
        return f"/usr/sbin/grub{self.number}-mkconfig"

    @property
    def config(self) -> str:
        return self.efi_config or f"/boot/grub{self.number}/grub.cfg"


DEBIAN_FLAVOUR = Flavour("Debian GNU/Linux", reads_drop_ins=True)
SUSE_FLAVOUR = Flavour("openSUSE Leap 15.6", number="2")
ARCH_FLAVOUR = Flavour("Arch Linux", mount="rw", fallback=True)
GENTOO_FLAVOUR = Flavour("Gentoo GNU/Linux")
FEDORA_FLAVOUR = Flavour("Fedora Linux", number="2", kernel_directory="")

# What grub-mkconfig (2.06 and 2.12) does, reduced to what matters here: the same sourcing, the same entries, "set -e",
# a file beside the output that is copied over it at the end, and what all of that leaves when it is killed.
FAKE_GENERATOR = r"""#!/bin/sh
set -e
[ "$1" = -o ] || exit 2
out=$2
if test -f "$ROOT/etc/default/grub"; then . "$ROOT/etc/default/grub"; fi
@DROP_INS@
@PROGRESS@
rm -f "$out.new"
exec >"$out.new"
progress
echo "### BEGIN /etc/grub.d/00_header ###"
echo 'if [ "${next_entry}" ] ; then'
echo '   set default="${next_entry}"'
echo 'fi'
progress
echo "### END /etc/grub.d/00_header ###"
echo
echo "### BEGIN /etc/grub.d/10_linux ###"
echo 'function gfxmode {'
echo '	set gfxpayload="${1}"'
echo '}'
entry () {
  printf '%s\n' "$1menuentry '$2'  --class os \$menuentry_id_option 'gnulinux-$3-1234-abcd' {" "$1	load_video"
  progress
  printf '%s\n' "$1	echo	'Loading Linux ...'" \
    "$1	linux	@KERNELS@/vmlinuz-$4 root=UUID=1234-abcd @MOUNT@ $5" \
    "$1	initrd	@KERNELS@/initrd.img-$4" \
    "$1}"
  progress
}
simple=yes
normal="${GRUB_CMDLINE_LINUX} ${GRUB_CMDLINE_LINUX_DEFAULT}"
recovery="${GRUB_CMDLINE_LINUX_RECOVERY:-single} ${GRUB_CMDLINE_LINUX}"
kernels=
for kernel in "$ROOT"/boot/vmlinuz-*; do
  if [ -e "$kernel" ]; then kernels="${kernel##*/vmlinuz-} $kernels"; fi
done
for kernel in $kernels; do
  if [ "$simple" = yes ] && [ "$GRUB_DISABLE_SUBMENU" != true ]; then
    entry "" "@SYSTEM@" simple "$kernel" "$normal"
    echo "submenu 'Advanced options for @SYSTEM@' \$menuentry_id_option 'gnulinux-advanced-1234-abcd' {"
    simple=no
  fi
  title="@SYSTEM@, with Linux $kernel"
  entry "	" "$title" "$kernel-advanced" "$kernel" "$normal"
  if [ "@FALLBACK@" = True ]; then
    entry "	" "$title (fallback initramfs)" "$kernel-fallback" "$kernel" "$normal"
  fi
  if [ "$GRUB_DISABLE_RECOVERY" != true ]; then
    entry "	" "$title (recovery mode)" "$kernel-recovery" "$kernel" "$recovery"
  fi
done
[ "$simple" = yes ] || echo '}'
echo "### END /etc/grub.d/10_linux ###"
echo
echo "### BEGIN /etc/grub.d/40_custom ###"
echo "menuentry 'Rescue system' { linux /rescue/vmlinuz root=/dev/sdb1 intel_iommu=off; initrd /rescue/initrd }"
echo "### END /etc/grub.d/40_custom ###"
progress
umask 077
: >"$out"
progress
cat "$out.new" >"$out"
progress
rm -f "$out.new"
progress
"""

SOURCING_DROP_INS = r"""for x in "$ROOT"/etc/default/grub.d/*.cfg; do
  if [ -e "$x" ]; then . "$x"; fi
done"""

Interceptor = Callable[[Sequence[str]], "Completed | None"]


class GrubHost(HostTree):
    """A host in a directory, which boots with GRUB; ``host`` is how code under test sees it."""

    def __init__(
        self,
        root: Path,
        defaults: str = DEBIAN_12,
        drop_ins: Mapping[str, str] | None = None,
        kernels: Sequence[str] = ("6.1.0-12-amd64", "6.1.0-13-amd64"),
        flavour: Flavour = DEBIAN_FLAVOUR,
    ) -> None:
        super().__init__(root)
        self.config = flavour.config
        self.generator = flavour.generator
        self.commands: list[tuple[str, ...]] = []
        self.intercept: Interceptor | None = None
        """Called before each command; what it returns is taken for the command's result."""
        self.host = Host(str(root), runner=self._run, clock=lambda: 1_700_000_000.0)
        self.write(self.generator, _fake_generator(flavour), mode=0o755)
        self.write(DEFAULTS, defaults)
        for name, text in (drop_ins or {}).items():
            self.write(f"{DEFAULTS}.d/{name}", text)
        for kernel in kernels:
            self.write(f"/boot/vmlinuz-{kernel}", kernel)
        for directory in ("/run", "/var/lib"):
            self.path(directory).mkdir(parents=True)
        if flavour.efi_config:
            self.path("/sys/firmware/efi").mkdir(parents=True)
            self.path("/etc/grub2-efi.cfg").symlink_to(f"..{flavour.efi_config}")
        self.update_grub()
        self.reboot()

    def update_grub(self) -> None:
        """Generate grub.cfg, as an administrator does."""
        self.path(self.config).parent.mkdir(parents=True, exist_ok=True)
        self.generate(str(self.path(self.config))).check_returncode()

    def reboot(self) -> None:
        """Start the first entry of grub.cfg: /proc/cmdline is what GRUB hands over."""
        line = next(line for line in self.read(self.config).split("\n") if line.startswith(("\tlinux\t", "\t\tlinux")))
        self.write("/proc/cmdline", f"BOOT_IMAGE={' '.join(line.split()[1:])}\n")

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        self.commands.append(tuple(argv))
        if self.intercept is not None:
            answer = self.intercept(argv)
            if answer is not None:
                return answer
        if argv[0] == "sync":
            return Completed(tuple(argv), 0, "", "")  # not the disks of this machine
        program = os.path.basename(self.generator)
        if program in argv:
            done = self.generate(*argv[argv.index(program) + 2 :], option=argv[argv.index(program) + 1])
            return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)
        return run_subprocess(argv, timeout, stdin)

    def generate(self, output: str, *, option: str = "-o") -> subprocess.CompletedProcess[str]:
        """Run the generator, which writes to ``output``, a path of this process."""
        return subprocess.run(
            ["sh", str(self.path(self.generator)), option, output],
            env={"PATH": os.environ["PATH"], "ROOT": str(self.root), **progress_environment()},
            capture_output=True,
            text=True,
            check=False,
        )


def _fake_generator(flavour: Flavour) -> str:
    text = FAKE_GENERATOR.replace("@DROP_INS@", SOURCING_DROP_INS if flavour.reads_drop_ins else "")
    text = text.replace("@PROGRESS@", PROGRESS).replace("@SYSTEM@", flavour.system).replace("@MOUNT@", flavour.mount)
    return text.replace("@FALLBACK@", str(flavour.fallback)).replace("@KERNELS@", flavour.kernel_directory)
