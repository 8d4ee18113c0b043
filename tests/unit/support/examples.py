# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Examples in documentation: where they are, and what is wrong with them, held against the argument specifications."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.splitter import parse_kv

from ansible_collections.kvm.passthrough.plugins import modules

from .places import ROOT
from .query import MODULES

if TYPE_CHECKING:
    from typing_extensions import TypeGuard

PREFIX = "kvm.passthrough."
ROLES = tuple(sorted(path.name for path in (ROOT / "roles").iterdir()))
PLAYBOOKS = frozenset(path.stem for path in (ROOT / "playbooks").glob("*.yml"))

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:make|ansible|ansible-playbook) [^`\n]+|-e [^`\n]+)`")
_RULES = ("mutually_exclusive", "required_together", "required_one_of", "required_if", "required_by")


@dataclass(frozen=True)
class Example:
    """One piece of a document: ``yaml``, or one command of a ``console``."""

    where: str
    kind: str
    text: str


class _Asked(Exception):
    """A module has said what it takes."""


@lru_cache
def module_spec(name: str) -> dict[str, Any]:
    """What a module hands to AnsibleModule: argument_spec, and the rules between options."""
    module: Any = importlib.import_module(f"{modules.__name__}.{name}")
    asked: dict[str, Any] = {}

    def remember(**arguments: Any) -> None:
        asked.update(arguments)
        raise _Asked

    real = module.AnsibleModule
    module.AnsibleModule = remember
    try:
        module.main()
    except _Asked:
        return asked
    finally:
        module.AnsibleModule = real
    raise AssertionError(f"{name} makes no AnsibleModule")


@lru_cache
def role_spec(name: str) -> dict[str, Any]:
    """The variables of a role, as argument_spec."""
    text = (ROOT / "roles" / name / "meta/argument_specs.yml").read_text(encoding="utf-8")
    return {"argument_spec": yaml.safe_load(text)["argument_specs"]["main"]["options"]}


@lru_cache
def playbook_variables() -> frozenset[str]:
    """The variables that the playbooks read."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "playbooks").glob("*.yml")]
    return frozenset(name for text in texts for name in re.findall(r"\bkvm_passthrough_\w+", text))


@lru_cache
def make_targets() -> frozenset[str]:
    """The targets of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


def documents() -> list[Path]:
    """All Markdown of the repository."""
    listing = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listing.stdout.split() or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*.md")]
    return [ROOT / name for name in names]


def in_markdown(text: str, where: str) -> Iterator[Example]:
    """The blocks marked yaml, the commands of those marked console, and the commands within sentences."""
    for match in _BLOCK.finditer(text):
        line = f"{where}:{text.count(chr(10), 0, match.start()) + 1}"
        if match[2] == "yaml":
            yield Example(line, "yaml", match[3])
        elif match[2] == "console":
            for command in re.findall(r"^ *\$ ((?:.*\\\n)*.*)$", match[3], re.MULTILINE):
                yield Example(line, "console", command.replace("\\\n", " "))
    for match in _INLINE.finditer(_BLOCK.sub("", text)):
        yield Example(where, "console", match[1])


def all_examples() -> list[Example]:
    """Those of all documents and all modules."""
    found = [
        example
        for path in documents()
        for example in in_markdown(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]
    for name in MODULES:
        text = importlib.import_module(f"{modules.__name__}.{name}").EXAMPLES
        found.append(Example(f"{name}.py", "yaml", text))
    return found


def wrong(example: Example) -> list[str]:
    """What is wrong with an example, in words."""
    try:
        if example.kind == "yaml":
            return [problem for data in yaml.safe_load_all(example.text) for problem in _in_data(data)]
        return _in_command(shlex.split(example.text, comments=True))
    except (yaml.YAMLError, ValueError) as error:
        return [f"cannot be read: {error}"]


def _in_data(data: Any) -> list[str]:
    """Tasks, plays, inventories and variables, wherever in the data they are."""
    if isinstance(data, list):
        return [problem for item in data for problem in _in_data(item)]
    if not isinstance(data, Mapping):
        return []
    found = _in_variables(data)
    for key, value in data.items():
        name = str(key)
        if name.startswith(PREFIX):
            found += _in_task(name, value)
        elif name in (
            "role",
            "import_role",
            "include_role",
            "ansible.builtin.import_role",
            "ansible.builtin.include_role",
        ):
            role = value.get("name") if isinstance(value, Mapping) else value
            found += [f"there is no role {role}"] if _ours(role) and role.removeprefix(PREFIX) not in ROLES else []
        elif name in ("import_playbook", "ansible.builtin.import_playbook"):
            found += _in_playbook(value)
        if not name.startswith(tuple(f"{role}_" for role in ROLES)):
            found += _in_data(value)
    return found


def _ours(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and name.startswith(PREFIX)


def _in_task(name: str, arguments: Any) -> list[str]:
    module = name.removeprefix(PREFIX)
    if module not in MODULES:
        return [f"there is no module {name}"]
    if isinstance(arguments, str):
        arguments = parse_kv(arguments)
    return _invalid(name, module_spec(module), arguments or {})


def _in_playbook(name: object) -> list[str]:
    if isinstance(name, str) and name.startswith(PREFIX) and name.removeprefix(PREFIX) not in PLAYBOOKS:
        return [f"there is no playbook {name}"]
    return []


def _in_variables(data: Mapping[Any, Any]) -> list[str]:
    """The keys of a mapping that are variables of a role or a playbook."""
    found = []
    for role in ROLES:
        facts = _facts(role)
        given = {key: value for key, value in data.items() if str(key).startswith(f"{role}_") and key not in facts}
        found += _invalid(role, role_spec(role), given) if given else []
    found += [
        f"no playbook reads {key}"
        for key in data
        if str(key).startswith("kvm_passthrough_") and key not in playbook_variables()
    ]
    return found


@lru_cache
def _facts(role: str) -> frozenset[str]:
    """What a role sets, and nobody gives it."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "roles" / role / "tasks").glob("*.yml")]
    return frozenset(name for text in texts for name in re.findall(rf"^ +({role}_\w+):", text, re.MULTILINE))


def _invalid(name: str, spec: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[str]:
    rules = {rule: spec[rule] for rule in _RULES if rule in spec}
    options = spec["argument_spec"]
    result = ArgumentSpecValidator(options, **rules).validate(_filled(options, arguments))
    return [f"{name}: {message}" for message in result.error_messages]


def _filled(options: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with something that fits in the place of each template, whose value nobody knows."""
    return {name: _value(options.get(name, {}), value) for name, value in arguments.items()}


def _value(option: Mapping[str, Any], value: Any) -> Any:
    if isinstance(value, str) and "{{" in value:
        if "choices" in option:
            return option["choices"][0]
        return {"int": 1, "bool": True, "list": [], "dict": {}}.get(option.get("type", "str"), "x")
    inner = option.get("options")
    if inner and isinstance(value, Mapping):
        return _filled(inner, value)
    if isinstance(value, list):
        one = {"type": option.get("elements", "raw"), **({"options": inner} if inner else {})}
        return [_value(one, item) for item in value]
    return value


def _in_command(words: list[str]) -> list[str]:
    if words[:2] == ["tools/dev", "run"]:
        words = words[2:]
    if words[:1] == ["make"]:
        named = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        return [f"the Makefile has no target {word}" for word in named if word not in make_targets()]
    if words[:1] in (["ansible"], ["ansible-playbook"]) or words[:1] == ["-e"]:
        return [*_in_extra_variables(words), *_in_call(words)]
    return []


def _in_call(words: list[str]) -> list[str]:
    if words[0] == "ansible-playbook":
        return [problem for word in words[1:] for problem in _in_playbook(word)]
    module, arguments = _after(words, "-m"), _after(words, "-a")
    if not module or not _ours(module[0]):
        return []
    text = arguments[0] if arguments else ""
    return _in_task(module[0], json.loads(text) if text.startswith("{") else text)


def _in_extra_variables(words: list[str]) -> list[str]:
    found = []
    for text in _after(words, "-e"):
        given = json.loads(text) if text.startswith("{") else parse_kv(text)
        found += _in_variables(given)
        if not given:
            found.append(f"-e {text} gives nothing")
        ours = (*(f"{role}_" for role in ROLES), "kvm_passthrough_", "ansible_")
        found += [f"nothing reads {name}" for name in given if not name.startswith(ours)]
    return found


def _after(words: list[str], option: str) -> list[str]:
    return [value for word, value in zip(words, words[1:]) if word == option]
