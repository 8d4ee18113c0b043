# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import CommandLine, Request
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.detect import detect
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import build
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.rpm_ostree import Change
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import refused, run
from ansible_collections.kvm.passthrough.tests.unit.support.rpm_ostree import LINE, Kargs, OstreeHost
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing

OUR_TRACES = ("run/kvm-passthrough.lock", "var/lib/kvm-passthrough")


def changing(argv: Sequence[str]) -> bool:
    """Whether a command changes something."""
    return tuple(argv) not in (("status", "--json"), ("kargs",))


def changes(on: OstreeHost) -> list[tuple[str, ...]]:
    """The commands that change something."""
    return [command for command in on.commands if changing(command)]


@pytest.fixture(name="on")
def host_fixture(tmp_path: Path) -> OstreeHost:
    return OstreeHost(tmp_path)


# -- the four runs -----------------------------------------------------------------------------------------

LINES = {
    "nothing of it": "root=UUID=1 rw quiet",
    "a contradiction": LINE,
    "twice": "intel_iommu=off root=UUID=1 intel_iommu=igfx_off quiet",
    "another spelling": "root=UUID=1 vfio-pci.ids=1:1 vfio_pci.ids=2:2 intel_iommu",
    "an empty value": "root=UUID=1 intel_iommu= intel_iommu",
    "whole-quoted": 'root=UUID=1 "intel_iommu=off"',
    "of Ignition": "$ignition_firstboot root=UUID=1 rw",
}
REQUESTS: dict[str, tuple[list[str], list[str]]] = {
    "set": (["intel_iommu=on", "iommu=pt"], []),
    "replace and remove": (["intel_iommu=on"], ["quiet", "nothing_of_that_name"]),
    "several": (["console=tty0", "console=ttyS0,115200", "vfio-pci.ids=8086:10ca"], ["intel_iommu=off"]),
}


@pytest.mark.parametrize("wanted", REQUESTS)
@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("pending", [False, True])
def test_check_run_check_run(tmp_path: Path, name: str, wanted: str, pending: bool) -> None:
    on = OstreeHost(tmp_path, LINES[name])
    if pending:
        on.upgrade()
    before = tree_listing(on.root)
    expected = run(on, *REQUESTS[wanted], check=True)
    assert tree_listing(on.root) == before
    assert run(on, *REQUESTS[wanted]) == expected
    after = tree_listing(on.root)
    for check in (True, False):
        again = run(on, *REQUESTS[wanted], check=check)
        assert not again["changed"]
        assert again["configured"]["before"] == expected["configured"]["after"]
        assert again["entries"]["before"] == expected["entries"]["after"]
    assert tree_listing(on.root) == after
    assert len(changes(on)) == int(expected["changed"])  # one transaction for everything
    assert expected["bootloader"]["name"] == "rpm-ostree"
    on.reboot()
    rebooted = run(on, *REQUESTS[wanted])
    assert not rebooted["changed"]
    assert not rebooted["reboot_required"]
    assert (on.deployments[0]["version"] == "41.2") == pending  # the update is not lost


def test_names_match_as_wholes(tmp_path: Path) -> None:
    on = OstreeHost(tmp_path, "amd_iommu=pt intel_iommu=on,sm_on iommu=soft iommu.strict=1")
    run(on, ["iommu=pt"])
    assert on.deployments[0]["kargs"] == "amd_iommu=pt intel_iommu=on,sm_on iommu.strict=1 iommu=pt"


def test_one_of_several_values_is_removed(tmp_path: Path) -> None:
    on = OstreeHost(tmp_path, "console=tty0 console=ttyS0 console=ttyS1")
    run(on, absent=["console=ttyS0"])
    assert on.deployments[0]["kargs"] == "console=tty0 console=ttyS1"


def test_what_is_not_ascii(on: OstreeHost) -> None:
    run(on, ["vconsole.font=größe"])
    assert on.deployments[0]["kargs"].endswith("vconsole.font=größe")


def test_the_running_system_stays_until_the_reboot(on: OstreeHost) -> None:
    result = run(on, ["intel_iommu=on"])
    assert result["reboot_required"]
    assert [entry["generated"] for entry in result["entries"]["before"]] == [True, False]
    assert [entry["generated"] for entry in result["entries"]["after"]] == [True, False, False]
    assert "intel_iommu=off" in result["running"]
    record = StateStore(on.host).all("kernel_parameter")[0]
    assert record.before == {"rpm-ostree kargs": ["intel_iommu=off"]}
    assert record.after == {"rpm-ostree kargs": ["intel_iommu=on"]}


words = st.sampled_from(["a", "a=", "a=1", "a=2", "a-b=1", "a_b=1", "b", "quiet", '"a=1"', "c=x=y"])
wanted_words = st.sampled_from(["a=1", "a-b=2", "b", "d=x=y"])


@given(st.lists(words), st.lists(wanted_words), st.lists(st.sampled_from(["c", "e"])))
def test_ostree_makes_of_it_what_is_foretold(line: list[str], present: list[str], absent: list[str]) -> None:
    request = Request.of(present, absent)
    before = CommandLine.parse(" ".join(line))
    change = Change.of(request, before)
    kargs = Kargs(str(before))
    for option in change.options:
        name, _equals, text = option.partition("=")
        (kargs.delete if name == "--delete" else kargs.append)(text)
    assert CommandLine.parse(str(kargs)) == change.apply(before)
    assert not request.unmet(CommandLine.parse(str(kargs)))


# -- refused -----------------------------------------------------------------------------------------------


def test_values_with_spaces(on: OstreeHost, tmp_path: Path) -> None:
    assert "--editor" in str(refused(on, "value_not_representable", ['dyndbg="file x +p"']))
    other = OstreeHost(tmp_path / "other", 'quiet dyndbg="file x +p"')
    refused(other, "value_not_representable", [], ["dyndbg"])
    run(other, ["iommu=pt"])
    assert other.deployments[0]["kargs"] == 'quiet dyndbg="file x +p" iommu=pt'


def test_init_arguments_cannot_be_kept_apart(tmp_path: Path) -> None:
    on = OstreeHost(tmp_path, "quiet a=1 -- single")
    refused(on, "value_not_representable", ["iommu=pt"])
    run(on, absent=["a"])
    assert on.deployments[0]["kargs"] == "quiet -- single"


def test_the_path_of_the_deployment(on: OstreeHost) -> None:
    refused(on, "invalid_parameter", [], ["ostree"])


def test_too_long(on: OstreeHost) -> None:
    refused(on, "command_line_too_long", [f"a={'x' * 1900}"])


def test_a_transaction_under_way(on: OstreeHost) -> None:
    on.transaction = ["upgrade", ":1.42", "/org/projectatomic/rpmostree1/fcos"]
    assert "upgrade" in str(refused(on, "transaction_in_progress", ["iommu=pt"]))
    assert not run(on, ["intel_iommu=off"])["changed"]  # to look does no harm


def test_a_status_without_a_booted_deployment(on: OstreeHost) -> None:
    on.intercept = lambda argv: Completed(tuple(argv), 0, '{"deployments": []}', "") if "--json" in argv else None
    refused(on, "deployments_not_understood", ["iommu=pt"])


# -- when something goes wrong -----------------------------------------------------------------------------


def failing(on: OstreeHost, code: str, present: Sequence[str] = ("iommu=pt",)) -> PassthroughError:
    with pytest.raises(PassthroughError) as caught:
        run(on, present)
    assert caught.value.code == code
    assert not caught.value.extra["not_undone"]
    assert not StateStore(on.host).all("kernel_parameter")
    return caught.value


def test_rpm_ostree_fails(on: OstreeHost) -> None:
    before = tree_listing(on.root, exclude=OUR_TRACES)
    on.intercept = lambda argv: Completed(tuple(argv), 1, "", "error: No space left\n") if changing(argv) else None
    assert "No space left" in str(failing(on, "command_failed"))
    assert tree_listing(on.root, exclude=OUR_TRACES) == before


def test_a_transaction_begins_meanwhile(on: OstreeHost) -> None:
    def begin(argv: Sequence[str]) -> None:
        if changing(argv):
            on.transaction = ["upgrade (download only)", "", ""]

    on.intercept = begin
    failing(on, "transaction_in_progress")


def test_somebody_stages_an_update_meanwhile(on: OstreeHost) -> None:
    procedure = build(on.host, ["iommu=pt"])
    plan = procedure.plan(procedure.observe())
    on.upgrade()
    with pytest.raises(PassthroughError) as caught:
        plan.actions[0].apply(on.host)
    assert caught.value.code == "deployment_changed_meanwhile"
    assert on.deployments[0]["version"] == "41.2"
    assert not changes(on)


def test_undone_by_dropping_what_was_made(on: OstreeHost) -> None:
    before = on.deployments
    procedure = build(on.host, ["intel_iommu=on"])
    action = procedure.plan(procedure.observe()).actions[0]
    action.apply(on.host)
    assert len(on.deployments) == 3
    action.undo(on.host)
    assert on.deployments == before
    assert changes(on)[-1] == ("cleanup", "--pending")


@pytest.mark.parametrize("when", ["before", "after"])
def test_undone_without_losing_the_update_of_somebody_else(on: OstreeHost, when: str) -> None:
    if when == "before":
        on.upgrade()
    procedure = build(on.host, ["intel_iommu=on", "iommu=pt"])
    action = procedure.plan(procedure.observe()).actions[0]
    action.apply(on.host)
    if when == "after":
        on.upgrade()
    action.undo(on.host)
    assert on.deployments[0]["version"] == "41.2"
    assert sorted(on.deployments[0]["kargs"].split()) == sorted(LINE.split())


def test_undoing_leaves_what_somebody_else_set_since(on: OstreeHost) -> None:
    procedure = build(on.host, ["intel_iommu=on", "iommu=pt"])
    action = procedure.plan(procedure.observe()).actions[0]
    action.apply(on.host)
    on.rpm_ostree("kargs", "--delete=iommu=pt", "--append=iommu=soft")
    action.undo(on.host)
    assert on.deployments[0]["kargs"].split()[-2:] == ["iommu=soft", "intel_iommu=off"]


def test_a_transaction_that_ends_after_its_client(on: OstreeHost) -> None:
    before = on.deployments

    def late(argv: Sequence[str]) -> None:
        if changing(argv) and argv[1] == "--append=iommu=pt":
            on.rpm_ostree(*argv)
            raise subprocess.TimeoutExpired(list(argv), 1200)

    on.intercept = late
    failing(on, "command_timeout")
    assert on.deployments[0]["kargs"] == before[0]["kargs"]


def test_a_change_that_does_not_hold(on: OstreeHost) -> None:
    on.intercept = lambda argv: Completed(tuple(argv), 0, "", "") if changing(argv) else None
    failing(on, "not_converged")


# -- detection ---------------------------------------------------------------------------------------------


def test_rpm_ostree_is_proved_and_comes_before_bootc(tmp_path: Path) -> None:
    on = OstreeHost(tmp_path, programs=("rpm-ostree", "bootc"))
    found = detect(on.host)
    assert (found.name, found.evidence) == ("rpm-ostree", ("/run/ostree-booted is there",))


def test_a_plain_ostree_system_is_refused_by_name(tmp_path: Path) -> None:
    on = OstreeHost(tmp_path, programs=())
    assert "OSTree without rpm-ostree" in str(refused(on, "bootloader_unsupported", ["iommu=pt"]))
