"""`Widget`: what all our widgets have in common."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import anywidget


class Widget(anywidget.AnyWidget):
    """An anywidget that refuses unknown keywords, prints as one safe line, and wears the shared style.

    A subclass names its ES module: ``_esm = Path(__file__).with_suffix(".js")``.

    Parameters
    ----------
    **traits
        Any of its traits.

    Raises
    ------
    TypeError
        For a keyword that is no trait; the message names the nearest one. (Plain widgets accept it and do nothing.)
    """

    _css: Any = Path(__file__).with_name("_base.css")

    def __init__(self, **traits: Any) -> None:
        known = sorted(name for name in self.class_trait_names() if not name.startswith("_"))
        for name in traits:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
                raise TypeError(f"{type(self).__name__}() got an unexpected keyword {name!r}; {hint}")
        super().__init__(**traits)

    def __repr__(self) -> str:
        # Notebooks are saved with it, so it shows no trait: one of them might hold what the user would not share.
        return f"<{type(self).__name__}>"
