"""Knobs: `Control`, a group of real ipywidgets over traits, and the groups for the answer and for listening.

A trait *is* the knob: ``answer.speed = 1.2`` moves the slider, moving the slider sets the trait, and `observe` and
`link` work as for any widget. Each trait says where it belongs in the session object, its range and its words.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, Final

import ipywidgets
from traitlets import Any as AnyTrait
from traitlets import Float, TraitType, Unicode

from rtnb._loop import Lock
from rtnb.client import Session
from rtnb.protocol.values import Dialect
from rtnb.widgets._plain import plain_widget, put
from rtnb.widgets._steering import MISSING, Settings, Steering, Verdict, found, same
from rtnb.widgets.verdicts import Verdicts

if TYPE_CHECKING:
    import pandas as pd

VOICES: Final = ("alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse")
"""Voices of today's models (documented); a session may know others."""

_LABEL = "112px"  # as in settings.css
_TRANSCRIPTION = "audio.input.transcription"
_MARKS = {
    "accepted": "✓ in force",
    "changed": "≠ changed by the service",
    "ignored": "≠ ignored by the service",
    "unconfirmed": "? not confirmed",
    "refused": "✗ refused",
    "waiting": "… waits for a session",
    "sending": "… sending",
    "kept back": "✗ kept back",
}


class Control(ipywidgets.VBox):  # type: ignore[misc]
    """A group of knobs for one session.

    Parameters
    ----------
    session : Session, optional
        What they steer; it may live on any event loop.
    steering : Steering, optional
        Shared with other groups, so that all travel in one `session.update`; None makes one.
    **knobs
        Any of its traits: sent as soon as there is a session.

    Raises
    ------
    TypeError
        For a keyword that is no knob; the message names the nearest one.
    """

    title: ClassVar[str] = ""

    def __init__(self, session: Session | None = None, *, steering: Steering | None = None, **knobs: Any) -> None:
        for name in knobs:
            if name not in self.knobs():
                near = get_close_matches(name, self.knobs(), n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self.knobs())}"
                raise TypeError(f"{type(self).__name__}() got an unexpected keyword {name!r}; {hint}")
        super().__init__()
        self.add_class("rtnb-control")
        self._turned: set[str] = set()
        self._turning: list[str] = []
        self._lock = Lock()  # observers run while `show` holds it, on the background loop, where nothing may block
        self._confirmed: dict[str, Any] = {}
        self._dialect: Dialect | None = None
        self._marks: dict[str, str] = {}
        self._styles: dict[type, Any] = {}
        self._layout = ipywidgets.Layout(width="auto", min_width="0")
        self.inputs = {name: self._input(name) for name in self.knobs()}
        """The plain widgets, by the name of their knob."""
        words = {"layout": self._layout, "style": ipywidgets.widgets.widget_string.HTMLStyle()}
        self._notes = {name: ipywidgets.HTML(**words) for name in self.knobs()}
        self.verdicts = Verdicts() if steering is None else None
        """What became of every wish; None where whoever shares the steering shows it."""
        self._arrange()
        self.steering = Steering() if steering is None else steering
        self.steering.add(self)
        for name, value in knobs.items():
            setattr(self, name, value)
        if session is not None:
            self.steering.attach(session)

    # --- what it has --------------------------------------------------------------------------------------------------

    @classmethod
    def knobs(cls) -> dict[str, TraitType[Any, Any]]:
        """Its traits that are settings of the session, top to bottom."""
        return {name: trait for name, trait in vars(cls).items() if isinstance(trait, TraitType) and trait.metadata}

    def available(self, name: str) -> bool:
        """Whether a knob does something as things stand: it is shown then."""
        return self._why_not(name) == ""

    def _why_not(self, name: str, dialect: Dialect | None = None) -> str:
        only, dialect = self.knobs()[name].metadata.get("dialect"), dialect or self._dialect or "ga"
        return f"only the {only} dialect has it" if only not in (None, dialect) else ""

    async def apply(self) -> pd.DataFrame:
        """Send at once what was turned, and return what became of every wish (see `Steering.verdicts`)."""
        return await self.steering.apply()

    def close(self) -> None:
        """Let go of the session and leave the page; closing twice is fine."""
        if "steering" not in self.__dict__:
            return  # the constructor refused
        self.steering.detach()
        close_all(*self.inputs.values(), *self._notes.values(), self.layout)
        if self.verdicts is not None:
            close_all(self.verdicts)
        super().close()

    def __repr__(self) -> str:  # notebooks are saved with it
        return f"<{type(self).__name__}>"

    # --- turning ------------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in type(self).knobs() or "steering" not in self.__dict__:
            super().__setattr__(name, value)
            return
        with self._lock:  # first: what the service confirms meanwhile, on the other thread, must not undo it
            self._turning.append(name)
        try:
            super().__setattr__(name, value)
            self._turn(name, getattr(self, name))  # also where the value stays: it may be a wish
        finally:
            self._turning.remove(name)

    def _turn(self, name: str, value: Any) -> None:
        put(self.inputs[name], value)
        if same(value, self._confirmed.get(name, MISSING)):
            self._turned.discard(name)
        else:
            self._turned.add(name)
            state = "sending" if self.steering.session else "waiting"
            self.steering.touched([Verdict(self.place(name), self.encode(name, value), None, state)])
        self._arrange()

    def place(self, name: str) -> str:
        """Where a knob belongs in the session object of the GA dialect."""
        return str(self.knobs()[name].metadata["place"])

    # --- called by Steering -------------------------------------------------------------------------------------------

    def take(self, dialect: Dialect) -> tuple[Settings, dict[str, tuple[Any, str]]]:
        """Hand over what was turned."""
        turned, self._turned = self._turned, set()
        names = [name for name in self.knobs() if name in turned]
        possible = [name for name in names if not self._why_not(name, dialect)]
        impossible = {
            self.place(name): (getattr(self, name), self._why_not(name, dialect))
            for name in names
            if name not in possible
        }
        return self.request(possible), impossible

    def request(self, names: list[str]) -> Settings:
        """The settings that these knobs ask for."""
        return {self.place(name): self.encode(name, getattr(self, name)) for name in names}

    def show(self, settings: Settings, session: Session) -> None:
        """Show what the service confirmed; a knob that is being turned stays where it is."""
        self._dialect = session.dialect
        for name in self.knobs():
            value = found(settings, self.place(name))
            if value is not MISSING:
                value = self.decode(name, value)
                if value is not MISSING:
                    self._confirmed[name] = value
            with self._lock:
                if name in self._confirmed and name not in self._turned and name not in self._turning:
                    self._confirm(name, self._confirmed[name])
        self._arrange()

    def _confirm(self, name: str, value: Any) -> None:
        """Put a knob where the service says it is: nobody's wish."""
        super().__setattr__(name, value)
        put(self.inputs[name], value)

    def told(self, verdicts: Mapping[str, Verdict]) -> None:
        """Show what became of the wishes."""
        mine = {place: verdicts[place] for place in map(self.place, self.knobs()) if place in verdicts}
        self._marks = {name: mine[place].verdict for name in self.knobs() if (place := self.place(name)) in mine}
        if self.verdicts is not None:
            self.verdicts.show(mine.values())
        self._arrange()

    def encode(self, name: str, value: Any) -> Any:
        """How a knob's value is said on the wire."""
        return value

    def decode(self, name: str, value: Any) -> Any:
        """How a value of the wire stands on the knob; MISSING where the knob cannot show it."""
        return value

    # --- looks --------------------------------------------------------------------------------------------------------

    def _input(self, name: str) -> Any:
        trait = self.knobs()[name]
        widget = plain_widget(trait, getattr(self, name), style=self._style, layout=self._layout)
        widget.observe(lambda change: setattr(self, name, change.new), "value")
        return widget

    def _style(self, kind: type) -> Any:
        """One style for all inputs of a kind: every widget model costs the page a few milliseconds."""
        if kind not in self._styles:
            self._styles[kind] = kind(description_width=_LABEL)
        return self._styles[kind]

    def _arrange(self) -> None:
        """Show the knobs that do something, each with its words and what the service says of it."""
        shown: list[Any] = []
        for name in self.knobs():
            if self.available(name) or name in self._marks:
                self._notes[name].value = self._note(name)
                shown += [self.inputs[name], self._notes[name]]
        self._place(*shown)

    def _place(self, *shown: Any) -> None:
        children = shown if self.verdicts is None else (*shown, self.verdicts)
        if children != getattr(self, "children", ()):
            self.children = children

    def _note(self, name: str) -> str:
        """One line of our own words; what the service said is never among them."""
        words = escape(self.knobs()[name].help or "")
        mark = self._marks.get(name, "")
        state = f' <b class="rtnb-mark" data-verdict="{mark}">{_MARKS[mark]}</b>' if mark else ""
        return f'<span class="rtnb-note">{words}{state}</span>'


def close_all(*widgets: Any) -> None:
    """Close widgets with their layouts and styles: nothing of them stays in the kernel."""
    for widget in widgets:
        for part in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
            if part is not None:
                part.close()


class AnswerControl(Control):
    """How the model answers: voice, speed, speech or text, length, thinking."""

    title = "Answer"

    voice = Unicode("alloy", help="Who speaks. Fixed once the model has spoken in this session.").tag(
        label="Voice", place="audio.output.voice", choices=VOICES
    )
    speed = Float(1.0, help="0.25 … 1.5 times, default 1. Higher talks faster; works between turns.").tag(
        label="Speed (×)", place="audio.output.speed", span=(0.25, 1.5, 0.05)
    )
    output_modalities = Unicode(
        "audio", help="Default speech (with its transcript). Text alone is faster and cheaper."
    ).tag(label="Answers in", place="output_modalities", choices=(("speech", "audio"), ("text", "text")))
    max_output_tokens = Unicode("inf", help="1 … 4096 tokens or inf, default inf. Lower cuts answers off earlier.").tag(
        label="Longest (tokens)", place="max_output_tokens"
    )
    temperature = Float(0.8, help="0.6 … 1.2, default 0.8. Higher varies more; lower repeats itself.").tag(
        label="Temperature", place="temperature", span=(0.6, 1.2, 0.05), dialect="preview"
    )
    reasoning_effort = Unicode("low", help="Default low. More thinks longer before it speaks.").tag(
        label="Reasoning", place="reasoning", choices=("minimal", "low", "medium", "high", "xhigh"), dialect="ga"
    )
    truncation = AnyTrait("auto", help="Default auto. What is forgotten when the conversation grows too long.").tag(
        label="Truncation",
        place="truncation",
        choices=(("auto", "auto"), ("disabled", "disabled"), ("keep 80 %", 0.8), ("keep 50 %", 0.5)),
        dialect="ga",
    )

    _reasons = False

    def show(self, settings: Settings, session: Session) -> None:
        """Reasoning is there where the service shows it or the model's name promises it (gpt-realtime-2 and later)."""
        named = str(settings.get("model") or "")
        self._reasons = settings.get("reasoning") is not None or named.startswith("gpt-realtime-2")
        super().show(settings, session)

    def available(self, name: str) -> bool:
        """Whether a knob does something as things stand: it is shown then."""
        return super().available(name) and (name != "reasoning_effort" or self._reasons)

    def encode(self, name: str, value: Any) -> Any:
        """How a knob's value is said on the wire."""
        if name == "voice" and value.startswith("voice_"):
            return {"id": value}  # a voice made from samples
        if name == "output_modalities":
            return [value]
        if name == "max_output_tokens":
            return int(value) if value.strip().isdecimal() else value.strip()
        if name == "reasoning_effort":
            return {"effort": value}
        if name == "truncation" and isinstance(value, float):
            return {"type": "retention_ratio", "retention_ratio": value}
        return value

    def decode(self, name: str, value: Any) -> Any:
        """How a value of the wire stands on the knob; MISSING where the knob cannot show it."""
        table = value if isinstance(value, Mapping) else {}
        if name == "voice":
            return str(table.get("id") or value)
        if name == "output_modalities":
            return "audio" if "audio" in value else "text"
        if name == "max_output_tokens":
            return str(value)
        if name == "reasoning_effort":
            return table.get("effort") or MISSING
        if name == "truncation":
            return table.get("retention_ratio", "auto") if table else value
        return MISSING if value is None else value


class ListeningControl(Control):
    """What is done with the user's voice: noise reduction and transcription."""

    title = "Listening"

    noise_reduction = Unicode("off", help="Default off. Cleans the sound before turn detection and model hear it.").tag(
        label="Noise reduction",
        place="audio.input.noise_reduction",
        choices=("off", ("near field (headset)", "near_field"), ("far field (room)", "far_field")),
    )
    model = Unicode(
        "", help="Default empty (off). Writes down what the user said; on Azure, the name of a deployment."
    ).tag(label="Transcribe with", place=f"{_TRANSCRIPTION}.model")
    language = Unicode("", help="Two letters such as en, default empty (any). Helps where the language is known.").tag(
        label="Language", place=f"{_TRANSCRIPTION}.language"
    )
    prompt = Unicode("", help="Default empty. Names and words to expect; the model itself does not see them.").tag(
        label="Expect words", place=f"{_TRANSCRIPTION}.prompt"
    )

    def _why_not(self, name: str, dialect: Dialect | None = None) -> str:
        if name in ("language", "prompt") and not self.model:
            return "transcription is off: name a model first"
        return super()._why_not(name, dialect)

    def place(self, name: str) -> str:
        """Where a knob belongs in the session object; without a model there is no transcription at all."""
        return _TRANSCRIPTION if name == "model" and not self.model else super().place(name)

    def request(self, names: list[str]) -> Settings:
        """The settings that these knobs ask for; naming no model switches transcription off."""
        settings = super().request([name for name in names if name == "noise_reduction"])
        wanted = [name for name in names if name != "noise_reduction"]
        if wanted and not self.model:
            settings |= super().request(["model"])
        elif wanted:
            started = not self._confirmed.get("model")
            also = [name for name in ("language", "prompt") if name in wanted or (started and getattr(self, name))]
            settings |= super().request(["model", *also])
        return settings

    def encode(self, name: str, value: Any) -> Any:
        """How a knob's value is said on the wire."""
        if name == "noise_reduction":
            return {"type": value} if value != "off" else None
        return value or None if name == "model" else value

    def decode(self, name: str, value: Any) -> Any:
        """How a value of the wire stands on the knob; MISSING where the knob cannot show it."""
        if name == "noise_reduction":
            return value.get("type", "off") if isinstance(value, Mapping) else "off"
        return value.get("model", "") if isinstance(value, Mapping) else value or ""
