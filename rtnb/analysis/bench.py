"""Recordings on the bench of the VAD lab: heard once, then every setting answers in a millisecond."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from rtnb.analysis.choosing import recommend
from rtnb.analysis.heard import Heard
from rtnb.analysis.listening import listen
from rtnb.analysis.phases import FRAME_PHASES
from rtnb.analysis.recommendation import Recommendation
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweep_result import AS_RECORDED, METRICS, Sweep
from rtnb.analysis.sweeping import SERVER_MODEL_V1, evaluate
from rtnb.errors import AudioError
from rtnb.protocol.values import SERVER_VAD_DEFAULTS, ServerVad
from rtnb.vad import VadConstants

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

KNOBS: Final = ("threshold", "silence_duration_ms", "prefix_padding_ms")
_DEFAULTS: Final = tuple(float(getattr(SERVER_VAD_DEFAULTS, name)) for name in KNOBS)


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
        """All settings, recordings as they are; None without recordings."""
        self.recommendation: Recommendation | None = None
        """From all frame phases; None where there are no turns."""
        self._heard: list[Heard] = []
        """Of all frame phases; those of the recordings as they are have the condition `AS_RECORDED`."""
        self.add(recordings)

    def add(self, recordings: Iterable[Any]) -> None:
        """Listen to more recordings: seconds per hour of audio.

        Raises
        ------
        AudioError, OSError
            A recording that cannot be used.
        """
        new = [one if isinstance(one, Recording) else Recording.load(one) for one in recordings]
        if not new:
            return
        heard, failures = listen(new, conditions=FRAME_PHASES, progress=False)
        if failures:
            raise AudioError(f"{failures[0].name}: {failures[0].error}")
        self.recordings += new
        self._heard += heard
        phases = evaluate(self._heard, constants=self.constants)
        self.sweep = phases.only(AS_RECORDED)
        self.recommendation = recommend(phases) if phases.n_turns else None

    def probabilities(self, index: int) -> Any:
        """(n_frames,) float32 of one recording."""
        return self._as_recorded()[index].probabilities

    def _as_recorded(self) -> list[Heard]:
        return [one for one in self._heard if one.condition == AS_RECORDED]

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
            self._as_recorded(),
            thresholds=[threshold],
            silences_ms=[silence_duration_ms],
            prefixes_ms=[prefix_padding_ms],
            constants=self.constants,
        )
        metrics = {name: METRICS[name] for name in (*MAPPED, *_ALSO)}
        return {name: _figure(float(metric.of(sweep).ravel()[0]), metric.unit) for name, metric in metrics.items()}

    def grids(self) -> list[Any]:
        """(T, S) float32 of each metric in `MAPPED`, in its order."""
        if self.sweep is None:
            return []
        return [self.sweep.grid(name).values.astype(np.float32) for name in MAPPED]

    def recommended(self) -> ServerVad | None:
        """The settings to take; None where the turns do not show any."""
        choice = self.recommendation.choice if self.recommendation is not None else None
        return None if choice is None else choice.turn_detection


def _figure(value: float, unit: str) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{100 * value:.1f} %" if not unit else f"{value:.0f} {unit.replace('1/', 'per ')}"
