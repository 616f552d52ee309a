"""`OverlapView`: share of clips that start a turn under each threshold, for the VAD lab."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from math import isnan
from typing import Any, Final

import ipywidgets
import traitlets

from rtnb.analysis.overlaps import Overlap, overlap_lab
from rtnb.protocol.values import ServerVad
from rtnb.vad import VadConstants
from rtnb.widgets.settings import Look

THRESHOLDS: Final = [round(0.05 * k, 2) for k in range(1, 20)]


class OverlapView(ipywidgets.VBox):  # type: ignore[misc]
    """View of the barge-in lab, below the VAD lab: a row for each kind of clip, a column for each threshold.

    Parameters
    ----------
    clips : iterable of Overlap
        Labelled sounds of the user's side.
    constants : VadConstants
        Model of the service.
    """

    speaking_threshold = traitlets.Float(0.5, min=0.0, max=1.0, help="While the assistant speaks.")
    listening_threshold = traitlets.Float(0.5, min=0.0, max=1.0, help="While it listens.")

    def __init__(self, clips: Iterable[Overlap], *, constants: VadConstants) -> None:
        settings = [ServerVad(threshold=one) for one in THRESHOLDS]
        self.shares = overlap_lab(clips, settings, constants=constants).astype({"threshold": float})
        """Table of `rtnb.overlap_lab`."""
        self._look = Look()
        self._table = self._look.make(ipywidgets.HTML)
        slider = self._look.make(ipywidgets.FloatSlider, min=THRESHOLDS[0], max=THRESHOLDS[-1], step=0.05)
        slider.description = "Threshold ●"
        super().__init__([self._table, slider], layout=self._look.layout)
        traitlets.link((self, "speaking_threshold"), (slider, "value"))
        self.observe(self._show, ["speaking_threshold", "listening_threshold"])
        self._show()

    def _show(self, _: Any = None) -> None:
        """Show all shares, and the intervals of those at the threshold while the assistant speaks."""
        listening, speaking = (
            min(THRESHOLDS, key=lambda one: abs(one - at)) for at in (self.listening_threshold, self.speaking_threshold)
        )
        heads = [f"<th>{one:g}{'○' * (one == listening)}{'●' * (one == speaking)}</th>" for one in THRESHOLDS]
        rows = [f"<tr><th>Clips that start a turn (%), at {speaking:.2f} ●</th>{''.join(heads)}</tr>"]
        for kind, shares in self.shares.groupby("kind", sort=False):
            at = shares[shares["threshold"] == speaking].iloc[0]
            interval = "interval not shown" if isnan(at.low) else f"{100 * at.low:.0f} to {100 * at.high:.0f} %"
            name = f"{kind} {100 * at.rate:.0f} % ({interval}; n = {at.n}, {at.n_groups} groups)"
            cells = [f'<td style="--share: {100 * rate:.0f}%">{100 * rate:.0f}</td>' for rate in shares["rate"]]
            rows.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
        legend = "○ while the assistant listens, ● while it speaks"
        self._table.value = f'<div class="rtnb rtnb-overlaps" tabindex="0"><table>{"".join(rows)}</table>{legend}</div>'

    def close(self) -> None:
        """Leave the page; closing twice is fine."""
        self._look.close()
        super().close()
