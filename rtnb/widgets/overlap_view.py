"""`OverlapView`: clips that start a turn over the threshold, for the VAD lab."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import traitlets

from rtnb.analysis.overlaps import Overlap, overlap_lab
from rtnb.protocol.values import ServerVad
from rtnb.vad import VadConstants
from rtnb.widgets._base import Widget, bundle, styles

THRESHOLDS: Final = [round(0.05 * k, 2) for k in range(1, 20)]


class OverlapView(Widget):
    """View of the barge-in lab, below the VAD lab.

    Parameters
    ----------
    clips : iterable of Overlap
        Labelled sounds of the user's side.
    constants : VadConstants
        Model of the service.
    """

    _esm = bundle("overlap_view.js")
    _css = styles("vad_lab.css")

    thresholds = traitlets.List(traitlets.Float(), THRESHOLDS, help="Thresholds of the curves.").tag(sync=True)
    curves: Any = traitlets.List(help="Share of clips that start a turn, by kind.").tag(sync=True)
    speaking_threshold = traitlets.Float(0.5, min=0.0, max=1.0, help="While the assistant speaks.").tag(sync=True)
    listening_threshold = traitlets.Float(0.5, min=0.0, max=1.0, help="While it listens.").tag(sync=True)

    def __init__(self, clips: Iterable[Overlap], *, constants: VadConstants, **traits: Any) -> None:
        table = overlap_lab(clips, [ServerVad(threshold=one) for one in THRESHOLDS], constants=constants)
        curves: list[dict[str, Any]] = []
        for kind, rows in table.groupby("kind", sort=False):
            n, n_groups = int(rows["n"].iloc[0]), int(rows["n_groups"].iloc[0])
            ends = [None if rows[name].isna().any() else rows[name].tolist() for name in ("low", "high")]
            curve = {"kind": kind, "rates": rows["rate"].tolist(), "n": n, "n_groups": n_groups}
            curves.append(curve | {"low": ends[0], "high": ends[1]})
        super().__init__(curves=curves, **traits)
