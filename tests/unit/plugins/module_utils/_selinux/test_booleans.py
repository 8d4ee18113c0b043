# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole of selinux_booleans: what it predicts, does, refuses and gives back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._selinux import libsemanage
from ansible_collections.kvm.passthrough.plugins.module_utils._selinux.booleans import build, find_store
from ansible_collections.kvm.passthrough.tests.unit.support.iommu import answering
from ansible_collections.kvm.passthrough.tests.unit.support.selinux import POLICY_BOOLEANS, SelinuxHost
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash, tree_listing

DEFAULTS: dict[str, Any] = {"runtime": True, "persistent": True, "missing": "fail", "exclusive": False}
# The folders of the lock and of the record of changes stay.
OWN = ("run", "var/lib/kvm-passthrough")


@pytest.fixture(name="on", params=["enforcing", "permissive"])
def host_fixture(tmp_path: Path, request: pytest.FixtureRequest) -> SelinuxHost:
    return SelinuxHost(tmp_path / "host", "1" if request.param == "enforcing" else "0")


@pytest.fixture(autouse=True)
def _without_the_store_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libsemanage, "semanage", None)


@pytest.fixture(name="bare")
def bare_fixture(tmp_path: Path) -> SelinuxHost:
    """A host without the bindings of libsemanage."""
    return SelinuxHost(tmp_path / "host", bindings=False)


def run(on: SelinuxHost, booleans: dict[str, Any], *, check: bool = False, **options: Any) -> dict[str, Any]:
    params = {**DEFAULTS, "booleans": booleans, **options}
    procedure = build(on.host, params, on.find if on.bindings else find_store)
    return execute(on.host, procedure, module="selinux_booleans", check_mode=check)


def quadruple(on: SelinuxHost, booleans: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Check, run, check, run; the result of the first run."""
    before = tree_hash(on.root)
    expected = run(on, booleans, check=True, **options)
    assert tree_hash(on.root) == before
    result = run(on, booleans, **options)
    assert result == expected
    after = tree_hash(on.root)
    for check in (True, False):
        again = run(on, booleans, check=check, **options)
        assert not again["changed"], again
        for entry in again["booleans"]:
            assert entry["runtime"]["before"] == entry["runtime"]["after"]
            assert entry["persistent"]["before"] == entry["persistent"]["after"]
    assert tree_hash(on.root) == after
    json.dumps(result)
    return result


def refused(on: SelinuxHost, booleans: dict[str, Any], **options: Any) -> PassthroughError:
    """The error of a check and of a run, which both change nothing."""
    before = tree_hash(on.root)
    for check in (True, False):
        with pytest.raises(PassthroughError) as caught:
            run(on, booleans, check=check, **options)
        assert tree_hash(on.root) == before
    json.dumps(caught.value.as_result())
    return caught.value


def test_now_and_for_every_boot(on: SelinuxHost) -> None:
    result = quadruple(on, {"virt_use_sysfs": True, "virt_use_usb": "off", "virt_use_nfs": False})
    assert [action["description"] for action in result["actions"]] == [
        "set SELinux booleans for every boot: virt_use_sysfs on, virt_use_usb off",
        "set SELinux booleans now: virt_use_sysfs on, virt_use_usb off",
    ]
    assert result["booleans"][1] == {
        "name": "virt_use_usb",
        "boolean": "virt_use_usb",
        "runtime": {"before": True, "after": False},
        "persistent": {"before": True, "after": False},
    }
    assert on.local == {"virt_use_sysfs": True, "virt_use_usb": False}
    assert on.commands == [("setsebool", "virt_use_sysfs=1", "virt_use_usb=0")]
    on.boot()
    assert on.now == {**POLICY_BOOLEANS, "virt_use_sysfs": True, "virt_use_usb": False}


def test_only_now(on: SelinuxHost) -> None:
    result = quadruple(on, {"virt_use_sysfs": True}, persistent=False)
    assert result["booleans"][0]["persistent"] == {"before": False, "after": False}
    assert on.now["virt_use_sysfs"]
    assert not on.local


def test_only_for_every_boot(on: SelinuxHost) -> None:
    result = quadruple(on, {"virt_use_sysfs": True}, runtime=False)
    assert result["booleans"][0]["runtime"] == {"before": False, "after": False}
    assert not on.now["virt_use_sysfs"]
    assert on.local == {"virt_use_sysfs": True}
    assert not on.commands


def test_diff_names_the_booleans(on: SelinuxHost) -> None:
    (persistent, runtime) = run(on, {"virt_use_sysfs": True}, check=True)["diff"]
    assert (persistent["before"], persistent["after"]) == ("virt_use_sysfs: off\n", "virt_use_sysfs: on\n")
    assert runtime["after_header"] == "SELinux booleans in force"


def test_disabled_selinux_still_has_a_store(tmp_path: Path) -> None:
    on = SelinuxHost(tmp_path / "host", None)
    result = quadruple(on, {"virt_use_sysfs": True})
    assert result["selinux"] == {"mode": "disabled", "policy": "targeted", "through": "libsemanage"}
    assert result["booleans"][0]["runtime"] == {"before": None, "after": None}
    assert on.local == {"virt_use_sysfs": True}
    assert refused(on, {"virt_use_nosuch": True}).code == "boolean_unknown"


@pytest.mark.parametrize("bindings", [True, False])
def test_without_selinux_there_is_nothing_to_do(tmp_path: Path, bindings: bool) -> None:
    on = SelinuxHost(tmp_path / "host", None, policy="", bindings=bindings)
    result = quadruple(on, {"virt_use_sysfs": True, "no_such": False})
    assert not result["changed"]
    assert result["selinux"] == {"mode": "disabled", "policy": "", "through": None}
    assert [entry["boolean"] for entry in result["booleans"]] == [None, None]


def test_a_former_name_is_taken_for_the_present_one(on: SelinuxHost) -> None:
    result = quadruple(on, {"virt_manage_sysfs": True})
    assert (result["booleans"][0]["name"], result["booleans"][0]["boolean"]) == ("virt_manage_sysfs", "virt_use_sysfs")
    assert on.local == {"virt_use_sysfs": True}


def test_two_names_of_one_boolean(on: SelinuxHost) -> None:
    result = quadruple(on, {"virt_manage_sysfs": True, "virt_use_sysfs": True})
    assert len(result["booleans"]) == 1
    error = refused(on, {"virt_manage_sysfs": True, "virt_use_sysfs": False})
    assert error.code == "boolean_contradictory"
    assert "virt_manage_sysfs and virt_use_sysfs are the same boolean, virt_use_sysfs" in str(error)
    assert "Leave virt_manage_sysfs out." in str(error)


def test_a_present_name_wins_over_a_former_one(tmp_path: Path) -> None:
    on = SelinuxHost(tmp_path / "host", booleans={"virt_manage_sysfs": False, "virt_use_sysfs": False})
    quadruple(on, {"virt_manage_sysfs": True})
    assert on.local == {"virt_manage_sysfs": True}


def test_unknown_booleans_are_told_all_at_once(on: SelinuxHost) -> None:
    error = refused(on, {"virt_use_ubs": True, "virt_use_sysfs": True, "httpd_on": False})
    assert [problem.code for problem in error.problems] == ["boolean_unknown"] * 2
    first, second = error.problems
    assert first.message == "booleans: the SELinux policy 'targeted' has no boolean virt_use_ubs."
    assert "virt_use_usb" in first.remedy
    assert first.details["similar"][0] == "virt_use_usb"
    assert second.remedy == "getsebool -a lists those it has. Or set missing to ignore."


def test_the_boolean_of_the_howtos_where_no_policy_has_it(tmp_path: Path) -> None:
    on = SelinuxHost(tmp_path / "host", booleans={"httpd_enable_cgi": True})
    error = refused(on, {"virt_manage_sysfs": True})
    assert str(error) == (
        "booleans: the SELinux policy 'targeted' has no boolean virt_manage_sysfs (nor virt_use_sysfs, which it was "
        "renamed to). libvirt labels the devices of a guest itself, so passthrough may need none: leave it out. Or set "
        "missing to ignore."
    )


def test_missing_booleans_can_be_ignored(on: SelinuxHost) -> None:
    result = quadruple(on, {"no_such": True, "virt_use_sysfs": True}, missing="ignore")
    assert result["warnings"] == ["booleans: the SELinux policy 'targeted' has no boolean no_such."]
    assert result["booleans"][0] == {
        "name": "no_such",
        "boolean": None,
        "runtime": {"before": None, "after": None},
        "persistent": {"before": None, "after": None},
    }
    assert on.local == {"virt_use_sysfs": True}


@pytest.mark.parametrize("name", ["-P", "", "a=b", "a b", "a\nb", "../enforce", "é"])
def test_what_is_no_name(on: SelinuxHost, name: str) -> None:
    error = refused(on, {name: True, "virt_use_usb": "maybe"})
    assert [problem.code for problem in error.problems] == ["boolean_invalid"] * 2
    assert repr(name) in error.problems[0].message
    assert "'maybe', for virt_use_usb, is neither on nor off" in error.problems[1].message


def test_nothing_to_set(on: SelinuxHost) -> None:
    assert refused(on, {"virt_use_usb": True}, runtime=False, persistent=False).code == "nothing_to_set"


def test_a_value_that_does_not_hold_is_undone(on: SelinuxHost) -> None:
    on.ignored = {"virt_use_sysfs"}
    before = tree_listing(on.root, OWN)
    with pytest.raises(PassthroughError) as caught:
        run(on, {"virt_use_sysfs": True, "virt_use_nfs": True})
    assert caught.value.code == "not_converged"
    assert len(caught.value.extra["undone"]) == 2
    assert tree_listing(on.root, OWN) == before


def test_when_the_store_refuses_nothing_is_set(on: SelinuxHost) -> None:
    on.broken = True
    before = tree_listing(on.root, OWN)
    with pytest.raises(PassthroughError) as caught:
        run(on, {"virt_use_sysfs": True})
    assert caught.value.code == "policy_store_failed"
    assert caught.value.extra["not_undone"] == []
    assert tree_listing(on.root, OWN) == before


def test_exclusive_gives_back_what_was_there_before(on: SelinuxHost) -> None:
    on.set_local({"virt_use_nfs": False})
    before = tree_listing(on.root, OWN)
    quadruple(on, {"virt_use_sysfs": True, "virt_use_usb": False, "virt_use_nfs": True})
    result = quadruple(on, {"virt_use_usb": False}, exclusive=True)
    assert on.local == {"virt_use_usb": False, "virt_use_nfs": False}
    assert [entry["boolean"] for entry in result["booleans"]] == ["virt_use_usb", "virt_use_nfs", "virt_use_sysfs"]
    quadruple(on, {}, exclusive=True)
    assert tree_listing(on.root, OWN) == before
    assert not (on.root / "var/lib/kvm-passthrough").exists()


def test_exclusive_after_a_reboot(on: SelinuxHost) -> None:
    quadruple(on, {"virt_use_sysfs": True}, persistent=False)
    on.boot()
    commands = list(on.commands)
    result = quadruple(on, {}, exclusive=True)
    assert [action["description"] for action in result["actions"]] == [
        "forget what virt_use_sysfs had: that is over, and not through this collection"
    ]
    assert on.commands == commands
    assert not (on.root / "var/lib/kvm-passthrough").exists()


def test_exclusive_leaves_alone_what_somebody_else_changed(on: SelinuxHost) -> None:
    quadruple(on, {"virt_use_sysfs": True}, runtime=False)
    on.set_local({"virt_use_sysfs": False})
    result = quadruple(on, {}, exclusive=True, runtime=False)
    assert not result["changed"]
    assert result["warnings"] == [
        "virt_use_sysfs was set to on for every boot, and somebody else changed it to off since; it was left alone."
    ]


def test_exclusive_when_the_policy_lost_the_boolean(on: SelinuxHost) -> None:
    quadruple(on, {"virt_use_sysfs": True}, runtime=False)
    del on.own["virt_use_sysfs"]
    (on.root / "sys/fs/selinux/booleans/virt_use_sysfs").unlink()
    result = run(on, {}, exclusive=True)
    assert [action["target"] for action in result["actions"]] == ["virt_use_sysfs"]
    assert not (on.root / "var/lib/kvm-passthrough").exists()
    assert "virt_use_sysfs, which this collection once set, is in no policy" in result["warnings"][0]


def test_without_bindings_setsebool_sets_both(bare: SelinuxHost) -> None:
    result = quadruple(bare, {"virt_use_sysfs": True, "virt_use_usb": True})
    assert result["selinux"]["through"] == "setsebool"
    assert result["booleans"][0]["persistent"] == {"before": None, "after": True}
    # What the policy itself says cannot be told, so virt_use_usb is set, too, and is the same afterwards.
    assert bare.commands == [("setsebool", "-P", "virt_use_sysfs=1", "virt_use_usb=1")]
    assert bare.now["virt_use_sysfs"]
    bare.set_now("virt_use_sysfs", False)
    quadruple(bare, {"virt_use_sysfs": True, "virt_use_usb": True})
    assert bare.commands[1:] == [("setsebool", "virt_use_sysfs=1")]


def test_without_bindings_one_of_both_is_refused(bare: SelinuxHost) -> None:
    error = refused(bare, {"virt_use_sysfs": True}, runtime=False)
    assert error.code == "persistent_needs_runtime"
    assert "python3-semanage" in str(error)
    quadruple(bare, {"virt_use_sysfs": True}, persistent=False)
    assert not bare.local


def test_without_bindings_a_setting_cannot_be_taken_away(bare: SelinuxHost) -> None:
    bare.set_local({"virt_use_nfs": False})
    quadruple(bare, {"virt_use_sysfs": True, "virt_use_nfs": True})
    before = tree_listing(bare.root, OWN)
    with pytest.raises(PassthroughError) as caught:
        run(bare, {}, exclusive=True)
    assert caught.value.code == "policy_store_failed"
    assert "virt_use_sysfs on this host cannot be taken away with setsebool" in str(caught.value)
    assert tree_listing(bare.root, OWN) == before
    quadruple(bare, {"virt_use_sysfs": True}, exclusive=True)
    assert bare.local == {"virt_use_sysfs": True, "virt_use_nfs": False}


def test_without_bindings_where_fedora_has_the_store(bare: SelinuxHost) -> None:
    bare.write("/etc/selinux/targeted/active/booleans.local", "virt_use_sysfs=1\nvirt_use_nfs=true\n")
    bare.set_now("virt_use_sysfs", True)
    assert not quadruple(bare, {"virt_use_sysfs": True})["changed"]


def test_setsebool_that_is_not_installed(bare: SelinuxHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare.host, "_runner", answering({}))
    with pytest.raises(PassthroughError) as caught:
        run(bare, {"virt_use_sysfs": True})
    assert caught.value.code == "command_missing"
