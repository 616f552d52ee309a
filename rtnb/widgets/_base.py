"""`Widget`: what all our widgets have in common."""

from __future__ import annotations

import base64
import zlib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import anywidget

from rtnb.redaction import redact

_UNPACK: Final = """\
const bytes = Uint8Array.from(atob("{}"), (c) => c.charCodeAt(0));
const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
const url = URL.createObjectURL(new Blob([await new Response(plain).text()], {{ type: "text/javascript" }}));
export default (await import(url)).default;
URL.revokeObjectURL(url);
"""


def packed(*modules: Path) -> str:
    """An ES module that unpacks and is these files, one after the other.

    A notebook may be saved with the state of its widgets, and their code is a part of that: packed it is 2.3 times
    smaller.
    """
    text = "\n".join(path.read_text(encoding="utf-8") for path in modules) + f"\n//# sourceURL=rtnb/{modules[-1].name}"
    return _UNPACK.format(base64.b64encode(zlib.compress(text.encode(), 9)).decode())


def format_error(error: BaseException) -> str:
    """Return the message of an error and its next step as one text, without keys."""
    return redact("\n".join([str(error), *getattr(error, "__notes__", [])]))


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

    def __init_subclass__(cls, **options: Any) -> None:
        if isinstance(module := cls.__dict__.get("_esm"), Path):
            cls._esm = packed(module)
        super().__init_subclass__(**options)

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
