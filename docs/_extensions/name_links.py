"""Names of ours in `code`, on any page and in any docstring, lead to their entry in the reference.

So the Markdown needs no roles of Sphinx, which GitHub does not know. A name in full leads there, and so does a short
one (`ConditionalRandomField`, `ScalarMix.plot()`) that only one public name can mean. Short names that are plain words
(`show`, `best`) need their parentheses.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.nodes import find_pending_xref_condition, make_refnode

_NAME = re.compile(r"(?P<name>[A-Za-z_][\w.]*)(?P<call>\(.*\))?", re.DOTALL)
_NO_LINKS = (nodes.reference, nodes.title, addnodes.desc_signature, addnodes.pending_xref)


def _short_names(full: str) -> Iterator[str]:
    """Ends of a full name that begin behind its modules: `Class`, `Class.method`."""
    parts = full.split(".")
    first = next((place for place, part in enumerate(parts) if part[:1].isupper()), len(parts) - 1)
    yield ".".join(parts[first:])


def _table(app: Sphinx) -> dict[str, Any]:
    objects = {
        name: entry for name, entry in app.env.domains["py"].data["objects"].items() if entry.objtype != "module"
    }
    meanings: dict[str, set[tuple[str, str]]] = {}
    for full, entry in objects.items():
        for name in {full, *_short_names(full)}:
            meanings.setdefault(name, set()).add((entry.docname, entry.node_id))
    return {name: places.pop() for name, places in meanings.items() if len(places) == 1}


def _link(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    table = _table(app)
    for literal in list(doctree.findall(nodes.literal)):
        match = _NAME.fullmatch(literal.astext().strip())
        if match is None or match["name"] not in table:
            continue
        name, above = match["name"], list(_ancestors(literal))
        is_plain_word = name.islower() and not set("._") & set(name)
        if (is_plain_word and not match["call"]) or any(isinstance(node, _NO_LINKS) for node in above):
            continue
        target_page, anchor = table[name]
        if any(anchor in signature["ids"] for node in above for signature in _signatures(node)):
            continue  # an entry's own text
        link = make_refnode(app.builder, docname, target_page, anchor, literal.deepcopy())
        literal.replace_self(link)


def _keep_typing_apart(_app: Sphinx, doctree: nodes.document) -> None:
    """Leave names of `typing` in type hints without links: some of ours are called the same (`Literal`)."""
    for reference in list(doctree.findall(addnodes.pending_xref)):
        if reference.get("refdomain") == "py" and reference.get("reftarget") in typing.__all__:
            text = find_pending_xref_condition(reference, "resolved")
            reference.replace_self(reference.children if text is None else text.children)


def _ancestors(node: nodes.Node) -> Iterator[nodes.Node]:
    while node.parent is not None:
        node = node.parent
        yield node


def _signatures(node: nodes.Node) -> list[addnodes.desc_signature]:
    if not isinstance(node, addnodes.desc):
        return []
    return [child for child in node.children if isinstance(child, addnodes.desc_signature)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Link when the pages are written, and every entry of the reference is known."""
    app.connect("doctree-read", _keep_typing_apart)
    app.connect("doctree-resolved", _link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
