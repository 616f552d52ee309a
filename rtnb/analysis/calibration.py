"""Calibration: the local model of the server VAD, fitted to the events a service sent about known audio.

The constants are `VadConstants` and the frame phase (the delay between stream and frames of the service). Observed
boundaries are compared with the model's. The constants with the least cost win, ties go to the model's own. The file
of a calibration is JSON, one per deployment, in ``~/.rtnb/calibrations`` or where RTNB_CALIBRATIONS says."""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtnb.audio import ms_to_samples
from rtnb.errors import AudioError, RtnbError
from rtnb.vad import FRAME_MS, ServerVadMachine, SpeechStarted, VadConstants, speech_probabilities

FILE_VERSION = 1


@dataclass(frozen=True, kw_only=True, repr=False)
class Calibration:
    """How a service's server VAD differs from the local model; print it to read what was found."""

    deployment: str
    """Which service: host and model."""
    constants: VadConstants
    """What fits best: for `sweep` and `server_vad_segments`."""
    phase_ms: int
    """How much later than the stream the service's frames begin, of 32 ms."""
    like: dict[str, tuple[Any, ...]]
    """For each constant, the values that fit about as well: where they are several, the recordings do not tell them
    apart."""
    start_f1: float
    """F1 of starts of service and fitted model within ±96 ms, out of sample: each recording under the constants that
    the other recordings fit best; NaN with one recording."""
    stop_f1: float
    """The same for stops."""
    same_frame: float
    """F1 of starts and stops in the same frame, out of sample."""
    start_f1_before: float
    """The same with the model's own constants."""
    stop_f1_before: float
    same_frame_before: float
    n_starts: int
    """Starts that the service reported."""
    n_stops: int
    n_settings: int
    """Settings that were tried."""
    audio_s: float
    """Seconds of audio sent."""
    ignored: dict[str, Any]
    """Settings the service does not follow, and the value it seems to keep."""
    anomalies: tuple[str, ...]
    """Other differences from the documented behaviour."""

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write it to a file.

        Parameters
        ----------
        path : path, optional
            None: the file of this deployment, where `Calibration.stored` finds it.

        Returns
        -------
        Path
        """
        place = _place(self.deployment) if path is None else Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"version": FILE_VERSION, **asdict(self)}, indent=1) + "\n", encoding="utf-8")
        return place

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what `save` wrote.

        Raises
        ------
        RtnbError
            The file is no calibration, or one of a newer version.
        """
        try:
            facts = json.loads(Path(path).read_text(encoding="utf-8"))
            if (version := facts.pop("version")) > FILE_VERSION:
                raise RtnbError(f"{path} is a calibration of version {version}; this rtnb reads {FILE_VERSION}")
            facts["constants"] = VadConstants(**facts["constants"])
            facts["like"] = {name: tuple(values) for name, values in facts["like"].items()}
            facts["anomalies"] = tuple(facts["anomalies"])
            return cls(**facts)
        except (KeyError, TypeError, ValueError) as error:
            raise RtnbError(f"{path} is no calibration: {type(error).__name__}: {error}").with_hint(
                "Calibrate again: await rtnb.calibrate(session, recordings)."
            ) from error

    @classmethod
    def stored(cls, deployment: str) -> Calibration | None:
        """The calibration saved for a deployment, None where there is none."""
        place = _place(deployment)
        return cls.load(place) if place.is_file() else None

    def __repr__(self) -> str:
        n = self.n_starts + self.n_stops
        facts = [
            *((name, _fitted(getattr(self.constants, name, self.phase_ms), like)) for name, like in self.like.items()),
            ("starts alike", _alike(self.start_f1, self.start_f1_before, self.n_starts)),
            ("stops alike", _alike(self.stop_f1, self.stop_f1_before, self.n_stops)),
            ("same frame", _alike(self.same_frame, self.same_frame_before, n, "in one frame")),
            ("basis", f"{self.audio_s:.0f} s of audio under {self.n_settings} settings"),
            *(("odd", anomaly) for anomaly in self.anomalies),
        ]
        return "\n".join([f"Calibration of {self.deployment}", *(f"  {name + ':':20} {text}" for name, text in facts)])


def _place(deployment: str) -> Path:
    folder = os.environ.get("RTNB_CALIBRATIONS") or Path.home() / ".rtnb" / "calibrations"
    return Path(folder) / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', deployment)}.json"


def _fitted(value: Any, like: tuple[Any, ...]) -> str:
    return f"{value}" if len(like) <= 1 else f"{value} (not identified: {', '.join(map(str, like))} fit about as well)"


def _alike(f1: float, before: float, n: int, within: str = "within ±96 ms") -> str:
    if f1 != f1:
        return f"not shown: one recording, at least 2 are needed to check the fit (F1 {before:.2f} before it, n={n})"
    return f"F1 {f1:.2f} {within}, out of sample ({before:.2f} before the fit; n={n})"


PHASES_MS = tuple(range(0, FRAME_MS, 4))
"""Tried frame phases: eighths of a frame, as probabilities change a lot within one."""
TOLERANCE_MS = 96
"""A boundary is right within this: three frames, what a shifted frame grid alone can do."""
_WINDOW_MS = 320.0
"""Boundaries further apart than this are not the same event (chosen: ten frames)."""
_MISFIT = 0.03
"""A cost above this makes us ask whether settings are ignored (chosen; a shifted frame grid alone gives less)."""
_LEAST_EVENTS = 10
"""With fewer starts and stops nothing is fitted (chosen)."""
_ERRORS = 2.0
"""A value fits as well where it is worse by less than this many standard errors (chosen: about 95 %)."""
_BETTER = 0.75
"""The explanation "ignored" must bring the cost down to this share of it (chosen)."""
_SETTINGS = ("threshold", "silence_duration_ms", "prefix_padding_ms")
_USUAL = {"threshold": (0.5,), "silence_duration_ms": (200, 500), "prefix_padding_ms": (300,)}
"""What a service may go back to: its defaults, observed and documented."""
_GRID: dict[str, tuple[Any, ...]] = {
    "hysteresis": (0.15, 0.1, 0.2, 0.05, 0.25, 0.0),
    "min_speech_frames": (1, 2, 3, 4),
    "silence_rounding": ("up", "nearest", "down"),
    "threshold_slope": (1.0, 0.85, 1.15, 0.7, 1.3),
    "threshold_shift": tuple(sorted((round(0.25 * k, 2) for k in range(-6, 7)), key=abs)),
    "phase_ms": PHASES_MS,
}
"""Tried values of each constant, the model's own first."""
_HOW: tuple[tuple[tuple[int, ...], float], ...] = (((0,), TOLERANCE_MS), ((1,), TOLERANCE_MS), ((0, 1), FRAME_MS / 2))
"""Which boundaries are compared (0 starts, 1 stops), within how many ms: starts, stops, both in the same frame."""
_TOGETHER = (
    ("threshold_shift", "min_speech_frames"),
    ("hysteresis", "silence_rounding"),
    ("threshold_slope", "threshold_shift"),
    ("hysteresis", "threshold_shift"),
    ("phase_ms", "silence_rounding"),
    ("phase_ms", "threshold_shift"),
)
"""Constants that can replace each other are tried together."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Audio streamed under one setting, and the boundaries that the service reported. All times are stream time."""

    threshold: float
    silence_duration_ms: int
    prefix_padding_ms: int
    start_ms: int
    """Where this audio begins: a multiple of 32."""
    stop_ms: int
    """Where it ends: a multiple of 32, in silence."""
    starts_ms: tuple[int, ...]
    """Every `audio_start_ms`."""
    stops_ms: tuple[int, ...]
    """Every `audio_end_ms`."""
    clips_ms: tuple[int, ...] = ()
    """Where each recording begins: the same recordings under every setting."""
    problems: tuple[str, ...] = ()
    """Other differences that were found while streaming."""


@dataclass(frozen=True)
class _Point:
    """Constants to try, and settings that are ignored with the value they seem to have."""

    constants: VadConstants = VadConstants()  # noqa: RUF009 - frozen
    phase_ms: int = 0
    ignored: tuple[tuple[str, Any], ...] = ()

    def with_(self, **values: Any) -> _Point:
        phase_ms = values.pop("phase_ms", self.phase_ms)
        return replace(self, constants=replace(self.constants, **values), phase_ms=phase_ms)


def fit_constants(
    audio: npt.NDArray[np.float32], observed: Sequence[Observed], *, rate_hz: int, deployment: str
) -> Calibration:
    """Find the constants with which the local model reproduces the reported boundaries.

    Parameters
    ----------
    audio : ndarray, float32, shape (n_samples,)
        Exactly what was sent, from the first `start_ms` to the last `stop_ms`, without a gap.
    observed : sequence of Observed
        One after another.
    rate_hz : int
        Of the audio.
    deployment : str
        Names the service in the result.

    Returns
    -------
    Calibration

    Raises
    ------
    AudioError
        Too few starts and stops to identify anything.
    """
    fit = _Fit(audio, observed, rate_hz=rate_hz)
    if fit.n < _LEAST_EVENTS:
        raise AudioError(
            f"the service sent {fit.n} starts and stops: at least {_LEAST_EVENTS} are needed to identify its constants"
        ).with_hint("Check that the recordings hold speech with pauses, and that the service detects turns; give more.")
    point = fit.best()
    before, after, ignored = fit.boundaries(_Point()), fit.boundaries(point), dict(point.ignored)
    found, own = fit.out_of_sample(point), [fit.tally(before, *how).sum(axis=0) for how in _HOW]
    names = [f"{name}{end}" for end in ("", "_before") for name in ("start_f1", "stop_f1", "same_frame")]
    f1 = [float(2 * alike / n) if n else float("nan") for alike, n in (*found, *own)]
    return Calibration(
        deployment=deployment,
        constants=point.constants,
        phase_ms=point.phase_ms,
        like=fit.like(point),
        **dict(zip(names, f1, strict=True)),
        n_starts=sum(len(one.starts_ms) for one in observed),
        n_stops=sum(len(one.stops_ms) for one in observed),
        n_settings=len(observed),
        audio_s=len(audio) / rate_hz,
        ignored=ignored,
        anomalies=(*_anomalies(observed, after, ignored), *(p for one in observed for p in one.problems)),
    )


class _Fit:
    """The search. The cost is 0 where every boundary is reproduced exactly, 1 where none is."""

    def __init__(self, audio: npt.NDArray[np.float32], observed: Sequence[Observed], *, rate_hz: int) -> None:
        self._observed = observed
        self._probabilities = {
            phase_ms: speech_probabilities(
                np.concatenate([np.zeros(ms_to_samples(phase_ms, rate_hz=rate_hz), np.float32), audio]), rate_hz=rate_hz
            )
            for phase_ms in PHASES_MS
        }
        self.n = sum(len(one.starts_ms) + len(one.stops_ms) for one in observed)
        self._n_clips = max(1, *(len(one.clips_ms) for one in observed))
        self._known: dict[_Point, npt.NDArray[np.float64]] = {}

    def best(self) -> _Point:
        """Return what explains most; settings count as ignored only where that explains much more."""
        point, cost = self._search(_Point())
        if cost > _MISFIT and (ignored := self._ignored(point)):
            other, other_cost = self._search(_Point(ignored=ignored))
            if other_cost < _BETTER * cost:
                return other
        return point

    def _ignored(self, fitted: _Point) -> tuple[tuple[str, Any], ...]:
        """Return settings that explain more when they are taken for constant, found one by one."""
        points = (_Point(), fitted)
        cost = min(map(self.cost, points))
        while len(points[0].ignored) < len(_SETTINGS):
            tries = [
                (self.cost(other), other.ignored)
                for name in _SETTINGS
                if name not in dict(points[0].ignored) and len({getattr(one, name) for one in self._observed}) > 1
                for value in dict.fromkeys((*_USUAL[name], *(getattr(one, name) for one in self._observed)))
                for other in (replace(point, ignored=(*point.ignored, (name, value))) for point in points)
            ]
            if not tries or (found := min(tries, key=lambda each: each[0]))[0] > 0.95 * cost:
                break
            cost, ignored = found
            points = (replace(points[0], ignored=ignored), replace(points[1], ignored=ignored))
        return points[0].ignored

    def _search(self, start: _Point) -> tuple[_Point, float]:
        """Return the better of two ways through the groups: what is tried first can hide what would explain more."""
        ways = (self._walk(start, groups) for groups in (_TOGETHER, _TOGETHER[::-1]))
        return min(ways, key=lambda found: found[1])

    def _walk(self, point: _Point, groups: Sequence[tuple[str, ...]]) -> tuple[_Point, float]:
        """Change constants group by group as long as that helps."""
        cost, before = self.cost(point), float("inf")
        while 0 < cost < before - 1e-9:
            before = cost
            for names in groups:
                for values in product(*(_GRID[name] for name in names)):
                    candidate = point.with_(**dict(zip(names, values, strict=True)))
                    if candidate != point and (its := self.cost(candidate)) < cost - 1e-9:
                        point, cost = candidate, its
        return point, cost

    def like(self, point: _Point) -> dict[str, tuple[Any, ...]]:
        """Return for each constant the tried values that fit about as well, if another constant gives way.

        As well is: worse by one boundary at most, or by less than chance makes it (recordings compared).
        """
        best = self._costs(point)

        def fits(name: str, value: Any) -> bool:
            other = "hysteresis" if name == "threshold_shift" else "threshold_shift"
            points = (point.with_(**{name: value, other: way}) for way in _GRID[other])
            worse = [self._costs(each) - best for each in points]
            return any(more.sum() <= max(2.0, _ERRORS * more.std() * len(more) ** 0.5) for more in worse)

        return {name: tuple(sorted(v for v in values if fits(name, v))) for name, values in _GRID.items()}

    def cost(self, point: _Point) -> float:
        """Return the distance of the model's boundaries from the reported ones."""
        return float(self._costs(point).sum()) / max(2 * self.n, 1)

    def _costs(self, point: _Point) -> npt.NDArray[np.float64]:
        """The same per setting and recording, not divided: 1 for each boundary that only one side has."""
        if point not in self._known:
            costs = np.zeros(len(self._observed) * self._n_clips)
            for cell, a, b in self._paired(self.boundaries(point), (0, 1), _WINDOW_MS):
                costs[cell] += 1.0 if a is None or b is None else 2 * abs(a - b) / _WINDOW_MS
            self._known[point] = costs
        return self._known[point]

    def _paired(
        self, model: list[tuple[list[int], list[int]]], kinds: tuple[int, ...], within_ms: float
    ) -> Iterator[tuple[int, int | None, int | None]]:
        """Yield the cell (setting and clip) of each boundary, and the boundary of service and model."""
        for number, (one, ours) in enumerate(zip(self._observed, model, strict=True)):
            for kind in kinds:
                for a, b in pair_up((one.starts_ms, one.stops_ms)[kind], ours[kind], within_ms=within_ms):
                    at_ms = (b if a is None else a) or 0
                    clip = max(0, bisect_right(one.clips_ms, at_ms + one.prefix_padding_ms * (kind == 0)) - 1)
                    yield number * self._n_clips + clip, a, b

    def tally(
        self, model: list[tuple[list[int], list[int]]], kinds: tuple[int, ...], within_ms: float
    ) -> npt.NDArray[np.float64]:
        """Return for each cell how many boundaries are alike, and half the number of both sides' boundaries."""
        counts = np.zeros((len(self._observed) * self._n_clips, 2))
        for cell, a, b in self._paired(model, kinds, within_ms):
            alike = a is not None and b is not None
            counts[cell] += (alike, 1.0 if alike else 0.5)
        counts[:, 1] *= 2
        return counts

    def out_of_sample(self, best: _Point) -> list[npt.NDArray[np.float64]]:
        """Return tallies of each clip under the constants that fit all other clips best; none with a single clip."""
        tried = [point for point in self._known if point.ignored == best.ignored]
        costs = np.array([self._known[point] for point in tried]).reshape(len(tried), -1, self._n_clips)
        total = [np.zeros(2) for _ in _HOW]
        for clip in range(self._n_clips) if self._n_clips > 1 else ():
            point = tried[int((costs.sum(axis=(1, 2)) - costs[:, :, clip].sum(axis=1)).argmin())]
            model = self.boundaries(point)
            for number, how in enumerate(_HOW):
                total[number] += self.tally(model, *how).reshape(-1, self._n_clips, 2)[:, clip].sum(axis=0)
        return total

    def boundaries(self, point: _Point) -> list[tuple[list[int], list[int]]]:
        """Return starts and stops of the model under each setting."""
        probabilities = self._probabilities[point.phase_ms]
        first = self._observed[0].start_ms // FRAME_MS
        machine = ServerVadMachine(constants=point.constants)
        machine.reset(frame=first)
        out = []
        for one in self._observed:
            machine.configure(**{name: getattr(one, name) for name in _SETTINGS} | dict(point.ignored))
            stop = first + len(probabilities) if one is self._observed[-1] else one.stop_ms // FRAME_MS
            events = machine.push(probabilities[machine.frame - first : stop - first])
            starts = [event.audio_start_ms for event in events if isinstance(event, SpeechStarted)]
            stops = [event.audio_end_ms for event in events if not isinstance(event, SpeechStarted)]
            out.append((starts, stops))
        return out


def pair_up(observed: Sequence[int], model: Sequence[int], *, within_ms: float) -> list[tuple[int | None, int | None]]:
    """Return the boundaries that belong together, as each is the nearest of the other; None where there is no other."""
    pairs: list[tuple[int | None, int | None]] = []
    if observed and model:
        errors = np.abs(np.subtract.outer(observed, model))
        theirs, ours = errors.argmin(axis=1), errors.argmin(axis=0)
        pairs = [
            (observed[i], model[j]) for i, j in enumerate(theirs.tolist()) if ours[j] == i and errors[i, j] <= within_ms
        ]
    matched, reproduced = {a for a, _ in pairs}, {b for _, b in pairs}
    pairs += [(a, None) for a in observed if a not in matched]
    return pairs + [(None, b) for b in model if b not in reproduced]


def _anomalies(
    observed: Sequence[Observed], model: Sequence[tuple[list[int], list[int]]], ignored: dict[str, Any]
) -> list[str]:
    """Return settings that are ignored, events that are missing, and boundaries off the grid of 32 ms."""
    odd = [f"{name} is ignored: the service behaves as if it were always {value:g}" for name, value in ignored.items()]
    for one, (starts, _) in zip(observed, model, strict=True):
        where = f"threshold {one.threshold:g}, silence {one.silence_duration_ms} ms"
        if len(one.starts_ms) < len(starts) / 2:
            odd.append(f"events are missing: {where}: {len(one.starts_ms)} starts reported, {len(starts)} expected")
        if len(one.stops_ms) < len(one.starts_ms):
            odd.append(f"events are missing: {where}: {len(one.starts_ms)} starts, {len(one.stops_ms)} stops")
    begun = [  # the service's logs show ends on the grid, and starts with their prefix added
        start + ignored.get("prefix_padding_ms", one.prefix_padding_ms)
        for one in observed
        for start in one.starts_ms
        if start
    ]
    ended = [stop for one in observed for stop in one.stops_ms]
    for name, values in (("ends", ended), ("starts with their prefix", begun)):
        if off := sum(value % FRAME_MS != 0 for value in values):
            odd.append(f"{off} of {len(values)} {name} are no multiples of {FRAME_MS} ms")
    return odd
