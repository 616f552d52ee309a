"""Controls of a session's settings: `Control` is a group of real ipywidgets, made from the table `knobs.KNOBS`.

Each knob is a trait: ``answer.speed = 1.2`` moves the slider, the slider sets the trait, and `observe` and `link` work
as for any widget.
"""

from __future__ import annotations

import json
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import ipywidgets
from traitlets import List, TraitError, Unicode

from rtnb.client import Session
from rtnb.protocol.values import check_names
from rtnb.redaction import mask_credentials, redact
from rtnb.tuning.updates import MISSING, Settings, SettingStatus, lookup, same
from rtnb.widgets._base import SafeRepr, Widget
from rtnb.widgets._settings_update import NOT_SENT, SettingsUpdater
from rtnb.widgets.knobs import TEXTS, TURN_PRESETS, Knob, knobs_of, traits_of

if TYPE_CHECKING:
    import pandas as pd

_LONGEST = 300  # characters of a value that are shown (chosen)


class KnobSheet(Widget):
    """Style of the knobs around it, and names of their sliders: plain ipywidgets carry neither.

    In turn detection it also is a row of buttons for the presets, each with its meaning. Traits (kernel to page):
    `presets`, `selected`. Message from the page: ``{"preset": name}``.
    """

    presets: List[list[str]] = List(help="Pairs of name and meaning.").tag(sync=True)
    selected = Unicode(help="The preset that equals the knobs; empty where none does.").tag(sync=True)


class Look:
    """Maker of plain widgets that share a layout and styles: each widget model costs the page a few milliseconds."""

    def __init__(self) -> None:
        self.layout = ipywidgets.Layout(width="auto", min_width="0")
        self._styles: dict[type, Any] = {}
        self._made: list[Any] = []
        self.sheet = self.make(KnobSheet)

    def make(self, kind: Any, *arguments: Any, **traits: Any) -> Any:
        """Make a widget of a class."""
        if (style := kind.class_traits().get("style")) is not None:
            if style.klass not in self._styles:
                self._styles[style.klass] = style.klass()
            traits["style"] = self._styles[style.klass]
        self._made.append(kind(*arguments, layout=self.layout, **traits))
        return self._made[-1]

    def heading(self, text: str) -> Any:
        """Make a heading."""
        return self.make(ipywidgets.HTML, f'<b class="rtnb-heading">{escape(text)}</b>')

    def button(self, text: str, on_click: Any) -> Any:
        """Make a button; `on_click` takes no argument."""
        button = self.make(ipywidgets.Button, description=text)
        button.on_click(lambda _: on_click())
        return button

    def input(self, knob: Knob, value: Any) -> Any:
        """Make the widget of a knob: a list, a checkbox, a slider, or a line of text."""
        description = f"{knob.label} ({knob.unit})" if knob.unit else knob.label
        shared = {"value": value, "description": description, "tooltip": knob.tooltip}
        if knob.choices:
            return self.make(ipywidgets.Dropdown, options=knob.options, **shared)
        if isinstance(knob.default, bool):
            return self.make(ipywidgets.Checkbox, indent=False, **shared)
        if knob.range:
            low, high, step = knob.range
            slider = ipywidgets.FloatSlider if isinstance(knob.default, float) else ipywidgets.IntSlider
            return self.make(slider, min=min(low, value), max=max(high, value), step=step, **shared)
        return self.make(ipywidgets.Text, continuous_update=False, **shared)

    def close(self) -> None:
        """Close all that it made."""
        close_all(*self._made, self)


class Branch(NamedTuple):
    """Object of the session that a knob switches off as a whole, by null."""

    path: str
    switch: str
    """The knob that switches it."""
    off: Any
    """Value of the switch for null."""
    carrier: str
    """The knob that every update of the object carries."""


class Control(SafeRepr, ipywidgets.VBox):  # type: ignore[misc]
    """Group of knobs for one session.

    Parameters
    ----------
    session : Session, optional
        The session whose settings change; it may live on any event loop.
    panel : SettingsPanel, optional
        Shares its `updater` and `look`, so that all changes travel in one `session.update`; None makes both.
    **knobs
        Any of its traits: sent as soon as there is a session.

    Raises
    ------
    TypeError
        A keyword that is no knob; the message names the nearest one.
    """

    group: ClassVar[str] = ""
    branch: ClassVar[Branch] = Branch("-", "", None, "")

    def __init__(self, session: Session | None = None, *, panel: Any = None, **knobs: Any) -> None:
        check_names(knobs, self.knobs(), f"keyword of {type(self).__name__}()")
        self._look = Look() if panel is None else panel.look
        super().__init__(layout=self._look.layout)
        self.add_class("rtnb-control")
        self._alone = panel is None
        self._changed: set[str] = set()
        self._notes: dict[str, Any] = {}
        self._reconnect_row: Any = None
        self.inputs: dict[str, Any] = {}
        """The plain widgets by the name of their knob; each is made when it is first shown."""
        self.updater = SettingsUpdater() if panel is None else panel.updater
        self.updater.groups.append(self)
        self.refresh()
        for name, value in knobs.items():
            setattr(self, name, value)
        if session is not None:
            self.updater.attach(session)

    # --- knobs --------------------------------------------------------------------------------------------------------

    @classmethod
    def knobs(cls) -> dict[str, Knob]:
        """Return its knobs by name, top to bottom."""
        return knobs_of(cls.group)

    def available(self, name: str) -> bool:
        """Return whether a knob does something now; only then it is shown."""
        return self.knobs()[name].why_not(self, self.updater.dialect) == ""

    async def apply(self) -> pd.DataFrame:
        """Send all changes at once; return requested, effective, status and reason of each setting."""
        return await self.updater.apply()

    def close(self) -> None:
        """Stop following the session and leave the page; closing twice is fine."""
        if self.__dict__.get("_alone"):  # else the panel does, or the constructor refused
            self.updater.detach()
            self._look.close()
        super().close()

    # --- changes ------------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.knobs() or "updater" not in self.__dict__:
            super().__setattr__(name, value)
            return
        with self.updater.lock:  # before all else: a confirmation on the other thread must not undo the change
            self._changed.add(name)
        try:
            super().__setattr__(name, value)
            self.updater.chosen.add(self.wire(name)[0])
        finally:
            self._on_set(name, getattr(self, name))

    def _on_set(self, name: str, value: Any) -> None:
        """Note a change that is to be sent; a value in force needs none."""
        if name in self.inputs:
            show_value(self.inputs[name], value)
        path, wire_value = self.wire(name)
        if not same(value, self.effective(name)):
            self._changed.add(name)
            self.updater.touch(SettingStatus(path, wire_value, None, "pending", NOT_SENT))
        else:
            self._changed.discard(name)
            self.updater.statuses.pop(path, None)
            self.refresh()

    def wire(self, name: str) -> tuple[str, Any]:
        """Return path and wire value of a knob; a branch that is off is null itself."""
        knob = self.knobs()[name]
        if name == self.branch.switch:
            if getattr(self, name) == self.branch.off:
                return self.branch.path, None
            knob = self.knobs()[self.branch.carrier]
        return knob.path, knob.to_wire(getattr(self, knob.name))

    # --- called by the updater ----------------------------------------------------------------------------------------

    def collect(self) -> tuple[Settings, list[SettingStatus]]:
        """Return the changes to send, and those that cannot be sent."""
        changed, self._changed = self._changed, set()
        knobs = {name: knob for name, knob in self.knobs().items() if name in changed}
        reasons = {name: knob.why_not(self, self.updater.dialect) for name, knob in knobs.items()}
        not_sent = [SettingStatus(*self.wire(name), None, "not sent", why) for name, why in reasons.items() if why]
        names = [name for name, why in reasons.items() if not why]
        branch = [name for name, knob in self.knobs().items() if knob.path.startswith(self.branch.path)]
        if any(name in branch for name in names) and getattr(self, self.branch.switch) != self.branch.off:
            if self.branch.switch in names:  # switched on: it takes the values of all its knobs
                names += [name for name in branch if self.available(name) and getattr(self, name) != ""]
            names.insert(0, self.branch.switch)
        return dict(map(self.wire, names)), not_sent

    def effective(self, name: str) -> Any:
        """Return a knob's value in force; `MISSING` where the service does not show one."""
        knob = self.knobs()[name]
        return knob.from_wire(lookup(self.updater.effective, knob.path))

    def _confirm(self, name: str, value: Any) -> None:
        """Set a knob to the value in force, which is no request."""
        super().__setattr__(name, value)
        if name in self.inputs:
            show_value(self.inputs[name], value)

    def refresh(self) -> None:
        """Show the values in force, and for each knob that does something its help or the status of its last change.

        A knob whose change is on its way keeps its value.
        """
        rows: list[Any] = []
        with self.updater.lock:
            for name in self.knobs():
                value, status = self.effective(name), self.updater.statuses.get(self.wire(name)[0])
                on_its_way = name in self._changed or (status is not None and status.status == "pending")
                if value is not MISSING and not on_its_way and value != getattr(self, name):
                    with suppress(TraitError):  # a value that no knob can show
                        self._confirm(name, value)
                if self.available(name) or (status is not None and status.status != "applied"):
                    rows += self._row(name, status)
            children = (*self._arrange(rows), *((self._look.sheet,) if self._alone else ()))
            if children != getattr(self, "children", ()):
                self.children = children

    # --- widgets ------------------------------------------------------------------------------------------------------

    def _row(self, name: str, status: SettingStatus | None) -> list[Any]:
        """Return input and note of a knob; the note of a voice that came too late has a button."""
        if name not in self.inputs:
            self.inputs[name] = self._input(name)
            self._notes[name] = self._look.make(ipywidgets.HTML)
        note = self._notes[name]
        note.value = self._note(self.knobs()[name], status)
        if status is None or not status.for_next_session or self.updater.on_reconnect is None:
            return [self.inputs[name], note]
        if self._reconnect_row is None:
            self._reconnect_row = self._look.make(
                ipywidgets.HBox, [note, self._look.button(TEXTS["reconnect"], self.updater.on_reconnect)]
            )
            self._reconnect_row.add_class("rtnb-note-row")
        return [self.inputs[name], self._reconnect_row]

    def _note(self, knob: Knob, status: SettingStatus | None) -> str:
        """Return the line under a knob: its help, or the status of its last change."""
        if status is None or (status.status == "applied" and status.setting not in self.updater.fresh):
            return format_note(knob.help, knob.tooltip)
        text = format_status(status)
        # The service's own reason is long: it stays in the tooltip.
        short = TEXTS["voice_is_fixed"] if status.for_next_session else text
        return format_note(short, f"Requested {format_value(status.requested)}; {text}", status.status)

    def _input(self, name: str) -> Any:
        widget = self._look.input(self.knobs()[name], getattr(self, name))

        def on_input(change: Any) -> None:
            if change["new"] != getattr(self, name):  # else it only follows the trait
                setattr(self, name, change["new"])

        widget.observe(on_input, "value")
        return widget

    def _arrange(self, rows: list[Any]) -> tuple[Any, ...]:
        """Return the widgets of the page, top to bottom."""
        return tuple(rows)


def show_value(widget: Any, value: Any) -> None:
    """Set a plain widget to a value, which may lie outside its choices or range: a service may be wider."""
    if isinstance(widget, ipywidgets.Dropdown) and not any(value == known for _, known in widget.options):
        widget.options = (*widget.options, (str(value), value))
    elif isinstance(widget, ipywidgets.IntSlider | ipywidgets.FloatSlider):
        widget.min, widget.max = min(widget.min, value), max(widget.max, value)
    widget.value = value


def format_value(value: Any) -> str:
    """Return a value as a short text without keys; None is the wire's null."""
    text = value if isinstance(value, str) else json.dumps(mask_credentials(value), ensure_ascii=False, default=str)
    text = " ".join(redact(text).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def format_status(status: SettingStatus) -> str:
    """Return a setting status as one line; the reason may be a text of the service."""
    if status.status == "pending":
        return status.reason
    if status.status == "changed":
        return f"changed by the service: {format_value(status.requested)} → {format_value(status.effective)}"
    if status.status == "ignored":
        return f"ignored by the service: {format_value(status.effective)} stays"
    return f"{status.status}: {format_value(status.reason)}" if status.reason else status.status


def format_note(text: str, tooltip: str, status: str = "") -> str:
    """Return the HTML of a line under a knob."""
    role = f' role="status" data-status="{escape(status)}"' if status else ""
    return f'<span class="rtnb-note" title="{escape(tooltip)}"{role}>{escape(text)}</span>'


def close_all(*widgets: Any) -> None:
    """Close widgets with their layouts and styles, so that nothing of them stays in the kernel."""
    for widget in widgets:
        for part in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
            if isinstance(part, ipywidgets.Widget):
                part.close()


class AnswerControl(Control):
    """Settings of the model's answers: voice, speed, speech or text, length, reasoning."""

    group = "answer"
    vars().update(traits_of(group))

    def available(self, name: str) -> bool:
        """Return whether a knob does something now: reasoning only for models that show it, or have it by name."""
        settings = self.updater.effective
        reasons = settings.get("reasoning") or str(settings.get("model", "")).startswith("gpt-realtime-2")
        return super().available(name) and (name != "reasoning_effort" or bool(reasons))


class ListeningControl(Control):
    """Settings of the user's audio: transcription and noise reduction."""

    group = "listening"
    vars().update(traits_of(group))
    branch = Branch("audio.input.transcription", "transcribe", False, "model")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "model" and "updater" in self.__dict__:
            self.transcribe = bool(value)  # a model switches transcription on, an empty one off


class InstructionsControl(Control):
    """Instructions of the model. Typing makes a draft, the button applies it; setting `text` applies at once."""

    group = "instructions"
    vars().update(traits_of(group))
    text: Any

    def _input(self, name: str) -> Any:
        self._heading = self._look.heading(self.knobs()[name].label)
        self._editor = self._look.make(ipywidgets.Textarea, self.text, placeholder=TEXTS["instructions"])
        self._editor.observe(lambda _: self.refresh(), "value")
        self._apply = self._look.button(TEXTS["apply"], self.apply_draft)
        reset = self._look.button(TEXTS["restore"], self.reset)
        self._buttons = self._look.make(ipywidgets.HBox, [self._apply, reset])
        return self._editor

    def apply_draft(self) -> None:
        """Send the text of the editor."""
        self.text = self._editor.value

    def reset(self) -> None:
        """Return to the service's own instructions."""
        self.text = self.updater.initial.get("instructions", self.text)

    def _confirm(self, name: str, value: Any) -> None:
        """Show the instructions in force; a draft that is not applied yet stays."""
        draft = self._editor.value if self._editor.value != self.text else value
        super()._confirm(name, value)
        self._editor.value = draft

    def _arrange(self, rows: list[Any]) -> tuple[Any, ...]:
        self._apply.disabled = self._editor.value == self.text
        if not self._apply.disabled:
            rows[1].value = format_note(TEXTS["draft"], "", "draft")
        return (self._heading, *rows, self._buttons)


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
            self._presets = self._look.make(KnobSheet, presets=[[k, v["meaning"]] for k, v in TURN_PRESETS.items()])
            self._presets.on_msg(lambda _, content, buffers: self.use(content["preset"]))
        now = {name: getattr(self, name) for name in self.knobs()}
        fitting = [name for name, preset in TURN_PRESETS.items() if now | preset["knobs"] == now]
        self._presets.selected = "".join(fitting)
        return (self._presets, *rows)
