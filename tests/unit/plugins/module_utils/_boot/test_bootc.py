# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.bootc import KARGS, OURS, snippet
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import configuration
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import refused, run
from ansible_collections.kvm.passthrough.tests.unit.support.rpm_ostree import ENTRIES, OstreeHost


@pytest.fixture(name="on")
def host_fixture(tmp_path: Path) -> OstreeHost:
    return OstreeHost(tmp_path, programs=("bootc",))


def test_a_host_that_has_what_is_wanted(on: OstreeHost) -> None:
    for check in (True, False, True, False):
        result = run(on, ["intel_iommu=off"], ["iommu"], check=check)
        assert not result["changed"]
        assert result["bootloader"]["name"] == "bootc"
        assert not result["reboot_required"]
    assert len(result["entries"]["after"]) == 2
    assert str(configuration(on.host).normal) == "root=UUID=1234-abcd rw quiet intel_iommu=off"


def test_what_belongs_into_the_image(on: OstreeHost) -> None:
    error = refused(on, "parameters_belong_to_image", ["iommu=pt", 'dyndbg="file x +p"'])
    told = error.problems[0]
    assert told.details["toml"] == r'kargs = ["iommu=pt", "dyndbg=\"file x +p\""]'
    assert told.details["toml"] in told.remedy
    assert OURS in told.remedy
    assert "bootc upgrade" in told.remedy
    assert told.details["remove"] == []


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_contradiction_that_comes_from_the_image(on: OstreeHost, quote: str) -> None:
    on.write(f"{KARGS}/10-iommu.toml", f"kargs = [{quote}intel_iommu=off{quote}]\n")
    told = refused(on, "parameters_belong_to_image", ["intel_iommu=on"]).problems[0]
    assert f"Remove intel_iommu=off from {KARGS}/10-iommu.toml" in told.remedy
    assert 'kargs = ["intel_iommu=on"]' in told.remedy
    assert told.details["remove"] == ["intel_iommu=off"]


def test_a_contradiction_that_does_not(on: OstreeHost) -> None:
    on.write(f"{KARGS}/10-iommu.toml", 'kargs = ["intel_iommu=offset"]\n')
    told = refused(on, "parameters_belong_to_image", [], ["intel_iommu"]).problems[0]
    assert "an image cannot remove it" in told.remedy
    assert "kargs = " not in told.remedy


def test_an_update_that_waits(on: OstreeHost) -> None:
    on.write("/run/ostree/staged-deployment", "")
    assert "if it brings them, reboot" in refused(on, "parameters_belong_to_image", ["iommu=pt"]).problems[0].remedy


def test_one_deployment_only_cannot_be_had(on: OstreeHost) -> None:
    refused(on, "kernels_default_unsupported", ["iommu=pt"], kernels="default")


def test_the_path_of_the_deployment(on: OstreeHost) -> None:
    refused(on, "invalid_parameter", [], ["ostree"])


def test_no_entries(on: OstreeHost) -> None:
    for name in on.host.list_dir(ENTRIES):
        on.path(f"{ENTRIES}/{name}").unlink()
    refused(on, "boot_entries_missing", ["iommu=pt"])
    on.path(ENTRIES).rmdir()
    refused(on, "bootloader_incomplete", ["iommu=pt"])


def test_the_composefs_backend_is_refused_by_name(on: OstreeHost) -> None:
    on.path("/run/ostree-booted").unlink()
    on.write("/proc/cmdline", f"composefs={'a' * 128} quiet\n")
    error = refused(on, "bootloader_unsupported", ["iommu=pt"])
    assert "composefs backend" in str(error)
    assert error.as_result()["evidence"] == [f"/proc/cmdline has composefs={'a' * 128}"]


def test_what_is_not_ascii_stays_readable() -> None:
    assert snippet(["vconsole.font=größe"]) == 'kargs = ["vconsole.font=größe"]'
