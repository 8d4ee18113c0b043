# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of docs/platforms.md: what ``iommu_info`` says on each machine, between two marker lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .run import LabError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "platforms.md"

_BEGIN = "<!-- The lab writes what follows: make lab-table -->"
_END = "<!-- End of what the lab writes -->"
_HEADER = (
    "| host | state | platform | evidence | parameters to set or remove | blockers |",
    "|---|---|---|---|---|---|",
)


def format_row(title: str, result: Mapping[str, Any]) -> str:
    """One row out of what the module returned; the kernel's release, which changes with updates, is left out."""
    parameters = [f"`{each}`" for each in result["recommended_parameters"]]
    parameters += [f"remove `{each}`" for each in result["parameters_to_remove"]]
    blockers = [f"`{each['code']}` ({each['severity']})" for each in result["blockers"]]
    cells = [
        title,
        f"`{result['state']}`",
        f"`{result['platform']}`" if result["platform"] else "–",
        "; ".join(result["evidence"]).replace(result["kernel"], "RELEASE"),
        ", ".join(parameters) or "none",
        ", ".join(dict.fromkeys(blockers)) or "none",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def read_rows(page: str) -> dict[str, str]:
    """The rows of the table in the text of the page, by their first cell; raises LabError without the markers."""
    table = _split(page)[1]
    rows = [line for line in table.splitlines() if line.startswith("| ") and line not in _HEADER]
    return {row.split(" | ")[0].removeprefix("| "): row for row in rows}


def replace_rows(page: str, rows: Mapping[str, str], titles: Sequence[str]) -> str:
    """The text of the page with these rows in the place of those of the same title, ordered like ``titles``.

    Rows that are not given stay; those whose title is not among ``titles`` go. Raises LabError without the markers.
    """
    before, table, after = _split(page)
    known = {**read_rows(f"{_BEGIN}{table}{_END}"), **rows}
    lines = [*_HEADER, *(known[title] for title in titles if title in known)]
    return f"{before}{_BEGIN}\n\n" + "\n".join(lines) + f"\n\n{_END}{after}"


def _split(page: str) -> tuple[str, str, str]:
    before, begin, rest = page.partition(_BEGIN)
    table, end, after = rest.partition(_END)
    if not begin or not end:
        raise LabError(f"{PAGE} has not both lines '{_BEGIN}' and '{_END}', between which the table stands")
    return before, table, after
