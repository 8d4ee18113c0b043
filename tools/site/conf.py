# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx's configuration of the documentation site. ``tools/site/__main__.py`` starts it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from tools.site.pages import KINDS, reference

project = "kvm.passthrough"
author = copyright = "kvm.passthrough contributors"
version = release = os.environ["COLLECTION_VERSION"]
html_title = f"{project} {version}"

extensions = ["myst_parser", "sphinx_antsibull_ext"]
nitpicky = True
default_role = "any"

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
antsibull_ext_color_scheme = "none"  # the colours are in site.css, where they follow the theme's, light or dark
html_copy_source = False
html_show_sphinx = False
html_use_index = False
highlight_language = "text"
pygments_style = "default"


# Where Ansible's own documentation has what the reference refers to; its list of all that is there would have to be
# fetched from the network.
_ANSIBLE = "https://docs.ansible.com/ansible/latest"
_ANSIBLE_PAGES = {"common_return_values": "reference_appendices/common_return_values.html"}
_BUILTIN = re.compile(r"ansible_collections\.ansible\.builtin\.(\w+)$")


class LinkNames(SphinxTransform):
    """Make the first mention of a module, a filter or a role in each section of a guide a link to its reference."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        """Look through one page."""
        docname = self.env.docname
        # The scenarios of Molecule have names of roles and modules, too.
        if docname.startswith("reference/") or docname == "testing_roles":
            return
        pages = _reference_pages(Path(self.app.srcdir))
        mentioned: set[tuple[int, str]] = set()
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().removeprefix("kvm.passthrough.")
            if name not in pages or _ancestor(literal, nodes.reference, nodes.title, addnodes.pending_xref):
                continue
            section = id(_ancestor(literal, nodes.section))
            if (section, name) in mentioned:
                continue
            mentioned.add((section, name))
            # As MyST makes it of a link to a page, so that the name stays code.
            place = {"refdomain": "doc", "reftype": "myst", "reftarget": pages[name], "reftargetid": None}
            link = addnodes.pending_xref("", refdoc=docname, refexplicit=True, refwarn=True, **place)
            literal.replace_self(link)
            link += nodes.inline("", "", literal)


class RemoveContents(SphinxTransform):
    """Take the list of contents out of the pages of antsibull-docs, since the theme has one beside the page."""

    default_priority = 721  # after docutils has made it, at 720

    def apply(self, **kwargs: Any) -> None:
        """Look through one page."""
        for topic in [one for one in self.document.findall(nodes.topic) if "contents" in one["classes"]]:
            topic.parent.remove(topic)
            for title in self.document.findall(nodes.title):
                title.attributes.pop("refid", None)  # the way back to it


def link_to_ansible(_app: Sphinx, _env: object, node: nodes.Element, content: nodes.TextElement) -> nodes.Node | None:
    """A reference to a page of Ansible's own documentation; None leaves it to Sphinx to complain."""
    target = node.get("reftarget", "")
    page = _ANSIBLE_PAGES.get(target)
    if found := _BUILTIN.match(target):
        page = f"collections/ansible/builtin/{found[1]}.html"
    if page is None:
        return None
    return nodes.reference("", "", content, internal=False, refuri=f"{_ANSIBLE}/{page}")


def _reference_pages(folder: Path) -> dict[str, str]:
    return {entry.name: entry.page for kind in KINDS for entry in reference(folder, kind)}


def _ancestor(node: nodes.Node, *kinds: type[nodes.Node]) -> nodes.Node | None:
    above = node.parent
    while above is not None and not isinstance(above, kinds):
        above = above.parent
    return above


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_transform(LinkNames)
    app.add_transform(RemoveContents)
    app.connect("missing-reference", link_to_ansible)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
