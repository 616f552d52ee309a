"""Detectors side by side: the same turns through server VAD, a semantic model, or any function of the audio.

Every detector with its settings ends turns too early (cut-offs) or late (delay). A function is asked in each pause, as
`semantic_vad` asks its model: at a probability from the threshold on, a short wait ends the turn, below it a long one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.analysis.gaps import CUT_OFF_TOLERANCE_MS
from rtnb.analysis.intervals import clustered_median, clustered_share
from rtnb.analysis.recordings import Recording, Turn
from rtnb.analysis.sweeping import SILENCES_MS, THRESHOLDS, pareto_front, sweep
from rtnb.audio import Audio, ms_to_samples
from rtnb.errors import AudioError
from rtnb.vad import FRAME_MS, server_vad_segments, speech_probabilities
from rtnb.vad.semantic import SmartTurn

if TYPE_CHECKING:
    import pandas as pd

EndProbability = Callable[[Audio, int], float]
"""Takes the turn so far, with the begin of the pause, and its rate in Hz; gives the probability that it has ended."""
ASKED_MS: Final = 192.0
"""Silence after which a function is asked (chosen: Smart Turn was trained on turns with 200 ms of silence)."""
WAITS_MS: Final = (192.0, 384.0, 576.0, 800.0)
"""Silences that end a turn which the function calls ended (chosen)."""
LONGEST_WAIT_MS: Final = 4000.0
"""Silence that ends any turn (documented for `semantic_vad` at medium eagerness)."""
_LEAD_MS: Final = 300  # audio before the turn that a function gets, as a prefix padding


def compare_detectors(
    recordings: Recording | Iterable[Recording],
    detectors: Mapping[str, str | EndProbability] | Sequence[str] = ("server_vad", "semantic_vad"),
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    silences_ms: Sequence[float] = SILENCES_MS,
    waits_ms: Sequence[float] = WAITS_MS,
) -> pd.DataFrame:
    """Run the same turns through several detectors of their end.

    Parameters
    ----------
    recordings : Recording or iterable of Recording
        With labelled turns, and silence after each: see `Recording.padded`.
    detectors : mapping of name to detector, or sequence of names
        ``"server_vad"`` (all `thresholds` and `silences_ms`), ``"semantic_vad"`` (Smart Turn, see
        `rtnb.vad.semantic`), or a function ``(audio, rate_hz) -> end probability`` (all `thresholds` and `waits_ms`).
    thresholds, silences_ms, waits_ms : sequence of float
        Settings to try.

    Returns
    -------
    pandas.DataFrame
        One row per detector and setting: detector, threshold, silence_ms, n_turns, n_groups
        (recordings), cut_off (share of turns, 0 to 1), delay_ms (median over recordings), no_end (share of turns
        without an end), front (no other setting of the detector is better in both), and 90 % intervals (low, high,
        delay_low_ms, delay_high_ms; NaN: not shown). The front is chosen by the same turns, so it looks better than
        it is. `plot_detectors` draws it.

    Raises
    ------
    AudioError
        No labelled turn, an unknown name, or the weights of Smart Turn are missing.

    Examples
    --------
    >>> from rtnb.audio import babble
    >>> turn = Recording.of_one_turn(babble("is this on").audio, rate_hz=24_000).padded()
    >>> detectors = {"server_vad": "server_vad", "always": lambda audio, rate_hz: 1.0}
    >>> result = compare_detectors([turn], detectors, thresholds=[0.5], silences_ms=[500], waits_ms=[192])
    >>> result[["detector", "cut_off", "no_end", "front"]].values.tolist()
    [['server_vad', 0.0, 0.0, True], ['always', 0.0, 0.0, True]]
    """
    import pandas as pd

    recordings = [recordings] if isinstance(recordings, Recording) else list(recordings)
    if not any(one.turns for one in recordings):
        raise AudioError("no labelled turn in the recordings").with_hint("Give turns: Recording(audio, turns=[…]).")
    named = detectors if isinstance(detectors, Mapping) else {name: name for name in detectors}
    groups = [one.name for one in recordings for _ in one.turns]
    rows = []
    for name, detector in named.items():
        if detector == "server_vad":
            outcomes = _server_vad(recordings, thresholds, silences_ms)
        elif detector == "semantic_vad" or callable(detector):
            ask = detector if callable(detector) else _smart_turn()
            outcomes = _asked(recordings, ask, thresholds, waits_ms)
        else:
            raise AudioError(f"the detector {detector!r} is unknown; allowed: 'server_vad', 'semantic_vad', a function")
        rows += _rows(name, outcomes, groups)
    return pd.DataFrame(rows, columns=list(_COLUMNS))


_Outcome = tuple[float, float, npt.NDArray[np.bool_], npt.NDArray[np.float64]]
"""Threshold, silence in ms, (n_turns,) cut off, (n_turns,) delay in ms, NaN without an end."""


def _server_vad(recordings: list[Recording], thresholds: Any, silences_ms: Any) -> list[_Outcome]:
    found = sweep(recordings, thresholds=thresholds, silences_ms=silences_ms, prefixes_ms=[300], progress=False)
    return [
        (float(threshold), float(silence_ms), found.cut_off[t, s], found.delay_ms[t, s].astype(float))
        for t, threshold in enumerate(found.thresholds)
        for s, silence_ms in enumerate(found.silences_ms)
    ]


def _asked(recordings: list[Recording], ask: EndProbability, thresholds: Any, waits_ms: Any) -> list[_Outcome]:
    turns = [(turn, pauses) for one in recordings for turn, pauses in _pauses(one, ask)]
    outcomes = []
    for threshold in thresholds:
        for wait_ms in waits_ms:
            ends = [_outcome(turn, pauses, threshold, max(wait_ms, ASKED_MS)) for turn, pauses in turns]
            cut_off, delay_ms = zip(*ends, strict=True)
            outcomes.append((float(threshold), float(wait_ms), np.array(cut_off), np.array(delay_ms)))
    return outcomes


def _smart_turn() -> EndProbability:
    model = SmartTurn()
    return lambda audio, rate_hz: model.probability(audio, rate_hz=rate_hz)


_Pauses = list[tuple[float, float, float]]
"""(start_ms, stop_ms, probability) of each silence in or after a turn in which the function is asked."""


def _pauses(recording: Recording, ask: EndProbability) -> Iterable[tuple[Turn, _Pauses]]:
    """Yield each turn with its pauses; the function is asked once in each."""
    probabilities = speech_probabilities(recording.audio, rate_hz=recording.rate_hz)
    segments = server_vad_segments(probabilities, silence_duration_ms=ASKED_MS)
    asked = [one.audio_end_ms for one in segments if one.audio_end_ms is not None]
    ends = [*(float(FRAME_MS * one.start_frame) for one in segments[1:]), recording.duration_ms]
    limits = [*(turn.start_ms for turn in recording.turns[1:]), recording.duration_ms]
    for turn, limit_ms in zip(recording.turns, limits, strict=True):
        pauses = []
        for at_ms, end_ms in zip(asked, ends, strict=False):
            if turn.start_ms < at_ms <= limit_ms:
                span = (max(0.0, turn.start_ms - _LEAD_MS), at_ms)
                start, stop = (ms_to_samples(ms, rate_hz=recording.rate_hz) for ms in span)
                probability = float(ask(recording.audio[start:stop], recording.rate_hz))
                pauses.append((at_ms - ASKED_MS, min(end_ms, limit_ms), probability))
        yield turn, pauses


def _outcome(turn: Turn, pauses: _Pauses, threshold: float, wait_ms: float) -> tuple[bool, float]:
    """Return whether the turn is cut off, and the delay of the stop that ends it."""
    waits = [wait_ms if probability >= threshold else LONGEST_WAIT_MS for *_, probability in pauses]
    stops = [start + wait for (start, stop, _), wait in zip(pauses, waits, strict=True) if start + wait <= stop]
    early_ms = turn.end_ms - CUT_OFF_TOLERANCE_MS
    return any(at < early_ms for at in stops), next((at - turn.end_ms for at in stops if at >= early_ms), nan)


def _rows(name: str, outcomes: list[_Outcome], groups: list[str]) -> list[tuple[Any, ...]]:
    """Return one row of the table per outcome."""
    # A turn without an end is the longest delay.
    delays = [clustered_median(np.where(np.isnan(delay_ms), np.inf, delay_ms), groups) for *_, delay_ms in outcomes]
    shares = [clustered_share(cut_off, groups) for _, _, cut_off, _ in outcomes]
    front = set(pareto_front([one[0] for one in delays], [one[0] for one in shares]))
    return [
        (name, *setting, *share, *delay, float(np.isnan(delay_ms).mean()), k in front and np.isfinite(delay[0]))
        for k, ((*setting, _, delay_ms), share, delay) in enumerate(zip(outcomes, shares, delays, strict=True))
    ]


_COLUMNS: Final = (
    *("detector", "threshold", "silence_ms", "cut_off", "low", "high", "n_turns", "n_groups"),
    *("delay_ms", "delay_low_ms", "delay_high_ms", "no_end", "front"),
)
