"""`TracePlayer`: player of a recorded session; the page requests the audio that it plays."""

from __future__ import annotations

import json
from typing import Any

from traitlets import Unicode

from rtnb.trace import Trace
from rtnb.trace.report import part, player_data
from rtnb.widgets._base import FOLDER, Widget

_FOLDER = FOLDER.parent / "trace"


class TracePlayer(Widget):
    """Player of a trace: waveforms, turn detection, transcript and events on one axis; a click plays from there.

    A trace shows itself with it in a cell. The notebook is saved without sound.

    Parameters
    ----------
    trace : Trace
        Its file must stay where it is.
    """

    _esm = (_FOLDER / "player.js").read_text(encoding="utf-8")
    _css = (_FOLDER / "player.css").read_text(encoding="utf-8")

    data = Unicode(help="What is shown, as JSON: see `rtnb.trace.report.player_data`.").tag(sync=True)

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        """The trace that is played."""
        super().__init__(data=json.dumps(player_data(trace)))
        self.on_msg(self._on_part)

    def _on_part(self, _: Any, message: dict[str, Any], buffers: Any) -> None:
        self.send(message, [part(self.trace, message["part"])])

    def __repr__(self) -> str:
        return repr(self.trace)  # what a cell shows where there are no widgets
