"""`InstructionsControl`: the system prompt, written in peace and applied with a click."""

from __future__ import annotations

from typing import Any

import ipywidgets
from traitlets import Unicode

from rtnb.widgets.settings import Control, close_all


class InstructionsControl(Control):
    """What the model is told to be. Typing changes nothing until it is applied; setting `text` applies."""

    title = "Instructions"

    text = Unicode("", help="Plain words work best. The model follows them from its next answer on.").tag(
        label="", place="instructions"
    )

    def _input(self, name: str) -> Any:
        self._editor = ipywidgets.Textarea(
            placeholder="What the model is told to be", layout=ipywidgets.Layout(width="auto", height="7em")
        )
        self._title = ipywidgets.HTML('<b class="rtnb-title">Instructions</b>')
        self._editor.observe(lambda change: self._arrange(), "value")
        wide = ipywidgets.Layout(width="auto")
        self._apply = ipywidgets.Button(description="Apply", icon="check", layout=wide, disabled=True)
        self._reset = ipywidgets.Button(description="Reset to the service's own", icon="undo", layout=wide)
        self._apply.on_click(lambda button: setattr(self, "text", self._editor.value))
        self._reset.on_click(lambda button: self.reset())
        self._buttons = ipywidgets.HBox([self._apply, self._reset], layout=ipywidgets.Layout(flex_flow="row wrap"))
        return self._editor

    def reset(self) -> None:
        """Return to what the service had by itself."""
        initial = self.steering.initial
        if initial is not None:
            self.text = initial.instructions or ""

    def _confirm(self, name: str, value: Any) -> None:
        """Put the text where the service says it is; a draft that is not applied yet stays."""
        if self._editor.value == self.text:
            super()._confirm(name, value)
        else:
            super(Control, self).__setattr__(name, value)

    def available(self, name: str) -> bool:
        """Whether a knob does something as things stand: it is shown then."""
        return True

    def _arrange(self) -> None:
        if "text" not in getattr(self, "_notes", {}):
            return  # while the constructor runs
        draft = self._editor.value != self.text
        self._apply.disabled = not draft
        self._notes["text"].value = self._note("text") + (
            '<span class="rtnb-note"><b>Not applied yet.</b></span>' if draft else ""
        )
        self._place(self._title, self._editor, self._buttons, self._notes["text"])

    def close(self) -> None:
        """Let go of the session and leave the page; closing twice is fine."""
        close_all(self._title, self._apply, self._reset, self._buttons)
        super().close()
