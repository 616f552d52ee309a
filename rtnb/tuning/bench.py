"""A bench of recordings: the effect of every server VAD setting on them, and on a service's own events.

`rtnb.VadLab` shows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rtnb.analysis import Recommendation, Recording, recommend
from rtnb.analysis.calibration import TOLERANCE_MS, Observed, pair_up
from rtnb.analysis.listening import Heard, listen
from rtnb.analysis.sweeping import SERVER_MODEL_V1, Sweep, evaluate
from rtnb.errors import AudioError
from rtnb.protocol.values import ServerVad
from rtnb.tuning.calibration import SETTING
from rtnb.vad import FRAME_MS, Segment, VadConstants, server_vad_segments

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Final = {
    "threshold": ("threshold", ""),
    "silence_duration_ms": ("silence duration", "ms"),
    "cut_off_rate": ("turns cut off", "%"),
    "delay_p50_ms": ("delay, median", "ms"),
    "delay_p90_ms": ("delay, P90", "ms"),
    "no_fire_rate": ("turns without an end", "%"),
    "false_triggers_per_h": ("false starts", "per h"),
    "self_interruptions_per_min": ("self-interruptions", "per min"),
    "missed_rate": ("turns missed", "%"),
    "clipped_rate": ("onsets clipped", "%"),
    "billed_tokens": ("billed audio", "tokens"),
}
"""Names and units of a setting and its metrics."""
MAX_RECORDINGS: Final = 500
MAX_AUDIO_H: Final = 2.0
"""Bounds of one bench: two hours of audio at 24 kHz take 0.7 GB of memory. Chosen."""


class Bench:
    """Recordings, their speech probabilities, and the metrics of every setting.

    Parameters
    ----------
    recordings : iterable of Recording or path
        May be empty; `add` takes more.
    constants : VadConstants
        Model of the service, e.g. of a calibration.
    """

    def __init__(self, recordings: Iterable[Any] = (), *, constants: VadConstants = SERVER_MODEL_V1) -> None:
        self.recordings: list[Recording] = []
        self.heard: list[Heard] = []
        """Speech probabilities of each recording."""
        self.constants = constants
        self.sweep: Sweep | None = None
        """All settings; None without recordings."""
        self.recommendation: Recommendation | None = None
        """From `sweep`, so that no figure of the lab contradicts it; None where there are no turns."""
        self.add(recordings)

    def add(self, recordings: Iterable[Any]) -> None:
        """Listen to more recordings: seconds per hour of audio.

        Raises
        ------
        AudioError, OSError
            A recording that cannot be used, or more than `MAX_RECORDINGS` or `MAX_AUDIO_H`; then none is added.
        """
        new: list[Recording] = []
        for one in recordings:
            new.append(one if isinstance(one, Recording) else Recording.load(one))
            n, all_ms = len(self.recordings + new), sum(each.duration_ms for each in self.recordings + new)
            if n > MAX_RECORDINGS or all_ms > 3_600_000 * MAX_AUDIO_H:
                held = f"the bench holds at most {MAX_RECORDINGS} recordings and at most {MAX_AUDIO_H:g} h of audio"
                error = AudioError(f"{n} recordings, {all_ms / 3_600_000:.2f} h: {held}")
                raise error.with_hint("Use rtnb.sweep for more: it reads recordings one by one.")
        if not new:
            return
        heard, failures = listen(new, progress=False)
        if failures:
            raise AudioError(f"{failures[0].name}: {failures[0].error}")
        self.recordings += new
        self.heard += heard
        self._evaluate()

    def split(self, index: int, *, turn_gap_ms: float) -> None:
        """Divide one recording into turns anew: a silence at least this long separates two of them."""
        self.recordings[index] = made = self.recordings[index].split(turn_gap_ms=turn_gap_ms)
        self.heard[index : index + 1] = listen([made], progress=False)[0]  # its probabilities are kept on disk
        self._evaluate()

    def _evaluate(self) -> None:
        self.sweep = evaluate(self.heard, constants=self.constants)
        self.recommendation = recommend(self.sweep) if self.sweep.n_turns else None

    def segments(self, index: int, setting: ServerVad) -> tuple[Segment, ...]:
        """Return the segments that the local model finds in one recording."""
        values: dict[str, Any] = {name: getattr(setting, name) for name in SETTING}
        return server_vad_segments(self.heard[index].probabilities, **values, constants=self.constants)

    def compare(self, index: int, setting: ServerVad, observed: Observed, *, until_ms: float) -> dict[str, int]:
        """Compare times that a service reported for the beginning of a recording with those of the local model.

        Parameters
        ----------
        index : int
            Position of the recording.
        setting : ServerVad
            Threshold, silence duration and prefix padding that the service used.
        observed : Observed
            Reported times in ms of the recording: prefix padding and silence included.
        until_ms : float
            Length of the part that the service received.

        Returns
        -------
        dict
            n_service and n_model (starts and stops of each), n_matched (within `TOLERANCE_MS`, each used once).
        """
        segments = [one for one in self.segments(index, setting) if FRAME_MS * one.start_frame < until_ms]
        prefix_ms: Any = setting.prefix_padding_ms
        starts_ms = [FRAME_MS * one.start_frame - prefix_ms for one in segments]
        stops_ms = [one.audio_end_ms for one in segments if one.audio_end_ms is not None]
        pairs = pair_up(observed.starts_ms, starts_ms, within_ms=TOLERANCE_MS)
        pairs += pair_up(observed.stops_ms, stops_ms, within_ms=TOLERANCE_MS)
        n_service, n_model = (sum(pair[side] is not None for pair in pairs) for side in (0, 1))
        return {"n_service": n_service, "n_model": n_model, "n_matched": n_service + n_model - len(pairs)}

    def metrics(self, setting: ServerVad) -> pd.Series[Any]:
        """Return a setting as the service rounds it, and its metrics over all recordings, by the names in `COLUMNS`."""
        threshold, silence_ms, prefix_ms = ([float(getattr(setting, name))] for name in SETTING)
        axes = {"thresholds": threshold, "silences_ms": silence_ms, "prefixes_ms": prefix_ms}
        return evaluate(self.heard, **axes, constants=self.constants).to_frame().iloc[0][[*COLUMNS]].astype(float)

    def table(self, settings: pd.DataFrame) -> pd.DataFrame:
        """Return `metrics` of named settings, a column each, as texts: a row for each metric that is known."""
        import pandas as pd

        n_turns = sum(len(one.turns) for one in self.recordings)
        counts = f"turns: {n_turns}, recordings: {len(self.recordings)}"
        known = settings.loc[[*COLUMNS][2:]].dropna(how="all")
        rows = {}
        for name, values in zip(known.index, known.to_numpy().tolist(), strict=True):
            label, unit = COLUMNS[name]
            rows[label] = [_format(value, unit) for value in values]
        return pd.DataFrame.from_dict(rows, orient="index", columns=settings.columns).rename_axis(columns=counts)


def _format(value: float, unit: str) -> str:
    if not np.isfinite(value):
        return "never" if value == np.inf else "–"
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.0f} {unit}"
