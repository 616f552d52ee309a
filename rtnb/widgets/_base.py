"""`Widget`, the base of all widgets here: its module with the shared helpers, its style, its safe repr."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import anywidget

from rtnb.protocol.values import check_names
from rtnb.redaction import redact

FOLDER: Final = Path(__file__).parent

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)


def bundle(name: str) -> str:
    """Return a JavaScript module of this folder as one text, its local imports before it.

    A widget can load one module only, so each ``import { … } from "./x.js"`` is replaced by the file itself, once.
    Names are therefore unique across the files that meet in a bundle.

    Parameters
    ----------
    name : str
        File name, e.g. ``"waveform.js"``. Browser tools list the result as ``rtnb/waveform.js``.
    """
    parts: dict[str, str] = {}

    def collect(file: str) -> None:
        if file not in parts:
            text = (FOLDER / file).read_text(encoding="utf-8")
            parts[file] = ""  # in the dictionary before its imports, so that a circle ends
            for imported in _IMPORT.findall(text):
                collect(imported)
            parts[file] = parts.pop(file) or _IMPORT.sub("", text)  # after its imports

    collect(name)
    return "\n".join([*parts.values(), f"//# sourceURL=rtnb/{name}"])


def styles(*names: str) -> str:
    """Return style sheets of this folder as one text, ``shared.css`` before them."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in ("shared.css", *names))


def format_error(error: BaseException) -> str:
    """Return the message of an error and its next step as one text, without keys."""
    return redact("\n".join([str(error), *getattr(error, "__notes__", [])]))


class SafeRepr:
    """Widget that prints as its class.

    Notebooks are saved with it, so it shows no trait: one of them might hold what the user would not share.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Widget(SafeRepr, anywidget.AnyWidget):
    """Anywidget that refuses unknown keywords and prints as one safe line.

    The module and the style of a class in ``x.py`` are ``x.js`` and ``x.css`` beside it, unless it names others.

    Parameters
    ----------
    **traits
        Any of its traits.

    Raises
    ------
    TypeError
        For a keyword that is no trait; the message names the nearest one. (Plain widgets accept it and do nothing.)
    """

    _css: Any = styles()

    def __init_subclass__(cls, **options: Any) -> None:
        name = cls.__module__.rpartition(".")[2]
        for trait, read, file in (("_esm", bundle, f"{name}.js"), ("_css", styles, f"{name}.css")):
            if trait not in vars(cls) and (FOLDER / file).exists():
                setattr(cls, trait, read(file))
        super().__init_subclass__(**options)

    def __init__(self, **traits: Any) -> None:
        known = [name for name in self.class_trait_names() if not name.startswith("_")]
        check_names(traits, known, f"keyword of {type(self).__name__}()")
        super().__init__(**traits)
