"""`SettingsPanel`: all knobs of a session, its presets and its code, in one panel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets

from rtnb.client import Session
from rtnb.transport import TargetFacts
from rtnb.widgets._steering import MISSING, Settings, Steering, Verdict, flat, found, same
from rtnb.widgets.code_export import CodeExport
from rtnb.widgets.instructions import InstructionsControl
from rtnb.widgets.presets import Presets
from rtnb.widgets.settings import AnswerControl, Control, ListeningControl, close_all
from rtnb.widgets.turn_detection import TurnDetectionControl
from rtnb.widgets.verdicts import Verdicts

if TYPE_CHECKING:
    import pandas as pd


class SettingsPanel(ipywidgets.VBox):  # type: ignore[misc]
    """All knobs of a session; they share one `steering`, so that what is turned together travels together.

    Parameters
    ----------
    session : Session, optional
        What they steer; it may live on any event loop.
    facts : TargetFacts, optional
        Where the session goes, for the code that is shown.
    """

    def __init__(self, session: Session | None = None, *, facts: TargetFacts | None = None) -> None:
        self.steering = Steering()
        self.facts = TargetFacts(service="simulator") if facts is None else facts
        self.steered: Settings = {}
        """What differs from what the service had by itself, by its place in the GA session object."""
        self.instructions = InstructionsControl(steering=self.steering)
        self.turn_detection = TurnDetectionControl(steering=self.steering)
        self.answer = AnswerControl(steering=self.steering)
        self.listening = ListeningControl(steering=self.steering)
        self.code = CodeExport()
        self.presets = Presets(self)
        self._folds = ipywidgets.Accordion(
            [self.turn_detection, self.answer, self.listening, self.presets, self.code],
            titles=("Turn detection", "Answer", "Listening", "Presets", "Show code"),
            selected_index=0,
        )
        self.verdicts = Verdicts()
        """What became of every wish."""
        super().__init__([self.instructions, self._folds, self.verdicts], layout=ipywidgets.Layout(min_width="0"))
        self.add_class("rtnb-panel")
        self.steering.add(self)
        if session is not None:
            self.steering.attach(session)

    @property
    def controls(self) -> tuple[Control, ...]:
        """Its groups of knobs."""
        return (self.instructions, self.turn_detection, self.answer, self.listening)

    async def apply(self) -> pd.DataFrame:
        """Send at once what was turned, and return what became of every wish (see `Steering.verdicts`)."""
        return await self.steering.apply()

    def settings(self) -> Settings:
        """The settings of all knobs as the service confirmed them, by their place in the GA session object."""
        session = self.steering.session
        if session is None:
            return {}
        confirmed = flat(session.config)
        return {
            place: value
            for control in self.controls
            for place in (control.place(name) for name in control.knobs())
            if (value := found(confirmed, place)) is not MISSING and place in confirmed
        }

    def wish(self, settings: Mapping[str, Any]) -> None:
        """Turn all knobs named there, e.g. by a preset."""
        for control in self.controls:
            for name in control.knobs():
                place = str(control.knobs()[name].metadata["place"])
                value = found(settings, place)
                value = control.decode(name, value) if value is not MISSING else MISSING
                if value is not MISSING:
                    setattr(control, name, value)

    # --- called by Steering -------------------------------------------------------------------------------------------

    def take(self, dialect: str) -> tuple[Settings, dict[str, tuple[Any, str]]]:
        """It has no knobs of its own."""
        return {}, {}

    def show(self, settings: Settings, session: Session) -> None:
        """Write the code anew: what differs from what the service had by itself."""
        initial = flat(self.steering.initial) if self.steering.initial is not None else {}
        mine = self.settings()
        self.steered = {place: value for place, value in mine.items() if not same(value, initial.get(place, MISSING))}
        if any(place.startswith("audio.input.turn_detection.") for place in self.steered):
            self.steered["audio.input.turn_detection.type"] = settings["audio.input.turn_detection.type"]
        self.code.show(self.steered, self.facts)

    def told(self, verdicts: Mapping[str, Verdict]) -> None:
        """Show what became of every wish; the groups mark their knobs."""
        self.verdicts.show(verdicts.values())

    def close(self) -> None:
        """Let go of the session and leave the page; closing twice is fine."""
        self.steering.detach()
        close_all(*self.controls, self.presets, self.code, self._folds, self.verdicts, self.layout)
        super().close()

    def __repr__(self) -> str:
        return "<SettingsPanel>"
