# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report says of hosts of different kinds, and of answers that are not as they should be."""

from __future__ import annotations

import base64
import copy
import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.plugin_utils._audit.inventory import WAITING_CODES
from ansible_collections.kvm.passthrough.plugins.plugin_utils._audit.report import fleet_report, host_entry
from ansible_collections.kvm.passthrough.tests.unit.support import fleet
from ansible_collections.kvm.passthrough.tests.unit.support.machine import TWINS
from ansible_collections.kvm.passthrough.tests.unit.support.places import ROOT

from .conftest import TIME

SCHEMA = ROOT / "docs/audit_report.schema.json"

Kinds = dict[str, dict[str, Any]]


def states(host: dict[str, Any]) -> dict[str | None, str]:
    """The state of each group, by its first device."""
    return {group["devices"][0]: group["state"] for group in host["groups"]}


def codes(host: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["kind"], one["severity"], one["code"]) for one in host["findings"]]


# -- the whole ----------------------------------------------------------------------------------------------


def test_every_kind_of_host(kinds: Kinds) -> None:
    report = fleet_report(kinds, TIME)
    assert {host["name"]: (host["status"], host["verdict"]) for host in report["hosts"]} == {
        "gaming": ("audited", "ready"),
        "server": ("audited", "attention"),
        "amd": ("audited", "attention"),
        "mainframe": ("audited", "ready"),
        "arm": ("audited", "ready"),
        "switched-off": ("audited", "blocked"),
        "no-firmware": ("audited", "blocked"),
        "container": ("audited", "attention"),
        "unreachable": ("unreachable", "unknown"),
        "no-python": ("failed", "unknown"),
        "never-asked": ("not_audited", "unknown"),
    }
    assert report["summary"]["hosts"] == 11
    assert report["summary"]["verdicts"] == {"blocked": 2, "attention": 3, "unknown": 3, "ready": 3}


def strict(schema: Any) -> Any:
    """A schema that allows no other fields than those that it describes."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: strict(item) for name, item in schema.items()}
    return {**result, "additionalProperties": False} if "properties" in schema else result


def test_the_schema_describes_every_field_and_every_field_is_there(
    kinds: Kinds, hostile: dict[str, Any], guests: dict[str, Any]
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    report = fleet_report({**kinds, "hostile": hostile, "guests": guests}, TIME)
    jsonschema.validate(json.loads(json.dumps(report)), strict(schema))
    for name in schema["$defs"]:
        assert f'"#/$defs/{name}"' in json.dumps(schema)
    # Each list has something in it somewhere, so that its elements were looked at.
    found: dict[str, Any] = {}
    for host in report["hosts"]:
        found.update({name: value for name, value in host.items() if value})
        for device in host["devices"]:
            found.update({name: value for name, value in device.items() if value})
    lists = {"guards", "owners", "interfaces", "block_devices", "zpci", "findings", "domains", "networks", "records"}
    assert lists <= set(found)


def test_hosts_are_sorted_as_people_count() -> None:
    report = fleet_report({name: {} for name in ("kvm10", "kvm2", "a", "kvm1", "²", "1")}, TIME)
    assert [host["name"] for host in report["hosts"]] == ["1", "a", "kvm1", "kvm2", "kvm10", "²"]


def test_the_summary_names_the_hosts_of_each_code(kinds: Kinds) -> None:
    twice = fleet_report({"b": kinds["server"], "a": kinds["server"], "c": kinds["switched-off"]}, TIME)
    found = {one["code"]: (one["severity"], one["hosts"]) for one in twice["summary"]["codes"]}
    assert found["device_in_other_domain"] == ("error", ["a", "b"])
    assert found["iommu_disabled_by_parameter"] == ("error", ["c"])
    assert [one["severity"] for one in twice["summary"]["codes"]] == ["error"] * 4 + ["warning"] * 2


# -- one host -----------------------------------------------------------------------------------------------


def test_a_guest_runs_with_a_graphics_card(kinds: Kinds) -> None:
    host = host_entry("gaming", kinds["gaming"])
    assert states(host) == {
        "0000:00:00.0": "infrastructure",
        "0000:00:01.0": "in_use",
        "0000:00:02.0": "kept",
        "0000:00:14.0": "kept",
        "0000:00:1b.0": "infrastructure",
        "0000:00:1f.0": "infrastructure",
        "0000:02:00.0": "kept",
        "0000:03:00.0": "kept",
        "0000:04:00.0": "free",
    }
    by_address = {device["address"]: device for device in host["devices"]}
    assert [guard["code"] for guard in by_address["0000:02:00.0"]["guards"]] == ["boot_disk"]
    assert [guard["code"] for guard in by_address["0000:03:00.0"]["guards"]] == ["management_network"]
    card = by_address["0000:01:00.0"]
    assert (card["kind"], card["driver"], card["vfio"]) == ("display", "vfio-pci", True)
    assert card["owners"] == [
        {"kind": "domain", "name": "win11", "how": "hostdev", "configured": True, "running": True}
    ]
    assert [(one["name"], one["running_with"]) for one in host["domains"]] == [
        ("dev", []),
        ("win11", list(fleet.GPU)),
    ]
    assert host["records"] == []


def test_what_is_wrong_on_a_server(kinds: Kinds) -> None:
    host = host_entry("server", kinds["server"])
    assert codes(host) == [
        ("conflict", "error", "device_in_other_domain"),
        ("conflict", "error", "device_in_other_domain"),
        ("drift", "error", "device_not_found"),
        ("definition", "error", "functions_undeclared"),
        ("drift", "warning", "binding_drifted"),
        ("drift", "warning", "vfs_drifted"),
    ]
    [gone] = [device for device in host["devices"] if not device["present"]]
    assert (gone["address"], [owner["name"] for owner in gone["owners"]]) == ("0000:0f:00.0", ["web02"])
    assert host["groups"][-1]["number"] is None
    assert host["groups"][-1]["devices"] == ["0000:0f:00.0"]
    found = states(host)
    assert (found["0000:05:00.0"], found["0000:01:10.0"]) == ("assigned", "pool")
    assert [group["devices"] for group in host["groups"] if group["conflict"]] == [["0000:05:00.0"]]
    assert [(record["kind"], record["module"]) for record in host["records"]] == [
        ("driver", "vfio_devices"),
        ("sriov", "sriov_vfs"),
    ]
    assert [network["vfs"] for network in host["networks"]] == [["0000:01:10.0", "0000:01:10.2"]]


def test_a_group_that_waits_for_a_guest_and_one_that_firmware_keeps(kinds: Kinds) -> None:
    host = host_entry("amd", kinds["amd"])
    found = {group["devices"][-1]: (group["state"], group["direct_regions"]) for group in host["groups"]}
    assert found["0000:01:00.2"] == ("bound", 0)
    assert found["0000:04:00.0"] == ("kept", 1)


def test_a_host_without_an_iommu_has_no_groups(kinds: Kinds) -> None:
    host = host_entry("off", kinds["switched-off"])
    [group] = host["groups"]
    assert (group["number"], group["state"], len(group["devices"])) == (None, "kept", 14)
    assert host["iommu"]["recommended_parameters"] == ["intel_iommu=on"]
    assert host["libvirt"]["asked"] is False
    assert "python3-libvirt" in host["libvirt"]["reason"]
    assert host["failures"] == []


# -- how it went --------------------------------------------------------------------------------------------


def test_a_host_that_cannot_be_reached_has_its_reason(kinds: Kinds) -> None:
    assert "No route to host" in host_entry("a", kinds["unreachable"])["reason"]
    assert "failed before" in host_entry("a", {})["reason"]


def test_a_module_that_does_not_start_says_what_its_interpreter_said(kinds: Kinds) -> None:
    host = host_entry("a", kinds["no-python"])
    assert host["reason"].endswith("(/bin/sh: 1: /usr/bin/python3.13: not found)")
    assert [one["module"] for one in host["failures"]] == ["iommu_info", "pci_device_info", "hostdev_info"]
    assert host["records"] is None
    traceback = {"failed": True, "msg": "MODULE FAILURE", "module_stderr": "Traceback …\n  File\nSyntaxError: no\n"}
    assert host_entry("a", {"iommu_info": traceback})["reason"] == "MODULE FAILURE (SyntaxError: no)"


def test_a_host_that_goes_away_in_the_middle(kinds: Kinds) -> None:
    results = {**kinds["gaming"], "pci_device_info": fleet.UNREACHABLE, "hostdev_info": fleet.SKIPPED}
    host = host_entry("a", results)
    assert (host["status"], host["verdict"]) == ("partial", "attention")
    assert [one["module"] for one in host["failures"]] == ["pci_device_info"]
    assert {group["state"] for group in host["groups"]} == {"unknown"}
    assert len(host["groups"]) == 9


def test_a_libvirt_that_does_not_answer_is_worth_a_look(kinds: Kinds) -> None:
    broken = {"failed": False, "code": "libvirt_unreachable", "msg": "libvirt cannot be reached at qemu:///system"}
    host = host_entry("a", {**kinds["gaming"], "hostdev_info": broken})
    assert (host["status"], host["verdict"]) == ("partial", "attention")
    assert host["libvirt"] == {"asked": False, "reason": "libvirt cannot be reached at qemu:///system"}


def test_the_iommu_alone(kinds: Kinds) -> None:
    host = host_entry("a", {"iommu_info": kinds["gaming"]["iommu_info"]})
    assert (host["status"], host["verdict"]) == ("partial", "attention")
    assert host["libvirt"]["asked"] is False
    assert host_entry("a", {"pci_device_info": kinds["gaming"]["pci_device_info"]})["verdict"] == "unknown"


# -- drift --------------------------------------------------------------------------------------------------


def records(*entries: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps({"version": 1, "records": list(entries)}).encode()
    return {"content": base64.b64encode(content).decode(), "encoding": "base64"}


BOUND = {"driver": "vfio-pci", "driver_override": "vfio-pci"}
DISK = "0000:04:00.0"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"kind": "driver", "key": f"{DISK} 144d:a808", "after": BOUND}, ["binding_drifted"]),
        ({"kind": "driver", "key": f"{DISK} 8086:10ca", "after": BOUND}, ["device_moved"]),
        ({"kind": "driver", "key": "0000:77:00.0 8086:10ca", "after": BOUND}, ["device_moved"]),
        ({"kind": "driver", "key": f"{DISK} 144d:a808", "after": {"driver": "nvme"}}, []),
        ({"kind": "driver", "key": f"{fleet.GPU[0]} 10de:1e87", "after": BOUND}, []),
        ({"kind": "sriov", "key": f"{DISK} 144d:a808", "after": {"count": 2}}, []),
        ({"kind": "file", "key": "/etc/modprobe.d/x.conf", "after": "text"}, []),
        ({}, []),
    ],
)
def test_what_is_not_as_it_was_left(kinds: Kinds, record: dict[str, Any], expected: list[str]) -> None:
    host = host_entry("a", {**kinds["gaming"], "state": records(record)})
    assert [one["code"] for one in host["findings"]] == expected
    assert host["verdict"] == ("attention" if expected else "ready")


def test_what_the_inventory_asks_for(kinds: Kinds) -> None:
    predicted = {
        "changed": False,
        "failed": False,
        "devices": [
            {"address": DISK, "before": {"driver": "nvme"}, "after": BOUND},
            {"address": fleet.GPU[0], "before": BOUND, "after": BOUND},
        ],
        "actions": [{"description": f"bind {DISK} to vfio-pci"}],
        "stale": [{"address": "0000:77:00.0", "ids": "8086:10ca", "found": None}],
    }
    moved = {"kind": "driver", "key": "0000:77:00.0 8086:10ca", "after": BOUND}
    host = host_entry("a", {**kinds["gaming"], "vfio_devices": predicted, "state": records(moved)})
    assert [(one["code"], one["devices"]) for one in host["findings"]] == [
        ("inventory_drift", [DISK]),
        ("device_moved", ["0000:77:00.0"]),
    ]
    assert f"bind {DISK} to vfio-pci" in host["findings"][0]["message"]
    refused = {"failed": False, "msg": "no", "problems": [{"code": "no_match", "message": "none", "remedy": "look"}]}
    host = host_entry("a", {**kinds["gaming"], "vfio_devices": refused})
    assert codes(host) == [("drift", "error", "no_match")]
    assert host["failures"] == []
    host = host_entry("a", {**kinds["gaming"], "vfio_devices": {"msg": "unsupported parameters"}})
    assert ([one["module"] for one in host["failures"]], host["status"]) == (["vfio_devices"], "partial")
    host_wide = {"failed": False, "msg": "no", "problems": [{"code": "no_iommu", "message": "none"}]}
    host = host_entry("a", {**kinds["gaming"], "vfio_devices": host_wide})
    assert (host["findings"], host["failures"]) == ([], [])


@pytest.mark.parametrize(
    ("module", "variable"),
    [
        ("sriov_vfs", "vfio_host_pfs"),
        ("kernel_parameters", "vfio_host_kernel_parameters or vfio_host_iommu_parameters"),
        ("selinux_booleans", "vfio_host_selinux_booleans"),
    ],
)
def test_what_else_the_inventory_asks_for(kinds: Kinds, module: str, variable: str) -> None:
    predicted = {"changed": False, "failed": False, "actions": [{"description": "do it"}]}
    host = host_entry("a", {**kinds["gaming"], module: predicted})
    [found] = host["findings"]
    assert (found["code"], found["devices"]) == ("inventory_drift", [])
    assert found["message"] == f"The host is not as {variable} of the inventory says. To be done: do it."
    assert host_entry("a", {**kinds["gaming"], module: {**predicted, "actions": []}})["verdict"] == "ready"


def test_what_the_inventory_asks_for_of_guests_and_networks(guests: dict[str, Any]) -> None:
    host = host_entry("a", guests)
    assert (host["status"], host["verdict"], host["failures"]) == ("audited", "attention", [])
    first, second = TWINS
    assert [(one["severity"], one["code"], one["where"], one["devices"]) for one in host["findings"]] == [
        ("error", "device_in_other_domain", "domain db02", [first]),
        ("error", "domain_not_found", "domain web09", []),
        ("warning", "inventory_drift", "network vf-pool", []),
        ("warning", "inventory_drift", "domain web02", [second]),
        ("warning", "inventory_drift", "domain db01", [second]),
    ]
    assert {one["kind"] for one in host["findings"]} == {"drift"}
    messages = {one["where"]: one["message"] for one in host["findings"]}
    assert messages["domain web02"] == (
        "The domain web02 is not as vfio_guest_domains of the inventory says. "
        f"To be done: remove {second} from the domain web02."
    )
    assert "change the definition of the network vf-pool" in messages["network vf-pool"]
    # web02 gives up what db01 is to have, but web01 keeps what db02 is to have.
    assert "waits for other changes" in messages["domain db01"]
    assert messages["domain db02"].startswith("vfio_guest_domains of the inventory cannot be had: ")


def asked(name: str, problems: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """What a loop over one domain registers, when the module refuses."""
    result = {"item": {"name": name}, "failed": False, "msg": "no", "problems": problems, **more}
    return {"changed": False, "results": [result]}


@pytest.mark.parametrize("module", ["sriov_vfs", "vfio_devices"])
def test_what_a_guest_can_have_once_the_host_is_as_it_shall_be(kinds: Kinds, module: str) -> None:
    """A virtual function that is to be made, a device that is to be bound."""
    refused = asked("win11", [{"code": "device_not_bound", "message": "not yet.", "device": DISK}])
    alone = host_entry("a", {**kinds["gaming"], "domain_hostdevs": refused})
    assert codes(alone) == [("drift", "error", "device_not_bound")]
    pending = {"changed": False, "failed": False, "actions": [{"description": "do it"}]}
    both = host_entry("a", {**kinds["gaming"], module: pending, "domain_hostdevs": refused})
    assert [(one["code"], one["where"]) for one in both["findings"]] == [
        ("inventory_drift", None),
        ("inventory_drift", "domain win11"),
    ]
    assert both["findings"][1]["message"].endswith("until then: not yet.")
    assert both["findings"][1]["devices"] == [DISK]


def test_a_device_waits_for_the_virtual_functions_that_are_to_be_made(kinds: Kinds) -> None:
    pending = {"changed": False, "failed": False, "actions": [{"description": "make 4 virtual functions"}]}
    refused = {"failed": False, "msg": "no", "problems": [{"code": "no_match", "message": "none"}]}
    host = host_entry("a", {**kinds["gaming"], "sriov_vfs": pending, "vfio_devices": refused})
    assert codes(host) == [("drift", "warning", "inventory_drift")] * 2


def test_what_definitions_show_by_themselves_is_not_told_again(kinds: Kinds) -> None:
    before = codes(host_entry("a", kinds["server"]))
    found = [one for one in kinds["server"]["hostdev_info"]["problems"] if one["where"] == "domain web02"]
    assert found
    again = host_entry("a", {**kinds["server"], "domain_hostdevs": asked("web02", found)})
    assert codes(again) == before
    # Of another domain it is news.
    other = host_entry("a", {**kinds["server"], "domain_hostdevs": asked("web03", found)})
    assert len(other["findings"]) == len(before) + len(found)


def test_a_guest_that_could_not_be_asked_about(kinds: Kinds) -> None:
    failed = {"changed": False, "failed": True, "msg": "'dict object' has no attribute 'hostdevs'"}
    results = {"changed": False, "failed": True, "results": [{**failed, "item": {"name": "web01"}}]}
    host = host_entry("a", {**kinds["gaming"], "domain_hostdevs": results})
    assert (host["status"], host["verdict"], host["findings"]) == ("partial", "attention", [])
    assert host["failures"] == [{"module": "domain_hostdevs", "code": None, "message": f"web01: {failed['msg']}"}]
    no_list = {"failed": True, "msg": "Invalid data passed to 'loop'"}
    host = host_entry("a", {**kinds["gaming"], "domain_hostdevs": no_list})
    assert [one["message"] for one in host["failures"]] == [no_list["msg"]]


def test_what_waits_is_what_the_role_takes_for_no_objection() -> None:
    variables = yaml.safe_load((ROOT / "roles/vfio_guest/vars/main.yml").read_text(encoding="utf-8"))
    listed = re.findall("'([a-z_]+)'", variables["__vfio_guest_no_objection"].split(" else ")[-1])
    assert set(listed) == WAITING_CODES | {"device_in_other_domain"}


def test_a_pool_and_a_domain_that_have_the_same_device(kinds: Kinds) -> None:
    results = copy.deepcopy(kinds["server"])
    hostdevs = results["hostdev_info"]
    hostdevs["problems"] = []
    host = host_entry("a", results)
    assert [one["code"] for one in host["findings"] if one["kind"] == "conflict"] == ["device_claimed_twice"]
    hostdevs["domains"][0]["restart_required"] = True
    assert "restart_required" in [one["code"] for one in host_entry("a", results)["findings"]]


# -- answers of any shape -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [{"content": "?"}, {"content": "e30="}, {"content": base64.b64encode(b'{"records": 1}').decode()}, "text", None],
)
def test_records_that_are_none(kinds: Kinds, state: Any) -> None:
    assert host_entry("a", {**kinds["gaming"], "state": state})["records"] in (None, [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data())
def test_no_answer_breaks_the_report(kinds: Kinds, guests: dict[str, Any], data: st.DataObject) -> None:
    """Somewhere in the answers of a host is something else than there should be."""
    results = copy.deepcopy(data.draw(st.sampled_from([kinds["server"], guests])))
    place: Any = results
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = inner
    host = host_entry("a", results)
    assert host["verdict"] in ("blocked", "attention", "unknown", "ready")
    json.dumps(host).encode()
