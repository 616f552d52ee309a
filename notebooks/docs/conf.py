"""Settings of the documentation: ``python -m sphinx -W -c notebooks/docs notebooks PLACE``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, Final

from docutils import nodes
from ipywidgets import DOMWidget

import rtnb
from rtnb.protocol import events
from rtnb.protocol.preview import PREVIEW_TYPES

project = "rtnb"
author = "the rtnb authors"
copyright = "2026, the rtnb authors"
release = version = rtnb.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
exclude_patterns = ["**/.ipynb_checkpoints"]
nb_execution_mode = "auto"  # for their figures and sounds
nb_execution_excludepatterns = os.environ.get("RTNB_DOCS_NOT_RUN", "").split()
nb_execution_timeout = 120  # s, of a cell (chosen: the slowest takes 10)
nb_execution_raise_on_error = True
nb_mime_priority_overrides = [
    ("html", "application/vnd.jupyter.widget-view+json", None)
]  # needs a kernel and a network
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
myst_heading_anchors = 4
html_theme = "furo"
html_title = "rtnb"
html_static_path = ["_static"]
html_css_files = ["style.css"]
autodoc_typehints = "none"  # the docstrings say it
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True  # an attribute with a docstring of its own is described once


def names_of(title: str) -> Iterator[str]:
    """Yield entries for the names under one heading of ``help(rtnb)``, from their docstrings."""
    (block,) = (one for one in (rtnb.__doc__ or "").split("\n\n") if one.startswith(f"{title}\n"))
    for name in re.findall(r"^    (\w+)", block, re.MULTILINE):
        value = getattr(rtnb, name)
        if isinstance(value, type):
            yield from (f".. autoclass:: rtnb.{name}", "   :members:", "")
        elif callable(value):
            yield from (f".. autofunction:: rtnb.{name}", "")
        else:
            yield from (f".. automodule:: {value.__name__}", "")


def wire_events(side: str) -> Iterator[str]:
    """Yield a table of the wire events of one side and their fields."""
    yield from (".. list-table::", "   :header-rows: 1", "", "   * - event", "     - fields")
    for name, kind in sorted({"client": events.CLIENT_EVENTS, "server": events.SERVER_EVENTS}[side].items()):
        names = ", ".join(f"``{one.name}``" for one in fields(kind) if one.name not in ("event_id", "extra"))
        yield from (f"   * - ``{name}``", f"     - {names or 'none'}")


def event_names(_: str) -> Iterator[str]:
    """Yield a table of the events whose names differ between the dialects."""
    yield from (".. list-table::", "   :header-rows: 1", "", "   * - today (GA)", "     - preview")
    for name, old in sorted(PREVIEW_TYPES.items()):
        yield from (f"   * - ``{name}``", f"     - ``{old}``")


TABLES: Final[dict[str, Callable[[str], Iterator[str]]]] = {
    "names-of": names_of,
    "wire-events": wire_events,
    "event-names": event_names,
}
"""What pages may ask for: a line ``<!-- NAME: ARGUMENT -->`` is replaced."""


def fill(app: Any, page: str, source: list[str]) -> None:
    """Replace the lines that ask for a table."""

    def table(line: re.Match[str]) -> str:
        return "```{eval-rst}\n" + "\n".join(TABLES[line[1]](line[2])) + "\n```"

    source[0] = re.sub(r"^<!-- ([\w-]+): (.*?) ?-->$", table, source[0], flags=re.MULTILINE)


def keep(_app: Any, what: str, name: str, _value: Any, _options: Any, lines: list[str]) -> None:
    """Keep the text of an attribute that has no sections: napoleon takes words before a colon for its type."""
    if what in ("attribute", "property") and not any(line.startswith("---") for line in lines):
        kept[name] = [*lines]


def restore(_app: Any, _what: str, name: str, _value: Any, _options: Any, lines: list[str]) -> None:
    """Put back what `keep` has kept."""
    lines[:] = kept.pop(name, lines)


WIDGETS: Final = [name for name in dir(rtnb) if DOMWidget in getattr(getattr(rtnb, name), "__mro__", ())]
"""Public names of widgets; an output of one begins with its name."""


def mend_outputs(_app: Any, page: Any) -> None:
    """Remove bars of progress, which stand at 0 %, and name a widget instead of its one-line text."""
    for plain in [*page.findall(lambda node: getattr(node, "attributes", {}).get("mime_type") == "text/plain")]:
        output, text = plain.parent, plain.astext().lstrip()
        if re.match(r"\w+: +0%\|", text):
            output.parent.remove(output)
        elif (name := re.match(r"<(\w+)", text)) and name[1] in WIDGETS:
            said = f"A widget, {name[1]}: open this lesson in JupyterLab to use it."
            output.replace_self(nodes.paragraph("", "", nodes.emphasis("", said)))


kept: Final[dict[str, list[str]]] = {}


def setup(app: Any) -> dict[str, bool]:
    """Register the functions above, `keep` and `restore` around napoleon, whose priority is 500."""
    app.connect("source-read", fill)
    app.connect("doctree-read", mend_outputs)
    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
    return {"parallel_read_safe": True}
