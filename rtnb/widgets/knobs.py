"""Table of all knobs: each row is one setting of a session, with its label, help, range, default and wire path.

A new setting is one row here (and its test): the controls, their traits, the tooltips, presets and the exported code
are made from the table. Ranges and defaults are those of the GA and preview references.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from traitlets import Any as AnyTrait
from traitlets import Bool, Float, Int, TraitType, Unicode

from rtnb.protocol.values import Dialect
from rtnb.widgets._settings_update import MISSING

VOICES: Final = ("alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse")
"""Voices of today's models (documented); a session may have others."""
TRANSCRIPTION_MODEL: Final = "whisper-1"
"""Model that "Transcribe me" starts with: the one that both dialects and the simulator accept."""

TURN: Final = "audio.input.turn_detection"
TRANSCRIPTION: Final = "audio.input.transcription"

_TRAITS: Final = {bool: Bool, int: Int, float: Float, str: Unicode}


@dataclass(frozen=True)
class Knob:
    """One setting of a session."""

    group: str
    """Control that has it: ``instructions``, ``turn_detection``, ``answer`` or ``listening``."""
    name: str
    """Name of the control's trait."""
    label: str
    path: str
    """Place in the GA session object."""
    default: Any
    help: str
    """One line of at most 12 words that the page always shows."""
    unit: str = ""
    span: tuple[float, float, float] | None = None
    """Least, greatest, step of a slider; a service may be wider."""
    choices: tuple[Any, ...] = ()
    """Values to choose from, or pairs of label and value."""
    dialect: Dialect | None = None
    """The only dialect that has it; None for both."""
    needs: tuple[str, tuple[Any, ...], str] | None = None
    """Another knob of the group, its values with which this one does something, and that condition as a text."""
    to_wire: Callable[[Any], Any] = lambda value: value
    from_wire: Callable[[Any], Any] = lambda value: MISSING if value is None else value
    """The knob's value for a wire value; `MISSING` where the knob keeps its own."""

    @property
    def full_label(self) -> str:
        """Label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def options(self) -> tuple[tuple[str, Any], ...]:
        """Pairs of label and value to choose from."""
        return tuple(one if isinstance(one, tuple) else (str(one), one) for one in self.choices)

    @property
    def tooltip(self) -> str:
        """Wire path, range and default."""
        low, high, _ = self.span or (None, None, None)
        known = f"{low:g} to {high:g}" if self.span else ", ".join(label for label, _ in self.options)
        return f"{self.path}: {f'{known}; ' if known else ''}default {self.default!r}"

    def trait(self) -> TraitType[Any, Any]:
        """Make the trait of a control."""
        kinds = {type(value) for _, value in self.options} | {type(self.default)}
        kind: Any = _TRAITS[kinds.pop()] if len(kinds) == 1 else AnyTrait
        return kind(self.default, help=f"{self.help} {self.tooltip}")  # type: ignore[no-any-return]


def _noise(value: Any) -> str:
    return str(value.get("type", "off")) if isinstance(value, Mapping) else "off"


def _truncation(value: Any) -> Any:
    return value.get("retention_ratio", "auto") if isinstance(value, Mapping) else value


def _tokens(value: str) -> Any:
    return int(value) if value.strip().isdecimal() else value.strip()


_SERVER = ("type", ("server_vad",), "only Silence (server_vad) has it")
_SEMANTIC = ("type", ("semantic_vad",), "only Meaning (semantic_vad) has it")
_VAD = ("type", ("server_vad", "semantic_vad"), "push to talk does not have it")
_ON = ("transcribe", (True,), "Transcribe me is off")

# fmt: off
KNOBS: Final = (
    Knob("instructions", "text", "Instructions", "instructions", "",
         "The model follows them from its next answer on."),

    Knob("turn_detection", "type", "Turn detection", f"{TURN}.type", "server_vad",
         "How your turn's end is detected: silence, meaning, or a button.",
         choices=(("Silence (server_vad)", "server_vad"), ("Meaning (semantic_vad)", "semantic_vad"),
                  ("Push to talk (none)", "none")),
         from_wire=lambda value: value or "none"),
    Knob("turn_detection", "threshold", "Threshold", f"{TURN}.threshold", 0.5,
         "Higher needs clearer speech: fewer false starts, clipped beginnings.",
         span=(0.0, 1.0, 0.01), needs=_SERVER),
    Knob("turn_detection", "silence_duration_ms", "Silence duration", f"{TURN}.silence_duration_ms", 200,
         "Silence that ends your turn. Lower answers sooner and interrupts you.",
         unit="ms", span=(0, 2000, 10), needs=_SERVER),  # 500 documented, 200 in real sessions
    Knob("turn_detection", "prefix_padding_ms", "Prefix padding", f"{TURN}.prefix_padding_ms", 300,
         "Audio kept from before your speech was detected.",
         unit="ms", span=(0, 1000, 10), needs=_SERVER),
    Knob("turn_detection", "idle_timeout_ms", "Idle timeout", f"{TURN}.idle_timeout_ms", 0,
         "The model speaks up after this much silence.",
         choices=(("Off", 0), *((f"{seconds} s", 1000 * seconds) for seconds in (5, 10, 15, 20, 30))),
         dialect="ga", needs=_SERVER, to_wire=lambda value: value or None, from_wire=lambda value: value or 0),
    Knob("turn_detection", "eagerness", "Eagerness", f"{TURN}.eagerness", "auto",
         "Longest wait: low 8 s, medium 4 s, high 2 s.",
         choices=(("auto (medium)", "auto"), "low", "medium", "high"), needs=_SEMANTIC),
    Knob("turn_detection", "create_response", "Respond automatically", f"{TURN}.create_response", True,
         "The end of your turn starts an answer.", needs=_VAD),
    Knob("turn_detection", "interrupt_response", "Allow interruptions", f"{TURN}.interrupt_response", True,
         "Your speech stops a running answer.", needs=_VAD),

    Knob("answer", "voice", "Voice", "audio.output.voice", "alloy",
         "It cannot change after the first answer.", choices=VOICES,
         to_wire=lambda value: {"id": value} if value.startswith("voice_") else value,  # a voice made from samples
         from_wire=lambda value: str(value.get("id")) if isinstance(value, Mapping) else str(value)),
    Knob("answer", "speed", "Speed", "audio.output.speed", 1.0,
         "How fast the model speaks. It changes between turns.", unit="×", span=(0.25, 1.5, 0.05)),
    Knob("answer", "output_modalities", "Output", "output_modalities", "audio",
         "Text only is faster and cheaper.",
         choices=(("Speech and transcript", "audio"), ("Text only", "text")),
         to_wire=lambda value: [value], from_wire=lambda value: "audio" if "audio" in (value or ()) else "text"),
    Knob("answer", "max_output_tokens", "Max output tokens", "max_output_tokens", "inf",
         "1 to 4096, or inf. Lower cuts answers off earlier.",
         to_wire=_tokens, from_wire=lambda value: MISSING if value is None else str(value)),
    Knob("answer", "temperature", "Temperature", "temperature", 0.8,
         "Higher varies more, lower repeats itself.", span=(0.6, 1.2, 0.05), dialect="preview"),
    Knob("answer", "reasoning_effort", "Reasoning effort", "reasoning", "low",
         "More effort thinks longer before it speaks.",
         choices=("minimal", "low", "medium", "high", "xhigh"), dialect="ga",
         to_wire=lambda value: {"effort": value}, from_wire=lambda value: (value or {}).get("effort") or MISSING),
    Knob("answer", "truncation", "Truncation", "truncation", "auto",
         "How a conversation that grows too long is shortened.",
         choices=("auto", "disabled", ("Keep 80 %", 0.8), ("Keep 50 %", 0.5)), dialect="ga",
         to_wire=lambda value: {"type": "retention_ratio", "retention_ratio": value}
         if isinstance(value, float) else value,
         from_wire=_truncation),

    Knob("listening", "transcribe", "Transcribe me", TRANSCRIPTION, False,
         "Writes down what you say.", from_wire=lambda value: value is not None),
    Knob("listening", "model", "Input transcription", f"{TRANSCRIPTION}.model", TRANSCRIPTION_MODEL,
         "The transcription model; on Azure, the name of its deployment.",
         needs=_ON, to_wire=lambda value: value or TRANSCRIPTION_MODEL),
    Knob("listening", "language", "Language", f"{TRANSCRIPTION}.language", "",
         "Two letters such as en. Empty detects it.", needs=_ON),
    Knob("listening", "prompt", "Vocabulary hints", f"{TRANSCRIPTION}.prompt", "",
         "Names and words to expect. Only the transcription reads them.", needs=_ON),
    Knob("listening", "noise_reduction", "Noise reduction", "audio.input.noise_reduction", "off",
         "Cleans your audio before turn detection and model.",
         choices=(("Off", "off"), ("Near field (headset)", "near_field"), ("Far field (room)", "far_field")),
         to_wire=lambda value: {"type": value} if value != "off" else None, from_wire=_noise),
)
# fmt: on
"""All knobs, in the order of the page."""

_QUICK = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 200}
TURN_PRESETS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "Quick": ("Answers at once; cuts you off when you pause.", _QUICK),
    "Balanced": ("Waits half a second; short pauses are fine.", {**_QUICK, "silence_duration_ms": 500}),
    "Patient": ("Waits a second; rarely cuts you off.", {**_QUICK, "silence_duration_ms": 1000}),
}
"""Presets of turn detection: name -> meaning and knobs. Source, 33 turns with 127 pauses at threshold 0.5: after
192, 512 and 992 ms of silence the turn's end is found 331, 651 and 1131 ms after the last word (median), and 62, 26
and 5.5 % of the pauses are cut."""


def knobs_of(group: str) -> dict[str, Knob]:
    """Return the knobs of a group by name."""
    return {knob.name: knob for knob in KNOBS if knob.group == group}


def traits_of(group: str) -> dict[str, TraitType[Any, Any]]:
    """Make the traits of a group's control."""
    return {name: knob.trait() for name, knob in knobs_of(group).items()}


def texts() -> list[str]:
    """Return all texts of the table that the page shows."""
    shown = [text for name, (meaning, _) in TURN_PRESETS.items() for text in (name, meaning)]
    for knob in KNOBS:
        shown += [knob.full_label, knob.help, *(label for label, _ in knob.options)]
        shown += [knob.needs[2]] if knob.needs else []
    return list(dict.fromkeys(shown))
