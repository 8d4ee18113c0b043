# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the next boot is set to, on hosts with a real GRUB configuration."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import build
from ansible_collections.kvm.passthrough.tests.unit.support.boot import CONFIG, DEFAULTS, GrubHost
from ansible_collections.kvm.passthrough.tests.unit.support.iommu import active_vtd, blocker, codes, report
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


def settings(parameters: str) -> str:
    return f'GRUB_CMDLINE_LINUX_DEFAULT="quiet {parameters}"\nGRUB_CMDLINE_LINUX=""\n'


def started(tree: SysfsTree, runs: str, configured: str | None = None) -> GrubHost:
    """A host that GRUB started with some parameters, and is set to start with others next time."""
    grub = GrubHost(tree.root, settings(runs))
    if configured is not None:
        grub.write(DEFAULTS, settings(configured))
        grub.update_grub()
    return grub


def ask(tree: SysfsTree, grub: GrubHost) -> dict[str, Any]:
    return report(tree, grub.host)


def test_what_is_set_is_what_runs(tree: SysfsTree) -> None:
    result = ask(active_vtd(tree), started(tree, "intel_iommu=on iommu=pt mitigations=off"))
    assert result["running_parameters"] == ["intel_iommu=on", "iommu=pt"]
    assert result["configured_parameters"] == ["intel_iommu=on", "iommu=pt"]
    assert result["bootloader"]["name"] == "grub"
    assert "BOOT_IMAGE=" in result["bootloader"]["evidence"][0]
    assert (result["bootloader"]["code"], result["bootloader"]["reason"]) == (None, None)
    assert result["blockers"] == []


def test_parameters_that_have_nothing_to_do_with_it_do_not_count(tree: SysfsTree) -> None:
    assert codes(ask(active_vtd(tree), started(tree, "mitigations=off", "nosmt"))) == []


@pytest.mark.parametrize(
    ("runs", "configured", "recommended", "unwanted"),
    [
        ("intel_iommu=off", "intel_iommu=on", ["intel_iommu=on"], []),
        ("intel_iommu=off", "intel_iommu=on,sm_on iommu=pt", ["intel_iommu=on,sm_on"], []),
        ("", "intel-iommu=on", ["intel-iommu=on"], []),
        ("iommu=off intel_iommu=on", "intel_iommu=on", ["intel_iommu=on"], ["iommu=off"]),
        ("iommu=pt,off intel_iommu=on", "intel_iommu=on", ["intel_iommu=on"], ["iommu=pt,off"]),
        ("iommu=pt,off intel_iommu=on", "intel_iommu=on iommu=pt", ["intel_iommu=on", "iommu=pt"], []),
    ],
)
def test_when_only_the_reboot_is_missing(
    tree: SysfsTree, runs: str, configured: str, recommended: list[str], unwanted: list[str]
) -> None:
    grub = started(tree.add_vtd(active=False), runs, configured)
    result = ask(tree, grub)
    assert result["state"] in ("disabled_by_parameter", "disabled_by_default")
    assert codes(result) == [f"iommu_{result['state']}", "reboot_pending"]
    assert result["blockers"][0]["remedy"].startswith("Reboot the host: its boot loader is set to start the next")
    assert result["recommended_parameters"] == recommended
    assert result["parameters_to_remove"] == unwanted
    # What is recommended is what is configured: kernel_parameters has nothing to change, and asks for the reboot.
    procedure = build(grub.host, recommended, unwanted)
    observed = procedure.observe()
    plan = procedure.plan(observed)
    assert not plan.changed
    assert procedure.report(observed, plan)["reboot_required"] is True


def test_a_kernel_that_was_told_not_to_once(tree: SysfsTree) -> None:
    grub = started(tree.add_amdvi(active=False), "amd_iommu=off", "")
    result = ask(tree, grub)
    assert result["parameters_to_remove"] == ["amd_iommu=off"]
    assert result["blockers"][0]["remedy"] == (
        "Reboot the host: its boot loader starts the next kernel without such a parameter."
    )


def test_a_kernel_that_was_told_not_to_once_and_is_on_by_default(tree: SysfsTree) -> None:
    config = "CONFIG_INTEL_IOMMU=y\nCONFIG_INTEL_IOMMU_DEFAULT_ON=y\n"
    grub = started(tree.add_vtd(active=False).write(f"/boot/config-{tree.kernel}", config), "intel_iommu=off", "")
    result = ask(tree, grub)
    assert result["recommended_parameters"] == []
    assert result["parameters_to_remove"] == ["intel_iommu=off"]
    assert "Reboot the host" in result["blockers"][0]["remedy"]


@pytest.mark.parametrize(
    ("runs", "configured", "recommended", "unwanted"),
    [
        ("intel_iommu=off", None, ["intel_iommu=on"], []),
        ("", None, ["intel_iommu=on"], []),
        ("", "intel_iommu=sm_on,off", ["intel_iommu=on,sm_on"], []),
        ("intel_iommu=off", "iommu=off intel_iommu=on", ["intel_iommu=on"], ["iommu=off"]),
        ("iommu=off", "intel_iommu=off", ["intel_iommu=on"], []),
    ],
)
def test_what_is_recommended_follows_from_what_is_configured(
    tree: SysfsTree, runs: str, configured: str | None, recommended: list[str], unwanted: list[str]
) -> None:
    result = ask(tree.add_vtd(active=False), started(tree, runs, configured))
    assert result["recommended_parameters"] == recommended
    assert result["parameters_to_remove"] == unwanted
    assert "kernel_parameters" in result["blockers"][0]["remedy"]
    assert f"et {recommended[0]}" in result["blockers"][0]["remedy"]


@pytest.mark.parametrize(
    ("runs", "configured", "message"),
    [
        (
            "intel_iommu=on",
            "intel_iommu=on iommu=pt",
            "set to start the next kernel with iommu=pt; the running one was",
        ),
        ("iommu=pt intel_iommu=on", "intel_iommu=on", "set to start the next kernel without iommu=pt; the"),
        ("intel_iommu=on iommu=pt", "iommu=soft intel_iommu=on", "with iommu=soft in place of iommu=pt; the"),
    ],
)
def test_a_pending_reboot_names_the_difference(tree: SysfsTree, runs: str, configured: str, message: str) -> None:
    result = ask(active_vtd(tree), started(tree, runs, configured))
    assert codes(result) == ["reboot_pending"]
    found = blocker(result, "reboot_pending")
    assert found["severity"] == "warning"
    assert message in found["message"]
    assert result["msg"].endswith("Look at: reboot_pending.")


@pytest.mark.parametrize(
    ("runs", "configured", "config", "expected"),
    [
        ("", "intel_iommu=off", None, ["iommu_off_after_reboot", "reboot_pending"]),
        ("intel_iommu=on", "", "CONFIG_INTEL_IOMMU=y\n", ["iommu_off_after_reboot", "reboot_pending"]),
        ("intel_iommu=on", "", "CONFIG_INTEL_IOMMU_DEFAULT_ON=y\nCONFIG_INTEL_IOMMU=y\n", ["reboot_pending"]),
        ("intel_iommu=on", "", None, ["reboot_pending"]),  # whether this kernel has to be told is not known
    ],
)
def test_an_iommu_that_the_next_boot_leaves_off(
    tree: SysfsTree, runs: str, configured: str, config: str | None, expected: list[str]
) -> None:
    if config is not None:
        tree.write(f"/boot/config-{tree.kernel}", config)
    result = ask(active_vtd(tree), started(tree, runs, configured))
    assert result["state"] == "active"
    assert codes(result) == expected
    if expected[0] == "iommu_off_after_reboot":
        assert "intel_iommu=on" in result["blockers"][0]["remedy"]


def test_entries_that_were_not_made_again(tree: SysfsTree) -> None:
    grub = started(active_vtd(tree), "iommu=pt")
    grub.write(DEFAULTS, settings("iommu=pt intel_iommu=off"))
    result = ask(tree, grub)
    assert result["configured_parameters"] == ["iommu=pt"]
    assert codes(result) == ["boot_entries_outdated"]
    assert "settings are to start kernels with intel_iommu=off, but" in result["blockers"][0]["message"]


@pytest.mark.parametrize(
    ("runs", "configured", "told"),
    [
        (
            "intremap=off intremap=on",
            None,
            "The running kernel was started with intremap=off and with intremap=on, and",
        ),
        ("intremap=off intremap=on", "", "The running kernel was started with intremap=off and with intremap=on: the"),
        ("", "intremap=off intremap=on", "The boot loader is set to start the next kernel with intremap=off and with"),
    ],
)
def test_contradictions_on_either_side(tree: SysfsTree, runs: str, configured: str | None, told: str) -> None:
    result = ask(active_vtd(tree), started(tree, runs, configured))
    assert blocker(result, "contradicting_parameters")["message"].startswith(told)


def test_a_host_whose_boot_loader_is_another(tree: SysfsTree) -> None:
    result = report(active_vtd(tree).write("/run/ostree-booted", ""))
    assert result["configured_parameters"] is None
    assert result["bootloader"]["name"] is None
    assert result["bootloader"]["code"] == "bootloader_unsupported"
    assert "rpm-ostree" in result["bootloader"]["reason"]
    assert result["blockers"] == []


def test_a_container_has_none(tree: SysfsTree) -> None:
    result = report(active_vtd(tree).write("/run/.containerenv", ""))
    assert result["bootloader"]["code"] == "no_boot_loader"


def test_without_root_rights_grub_cfg_stays_closed(tree: SysfsTree) -> None:
    grub = started(active_vtd(tree), "intel_iommu=on")
    tree.path(CONFIG).unlink()
    tree.path(CONFIG).mkdir()  # cannot be read by anybody, whoever runs the tests
    result = ask(tree, grub)
    assert result["configured_parameters"] is None
    assert result["bootloader"]["code"] == "file_unreadable"
    assert result["unreadable"] == [CONFIG]
    assert result["blockers"] == []


def test_settings_that_no_shell_reads(tree: SysfsTree) -> None:
    grub = started(tree.add_vtd(active=False), "intel_iommu=off")
    grub.write(DEFAULTS, 'GRUB_CMDLINE_LINUX="')
    result = ask(tree, grub)
    assert result["bootloader"]["name"] == "grub"
    assert result["bootloader"]["code"] == "settings_not_evaluated"
    assert result["recommended_parameters"] == ["intel_iommu=on"]
