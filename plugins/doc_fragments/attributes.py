# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What the attributes of a module mean, in the standard fragment, and how modules support them, in the others."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description:
      - Can run in check mode. It then changes nothing and returns exactly what a run would return.
  diff_mode:
    description:
      - In diff mode it returns what it changes, or in check mode would change, as before and after.
  idempotent:
    description:
      - A second run with the same options changes nothing, as long as nobody else changed the host meanwhile.
  platform:
    description:
      - The operating systems on which it works.
    support: full
    platforms: linux
"""

    # For modules that change the host; to be used together with the standard fragment. What a module does not do in
    # full, it says itself.
    CHANGE_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

    # For read-only modules; to be used together with the standard fragment.
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This module only reads.
  diff_mode:
    support: N/A
    details:
      - This module only reads.
  idempotent:
    support: full
    details:
      - This module only reads.
"""

    ACTIONGROUP = r"""
options: {}
attributes:
  action_group:
    description:
      - Use C(group/kvm.passthrough.passthrough) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - kvm.passthrough.passthrough
"""
