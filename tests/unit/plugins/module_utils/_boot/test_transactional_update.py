# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.detect import detect
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import build
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore
from ansible_collections.kvm.passthrough.tests.unit.support.boot import DEFAULTS
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import refused, run
from ansible_collections.kvm.passthrough.tests.unit.support.transactional_update import (
    CONFIG,
    MOUNTS,
    RUNNING,
    TransactionalHost,
)
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing

OUR_TRACES = ("run", "var/lib/kvm-passthrough")
BOOTLOADER = "/etc/sysconfig/bootloader"


def failed(on: TransactionalHost, code: str) -> PassthroughError:
    """A run fails with this code, after it has undone everything: what is booted next is what was."""
    before = tree_listing(on.root, exclude=OUR_TRACES)
    with pytest.raises(PassthroughError) as caught:
        run(on, ["iommu=pt"])
    assert caught.value.code == code
    assert not caught.value.extra["not_undone"]
    assert tree_listing(on.root, exclude=OUR_TRACES) == before
    assert on.default == RUNNING
    assert not StateStore(on.host).all("kernel_parameter")
    return caught.value


@pytest.fixture(name="on")
def host_fixture(tmp_path: Path) -> TransactionalHost:
    return TransactionalHost(tmp_path)


SETTINGS = {
    "openSUSE": 'GRUB_CMDLINE_LINUX_DEFAULT="quiet security=selinux selinux=1"\nGRUB_CMDLINE_LINUX=""\n',
    "a contradiction": 'GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=off"\nGRUB_CMDLINE_LINUX="intel_iommu=off"\n',
    "single quotes": "GRUB_CMDLINE_LINUX_DEFAULT='quiet dyndbg=\"file x +p\"' # why\n",
    "no assignment, no final newline": "GRUB_TIMEOUT=10",
    "repeated names": 'GRUB_CMDLINE_LINUX_DEFAULT="console=tty0 console=ttyS0 amd_iommu=pt"\n',
}
REQUESTS: dict[str, tuple[list[str], list[str]]] = {
    "set": (["intel_iommu=on", "iommu=pt"], []),
    "replace and remove": (["intel_iommu=on"], ["quiet", "nothing_of_that_name"]),
    "quoted": (['dyndbg="file drivers/vfio/* +p; module x +p"', "vfio-pci.ids=8086:10ca"], ["intel_iommu"]),
}


@pytest.mark.parametrize("wanted", REQUESTS)
@pytest.mark.parametrize("name", SETTINGS)
def test_check_run_check_run(tmp_path: Path, name: str, wanted: str) -> None:
    on = TransactionalHost(tmp_path, SETTINGS[name])
    before, config = tree_listing(on.root), on.read(CONFIG)
    expected = run(on, *REQUESTS[wanted], check=True)
    assert tree_listing(on.root) == before
    assert run(on, *REQUESTS[wanted]) == expected
    assert expected["bootloader"]["name"] == "transactional-update"
    assert on.read(CONFIG) == config  # the root file system is read-only
    assert on.default == "13"
    after = tree_listing(on.root)
    for check in (True, False):
        again = run(on, *REQUESTS[wanted], check=check)
        assert not again["changed"]
        assert again["entries"]["before"] == expected["entries"]["after"]
    assert tree_listing(on.root) == after
    on.boot_default()
    rebooted = run(on, *REQUESTS[wanted])
    assert not rebooted["changed"]
    assert not rebooted["reboot_required"]


def test_names_match_as_wholes(tmp_path: Path) -> None:
    on = TransactionalHost(tmp_path, 'GRUB_CMDLINE_LINUX_DEFAULT="amd_iommu=pt intel_iommu=on,sm_on iommu=soft"\n')
    run(on, ["iommu=pt"])
    assert on.read(DEFAULTS) == 'GRUB_CMDLINE_LINUX_DEFAULT="amd_iommu=pt intel_iommu=on,sm_on iommu=pt"\n'
    assert "amd_iommu=pt intel_iommu=on,sm_on iommu=pt" in on.next_config()


def test_the_record_names_the_boot_loader(on: TransactionalHost) -> None:
    run(on, ["iommu=pt"])
    record = StateStore(on.host).all("kernel_parameter")[0]
    assert record.restore == {"bootloader": "transactional-update"}
    assert record.after == {"GRUB_CMDLINE_LINUX_DEFAULT": ["iommu=pt"]}


def test_settings_that_are_right_with_an_old_grub_cfg(on: TransactionalHost) -> None:
    on.write(DEFAULTS, 'GRUB_CMDLINE_LINUX_DEFAULT="iommu=pt"\n')
    result = run(on, ["iommu=pt"])
    assert [action["target"] for action in result["actions"]] == [CONFIG]
    assert "iommu=pt" in on.next_config()


def test_only_grub_cfg_of_what_waits_is_not_as_wanted(on: TransactionalHost) -> None:
    on.write(DEFAULTS, 'GRUB_CMDLINE_LINUX_DEFAULT="iommu=pt"\n')
    on.update()
    assert run(on, ["iommu=pt"])["changed"]
    assert on.default == "14"
    assert "iommu=pt" in on.next_config()
    assert on.host.exists("/.snapshots/14/snapshot/usr/updated")  # the update is not lost


def test_what_waits_has_other_settings(on: TransactionalHost) -> None:
    on.update()
    on.write(DEFAULTS, 'GRUB_CMDLINE_LINUX_DEFAULT="iommu=pt"\n')
    with pytest.raises(PassthroughError) as caught:
        run(on, ["iommu=pt"])
    assert caught.value.code == "boot_entries_wrong"
    assert on.default == "13"


# -- refused -----------------------------------------------------------------------------------------------


def test_a_snapshot_of_somebody_else_waits(on: TransactionalHost) -> None:
    on.update()
    error = refused(on, "snapshot_pending", ["iommu=pt"])
    assert "Snapshot 13 is booted next" in str(error)
    assert "Reboot first" in error.problems[0].remedy
    on.boot_default()
    assert run(on, ["iommu=pt"])["changed"]


def test_a_snapshot_of_our_own_waits(on: TransactionalHost) -> None:
    run(on, ["iommu=pt"])
    refused(on, "snapshot_pending", ["intel_iommu=on"])
    assert not run(on, ["iommu=pt"])["changed"]


def test_no_snapshots(on: TransactionalHost) -> None:
    on.intercept = lambda argv: Completed(tuple(argv), 0, "ID 5 (FS_TREE)\n", "") if argv[0] == "btrfs" else None
    refused(on, "snapshots_not_understood", ["iommu=pt"])


def test_a_root_file_system_that_is_no_snapshot(on: TransactionalHost) -> None:
    on.write(MOUNTS, "/dev/vda3 / btrfs ro,subvol=/@ 0 0\n")
    refused(on, "snapshots_not_understood", ["iommu=pt"])


@pytest.mark.parametrize("program", ["btrfs", "grub2-mkconfig"])
def test_a_program_that_is_not_there(on: TransactionalHost, program: str) -> None:
    on.path(f"/usr/sbin/{program}").unlink()
    assert refused(on, "bootloader_incomplete", ["iommu=pt"]).problems[0].details["missing"]


# -- when something goes wrong -----------------------------------------------------------------------------


def test_another_instance(on: TransactionalHost) -> None:
    on.write("/run/transactional-update.pid", "1\n")
    assert "running already" in str(failed(on, "transaction_in_progress"))


def test_a_failing_generator_leaves_something_that_boots(on: TransactionalHost) -> None:
    on.write(on.generator, '#!/bin/sh\necho broken >"$2"\nexit 1\n', 0o755)
    before = on.next_config()
    failed(on, "boot_entries_wrong")
    assert on.next_config() == before
    assert on.read("/.snapshots/13/snapshot/boot/grub2/grub.cfg") == before  # even that, which is no longer booted


def test_a_generator_that_makes_nothing_to_boot(on: TransactionalHost) -> None:
    on.write(on.generator, '#!/bin/sh\n: >"$2"\n', 0o755)
    failed(on, "boot_entries_missing")


def test_transactional_update_makes_no_snapshot(on: TransactionalHost) -> None:
    on.intercept = lambda argv: Completed(tuple(argv), 0, "", "") if "run" in argv else None
    failed(on, "generator_failed")


def test_transactional_update_fails(on: TransactionalHost) -> None:
    on.intercept = lambda argv: Completed(tuple(argv), 1, "", "ERROR: no space\n") if "run" in argv else None
    assert "no space" in str(failed(on, "command_failed"))


def test_a_snapshot_of_somebody_else_is_not_rolled_back(on: TransactionalHost) -> None:
    procedure = build(on.host, ["iommu=pt"])
    plan = procedure.plan(procedure.observe())
    for action in plan.actions:
        action.apply(on.host)
    on.update()
    with pytest.raises(PassthroughError) as caught:
        plan.actions[-1].undo(on.host)
    assert caught.value.code == "snapshot_pending"
    assert on.default == "14"


def test_a_snapshot_that_somebody_makes_meanwhile(on: TransactionalHost) -> None:
    procedure = build(on.host, ["iommu=pt"])
    plan = procedure.plan(procedure.observe())
    on.update()
    with pytest.raises(PassthroughError) as caught:
        plan.actions[-1].apply(on.host)
    assert caught.value.code == "snapshot_pending"
    assert on.default == "13"


# -- detection ---------------------------------------------------------------------------------------------


def test_it_is_proved_by_the_read_only_root(on: TransactionalHost) -> None:
    assert detect(on.host).evidence == ("it is installed, and the root file system is read-only",)
    on.write(MOUNTS, "/dev/vda3 / btrfs rw,subvol=/@/.snapshots/1/snapshot 0 0\n")
    assert detect(on.host).name == "grub"


@pytest.mark.parametrize("kind", ["systemd-boot", "grub2-bls"])
def test_entries_by_sdbootutil_are_refused_by_name(on: TransactionalHost, kind: str) -> None:
    on.write(BOOTLOADER, f'# a comment\nLOADER_TYPE="{kind}"\n')
    error = refused(on, "bootloader_unsupported", ["iommu=pt"])
    assert "sdbootutil" in str(error)
    assert kind in str(error)
    on.write(BOOTLOADER, 'LOADER_TYPE="grub2-efi"\n')
    assert detect(on.host).name == "transactional-update"


def test_grub_alone_is_refused_there(on: TransactionalHost) -> None:
    refused(on, "bootloader_unsupported", ["iommu=pt"], bootloader="grub")
