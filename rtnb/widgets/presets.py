"""Presets: settings with a name, as JSON that people can share; and the widget to keep, load and compare them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ipywidgets

from rtnb.errors import RtnbError
from rtnb.redaction import mask_credentials
from rtnb.widgets._steering import MISSING, Settings, found, laid_out, nested, same
from rtnb.widgets.settings import close_all
from rtnb.widgets.verdicts import Verdicts, said

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1
"""Version of the JSON format."""


@dataclass(frozen=True)
class Preset:
    """Settings with a name.

    >>> quick = Preset("quick", {"audio.output.speed": 1.3})
    >>> Preset.from_json(quick.to_json()) == quick
    True
    """

    name: str
    settings: Settings
    """By their place in the GA session object; keys of MCP tools are masked, since a preset is a text to share."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", mask_credentials(self.settings))

    def to_json(self) -> str:
        """The text to share; its ``session`` is a session object as `session.update` takes it (GA)."""
        whole = {"rtnb_preset": VERSION, "name": self.name, "session": nested(self.settings)}
        return json.dumps(whole, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Preset:
        """Read what `to_json` wrote.

        Raises
        ------
        RtnbError
            The text is no preset, or one of another version.
        """
        try:
            whole = json.loads(text)
            version, name, session = whole["rtnb_preset"], whole["name"], whole["session"]
            settings = laid_out(session) if isinstance(session, Mapping) else None
        except (ValueError, KeyError, TypeError) as error:
            raise RtnbError(f"this is no preset: {error}").with_hint('It begins with {"rtnb_preset": 1, …') from error
        if version != VERSION or not isinstance(name, str) or settings is None:
            raise RtnbError(f"this is a preset of version {version!r}, known is {VERSION}")
        return cls(name, settings)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``NAME.json`` into a folder, which is made where it is missing, and return its path."""
        stem = re.sub(r"[^\w .-]", "_", self.name).strip(". ") or "preset"
        path = Path(folder) / f"{stem}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json() + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Preset:
        """Read a file that `save` wrote."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))

    def diff(self, other: Preset) -> pd.DataFrame:
        """Compare two presets: one row per setting that differs, a column for each; NaN where one says nothing."""
        import pandas as pd

        places = sorted(self.settings.keys() | other.settings.keys())
        rows = {
            place: (mine if mine is not MISSING else float("nan"), theirs if theirs is not MISSING else float("nan"))
            for place in places
            if not same(mine := found(self.settings, place), theirs := found(other.settings, place))
        }
        columns = [self.name, other.name if other.name != self.name else f"{other.name} (2)"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=object)


class HasSettings(Protocol):
    """What presets are taken from and given to: a panel."""

    def settings(self) -> Settings:
        """The settings of all knobs."""

    def wish(self, settings: Mapping[str, Any]) -> None:
        """Turn all knobs named there."""


class Presets(ipywidgets.VBox):  # type: ignore[misc]
    """Keep settings under a name, load them again, share them as text, compare two.

    Parameters
    ----------
    panel : SettingsPanel
        Whose settings.
    folder : path, default "presets"
        Where they are kept, one JSON file each; made when the first is saved.
    """

    def __init__(self, panel: HasSettings, *, folder: str | os.PathLike[str] = "presets") -> None:
        self._panel = panel
        self._folder = Path(folder)
        wide, narrow = ipywidgets.Layout(width="auto", flex="1 1 12em", min_width="0"), ipywidgets.Layout(width="auto")
        style = {"description_width": "6em"}
        self.chosen = ipywidgets.Dropdown(description="Preset", style=style, layout=wide)
        self.other = ipywidgets.Dropdown(description="Compare to", style=style, layout=wide)
        self.name = ipywidgets.Text(description="Name", placeholder="my settings", style=style, layout=wide)
        self._load = ipywidgets.Button(description="Load", layout=narrow)
        self._save = ipywidgets.Button(description="Save current", layout=narrow)
        self._take = ipywidgets.Button(
            description="Use this text", layout=ipywidgets.Layout(width="auto", align_self="flex-start")
        )
        self.text = ipywidgets.Textarea(
            placeholder="A preset as JSON: copy it to share, paste one to use it",
            layout=ipywidgets.Layout(width="auto", height="7em"),
        )
        self._said = ipywidgets.HTML()
        self._differences = Verdicts(heads=["setting", "chosen", "compared to", ""])
        self._row = ipywidgets.Layout(flex_flow="row wrap")
        rows = [[self.chosen, self._load], [self.name, self._save], [self.other]]
        boxes = [ipywidgets.HBox(row, layout=self._row) for row in rows]
        super().__init__([*boxes, self._differences, self.text, self._take, self._said])
        self.add_class("rtnb-control")
        self._load.on_click(lambda button: self._try(lambda: self.load(self.chosen.value)))
        self._save.on_click(lambda button: self._try(lambda: self.save(self.name.value)))
        self._take.on_click(lambda button: self._try(lambda: self.use(self.text.value)))
        for widget in (self.chosen, self.other):
            widget.observe(lambda change: self._try(self._differ), "value")
        self._list()

    def save(self, name: str) -> Preset:
        """Keep the panel's settings under a name; one of the same name is replaced."""
        if not name.strip():
            raise RtnbError("a preset needs a name")
        preset = Preset(name.strip(), self._panel.settings())
        path = preset.save(self._folder)
        self._list(chosen=path.stem)
        return preset

    def load(self, name: str | None) -> None:
        """Turn the panel's knobs to a kept preset."""
        if name is None:
            raise RtnbError("there is no preset yet: save one first")
        self._panel.wish(self._read(name).settings)

    def use(self, text: str) -> None:
        """Turn the panel's knobs to a preset somebody shared."""
        self._panel.wish(Preset.from_json(text).settings)

    def _read(self, name: str) -> Preset:
        try:
            return Preset.load(self._folder / f"{name}.json")
        except OSError as error:
            raise RtnbError(f"the preset {name!r} cannot be read: {error.strerror}") from error

    def _list(self, chosen: str | None = None) -> None:
        names = sorted(path.stem for path in self._folder.glob("*.json"))
        now = [("the settings now", "")]
        other = self.other.value
        self.chosen.options, self.other.options = names, [*now, *((name, name) for name in names)]
        self.chosen.value = chosen if chosen in names else (names[0] if names else None)
        self.other.value = other if other in names else ""
        self._try(self._differ)

    def _differ(self) -> None:
        if self.chosen.value is None:
            self._differences.rows, self.text.value = [], ""
            return
        first = self._read(self.chosen.value)
        second = self._read(self.other.value) if self.other.value else Preset("now", self._panel.settings())
        table = first.diff(second)
        self.text.value = first.to_json()
        self._differences.rows = [[str(place), said(a), said(b), "", ""] for place, a, b in table.itertuples()]

    def _try(self, action: Any) -> None:
        """Do it, or say in words why not."""
        try:
            action()
            self._told("")
        except (RtnbError, OSError) as error:
            self._told(str(error))

    def _told(self, words: str) -> None:
        self._said.value = f'<span class="rtnb-mark" data-verdict="refused" role="alert">{escape(words)}</span>'

    def close(self) -> None:
        """Leave the page; closing twice is fine."""
        if "_row" not in self.__dict__:
            return  # the constructor refused
        boxes = [box for box in self.children if isinstance(box, ipywidgets.HBox)]
        close_all(*(child for box in boxes for child in box.children), *self.children, self._row, self.layout)
        super().close()

    def __repr__(self) -> str:
        return "<Presets>"
