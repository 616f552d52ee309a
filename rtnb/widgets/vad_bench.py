"""Recordings of the VAD lab: probabilities computed once, then the metrics of any setting take a millisecond."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pandas as pd

from rtnb.analysis.calibration import TOLERANCE_MS, pair_up
from rtnb.analysis.gaps import CUT_OFF_TOLERANCE_MS
from rtnb.analysis.listening import Heard, listen
from rtnb.analysis.recommendation import Recommendation, recommend
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweeping import SERVER_MODEL_V1, Sweep, evaluate
from rtnb.errors import AudioError
from rtnb.experiments.calibration import Probe
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.vad import FRAME_MS, Segment, VadConstants, server_vad_segments

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
"""Names and units, on the page, of a setting and its metrics."""
MAX_RECORDINGS: Final = 500
MAX_AUDIO_H: Final = 2.0
"""Bounds of one bench: two hours of audio at 24 kHz take 0.7 GB of memory. Chosen."""
SETTING: Final = ("threshold", "silence_duration_ms", "prefix_padding_ms")
"""Names of the values that make a setting."""


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
            n, hours = (
                len(self.recordings) + len(new),
                sum(one.duration_ms for one in self.recordings + new) / 3_600_000,
            )
            if n > MAX_RECORDINGS or hours > MAX_AUDIO_H:
                limit = f"at most {MAX_RECORDINGS} recordings and at most {MAX_AUDIO_H:g} h of audio"
                raise AudioError(f"{n} recordings, {hours:.2f} h: the bench holds {limit}").with_hint(
                    "Use rtnb.sweep for more: it reads recordings one by one."
                )
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
        before = self.heard[index]
        self.heard[index] = Heard.of(made, probabilities=before.probabilities, condition=before.condition)
        self._evaluate()

    def _evaluate(self) -> None:
        self.sweep = evaluate(self.heard, constants=self.constants)
        self.recommendation = recommend(self.sweep) if self.sweep.n_turns else None

    def segments(self, index: int, setting: ServerVad) -> tuple[Segment, ...]:
        """Return the segments that the local model finds in one recording."""
        values: dict[str, Any] = {name: getattr(setting, name) for name in SETTING}
        return server_vad_segments(self.heard[index].probabilities, **values, constants=self.constants)

    def cut_offs(self, index: int, segments: Iterable[Segment]) -> list[int]:
        """Return the first early stop in each turn of one recording that has one, ms, as `sweep` counts them."""
        stops_ms = [one.audio_end_ms for one in segments if one.audio_end_ms is not None]
        early = (
            next((ms for ms in stops_ms if turn.start_ms < ms < turn.end_ms - CUT_OFF_TOLERANCE_MS), None)
            for turn in self.recordings[index].turns
        )
        return [ms for ms in early if ms is not None]

    def compare(self, index: int, setting: ServerVad, observed: Probe, *, until_ms: float) -> dict[str, int]:
        """Compare times that a service reported for the beginning of a recording with those of the local model.

        Parameters
        ----------
        index : int
            Position of the recording.
        setting : ServerVad
            Threshold, silence duration and prefix padding that the service used.
        observed : Probe
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
        pairs = [
            *pair_up(observed.starts_ms, starts_ms, within_ms=TOLERANCE_MS),
            *pair_up(observed.stops_ms, stops_ms, within_ms=TOLERANCE_MS),
        ]
        n_service, n_model = (sum(pair[side] is not None for pair in pairs) for side in (0, 1))
        return {"n_service": n_service, "n_model": n_model, "n_matched": n_service + n_model - len(pairs)}

    def metrics(self, setting: ServerVad) -> pd.Series[Any]:
        """Return a setting as the service rounds it, and its metrics over all recordings, by the names in `COLUMNS`."""
        threshold, silence_ms, prefix_ms = ([float(getattr(setting, name))] for name in SETTING)
        axes = {"thresholds": threshold, "silences_ms": silence_ms, "prefixes_ms": prefix_ms}
        return evaluate(self.heard, **axes, constants=self.constants).to_frame().iloc[0][[*COLUMNS]].astype(float)

    def grid(self) -> dict[str, Any]:
        """Return all settings of the sweep with their metrics, for the maps: see `Grid` in vad_view_maps.js."""
        if self.sweep is None:
            return {}
        frame = self.sweep.to_frame()
        frame = frame[frame["prefix_padding_ms"] == SERVER_VAD_DEFAULTS.prefix_padding_ms]
        columns = [
            {"name": name, "label": label, "unit": unit, "values": frame[name].to_numpy(np.float32).tobytes()}
            for name, (label, unit) in COLUMNS.items()
        ]
        front = self.recommendation.front if self.recommendation else ()
        front_points = [(one.delay_p90_ms, one.cut_off) for one in front]
        return {"columns": columns, "n_silences": len(self.sweep.silences_ms), "front": front_points}

    def table(self, settings: pd.DataFrame) -> pd.DataFrame:
        """Return `metrics` of named settings, a column each, as texts: a row for each metric that is known."""
        n, n_turns = len(self.recordings), 0 if self.sweep is None else self.sweep.n_turns
        counts = f"{n_turns} turn{'s' * (n_turns != 1)}, {n} recording{'s' * (n != 1)}"
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
