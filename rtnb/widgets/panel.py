"""Panel of settings: `SettingsPanel` has all knobs of a session, its presets and its code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets
from traitlets import TraitError

from rtnb.client import Session
from rtnb.errors import RtnbError
from rtnb.transport import TargetFacts
from rtnb.widgets import settings as groups
from rtnb.widgets._base import SafeRepr
from rtnb.widgets._settings_update import MISSING, Settings, SettingsUpdater, lookup, same
from rtnb.widgets.code_export import CodeExport
from rtnb.widgets.knobs import TEXTS
from rtnb.widgets.presets import Presets


class SettingsPanel(SafeRepr, ipywidgets.Accordion):  # type: ignore[misc]
    """All knobs of a session. They share one `updater`, so that all changes travel in one update.

    Parameters
    ----------
    session : Session, optional
        The session whose settings change; it may live on any event loop.
    facts : TargetFacts, optional
        The target of the session, for the exported code.
    """

    def __init__(self, session: Session | None = None, *, facts: TargetFacts | None = None) -> None:
        self.updater, self.look = SettingsUpdater(), groups.Look()
        self.facts = TargetFacts(service="simulator") if facts is None else facts
        self.instructions = groups.InstructionsControl(panel=self)
        self.turn_detection = groups.TurnDetectionControl(panel=self)
        self.answer = groups.AnswerControl(panel=self)
        self.listening = groups.ListeningControl(panel=self)
        self.controls = (self.instructions, self.turn_detection, self.answer, self.listening)
        """Its groups of knobs."""
        self.presets = Presets(self)
        parts = {"answer": self.answer, "listening": self.listening, "presets": self.presets}
        children = [widget for name, part in parts.items() for widget in (self.look.heading(TEXTS[name]), part)]
        self.settings_tab = self.look.make(ipywidgets.VBox, [self.instructions, *children, self.look.sheet])
        """Pane with instructions, voice and answer, listening, and presets."""
        self.code = CodeExport(self.look)
        """Pane with the settings in force as code."""
        panes = {"Settings": self.settings_tab, "Turn detection": self.turn_detection, "Code": self.code}
        super().__init__([*panes.values()], titles=[*panes], selected_index=0, layout=self.look.layout)
        self.settings_tab.add_class("rtnb-settings-tab")
        self.add_class("rtnb-panel")
        self.updater.on_change = self._write_code
        if session is not None:
            self.updater.attach(session)

    def settings(self) -> Settings:
        """Return the settings of all knobs in force, by their path in the GA session object."""
        paths = [control.wire(name)[0] for control in self.controls for name in control.knobs()]
        return {path: self.updater.effective[path] for path in paths if path in self.updater.effective}

    @property
    def chosen(self) -> Settings:
        """Settings for the next session: those that differ from the service's own, and those that the user chose.

        A voice that this session refused, because it has spoken already, is the requested one.
        """
        chosen = {
            path: value
            for path, value in self.settings().items()
            if path in self.updater.chosen or not same(value, self.updater.initial.get(path, MISSING))
        }
        kind = "audio.input.turn_detection.type"  # without it, a turn detection cannot be read
        if any(path.startswith(kind.removesuffix("type")) for path in chosen):
            chosen[kind] = self.updater.effective[kind]
        refused = {one.setting: one.requested for one in self.updater.statuses.values() if one.for_next_session}
        return {**chosen, **refused}

    def _write_code(self) -> None:
        """Write the code anew, once there are settings in force."""
        if self.updater.effective:
            self.code.show(self.chosen, self.facts)

    def request(self, settings: Mapping[str, Any]) -> None:
        """Set the knobs of these settings, for example those of a preset.

        Raises
        ------
        RtnbError
            A value that its knob cannot take; the knobs before it are set.
        """
        for control in self.controls:
            for name, knob in control.knobs().items():
                value = knob.from_wire(lookup(settings, knob.path))
                try:
                    if value is not MISSING:
                        setattr(control, name, value)
                except TraitError:
                    raise RtnbError(f"{knob.label} cannot be {groups.format_value(value)}") from None

    def close(self) -> None:
        """Stop following the session and leave the page; closing twice is fine."""
        self.updater.detach()
        groups.close_all(*self.controls, self.presets, self.code)
        self.look.close()
        super().close()
