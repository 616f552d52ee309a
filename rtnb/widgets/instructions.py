"""Instructions: `InstructionsControl` edits the system prompt and applies it on a click."""

from __future__ import annotations

from typing import Any

import ipywidgets

from rtnb.widgets.knobs import TEXTS, traits_of
from rtnb.widgets.settings import Control, format_note


class InstructionsControl(Control):
    """Instructions of the model. Typing makes a draft, the button applies it; setting `text` applies at once."""

    group = "instructions"
    vars().update(traits_of(group))
    text: Any

    def _input(self, name: str) -> Any:
        self._heading = self._look.heading(self.knobs()[name].label)
        self._editor = self._look.make(ipywidgets.Textarea, self.text, placeholder=TEXTS["instructions"])
        self._editor.observe(lambda _: self.on_status(), "value")
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
