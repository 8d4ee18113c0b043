# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.machine import Machine
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.modprobe import (
    ModprobeSettings,
    kernel_refusal,
    modprobe_settings,
    parse,
)
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("blacklist vfio-pci\n", [("blacklist", "vfio_pci", "")]),
        (
            "#blacklist vfio_pci\n\n  blacklist  vfio_pci # not a comment\n",
            [("blacklist", "vfio_pci", "# not a comment")],
        ),
        ("install vfio-pci \\\n /bin/false\n", [("install", "vfio_pci", "/bin/false")]),
        ("softdep igb pre: vfio-pci\nalias a vfio-pci\n", []),
        ("options vfio-pci ids=8086:10ca a=1\n", [("options", "vfio_pci", "ids=8086:10ca a=1")]),
        ("blacklist\ninstall vfio\nblacklisted vfio\n", [("install", "vfio", "")]),
    ],
)
def test_lines(text: str, found: list[tuple[str, str, str]]) -> None:
    assert [(each.command, each.module, each.argument) for each in parse(text, "x")] == found


@pytest.mark.parametrize(
    ("command", "disables"),
    [
        ("/bin/false", True),
        ("/usr/bin/true", True),
        ("true; echo no", True),
        (":", True),
        ("exit 1", True),
        ("/sbin/nologin", True),
        ("/sbin/modprobe --ignore-install vfio_pci", False),
        ("/usr/local/bin/false_friend", False),
        ("/sbin/modprobe vfio-pci || /bin/true", False),
        ("", False),
    ],
)
def test_commands_that_load_nothing(command: str, disables: bool) -> None:
    settings = ModprobeSettings(tuple(parse(f"install vfio-pci {command}", "x")))
    assert (settings.disabling("vfio_pci") is not None) is disables
    assert settings.blacklisting("vfio_pci") is None


def test_of_an_option_that_is_given_twice_the_last_counts() -> None:
    lines = "options vfio-pci disable-idle-d3=0 ids=1:2\noptions vfio_pci disable_idle_d3\noptions igb ids=3:4\n"
    settings = ModprobeSettings(tuple(parse(lines, "x")))
    assert settings.option("vfio_pci", "ids") == "1:2"
    assert settings.option("vfio_pci", "disable_idle_d3") == ""
    assert settings.option("vfio_pci", "disable_vga") is None


def test_an_install_line_may_name_modules_by_a_pattern() -> None:
    settings = ModprobeSettings(tuple(parse("install vfio* /bin/false\nblacklist igb*\n", "x")))
    assert settings.disabling("vfio_iommu_type1") is not None
    assert settings.disabling("igb") is None
    assert settings.blacklisting("igbvf") is None  # a blacklist takes no patterns


def test_of_two_files_with_one_name_the_one_of_etc_counts(tree: SysfsTree) -> None:
    tree.write("/usr/lib/modprobe.d/vfio.conf", "blacklist vfio_pci\n").write("/etc/modprobe.d/vfio.conf", "# none\n")
    assert modprobe_settings(Machine(tree.host())).blacklisting("vfio_pci") is None
    tree.write("/usr/lib/modprobe.d/other.conf", "blacklist vfio_pci\n").write("/etc/modprobe.d/x", "blacklist igb\n")
    settings = modprobe_settings(Machine(tree.host()))
    found = settings.blacklisting("vfio_pci")
    assert found is not None
    assert found.source == "/usr/lib/modprobe.d/other.conf"
    assert settings.blacklisting("igb") is None  # no .conf


def test_the_blacklist_of_the_command_line(tree: SysfsTree) -> None:
    tree.set_cmdline("modprobe.blacklist=nouveau,vfio-pci")
    found = modprobe_settings(Machine(tree.host())).blacklisting("vfio_pci")
    assert found is not None
    assert found.source == "the kernel parameter modprobe.blacklist=nouveau,vfio-pci"


@pytest.mark.parametrize(
    ("cmdline", "disabled", "refused"),
    [
        ("quiet", "0", None),
        ("module_blacklist=nouveau,vfio_pci", "0", "module_blacklist=nouveau,vfio_pci"),
        ("module_blacklist=vfio-pci", "0", None),  # the kernel compares the bytes
        ("module_blacklist=vfio_pci module_blacklist=igb", "0", None),  # the last one counts
        ("quiet", "1", "kernel.modules_disabled = 1"),
    ],
)
def test_what_the_kernel_itself_refuses(tree: SysfsTree, cmdline: str, disabled: str, refused: str | None) -> None:
    tree.set_cmdline(cmdline).write("/proc/sys/kernel/modules_disabled", f"{disabled}\n")
    reason = kernel_refusal(Machine(tree.host()), "vfio_pci")
    assert reason is None if refused is None else refused in str(reason)


@given(st.text(st.sampled_from("blacklist install vfio-pci#\\\n\t/bin/false")))
def test_every_text_is_read(text: str) -> None:
    for directive in parse(text, "x"):
        assert directive.command in ("blacklist", "install", "options")
        assert directive.module
        assert "-" not in directive.module


WORDS = st.text(st.sampled_from("abcz_-09"), min_size=1)


@given(st.lists(WORDS), st.integers(0, 3))
def test_every_blacklisted_module_is_found_however_it_is_spelled(modules: list[str], blanks: int) -> None:
    text = "".join(f"{' ' * blanks}blacklist {' ' * blanks}{module}\n" for module in modules)
    settings = ModprobeSettings(tuple(parse(text, "x")))
    for module in modules:
        assert settings.blacklisting(module.replace("-", "_")) is not None
