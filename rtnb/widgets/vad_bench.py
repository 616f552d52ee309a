"""Recordings of the VAD lab: probabilities computed once, then the figures of any setting take a millisecond."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from rtnb.analysis.gaps import CUT_OFF_TOLERANCE_MS
from rtnb.analysis.listening import Heard, listen
from rtnb.analysis.recommendation import Recommendation, recommend
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweeping import METRICS, SERVER_MODEL_V1, Sweep, evaluate, pareto_front
from rtnb.errors import AudioError
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.vad import FRAME_MS, Segment, VadConstants, server_vad_segments

MAPPED: Final = {
    "cut_off_rate": "turns cut off",
    "delay_p50_ms": "delay, median",
    "delay_p90_ms": "delay, P90",
    "no_fire_rate": "turns without an end",
    "false_triggers_per_h": "false starts",
    "self_interruptions_per_min": "self-interruptions",
}
"""The metrics of threshold and silence, and what they are called on the page."""
_ALSO: Final = {"missed_rate": "turns missed", "clipped_rate": "onsets clipped", "billed_tokens": "billed audio"}

TOLERANCE_MS: Final = 96.0
"""Times of service and model match within three frames."""
MAX_RECORDINGS: Final = 500
MAX_AUDIO_H: Final = 2.0
"""Bounds of one bench: two hours of audio at 24 kHz take 0.7 GB of memory. Chosen."""
KNOBS: Final = ("threshold", "silence_duration_ms", "prefix_padding_ms")
_DEFAULTS: Final = tuple(float(getattr(SERVER_VAD_DEFAULTS, name)) for name in KNOBS)


@dataclass(frozen=True, eq=False, kw_only=True)
class SettingMap:
    """Places of all settings on two axes, in shares of the axes' lengths."""

    x: Any
    """(n_settings,) 0 to 1, row by row of the grid; NaN where the setting has no place."""
    y: Any
    """(n_settings,) the same, upwards."""
    x_ticks: list[tuple[str, float]]
    """Texts and their places."""
    y_ticks: list[tuple[str, float]]
    stops: list[int]
    """Settings that the keyboard reaches: all, or those that no other beats on both axes."""
    columns: int
    """Step in `stops` that leads upwards."""


class Bench:
    """Recordings, what was heard of them, and what the settings make of it.

    Parameters
    ----------
    recordings : iterable of Recording or path
        May be empty; `add` takes more.
    constants : VadConstants
        What is assumed about the service, e.g. by a calibration.
    """

    def __init__(self, recordings: Iterable[Any] = (), *, constants: VadConstants = SERVER_MODEL_V1) -> None:
        self.recordings: list[Recording] = []
        self.constants = constants
        self.sweep: Sweep | None = None
        """All settings; None without recordings."""
        self.recommendation: Recommendation | None = None
        """From `sweep`, so that no figure of the lab contradicts it; None where there are no turns."""
        self._heard: list[Heard] = []
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
            self._check_room([*self.recordings, *new])
        if not new:
            return
        heard, failures = listen(new, progress=False)
        if failures:
            raise AudioError(f"{failures[0].name}: {failures[0].error}")
        self.recordings += new
        self._heard += heard
        self._evaluate()

    def split(self, index: int, *, turn_gap_ms: float) -> None:
        """Divide one recording into turns anew: a silence at least this long separates two of them."""
        self.recordings[index] = made = self.recordings[index].split(turn_gap_ms=turn_gap_ms)
        self._heard[index] = replace(self._heard[index], turns=made.turns, non_speech=made.non_speech or ())
        self._evaluate()

    def _evaluate(self) -> None:
        self.sweep = evaluate(self._heard, constants=self.constants)
        self.recommendation = recommend(self.sweep) if self.sweep.n_turns else None

    def _check_room(self, recordings: list[Recording]) -> None:
        hours = sum(one.duration_ms for one in recordings) / 3_600_000
        if len(recordings) > MAX_RECORDINGS or hours > MAX_AUDIO_H:
            limit = f"at most {MAX_RECORDINGS} recordings and at most {MAX_AUDIO_H:g} h of audio"
            raise AudioError(f"{len(recordings)} recordings, {hours:.2f} h: the bench holds {limit}").with_hint(
                "Use rtnb.sweep for more: it reads recordings one by one."
            )

    def probabilities(self, index: int) -> Any:
        """(n_frames,) float32 of one recording."""
        return self._heard[index].probabilities

    def segments(self, index: int, setting: ServerVad) -> tuple[Segment, ...]:
        """Segments that the local model finds in one recording."""
        knobs: dict[str, Any] = {name: getattr(setting, name) for name in KNOBS}
        return server_vad_segments(self.probabilities(index), **knobs, constants=self.constants)

    def cut_offs(self, index: int, segments: Iterable[Segment]) -> list[tuple[int, int]]:
        """(turn, stop_ms) of the first early stop in each turn of one recording, as `sweep` counts them."""
        stops_ms = [one.audio_end_ms for one in segments if one.audio_end_ms is not None]
        found = []
        for number, turn in enumerate(self.recordings[index].turns):
            early = (ms for ms in stops_ms if turn.start_ms < ms < turn.end_ms - CUT_OFF_TOLERANCE_MS)
            found += [(number, ms) for ms in [next(early, None)] if ms is not None]
        return found

    def compare(
        self, index: int, setting: ServerVad, starts_ms: Iterable[float], stops_ms: Iterable[float], *, until_ms: float
    ) -> dict[str, int]:
        """Compare times that a service reported for the beginning of a recording with those of the local model.

        Parameters
        ----------
        index : int
            Position of the recording.
        setting : ServerVad
            Threshold, silence duration and prefix padding that the service used.
        starts_ms, stops_ms : iterable of float
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
        starts = [FRAME_MS * one.start_frame - prefix_ms for one in segments]
        stops = [one.audio_end_ms for one in segments if one.audio_end_ms is not None]
        pairs = [(list(starts_ms), starts), (list(stops_ms), stops)]
        return {
            "n_service": sum(len(service) for service, _ in pairs),
            "n_model": sum(len(model) for _, model in pairs),
            "n_matched": sum(_n_matched(service, model) for service, model in pairs),
        }

    def figures(self, threshold: float, silence_duration_ms: float, prefix_padding_ms: float) -> list[list[str]]:
        """A table: what a setting does to all recordings, beside the service's default. The first row is the head."""
        if self.sweep is None:
            return []
        columns = [self._column(threshold, silence_duration_ms, prefix_padding_ms), self._column(*_DEFAULTS)]
        n_turns, n = self.sweep.n_turns, len(self.recordings)
        head = f"{n_turns} turn{'s' * (n_turns != 1)}, {n} recording{'s' * (n != 1)}"
        names = [*MAPPED.items(), *_ALSO.items()]
        rows = [[label, *(column[name] for column in columns)] for name, label in names]
        return [[head, "this setting", "default"], *(row for row in rows if row[1:] != ["–", "–"])]

    def _column(self, threshold: float, silence_duration_ms: float, prefix_padding_ms: float) -> dict[str, str]:
        sweep = evaluate(
            self._heard,
            thresholds=[threshold],
            silences_ms=[silence_duration_ms],
            prefixes_ms=[prefix_padding_ms],
            constants=self.constants,
        )
        metrics = {name: METRICS[name] for name in (*MAPPED, *_ALSO)}
        column = {name: _figure(float(metric.of(sweep).ravel()[0]), metric.unit) for name, metric in metrics.items()}
        if sweep.n_turns:  # a share of few turns misleads
            column["cut_off_rate"] = f"{int(sweep.cut_off.sum())} of {sweep.n_turns}"
            seen_ms = sweep.seen_delay_ms[~np.isnan(sweep.seen_delay_ms)]
            column["no_fire_rate"] = f"{int(np.isinf(seen_ms).sum())} of {len(seen_ms)}"
        return column

    def grids(self) -> list[Any]:
        """(T, S) float32 of each metric in `MAPPED`, in its order."""
        if self.sweep is None:
            return []
        return [METRICS[name].of(self.sweep).astype(np.float32) for name in MAPPED]

    def position(self, setting: ServerVad) -> int:
        """Index of the grid's setting nearest to a setting: threshold index × number of silences + silence index."""
        if self.sweep is None:
            return 0
        threshold: Any = setting.threshold
        silence_ms = FRAME_MS * self.constants.silence_frames(float(setting.silence_duration_ms or 0))
        row, column = (
            int(np.abs(axis - value).argmin())
            for axis, value in ((self.sweep.thresholds, threshold), (self.sweep.silences_ms, silence_ms))
        )
        return row * len(self.sweep.silences_ms) + column

    def maps(self) -> list[SettingMap]:
        """Two maps: silence duration against threshold, and delay against cut-off rate."""
        if self.sweep is None:
            return []
        thresholds, silences_ms = self.sweep.thresholds, self.sweep.silences_ms
        rows, columns = np.indices((len(thresholds), len(silences_ms))).reshape(2, -1)
        delay, cut_off = (METRICS[name].of(self.sweep).ravel() for name in ("delay_p90_ms", "cut_off_rate"))
        most_ms, most = (max(least, *axis[np.isfinite(axis)], least) for axis, least in ((delay, 500), (cut_off, 0.05)))
        heat = SettingMap(
            x=(columns + 0.5) / len(silences_ms),
            y=(rows + 0.5) / len(thresholds),
            x_ticks=[(f"{ms} ms", (k + 0.5) / len(silences_ms)) for k, ms in enumerate(silences_ms) if k % 7 == 0],
            y_ticks=[(f"{one:.1f}", (k + 0.5) / len(thresholds)) for k, one in enumerate(thresholds) if k % 4 == 0],
            stops=list(range(len(rows))),
            columns=len(silences_ms),
        )
        step_ms = 500 if most_ms <= 2500 else 1000 * math.ceil(most_ms / 5000)
        trade_off = SettingMap(
            x=delay / most_ms,
            y=cut_off / most,
            x_ticks=[(f"{ms} ms", ms / most_ms) for ms in range(step_ms, int(most_ms) + 1, step_ms)],
            y_ticks=[(f"{100 * share * most:.0f} %", share) for share in (0, 0.5, 1)],
            stops=[k for k in pareto_front(delay, cut_off) if np.isfinite(delay[k])],
            columns=-1,
        )
        return [heat, trade_off]

    def recommended(self) -> ServerVad | None:
        """The settings to take; None where the turns do not show any."""
        choice = self.recommendation.choice if self.recommendation is not None else None
        return None if choice is None else choice.turn_detection


def _n_matched(service_ms: Iterable[float], model_ms: Iterable[float]) -> int:
    left, n = list(model_ms), 0
    for at in service_ms:
        near = min(left, key=lambda one: abs(one - at), default=np.inf)
        if abs(near - at) <= TOLERANCE_MS:
            left.remove(near)
            n += 1
    return n


def _figure(value: float, unit: str) -> str:
    if not np.isfinite(value):
        return "never" if value == np.inf else "–"
    return f"{100 * value:.1f} %" if not unit else f"{value:.0f} {unit.replace('1/', 'per ')}"
