"""Turn detection: `TurnDetectionControl` with its knobs and three presets."""

from __future__ import annotations

from typing import Any

from traitlets import List, Unicode

from rtnb.widgets._base import Widget, bundle, styles
from rtnb.widgets.knobs import TURN_PRESETS, traits_of
from rtnb.widgets.settings import Branch, Control


class TurnPresets(Widget):
    """Row of buttons for the presets of turn detection, each with its meaning.

    Traits (kernel to page): `presets`, `selected`. Message from the page: ``{"preset": name}``.
    """

    _esm = bundle("turn_presets.js")
    _css = styles("settings.css")

    presets: List[list[str]] = List(help="Pairs of name and meaning.").tag(sync=True)
    selected = Unicode(help="The preset that equals the knobs; empty where none does.").tag(sync=True)


class TurnDetectionControl(Control):
    """Settings of turn detection: when a turn of the user ends, and who may interrupt."""

    group = "turn_detection"
    vars().update(traits_of(group))
    branch = Branch("audio.input.turn_detection", "type", "none", "type")
    _presets: Any = None

    def use(self, preset: str) -> None:
        """Set the knobs to a preset: ``"Quick"``, ``"Balanced"`` or ``"Patient"``."""
        for name, value in TURN_PRESETS[preset]["knobs"].items():
            setattr(self, name, value)

    def _arrange(self, rows: list[Any]) -> tuple[Any, ...]:
        if self._presets is None:
            self._presets = self._look.make(TurnPresets, presets=[[k, v["meaning"]] for k, v in TURN_PRESETS.items()])
            self._presets.on_msg(lambda _, content, buffers: self.use(content["preset"]))
        now = {name: getattr(self, name) for name in self.knobs()}
        fitting = [name for name, preset in TURN_PRESETS.items() if now | preset["knobs"] == now]
        self._presets.selected = "".join(fitting)
        return (self._presets, *rows)
