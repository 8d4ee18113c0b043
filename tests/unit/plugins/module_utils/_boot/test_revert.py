# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import Parameter, Request, Restoration
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.loader import Observed
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import build, configuration
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.revert import restoration_of
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH, Record, StateStore
from ansible_collections.kvm.passthrough.tests.unit.support import systemd_boot, zipl
from ansible_collections.kvm.passthrough.tests.unit.support.boot import DEFAULTS, GrubHost
from ansible_collections.kvm.passthrough.tests.unit.support.extlinux import ExtlinuxHost
from ansible_collections.kvm.passthrough.tests.unit.support.grubby import GrubbyHost
from ansible_collections.kvm.passthrough.tests.unit.support.loaders import KINDS, Kind
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import is_remembered, revert, run
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.systemd_boot import SystemdBootHost
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing
from ansible_collections.kvm.passthrough.tests.unit.support.zipl import ZiplHost

EVERY_KIND = pytest.mark.parametrize("kind", [pytest.param(kind, id=name) for name, kind in KINDS.items()])
WORDS = "console=tty0 console=ttyS0 intel_iommu=off quiet splash"
KEYS = ("quiet", "console", "intel_iommu", "iommu", "vfio_pci.ids", "splash")


def seen(on: Any) -> Observed:
    return build(on.host).observe().boot


def settled(on: Any) -> dict[str, Any]:
    """Of every name: the places it has in the settings, and how each entry of this system spells it."""
    found = configuration(on.host)
    entries = [entry for entry in found.entries if entry.generated or entry.in_place]
    spelled = {key: [tuple(p.text for p in entry.command_line.named(key)) for entry in entries] for key in KEYS}
    return {key: (seen(on).places(key), spelled[key]) for key in KEYS}


@EVERY_KIND
def test_everything_is_as_before(tmp_path: Path, kind: Kind) -> None:
    on = kind.make(tmp_path, WORDS)
    before = settled(on)
    run(on, ["intel_iommu=on", "iommu=pt", "console=ttyS1"], ["quiet"])
    kind.boot(on)
    run(on, ["intel_iommu=on,sm_on", "vfio-pci.ids=8086:10ca"], ["iommu"])
    kind.boot(on)
    assert settled(on) != before
    tree = tree_listing(on.root)
    expected = revert(on, check=True)
    assert tree_listing(on.root) == tree
    assert revert(on) == expected
    assert expected["changed"]
    assert not expected["kept"]
    assert settled(on) == before
    assert not is_remembered(on)


@EVERY_KIND
def test_what_somebody_else_changed_since_stays(tmp_path: Path, kind: Kind) -> None:
    on = kind.make(tmp_path, WORDS)
    before = settled(on)
    run(on, ["intel_iommu=on", "iommu=pt"])
    kind.boot(on)
    (record,) = [record for record in StateStore(on.host).all("kernel_parameter") if record.key == "intel_iommu"]
    # Somebody else is this collection with its record lost.
    state = on.path(STATE_PATH).read_bytes()
    run(on, ["intel_iommu=sm_on"])
    kind.boot(on)
    on.path(STATE_PATH).write_bytes(state)
    result = revert(on)
    assert {item["name"] for item in result["kept"]} == {"intel_iommu"}
    assert {item["place"] for item in result["kept"]} == set(record.after)
    assert result["warnings"] == [
        f"The kernel parameter intel_iommu in {item['place']} was changed by somebody else after this collection "
        "changed it. It is left as it is."
        for item in result["kept"]
    ]
    assert all((item["left"], item["found"]) == (["intel_iommu=on"], ["intel_iommu=sm_on"]) for item in result["kept"])
    after = settled(on)
    assert after["iommu"] == before["iommu"]
    assert set(after["intel_iommu"][1]) - {()} == {("intel_iommu=sm_on",)}  # a recovery entry never had it
    assert not is_remembered(on)  # what is left is theirs


def test_the_running_kernel_is_compared_with_what_is_given_back(tmp_path: Path) -> None:
    on = KINDS["grub"].make(tmp_path, WORDS)
    run(on, ["intel_iommu=on"])
    assert not revert(on, check=True)["reboot_required"]  # it was never booted
    on.reboot()
    assert revert(on, check=True)["reboot_required"]


# -- each place has its own --------------------------------------------------------------------------------


def test_both_variables_and_the_assignments_they_are_made_of(tmp_path: Path) -> None:
    text = (
        'GRUB_CMDLINE_LINUX="a intel_iommu=off console=tty0"\n'
        'GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=sm_off quiet"\n'
        'GRUB_CMDLINE_LINUX_RECOVERY="single intel_iommu=off"\n'
    )
    on = GrubHost(tmp_path, text, {"a.cfg": 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX console=ttyS0"\n'})
    run(on, ["intel_iommu=on", "console=ttyS1"], ["quiet"])
    assert on.read(DEFAULTS) != text
    revert(on)
    found = seen(on)
    assert found.places("intel_iommu") == {
        "GRUB_CMDLINE_LINUX_RECOVERY": ["intel_iommu=off"],
        "GRUB_CMDLINE_LINUX": ["intel_iommu=off"],
        "GRUB_CMDLINE_LINUX_DEFAULT": ["intel_iommu=sm_off"],
    }
    assert found.places("console") == {"GRUB_CMDLINE_LINUX": ["console=tty0", "console=ttyS0"]}
    assert found.places("quiet") == {"GRUB_CMDLINE_LINUX_DEFAULT": ["quiet"]}


def test_each_entry_by_hand_gets_its_own(tmp_path: Path) -> None:
    on = SystemdBootHost(tmp_path, kernels=())
    had = {"a": "intel_iommu=off", "b": "", "c": "intel_iommu=sm_off iommu=soft"}
    paths = {name: f"{systemd_boot.ESP}/loader/entries/{name}.conf" for name in had}
    for name, words in had.items():
        on.write(paths[name], f"title {name}\nlinux /vmlinuz\noptions root=UUID=aa ro {words}\n")
    run(on, ["intel_iommu=on", "iommu=pt"])
    on.write(paths["b"], on.read(paths["b"]).replace("intel_iommu=on", "intel_iommu=sm_on"))  # somebody else
    on.write(f"{systemd_boot.ESP}/loader/entries/later.conf", on.read(paths["a"]))
    result = revert(on)
    lines = {name: line.removeprefix("root=UUID=aa ro").strip() for name, line in on.lines().items()}
    assert lines[paths["a"].rpartition("/")[2]] == "intel_iommu=off"
    assert lines[paths["b"].rpartition("/")[2]] == "intel_iommu=sm_on"
    assert sorted(lines[paths["c"].rpartition("/")[2]].split()) == ["intel_iommu=sm_off", "iommu=soft"]
    assert lines["later.conf"] == "intel_iommu=on iommu=pt"  # not ours
    assert [(item["name"], item["place"]) for item in result["kept"]] == [("intel_iommu", paths["b"])]


def test_each_section_of_zipl_gets_its_own(tmp_path: Path) -> None:
    config = zipl.UBUNTU.replace("old]\ntarget", "old]\n# kept\ntarget").replace(
        'dyndbg="file x +p"', "intel_iommu=sm_off"
    )
    on = ZiplHost(tmp_path, config, files={"/boot/vmlinuz.old": "", "/boot/initrd.img.old": ""})
    run(on, ["intel_iommu=on", "iommu=pt"])
    revert(on)
    assert on.read(zipl.CONFIG) == config
    assert "intel_iommu=off intel_iommu=sm_off" in on.installed()["old"]


def test_a_parameter_of_the_default_kernel_alone(tmp_path: Path) -> None:
    on = GrubbyHost(tmp_path)
    before = tree_listing(on.root, exclude=("run",))
    run(on, ["intel_iommu=on", "iommu=pt"], kernels="default")
    revert(on)
    assert tree_listing(on.root, exclude=("run",)) == before


def test_a_package_that_sets_u_boots_parameters(tmp_path: Path) -> None:
    packaged = "/usr/share/u-boot-menu/conf.d/board.conf"
    on = ExtlinuxHost(tmp_path, files={packaged: 'U_BOOT_PARAMETERS="quiet intel_iommu=off"\n'})
    run(on, ["intel_iommu=on"])
    revert(on)
    assert all("intel_iommu=off" in line for line in on.lines())


def test_the_rescue_entry_gets_back_what_it_lost(tmp_path: Path) -> None:
    rescue = "0-rescue"
    found = {version: zipl.entry(version) for version in (*zipl.KERNELS, rescue)}
    on = ZiplHost(tmp_path, zipl.RHEL, found, {zipl.SETTINGS: f"{zipl.LINE}\n"})
    before = on.read(zipl.entry_path(rescue))
    run(on, ["intel_iommu=on"])
    assert on.read(zipl.entry_path(rescue)) != before
    revert(on)
    assert on.read(zipl.entry_path(rescue)) == before


# -- records -----------------------------------------------------------------------------------------------


def test_records_of_a_boot_loader_that_is_no_longer_used(tmp_path: Path) -> None:
    on = KINDS["grub"].make(tmp_path, WORDS)
    run(on, ["intel_iommu=on"])
    state = on.path(STATE_PATH)
    state.write_text(state.read_text().replace('"grub"', '"zipl"'))
    for check in (True, False):
        result = revert(on, check=check)
        assert (result["changed"], result["kept"]) == (False, [])
        assert result["warnings"] == [
            "This collection also changed intel_iommu in the settings of zipl, with which this host does not boot now. "
            "That is left as it is; a revert takes it back when the host boots with it again."
        ]
    assert is_remembered(on)


def test_a_value_somebody_set_between_two_changes_of_ours_is_named(tmp_path: Path) -> None:
    on = KINDS["grub"].make(tmp_path, WORDS)
    run(on, ["intel_iommu=on"])
    on.write(DEFAULTS, on.read(DEFAULTS).replace("intel_iommu=on", "intel_iommu=sm_on"))
    run(on, ["intel_iommu=on", "iommu=pt"])
    result = revert(on)
    assert result["diverged"] == ["intel_iommu"]
    assert seen(on).places("intel_iommu") == {"GRUB_CMDLINE_LINUX_DEFAULT": ["intel_iommu=off"]}
    assert not is_remembered(on)


def test_a_host_whose_boot_loader_is_not_handled_has_nothing_to_take_back(tmp_path: Path) -> None:
    class Other:
        root = tmp_path
        host = SysfsTree(tmp_path).host()

    on = Other()
    (tmp_path / "run").mkdir()
    before = tree_listing(tmp_path)
    for check in (True, False):
        result = revert(on, check=check)
        assert (result["changed"], result["reboot_required"], result["kept"]) == (False, False, [])
        assert result["bootloader"] is None
        assert result["running"].startswith("BOOT_IMAGE=")
    assert tree_listing(tmp_path) == before


def test_a_boot_loader_that_is_not_handled_any_more_is_no_reason_to_forget(tmp_path: Path) -> None:
    on = GrubHost(tmp_path)
    run(on, ["iommu=pt"])
    on.path(on.config).unlink()
    on.path(DEFAULTS).unlink()
    with pytest.raises(PassthroughError):
        revert(on)
    assert is_remembered(on)


def test_what_is_somebody_elses_is_told_once(tmp_path: Path) -> None:
    on = KINDS["grub"].make(tmp_path, WORDS)
    run(on, ["intel_iommu=on"])
    on.write(DEFAULTS, on.read(DEFAULTS).replace("intel_iommu=on", "intel_iommu=sm_on"))
    tree = tree_listing(on.root, exclude=("run", "var/lib/kvm-passthrough"))
    result = revert(on)
    assert not result["changed"]
    assert [item["found"] for item in result["kept"]] == [["intel_iommu=sm_on"]]
    assert tree_listing(on.root, exclude=("run", "var/lib/kvm-passthrough")) == tree
    assert not is_remembered(on)


def test_after_a_crash_nothing_of_ours_is_somebody_elses() -> None:
    class Found:
        configuration = None

        def places(self, _key: str) -> dict[str, list[str]]:
            return {"A": ["x=2"], "B": ["x=9"], "D": ["x=1"]}

    record = Record(
        "kernel_parameter",
        "x",
        before={"A": ["x=1"], "D": ["x=1"]},
        after={"A": ["x=3"], "B": ["x=3"], "D": ["x=3"]},
        pending=[{"A": ["x=2"], "B": ["x=2"]}],
    )
    restoration, kept = restoration_of([record], Found())  # type: ignore[arg-type]
    assert restoration.at("A") == restoration.at("D") == Request((Parameter.parse("x=1"),))
    assert not restoration.at("B").keys
    assert [(item.details["place"], item.left, item.found) for item in kept] == [("B", ["x=3"], ["x=9"])]


def test_a_restoration_wants_nothing_in_other_places() -> None:
    wanted = Restoration.of_places({"A": {"x": ["x=1", "x=2"], "y": []}, "B": {"z": ["z"]}})
    assert set(wanted.keys) == {"x", "y", "z"}
    assert wanted.at("A") == Request.of(["x=1", "x=2"], ["y"])
    assert wanted.at("C", "B") == Request.of(["z"], [])
    assert wanted.at("C") == Request()
    plain = Request.of(["x=1"], [])
    assert plain.at("anything") is plain


# -- GRUB's settings in all their forms --------------------------------------------------------------------

NAMES = st.sampled_from(("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_CMDLINE_LINUX_RECOVERY"))
SOME = st.lists(
    st.sampled_from(["iommu=pt", "iommu=soft", "amd_iommu=pt", "quiet", "console=tty0", "console=ttyS0", "a=1"]),
    max_size=4,
).map(" ".join)
LINES = st.one_of(
    st.builds('{}="{}"'.format, NAMES, SOME),
    st.builds("{}='{}'".format, NAMES, SOME),
    st.builds('{0}="${0} {1}"'.format, NAMES, SOME),
    st.builds('{0}="{1} ${0}"'.format, NAMES, SOME),
    st.builds('{}="{} \\\n  {}"'.format, NAMES, SOME, SOME),
    st.builds("EXTRA='{1}'\n{0}=\"{2} $EXTRA\"".format, NAMES, SOME, SOME),
)


@settings(max_examples=40)
@given(
    lines=st.lists(LINES, max_size=5),
    present=st.lists(st.sampled_from(["iommu=on", "console=ttyS1", "a=2"]), max_size=2),
    absent=st.lists(st.sampled_from(["quiet", "amd_iommu=pt"]), max_size=2),
)
def test_grubs_variables_have_what_they_had(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], present: list[str], absent: list[str]
) -> None:
    on = GrubHost(tmp_path_factory.mktemp("host"), "\n".join(lines), kernels=["6.1.0-13-amd64"])
    keys = ("iommu", "amd_iommu", "quiet", "console", "a")
    before = {key: seen(on).places(key) for key in keys}
    if not run(on, present, absent)["changed"] or not is_remembered(on):
        return
    assert not revert(on)["kept"]
    after = {key: seen(on).places(key) for key in keys}
    for key in keys:
        for variable in {*before[key], *after[key]}:
            found = [list(dict.fromkeys(state[key].get(variable, []))) for state in (before, after)]
            assert found[0] == found[1]
    assert not is_remembered(on)
