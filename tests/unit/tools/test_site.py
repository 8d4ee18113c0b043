# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site of the documentation: links are found, follow their page to the site, and are checked at both places."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.site import markdown, pages
from tools.site.built import Site
from tools.site.links import external_problem, problems

REPOSITORY = "https://example.com/repository"
TEXT = """\
# The title of `a_module`

[one](guide.md), [`two`](guide.md#part-2)
and ![three](pictures/a.png)

`[no](link.md)`, ``[no](`link.md)``

```console
$ echo '[no](link.md)'
# no heading
```

<!-- [no](link.md) -->

## Part 2: what's *there*?
## Part 2: what's there?
### See [`two`](guide.md)
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


# -- links in Markdown


def test_links_are_found_with_their_lines_and_code_is_none() -> None:
    assert [(link.text, link.target, link.line) for link in markdown.links(TEXT)] == [
        ("one", "guide.md", 3),
        ("`two`", "guide.md#part-2", 3),
        ("three", "pictures/a.png", 4),
        ("`two`", "guide.md", 17),
    ]


def test_only_links_are_replaced() -> None:
    changed = markdown.replace_links(TEXT, {"guide.md": "x.md", "link.md": "wrong"})
    assert changed == TEXT.replace("(guide.md)", "(x.md)")


def test_anchors_are_those_of_github() -> None:
    assert markdown.anchors(TEXT) == {"the-title-of-a_module", "part-2-whats-there", "part-2-whats-there-1", "see-two"}


def test_places_with_a_name_are_anchors_and_become_those_of_the_site() -> None:
    text = '| <a id="boot_disk"></a>`boot_disk` | yes |\n'
    assert markdown.anchors(text) == {"boot_disk"}
    assert markdown.with_places(text) == "| []{#boot_disk}`boot_disk` | yes |\n"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("guide.md", None),
        ("guide.md#part-2", None),
        ("#here", None),
        ("https://example.com/a#b", None),
        ("missing.md", "There is no such file."),
        ("guide.md#part-3", "There is no heading for it in docs/guide.md."),
        ("#there", "There is no heading for it in docs/page.md."),
        ("data.json#x", "Only Markdown files have anchors."),
        ("/docs/guide.md", "A path is relative to the file, since GitHub and the site have different roots."),
        ("../../else.md", "It leads out of the repository."),
        ("http://example.com/", "Links to other sites are https."),
    ],
)
def test_each_link_is_checked(tmp_path: Path, target: str, problem: str | None) -> None:
    text = f"# Here\n\n[a]({target})\n"
    root = write(
        tmp_path / "r", {"docs/page.md": text, "docs/guide.md": "# Guide\n\n## Part 2\n", "docs/data.json": ""}
    )
    expected = [] if problem is None else [f"docs/page.md:3: {target}: {problem}"]
    assert list(problems(root, {root / "docs/page.md": text})) == expected


@pytest.mark.parametrize(
    "target", ["https://", "https://host/", "https://me@example.com/", "https://[::1/", "ftp://a.b/"]
)
def test_an_external_link_has_to_be_well_formed(target: str) -> None:
    assert external_problem(target)


# -- from the repository to the site


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("docs/README.md", "index.md"),
        ("docs/guide.md", "guide.md"),
        ("README.md", "collection.md"),
        ("CHANGELOG.rst", "changelog.rst"),
        ("roles/vfio_host/README.md", "role_vfio_host.md"),
        ("docs/build/guide.md", None),
        ("docs/data.json", None),
        ("roles/vfio_host/tasks/main.yml", None),
        ("plugins/README.md", None),
    ],
)
def test_which_file_is_which_page(path: str, page: str | None) -> None:
    assert pages.page_of(path) == page


def test_links_lead_to_pages_files_or_the_repository(tmp_path: Path) -> None:
    text = "[a](../README.md#install) [b](data.json) [c](../tests) [d](../tests/x.py) [e](#f) [g](https://a.example/)"
    files = {"docs/README.md": text, "README.md": "[a](docs/README.md)", "docs/data.json": "{}", "tests/x.py": ""}
    root, site = write(tmp_path / "root", files), tmp_path / "site"
    site.mkdir()
    pages.write_pages(root, list(files), site, REPOSITORY)
    assert {path.name: path.read_text() for path in site.iterdir()} == {
        "index.md": f"[a](collection.md#install) [b](data.json) [c]({REPOSITORY}/tree/main/tests) "
        f"[d]({REPOSITORY}/blob/main/tests/x.py) [e](#f) [g](https://a.example/)",
        "collection.md": "[a](index.md)",
        "data.json": "{}",
    }


def test_a_link_to_nothing_ends_the_build(tmp_path: Path) -> None:
    root = write(tmp_path, {"docs/a.md": "[x](../gone.md)"})
    with pytest.raises(pages.PageError, match=r"docs/a\.md: the link to \.\./gone\.md leads to nothing"):
        pages.write_pages(root, ["docs/a.md"], tmp_path, REPOSITORY)


def rst(kind: str, name: str, does: str) -> dict[str, str]:
    heading = f"kvm.passthrough.{name} {kind} -- {does}"
    return {f"reference/{name}_{kind}.rst": f".. Title\n\n{heading}\n{'+' * len(heading)}\n"}


def test_the_index_becomes_the_table_of_contents(tmp_path: Path) -> None:
    guides = "## Guides\n\n- [`One`](one.md): x, see [one](one.md) and [there](https://a.example/)\n\n"
    index = f"# All\n\n{guides}## More\n\n[1](one.md)\n"
    files = {"index.md": index, **rst("module", "m", r"Do SR\-IOV"), **rst("filter", "f", "F"), **rst("role", "r", "R")}
    write(tmp_path, files)
    pages.complete_index(tmp_path)
    text = (tmp_path / "index.md").read_text()
    assert "- [`m`](reference/m_module.rst): Do SR-IOV\n" in text
    toctrees = [part.split("```")[0].split(":caption: ")[1] for part in text.split("```{toctree}")[1:]]
    assert [tree.split() for tree in toctrees] == [
        ["Guides", "One", "<one>"],
        ["Modules", "m", "<reference/m_module>"],
        ["Filters", "f", "<reference/f_filter>"],
        ["Options", "of", "the", "roles", "r", "<reference/r_role>"],
    ]


def test_a_reference_that_looks_otherwise_is_told(tmp_path: Path) -> None:
    with pytest.raises(pages.PageError, match="no page of a module"):
        pages.reference(write(tmp_path, {"index.md": ""}), "module")
    with pytest.raises(pages.PageError, match="does not begin"):
        pages.reference(write(tmp_path, {"reference/m_module.rst": "Something else\n"}), "module")


# -- the site that was built


@pytest.mark.parametrize(
    ("element", "problem"),
    [
        ('<a href="b.html#there">', None),
        ('<a href="#here">', None),
        ('<a href="https://example.com/">', None),
        ('<img src="data:image/png;base64,AA==">', None),
        ('<link rel="canonical" href="https://example.com/">', None),
        ('<a href="c.html">', "c.html: There is no such file."),
        ('<a href="b.html#gone">', "b.html#gone: There is no such anchor."),
        ('<img src="a.png">', "a.png: There is no such file."),
        (
            '<script src="https://example.com/a.js">',
            "https://example.com/a.js: The page would load it from another site.",
        ),
        (
            '<link rel="stylesheet" href="//example.com/a">',
            "//example.com/a: The page would load it from another site.",
        ),
    ],
)
def test_a_built_page_is_checked(tmp_path: Path, element: str, problem: str | None) -> None:
    write(tmp_path, {"a.html": f"<p id=here>{element}", "b.html": "<h1 id='there'>"})
    site = Site(tmp_path)
    assert list(site.problems()) == ([] if problem is None else [f"a.html: {problem}"])


def test_links_to_other_sites_are_listed_with_their_pages(tmp_path: Path) -> None:
    link = '<a href="https://example.com/">'
    site = Site(write(tmp_path, {"a.html": link, "b/c.html": link + '<a href="../a.html">'}))
    assert site.external_links() == {"https://example.com/": {"a.html", "b/c.html"}}
