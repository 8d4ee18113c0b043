# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second kernel for a large machine, in its image as a package that waits to be installed.

It is a real kernel package of Debian's, of another flavour, so that it is another version, with
its maintainer scripts and the hooks of initramfs and boot loader. It is packed again with few
modules: those of the first kernel take minutes to unpack and to index on an emulated machine.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

PACKAGE = "/usr/share/kvm-passthrough-lab/second-kernel.deb"

# Runs at the end of the tree's installation, in it, as root.
_REPACK = f"""
set -eu
flavour=$1
shift
mkdir -p /var/tmp/second-kernel {PACKAGE.rpartition("/")[0]}
cd /var/tmp/second-kernel
package=$(apt-cache depends --important "linux-image-$flavour" | sed -n 's/^ *Depends: //p')
release=${{package#linux-image-}}
apt-get --quiet --quiet download "$package"
dpkg-deb --raw-extract "$package"_*.deb tree
find tree -type f | sort >before
# Where tools look for modules, and where the package has them.
ln -s usr/lib tree/lib
depmod --basedir "$PWD/tree" "$release"
for module; do
    modprobe --dirname "$PWD/tree" --set-version "$release" --show-depends "$module" >>needed
done
sed -n 's|^insmod [^ ]*/modules/\\([^ ]*\\).*|\\1|p' needed | sort -u >kept
rm tree/lib
(cd tree/usr/lib/modules && find . -name '*.ko*' | sed 's|^./||' | sort | comm -23 - ../../../../kept | xargs rm --)
find tree -type f | sort | comm -13 before - | xargs rm --
rm tree/DEBIAN/md5sums
dpkg-deb -Zzstd -z3 --root-owner-group --build tree {PACKAGE}
cd /
rm -r /var/tmp/second-kernel
"""


@dataclass(frozen=True)
class SecondKernel:
    """Its flavour, such as ``rt-amd64``, and the modules it keeps, beside those they need."""

    flavour: str
    modules: tuple[str, ...]

    @property
    def hooks(self) -> tuple[str, ...]:
        """Options of mmdebstrap that put it into a tree."""
        words = shlex.join(["sh", "-c", _REPACK, "sh", self.flavour, *self.modules])
        return (f'--customize-hook=chroot "$1" {words}',)
