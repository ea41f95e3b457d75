"""References to the files in which public names are defined lead to the public names.

A class is documented as `continual.Conv1d`. A type in a signature names it by its file: `continual.layers.conv.Conv1d`.
"""

from __future__ import annotations

import pkgutil
import sys

from docutils.nodes import Element, TextElement, literal, reference
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def exists(target: str) -> bool:
    """Whether a name without a page is one of the library: by its full name, or in a file of the library."""
    if "." not in target:
        files = [file for name, file in sys.modules.items() if name.split(".")[0] == "continual"]
        return any(hasattr(file, target) for file in files)
    try:
        pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        return False
    return True


def public(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: TextElement) -> Element | None:
    """The reference to the documented name, or the text alone for a part of the library that has no page."""
    if node.get("refdomain") != "py":
        return None
    target = str(node["reftarget"]).removeprefix("~")
    domain = env.domains.python_domain
    name = target.rpartition(".")[2]
    known = [full for full in domain.objects if full.rpartition(".")[2] == name]
    public_name = min(known, key=lambda full: (full.count("."), full), default=None)
    inside = target.startswith("continual.") or "." not in target
    if inside and public_name is not None:
        found = domain.objects[public_name]
        uri = app.builder.get_relative_uri(node["refdoc"], found.docname)
        return reference("", "", text, internal=True, refuri=f"{uri}#{found.node_id}", reftitle=public_name)
    return literal("", text.astext()) if inside and exists(target) else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("missing-reference", public)
    return {"parallel_read_safe": True}
