# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role vfio_audit in a play over hosts of which only some can be looked at, in batches."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.kvm.passthrough.tests.unit.support.html import parse
from ansible_collections.kvm.passthrough.tests.unit.support.places import COLLECTIONS, PROGRAMS

LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
EVIL = "<b>kvm</b>"


def prepare(folder: Path) -> None:
    """An inventory, and a play over it in batches in which one host fails before it gets to the role."""
    ssh = folder / "ssh"
    ssh.write_text("#!/bin/sh\necho 'connect to host kvm1 port 22: No route to host' >&2\nexit 255\n", encoding="utf-8")
    ssh.chmod(0o755)
    hosts: dict[str, dict[str, Any]] = {
        "kvm1": {"ansible_ssh_executable": str(ssh), "ansible_ssh_retries": 0},
        "kvm2": {**LOCAL, "fails_before": True},
        "kvm3": {"ansible_connection": "local", "ansible_python_interpreter": "/bin/false"},
        EVIL: LOCAL,
    }
    play: dict[str, Any] = {
        "hosts": "kvm_hosts",
        "gather_facts": False,
        "serial": 2,
        "pre_tasks": [{"ansible.builtin.fail": {"msg": "another role fails"}, "when": "fails_before | default(false)"}],
        "roles": ["kvm.passthrough.vfio_audit"],
        "vars": {"vfio_audit_libvirt": False, "vfio_audit_folder": str(folder / "reports")},
    }
    (folder / "hosts.yml").write_text(json.dumps({"kvm_hosts": {"hosts": hosts}}), encoding="utf-8")
    (folder / "play.yml").write_text(json.dumps([play]), encoding="utf-8")


def run(folder: Path, *options: str) -> str:
    """What ``ansible-playbook`` prints."""
    done = subprocess.run(
        [PROGRAMS / "ansible-playbook", "-i", folder / "hosts.yml", folder / "play.yml", *options],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS,
            "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.stdout + done.stderr


def test_no_host_is_left_out_and_none_is_changed(tmp_path: Path) -> None:
    """One test, since a play over hosts takes seconds."""
    prepare(tmp_path)
    (tmp_path / "reports").mkdir(mode=0o700)
    printed = run(tmp_path)
    document, page = (tmp_path / f"reports/kvm-passthrough-audit.{suffix}" for suffix in ("json", "html"))
    assert document.exists(), printed
    hosts = {host["name"]: host for host in json.loads(document.read_text(encoding="utf-8"))["hosts"]}
    assert {name: host["status"] for name, host in hosts.items()} == {
        EVIL: "audited",
        "kvm1": "unreachable",
        "kvm2": "not_audited",
        "kvm3": "failed",
    }
    assert "No route to host" in hosts["kvm1"]["reason"]
    assert hosts[EVIL]["iommu"]["kernel"] == os.uname().release

    [root] = parse(page.read_text(encoding="utf-8"))
    assert [heading.text for heading in root.all("h3")] == list(hosts)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (document, page, tmp_path / "reports")]
    assert modes == [0o600, 0o600, 0o700]

    recap = printed.split("PLAY RECAP", 1)[1]
    assert recap.count("changed=0") == 4
    assert "unreachable=1" not in recap
    assert "4 hosts: " in printed
    assert f"{document}" in printed

    printed = run(tmp_path, "--check", "--limit", "kvm1", "-e", f"vfio_audit_folder={tmp_path}/check")
    assert "Nothing is written in check mode." in printed
    assert not (tmp_path / "check").exists()
