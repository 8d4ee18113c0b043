# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of the roles in their READMEs, written from ``meta/argument_specs.yml``, which is the only source.

A README has the table between two marks; what is around them is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

BEGIN = '<!-- Written from meta/argument_specs.yml by "make docs-generated". Change that. -->'
END = "<!-- Up to here. -->"

_COLUMNS = ("variable", "type", "default", "what it is")
_TYPES = {"str": "text", "int": "number", "bool": "true or false", "dict": "mapping", "raw": "any", "path": "path"}
_ELEMENTS = {"str": "texts", "int": "numbers", "dict": "mappings"}

# Semantic markup of Ansible: one letter or two, and what is in the parentheses, with ")" as "\)".
_MARKUP = re.compile(r"\b(B|I|C|V|E|M|P|O|RV)\(((?:[^)\\]|\\.)+)\)")
# What O() names: a role's entry point of this file, of another plugin, or nothing of that.
_OPTION = re.compile(r"(?:(?P<plugin>[\w.]+)#(?P<type>\w+):)?(?:(?P<entry>\w+):)?(?P<name>[^:]+)")


def readmes(root: Path) -> dict[str, str]:
    """The READMEs of the roles as they are to be, by their paths below ``root``.

    :raises ValueError: when a README has no place for the table, or a description cannot be translated
    """
    found = {}
    for folder in sorted((root / "roles").iterdir()):
        name = f"roles/{folder.name}/README.md"
        specs = yaml.safe_load((folder / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
        text = (root / name).read_text(encoding="utf-8")
        before, begin, rest = text.partition(f"{BEGIN}\n")
        _old, end, after = rest.partition(f"{END}\n")
        if not begin or not end:
            raise ValueError(f"{name} has no place for the variables: {BEGIN} and {END}, each on a line of its own")
        found[name] = f"{before}{begin}\n{table(specs['main']['options'])}\n{end}{after}"
    return found


def table(options: Mapping[str, Any]) -> str:
    """The options of an argument specification as a table in Markdown, each followed by its suboptions."""
    rows = [
        (f"`{name}`", _type(option), _default(option), _prose(option["description"])) for name, option in _flat(options)
    ]
    heads = f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}\n"
    return heads + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _flat(options: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, option in options.items():
        yield f"{above}{name}", option
        inside = "[]." if option["type"] == "list" else "."
        yield from _flat(option.get("options", {}), f"{above}{name}{inside}")


def _type(option: Mapping[str, Any]) -> str:
    if option["type"] == "list":
        elements = _ELEMENTS.get(option["elements"])
        return f"list of {elements}" if elements else "list"
    if "choices" in option:
        return ", ".join(f"`{choice}`" for choice in option["choices"])
    return _TYPES[option["type"]]


def _default(option: Mapping[str, Any]) -> str:
    if option.get("required"):
        return "required"
    if "default" not in option:
        return "none"
    value = option["default"]
    if isinstance(value, str) and "{{" in value:
        return f"`{value}`"
    written = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return f"`{written.split(chr(10))[0]}`"


def _prose(description: str | list[str]) -> str:
    paragraphs = [description] if isinstance(description, str) else description
    return "<br>".join(markdown(" ".join(paragraph.split())) for paragraph in paragraphs).replace("|", "\\|")


def markdown(text: str) -> str:
    """A sentence with Ansible's semantic markup, in Markdown.

    :raises ValueError: for markup that this does not know
    """
    translated = _MARKUP.sub(_translated, text)
    strange = re.search(r"\b[A-Z]{1,2}\([^)]", translated)
    if strange:
        raise ValueError(f"{strange[0]}…) in {text!r} is markup that is not translated")
    return translated


def _translated(match: re.Match[str]) -> str:
    kind, text = match[1], re.sub(r"\\(.)", r"\1", match[2])
    if kind == "B":
        return f"**{text}**"
    if kind == "I":
        return f"*{text}*"
    if kind in ("M", "P"):
        return f"`{text.partition('#')[0].rpartition('.')[2]}`"
    if kind in ("O", "RV"):
        option = _OPTION.fullmatch(text)
        if option is None:
            raise ValueError(f"{match[0]} names no option")
        of = f" of `{option['plugin'].rpartition('.')[2]}`" if option["type"] == "module" else ""
        return f"`{option['name']}`{of}"
    return f"`{text}`"
