"""Panel of settings: `SettingsPanel` has all knobs of a session, its code, and presets to save, share and compare."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets
from traitlets import TraitError

from rtnb.client import Session
from rtnb.errors import RtnbError
from rtnb.redaction import mask_credentials
from rtnb.trace.rules import flat_json
from rtnb.transport import TargetFacts
from rtnb.tuning.updates import MISSING, Settings, lookup, nested, same
from rtnb.widgets import settings as groups
from rtnb.widgets._base import SafeRepr, format_error
from rtnb.widgets._settings_update import SettingsUpdater
from rtnb.widgets.code_export import CodeExport
from rtnb.widgets.knobs import TEXTS

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
    """By path in the GA session object. Keys of MCP tools are masked, because a preset is a text to share."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", mask_credentials(self.settings))

    def to_json(self) -> str:
        """Return the text to share; its ``session`` is a session object as `session.update` takes it (GA)."""
        whole = {"rtnb_preset": VERSION, "name": self.name, "session": nested(self.settings)}
        return json.dumps(whole, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Preset:
        """Read a text of `to_json`.

        Raises
        ------
        RtnbError
            The text is not a preset, or one of another version.
        """
        try:
            whole = json.loads(text)
            version, name, settings = whole["rtnb_preset"], str(whole["name"]), flat_json(whole["session"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RtnbError(f"not a preset: {error}").with_hint('It begins with {"rtnb_preset": 1, …') from error
        if version != VERSION:
            raise RtnbError(f"cannot read a preset of version {version!r}; this rtnb reads version {VERSION}")
        return cls(name, settings)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``NAME.json`` into a folder, which is made where it is missing, and return its path."""
        path = Path(folder) / f"{file_stem(self.name)}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json() + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Preset:
        """Read a file of `save`."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))

    def diff(self, other: Preset) -> pd.DataFrame:
        """Compare two presets: one row per setting that differs, a column for each; NaN where one has no value."""
        import pandas as pd

        rows = {}
        for path in sorted(self.settings.keys() | other.settings.keys()):
            pair = (lookup(self.settings, path), lookup(other.settings, path))
            if not same(*pair):
                rows[path] = [float("nan") if value is MISSING else value for value in pair]
        columns = [self.name, other.name if other.name != self.name else f"{other.name} (2)"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=object)


def file_stem(name: str) -> str:
    """Return the name of a preset's file, without its ending."""
    return re.sub(r"[^\w .-]", "_", name).strip(". ") or "preset"


class Presets(SafeRepr, ipywidgets.VBox):  # type: ignore[misc]
    """Named settings of the user: save and load them, see the difference, and share them as JSON.

    Parameters
    ----------
    panel : SettingsPanel
        The panel whose settings are saved and set.
    folder : path, default "presets"
        Folder of the files, one JSON file each; the first `save` makes it.
    """

    def __init__(self, panel: Any, *, folder: str | os.PathLike[str] = "presets") -> None:
        self._panel, look = panel, panel.look
        self.folder = Path(folder)
        self.name = look.make(ipywidgets.Combobox, description=TEXTS["preset"], placeholder=TEXTS["preset_name"])
        save = look.button(TEXTS["save"], partial(self._try, lambda: self.save(self.name.value)))
        use = look.button(TEXTS["use"], partial(self._try, lambda: self.use(self.text.value)))
        self.text: Any = look.make(ipywidgets.Textarea, placeholder=TEXTS["preset_json"])
        self._message = look.make(ipywidgets.HTML)
        buttons = look.make(ipywidgets.HBox, [save, use])
        super().__init__([self.name, self.text, buttons, self._message], layout=look.layout)
        self.add_class("rtnb-control")
        self.name.observe(lambda _: self._try(self._show), "value")
        self.text.observe(lambda _: self._try(self._compare), "value")
        self._list()

    def save(self, name: str) -> Preset:
        """Save the panel's settings under a name; a preset of the same name is replaced."""
        if not name.strip():
            raise RtnbError("a preset needs a name")
        preset = Preset(name.strip(), self._panel.settings())
        preset.save(self.folder)
        self._list()
        self.text.value = preset.to_json()
        return preset

    def use(self, text: str) -> None:
        """Set the panel's knobs to a preset as JSON."""
        self._panel.request(Preset.from_json(text).settings)

    def _show(self) -> str:
        """Show the saved preset of the chosen name, if there is one, and return the difference."""
        if self.name.value in self.name.options:
            self.text.value = Preset.load(self.folder / f"{self.name.value}.json").to_json()
        return self._compare()

    def _compare(self) -> str:
        """Return, as HTML, the settings of the shown preset that differ from those in force."""
        import pandas as pd

        if not self.text.value.strip():
            return ""
        table = Preset.from_json(self.text.value).diff(Preset("in force", self._panel.settings()))
        with pd.option_context("display.max_colwidth", None):
            html = table.map(groups.format_value).to_html(classes="rtnb-diff", border=0)
        return html if len(table) else TEXTS["equal"]

    def _list(self) -> None:
        self.name.options = sorted(path.stem for path in self.folder.glob("*.json"))

    def _try(self, action: Callable[[], Any]) -> None:
        """Call `action`, and show its text or its error."""
        try:
            shown = action()
            self._message.value = shown if isinstance(shown, str) else ""
        except (RtnbError, OSError) as error:
            text = format_error(error)
            self._message.value = f'<span role="alert">{groups.format_note(text, text, "refused")}</span>'


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
