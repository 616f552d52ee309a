"""Knobs of turn detection: when a turn ends, and who may interrupt whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traitlets import Bool, Float, Int, Unicode

from rtnb.protocol.values import Dialect
from rtnb.widgets._steering import MISSING, Settings
from rtnb.widgets.settings import Control

_PLACE = "audio.input.turn_detection"
_OF = {
    "threshold": "server_vad",
    "prefix_padding_ms": "server_vad",
    "silence_duration_ms": "server_vad",
    "idle_timeout_ms": "server_vad",
    "eagerness": "semantic_vad",
}
_WAITS = (("off", 0), *((f"{seconds} s", 1000 * seconds) for seconds in (5, 10, 15, 20, 30)))


class TurnDetectionControl(Control):
    """How the service finds the end of the user's turn."""

    title = "Turn detection"

    type = Unicode(
        "server_vad", help="Default server VAD. Silence ends a turn, or the sense of the sentence, or you do."
    ).tag(
        label="Turns end by",
        place=f"{_PLACE}.type",
        choices=(
            ("silence (server VAD)", "server_vad"),
            ("sense (semantic VAD)", "semantic_vad"),
            ("push to talk", "none"),
        ),
    )
    threshold = Float(
        0.5, help="0 … 1, default 0.5. Higher needs clearer speech: fewer false starts, lost onsets."
    ).tag(label="Threshold", place=f"{_PLACE}.threshold", span=(0.0, 1.0, 0.01))
    prefix_padding_ms = Int(
        300, help="0 ms or more, default 300. Sound kept from before the start; lower clips it."
    ).tag(label="Prefix (ms)", place=f"{_PLACE}.prefix_padding_ms", span=(0, 1000, 10))
    silence_duration_ms = Int(
        200, help="0 ms or more; 500 documented, 200 seen. Lower answers sooner and cuts people off."
    ).tag(label="Silence (ms)", place=f"{_PLACE}.silence_duration_ms", span=(0, 2000, 10))
    idle_timeout_ms = Int(
        0, help="5 … 30 s, default off (0). The model speaks up when nobody answers it for so long."
    ).tag(label="Idle timeout", place=f"{_PLACE}.idle_timeout_ms", choices=_WAITS, dialect="ga")
    eagerness = Unicode("auto", help="Default auto (medium). Waits at most 8 s (low), 4 s (medium) or 2 s (high).").tag(
        label="Eagerness", place=f"{_PLACE}.eagerness", choices=("auto", "low", "medium", "high")
    )
    create_response = Bool(True, help="Default on. The end of a turn is answered without being asked.").tag(
        label="Answer by itself", place=f"{_PLACE}.create_response"
    )
    interrupt_response = Bool(True, help="Default on. Speaking into an answer stops it (barge-in).").tag(
        label="Can be interrupted", place=f"{_PLACE}.interrupt_response"
    )

    def _why_not(self, name: str, dialect: Dialect | None = None) -> str:
        if name != "type" and self.type == "none":
            return "push to talk has no such setting"
        if _OF.get(name, self.type) != self.type:
            return f"only {_OF[name]} has it"
        return super()._why_not(name, dialect)

    def place(self, name: str) -> str:
        """Where a knob belongs in the session object; push to talk is the absence of turn detection."""
        return _PLACE if (name, self.type) == ("type", "none") else super().place(name)

    def request(self, names: list[str]) -> Settings:
        """The settings that these knobs ask for; another type takes along what its knobs show."""
        if not names:
            return {}
        if self.type == "none":
            return super().request(["type"])
        if "type" in names:
            names = [name for name in self.knobs() if not self._why_not(name)]
        return super().request(["type", *(name for name in names if name != "type")])

    def encode(self, name: str, value: Any) -> Any:
        """How a knob's value is said on the wire."""
        return None if (name, value) in (("idle_timeout_ms", 0), ("type", "none")) else value

    def decode(self, name: str, value: Any) -> Any:
        """How a value of the wire stands on the knob; MISSING where the knob cannot show it."""
        if name == "type":
            return value.get("type") if isinstance(value, Mapping) else value or "none"
        if name == "idle_timeout_ms":
            return value or 0
        return MISSING if value is None else value
