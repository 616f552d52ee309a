"""`Verdicts`: requested versus effective, field by field, as a table on the page.

Traits: `heads`, `rows` (kernel to page). No messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from traitlets import List

from rtnb.redaction import mask_credentials
from rtnb.widgets._base import Widget, bundle, styles
from rtnb.widgets._steering import Verdict

_LONGEST = 160  # characters of a value that are shown (chosen)
_LONGEST_REASON = 600  # likewise


def styled(name: str) -> str:
    """The shared style and one of our own, as one text: a widget carries one style."""
    return "\n".join(Path(__file__).with_name(one).read_text(encoding="utf-8") for one in ("_base.css", name))


class Verdicts(Widget):
    """What was asked for and what is in force; nothing where nothing was asked for."""

    _esm = bundle("verdicts.js")
    _css = styles("settings.css")

    heads = List(["setting", "requested", "in force", ""], help="Names of the columns.").tag(sync=True)
    rows: List[list[str]] = List(help="One [field, requested, effective, verdict, reason] of texts per wish.").tag(
        sync=True
    )

    def show(self, verdicts: Iterable[Verdict]) -> None:
        """Show these wishes."""
        self.rows = [
            [one.field, said(one.requested), said(one.effective), one.verdict, said(one.reason, _LONGEST_REASON)]
            for one in verdicts
        ]


def said(value: Any, longest: int = _LONGEST) -> str:
    """A value as a short text; None is what the wire calls null."""
    text = value if isinstance(value, str) else json.dumps(mask_credentials(value), ensure_ascii=False, default=str)
    text = " ".join(text.split()) if value is not None else "null"
    return text if len(text) <= longest else text[: longest - 1] + "…"
