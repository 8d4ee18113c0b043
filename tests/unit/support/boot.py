# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""File trees of hosts that boot with GRUB, and a generator that derives grub.cfg from the settings it sources."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host, run_subprocess

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

# What grub-mkconfig does, reduced to what matters here: the same sourcing, the same entries, "set -e", and the
# half-written file it leaves when it is interrupted.
FAKE_GENERATOR = r"""#!/bin/sh
set -e
[ "$1" = -o ] || exit 2
out=$2
if test -f "$ROOT/etc/default/grub"; then . "$ROOT/etc/default/grub"; fi
for x in "$ROOT"/etc/default/grub.d/*.cfg; do
  if [ -e "$x" ]; then . "$x"; fi
done
exec >"$out"
echo "### BEGIN /etc/grub.d/00_header ###"
echo 'if [ "${next_entry}" ] ; then'
echo '   set default="${next_entry}"'
echo 'fi'
echo "### END /etc/grub.d/00_header ###"
echo
echo "### BEGIN /etc/grub.d/10_linux ###"
echo 'function gfxmode {'
echo '	set gfxpayload="${1}"'
echo '}'
entry () {
  printf '%s\n' "$1menuentry '$2' --class debian --class os \$menuentry_id_option 'gnulinux-$3-1234-abcd' {" \
    "$1	load_video" \
    "$1	echo	'Loading Linux ...'" \
    "$1	linux	/boot/vmlinuz-$4 root=UUID=1234-abcd ro $5" \
    "$1	initrd	/boot/initrd.img-$4" \
    "$1}"
}
simple=yes
recovery="${GRUB_CMDLINE_LINUX_RECOVERY:-single} ${GRUB_CMDLINE_LINUX}"
for kernel in $(ls -r "$ROOT/boot" | sed -n 's/^vmlinuz-//p'); do
  if [ "$simple" = yes ]; then
    entry "" "Debian GNU/Linux" simple "$kernel" "${GRUB_CMDLINE_LINUX} ${GRUB_CMDLINE_LINUX_DEFAULT}"
    echo "submenu 'Advanced options for Debian GNU/Linux' \$menuentry_id_option 'gnulinux-advanced-1234-abcd' {"
    simple=no
  fi
  title="Debian GNU/Linux, with Linux $kernel"
  entry "	" "$title" "$kernel-advanced" "$kernel" "${GRUB_CMDLINE_LINUX} ${GRUB_CMDLINE_LINUX_DEFAULT}"
  entry "	" "$title (recovery mode)" "$kernel-recovery" "$kernel" "$recovery"
done
[ "$simple" = yes ] || echo '}'
echo "### END /etc/grub.d/10_linux ###"
echo
echo "### BEGIN /etc/grub.d/40_custom ###"
echo "menuentry 'Rescue system' { linux /rescue/vmlinuz root=/dev/sdb1 intel_iommu=off; initrd /rescue/initrd }"
echo "### END /etc/grub.d/40_custom ###"
"""

Interceptor = Callable[[Sequence[str]], "Completed | None"]


class GrubHost:
    """A Debian-like host in a directory, which boots with GRUB; ``host`` is how code under test sees it."""

    def __init__(
        self,
        root: Path,
        defaults: str = DEBIAN_12,
        drop_ins: Mapping[str, str] | None = None,
        kernels: Sequence[str] = ("6.1.0-12-amd64", "6.1.0-13-amd64"),
    ) -> None:
        self.root = root
        self.commands: list[tuple[str, ...]] = []
        self.intercept: Interceptor | None = None
        """Called before each command; what it returns is taken for the command's result."""
        self.host = Host(str(root), runner=self._run, clock=lambda: 1_700_000_000.0)
        self.write(GENERATOR, FAKE_GENERATOR, mode=0o755)
        self.write(DEFAULTS, defaults)
        for name, text in (drop_ins or {}).items():
            self.write(f"{DEFAULTS}.d/{name}", text)
        for kernel in kernels:
            self.write(f"/boot/vmlinuz-{kernel}", kernel)
        (root / "run").mkdir()
        self.update_grub()
        self.reboot()

    def path(self, path: str) -> Path:
        """Where a path of the host is for this process."""
        return self.root / path.lstrip("/")

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Make a file of the host."""
        real = self.path(path)
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(text if isinstance(text, bytes) else text.encode())
        real.chmod(mode)

    def read(self, path: str) -> str:
        """The text of a file of the host."""
        return self.path(path).read_bytes().decode()

    def update_grub(self) -> None:
        """Generate grub.cfg, as an administrator does."""
        self.path(CONFIG).parent.mkdir(parents=True, exist_ok=True)
        self._generate(["-o", str(self.path(CONFIG))]).check_returncode()

    def reboot(self) -> None:
        """Start the first entry of grub.cfg: /proc/cmdline is what GRUB hands over."""
        line = next(line for line in self.read(CONFIG).split("\n") if line.startswith("\tlinux\t"))
        self.write("/proc/cmdline", f"BOOT_IMAGE={' '.join(line.split()[1:])}\n")

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        self.commands.append(tuple(argv))
        if self.intercept is not None:
            answer = self.intercept(argv)
            if answer is not None:
                return answer
        if "grub-mkconfig" in argv:
            done = self._generate(argv[argv.index("grub-mkconfig") + 1 :])
            return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)
        return run_subprocess(argv, timeout, stdin)

    def _generate(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.path(GENERATOR)), *arguments],
            env={"PATH": os.environ["PATH"], "ROOT": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )
