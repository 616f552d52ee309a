"""Every silence duration at once: what one threshold makes of recordings, from the gaps between their speech.

At one threshold the frames at or above it come in runs, and each gap behind a run is independent of the others: a stop
comes in it exactly when its quiet frames reach far enough, and where then depends on no other gap. So one pass over the
probabilities gives the gaps (about 1,300 in an hour), and everything a silence duration changes is counted from them;
the prefix padding is arithmetic. `rtnb.vad.ServerVadMachine`, run for each setting, gives the same numbers.

Times are whole frames here: what happens at 32 ms · k lies before x ms exactly when k < ceil(x / 32).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rtnb.analysis.listening import Heard
from rtnb.analysis.recordings import Span, Turn
from rtnb.vad import FRAME_MS, Segment, VadConstants

_Int = npt.NDArray[np.int64]
_Bool = npt.NDArray[np.bool_]
_Float = npt.NDArray[np.float64]

Found = dict[str, npt.NDArray[Any]]
"""Fields of a `Sweep` at one threshold, by name."""
CUT_OFF_TOLERANCE_MS: Final = 100.0
"""A stop this close before the true end is no cut-off: labels are not exact (turntune's tolerance)."""
TOKENS_PER_S: Final = 10.0
"""Input audio tokens per second of a committed item: what usage counts of a real session show, within ±3 per item."""
_NEVER: Final = 1 << 30  # a frame after all others: a year of audio is 2**30 of them


def cut_offs(turns: Iterable[Turn], segments: Iterable[Segment]) -> list[list[int]]:
    """Return the stops before the end of a turn, in ms: a list for each turn that has any."""
    stops_ms = [one.audio_end_ms for one in segments if one.audio_end_ms is not None]
    spans_ms = [(turn.start_ms, turn.end_ms - CUT_OFF_TOLERANCE_MS) for turn in turns]
    early = [[ms for ms in stops_ms if start_ms < ms < end_ms] for start_ms, end_ms in spans_ms]
    return [found for found in early if found]


class Track:
    """Recordings end to end, one frame of nothing between them, with their labels in frames: prepared once.

    Parameters
    ----------
    heard : sequence of Heard
        In the order of the results' last axes.
    """

    def __init__(self, heard: Sequence[Heard]) -> None:
        nothing = np.full(1, np.nan, np.float32)
        self.probabilities = np.concatenate(
            [nothing, *(part for one in heard for part in (one.probabilities, nothing))]
        )
        lengths = np.array([len(one.probabilities) for one in heard], np.int64)
        self.ends: _Int = np.cumsum(lengths + 1)
        self.offsets: _Int = self.ends - lengths
        self.n_turns = sum(len(one.turns) for one in heard)
        turns = [(k, turn) for k, one in enumerate(heard) for turn in one.turns]
        pauses = [(n, pause) for n, (_, turn) in enumerate(turns) for pause in turn.pauses]
        self.turn_ms: _Float = np.array([(turn.start_ms, turn.end_ms) for _, turn in turns], float).reshape(-1, 2)
        self.turn_recording: _Int = np.array([k for k, _ in turns], np.int64)
        pause_ms: _Float = np.array([pause for _, pause in pauses], float).reshape(-1, 2)
        self.pause_turn: _Int = np.array([n for n, _ in pauses], np.int64)
        self.turn_offset = offset = self.offsets[self.turn_recording]
        start_ms, end_ms = self.turn_ms.T
        self.first_frame = offset + _floor(start_ms)  # the frame the turn begins in
        self.end_frame = offset + _ceil(end_ms)  # speech of the turn begins before it
        self.early_frame = offset + _ceil(end_ms - CUT_OFF_TOLERANCE_MS)  # a stop before it cuts off
        last_ms = np.append(start_ms[1:], 0.0)
        follows = np.append(self.turn_recording[1:] == self.turn_recording[:-1], False)[: len(turns)]
        self.limit_frame = np.where(
            follows, offset + _floor(last_ms[: len(turns)]), self.ends[self.turn_recording]
        )  # until here a stop ends the turn
        limit_ms = np.where(follows, last_ms[: len(turns)], [heard[k].duration_ms for k, _ in turns])
        self.ending_ms: _Float = np.maximum(limit_ms - end_ms, 0.0)
        # The pause that holds a stop at each frame; outside all pauses, the number after the last.
        self.pause_at = np.full(len(self.probabilities) + 1, len(self.pause_turn), np.int32)
        offset = self.turn_offset[self.pause_turn]
        pause_frames = offset[:, None] + _ceil(pause_ms)
        for number, (first, last) in enumerate(pause_frames.tolist()):
            self.pause_at[first:last] = number
        self.quiet = self._mark(one.non_speech for one in heard)
        self.echo = self._mark(one.echo for one in heard)

    def _mark(self, spans_of: Iterable[Sequence[Span]]) -> _Bool:
        """Which frames lie wholly in a span."""
        rows = [(k, start, end) for k, spans in enumerate(spans_of) for start, end in spans]
        recording, start_ms, end_ms = np.array(rows, float).reshape(-1, 3).T
        recording = recording.astype(np.int64)
        first = self.offsets[recording] + _ceil(start_ms)
        last = np.minimum(self.offsets[recording] + _floor(end_ms), self.ends[recording])
        first, last = first[first < last], last[first < last]
        size = len(self.probabilities) + 1
        marks = np.cumsum(np.bincount(first, minlength=size) - np.bincount(last, minlength=size))[:-1]
        return marks > 0


class Gaps:
    """The gaps between speech at one threshold: about 0.3 ms per hour of audio to find, far less to ask.

    Parameters
    ----------
    track : Track
        The recordings.
    threshold : float
        As in the turn detection.
    constants : VadConstants
        What is assumed about the service.

    Examples
    --------
    >>> import numpy as np
    >>> from rtnb.analysis.recordings import Turn
    >>> spoken = np.array([0, 0.9, 0.9, 0, 0, 0, 0, 0, 0, 0, 0, 0], np.float32)
    >>> track = Track([Heard("one", "as recorded", spoken, turns=(Turn(32, 96),))])
    >>> gaps = Gaps(track, threshold=0.5, constants=VadConstants())
    >>> gaps.at([2, 7], prefixes_ms=[300])["delay_ms"].tolist()
    [[96.0], [256.0]]
    """

    def __init__(self, track: Track, *, threshold: float, constants: VadConstants) -> None:
        self.track = track
        p, least = track.probabilities, constants.min_speech_frames
        high = p >= _exactly(constants.local(threshold))
        low = p < _exactly(constants.release(threshold))
        if constants.release(threshold) > constants.local(threshold):
            low &= ~high
        edges = np.flatnonzero(high[1:] != high[:-1]) + 1
        self._starts, self._ends = starts, ends = edges[::2], edges[1::2]  # of the runs
        self._long = np.flatnonzero(ends - starts >= least) if least > 1 else None
        self._least = least
        self._first_gap = np.append(0, np.searchsorted(starts, track.ends))  # of each recording, and of none
        self._recording = np.repeat(np.arange(len(track.ends)), np.diff(self._first_gap))
        self._recording_or_none = np.append(self._recording, len(track.ends))
        self._offset = np.append(track.offsets[self._recording], 0).astype(np.int32)
        following = np.append(starts[1:], _NEVER)
        gap_ends = np.minimum(following, track.ends[self._recording])
        self._low, edges = low, np.flatnonzero(low[1:] != low[:-1]) + 1
        low_starts, low_ends = edges[::2], edges[1::2]
        self._low_starts = np.append(low_starts, _NEVER).astype(np.int32)
        first = np.searchsorted(low_starts, ends)
        after = np.append(first[1:], len(low_starts))[: len(ends)]  # speech is not low, so nothing comes between
        last = np.flatnonzero(gap_ends < following)  # of its recording
        after[last] = np.searchsorted(low_starts, gap_ends[last])
        first_low = self._low_starts[first]
        reach = np.where(first < after, np.append(low_ends, 0)[after - 1] - 1 - first_low, -1)
        self._reach = np.append(reach, _NEVER).astype(np.int32)
        self._first_low = np.append(first_low, _NEVER).astype(np.int32)
        self._find_starts()
        # Where each turn looks first: the number of a gap.
        self._turn_gap = np.searchsorted(ends, track.first_frame, "right")
        self._late_gap = np.maximum(self._turn_gap, np.searchsorted(gap_ends, track.early_frame))

    def _find_starts(self) -> None:
        """Which run a start follows each gap with, and which the first start of its recording is with."""
        track, starts, n = self.track, np.append(self._starts, _NEVER), len(self._starts)
        long = np.arange(n) if self._long is None else self._long
        behind = np.append(long, n)[np.searchsorted(long, np.arange(1, n + 1))]
        self._next_start = np.append(starts[behind], 0).astype(np.int32)
        first = starts[np.append(long, n)[np.searchsorted(starts[long], track.offsets)]]
        self._first_start = np.append(first[self._recording], _NEVER).astype(np.int32)  # of its recording
        inside = np.append(starts[behind] < track.ends[self._recording], False)
        self._in_quiet, self._in_echo = (
            ((first < track.ends) & marks.take(first, mode="clip"), inside & marks.take(self._next_start, mode="clip"))
            if marks.any()
            else (np.zeros(len(first), bool), None)
            for marks in (track.quiet, track.echo)
        )
        if self._long is not None:  # only the first gap that fires behind a long run ends its segment
            begins = np.r_[True, self._recording[1:] != self._recording[:-1]][:n]
            is_long = np.zeros(n, bool)
            is_long[long] = True
            self._block = np.append(np.cumsum(is_long | begins) - 1, -1)
            self._reach[:-1][~is_long[np.flatnonzero(is_long | begins)][self._block[:-1]]] = -1

    def onsets(self, prefixes_ms: Sequence[int] | _Int) -> Found:
        """Return when each turn's start is reported, and how much of its beginning the prefix padding misses.

        They are onset_delay_ms and missed, shape (n_turns,), and clipped_ms, shape (P, n_turns); see `Sweep`.
        """
        track, n = self.track, len(self._starts)
        starts, ends = np.append(self._starts, _NEVER), np.append(self._ends, _NEVER + self._least)
        run = self._turn_gap
        frame = np.maximum(starts[run], track.first_frame)
        if self._long is not None:
            short = ends[run] - frame < self._least
            later = np.append(self._long, n)[np.searchsorted(self._long, run + 1)]
            frame = np.where(short, starts[later], frame)
        missed = frame >= track.end_frame
        start_ms, end_ms = track.turn_ms.T
        frame_ms = FRAME_MS * (frame - track.turn_offset).astype(float)
        delay_ms = np.where(missed, np.nan, frame_ms + FRAME_MS * self._least - start_ms)
        lost = np.where(missed, end_ms - start_ms, frame_ms - np.asarray(prefixes_ms)[:, None] - start_ms)
        clipped_ms = np.maximum(lost, 0).astype(np.float32)
        return {"onset_delay_ms": delay_ms.astype(np.float32), "missed": missed, "clipped_ms": clipped_ms}

    def at(self, silence_frames: Sequence[int] | _Int, *, prefixes_ms: Sequence[int] | _Int) -> Found:
        """Ask for silence durations, in frames: 0.1 ms for one, less for each of many.

        The answers are the fields of `Sweep` that depend on the silence duration, with it as their first axis.
        """
        stops = _Stops(self, np.asarray(silence_frames, np.int32))
        cut_off, delay_ms = stops.turns()
        return {
            "cut_off": cut_off,
            "delay_ms": delay_ms,
            "pause_cut": stops.pauses(),
            "false_triggers": stops.starts_in(*self._in_quiet),
            "self_interruptions": stops.starts_in(*self._in_echo),
            "billed_tokens": stops.tokens(np.asarray(prefixes_ms, np.int64)),
        }


class _Stops:
    """All stops for S silence durations, one after another: for each duration, in the order of their gaps.

    Of each, the number of its gap among the kept ones, the first frame after its segment, and the frame the segment's
    speech began with. Behind the last one of each duration stands one that never comes. The arrays are int32,
    because most of the time goes into reading and writing them.
    """

    def __init__(self, gaps: Gaps, silence_frames: npt.NDArray[np.int32]) -> None:
        self.gaps, self.track, self.n_silences = gaps, gaps.track, len(silence_frames)
        can = gaps._reach >= silence_frames.min(initial=_NEVER)
        gap = can.nonzero()[0].astype(np.int32)  # those kept
        self.rank = np.zeros(len(can) + 1, np.int32)  # number of a gap -> number of the first kept one from there on
        np.cumsum(can, out=self.rank[1:])
        width = len(gap)
        fires = gaps._reach.take(gap) >= silence_frames[:, None]
        place, row = np.arange(width, dtype=np.int32), np.zeros(width, np.int32)
        if self.n_silences != 1:  # for one duration, all of the kept ones fire
            row = np.repeat(np.arange(self.n_silences, dtype=np.int32), fires.sum(axis=1))
            place = np.flatnonzero(fires).astype(np.int32)
            gap = gap.take(place - row * np.int32(width))
        if gaps._long is not None:
            block = gaps._block[gap]
            first = np.ones(len(place), bool)
            first[1:] = (block[1:] != block[:-1]) | (row[1:] != row[:-1])
            place, row, gap = place[first], row[first], gap[first]
            fires[:] = False
            fires.reshape(-1)[place] = True
        self.gap, self.row = gap, row
        last = gaps._first_low.take(gap) + silence_frames.take(row)
        (waits,) = (~gaps._low.take(last, mode="clip")).nonzero()  # between the thresholds: the next low frame fires
        last[waits] = gaps._low_starts[np.searchsorted(gaps._low_starts[:-1], last[waits])]
        self.stop = last + 1
        self.start = start = gaps._first_start.take(gap)
        np.maximum(start[1:], gaps._next_start.take(gap[:-1]), out=start[1:])
        self.entry = np.zeros(fires.size + 1, np.int32)  # of each duration and kept gap: the next stop from there
        np.cumsum(fires, out=self.entry[1:])
        self.row_at = np.arange(self.n_silences)[:, None] * width
        self.bounds = self._entry(gaps._first_gap)  # the first stop of each recording

    def _entry(self, gap: _Int) -> npt.NDArray[np.int32]:
        """(S, n) numbers of the first stops from these gaps on."""
        return self.entry.take(self.rank.take(gap) + self.row_at, mode="clip")

    def turns(self) -> tuple[_Bool, npt.NDArray[np.float32]]:
        track = self.track
        cut_off = self.stop.take(self._entry(self.gaps._turn_gap)) < track.early_frame
        entry = self._entry(self.gaps._late_gap)
        entry += self.stop.take(entry) < track.early_frame  # a cut-off in the gap the end is near: the next stop
        stop = self.stop.take(entry)
        ends = (stop <= track.limit_frame) & (self.start.take(entry) < track.end_frame)
        # A stop within the tolerance before a labelled end is at the end: labels are not exact.
        delay_ms = np.maximum(FRAME_MS * (stop - track.turn_offset) - track.turn_ms[:, 1], 0.0)
        delay_ms[~ends] = np.nan
        return cut_off, delay_ms.astype(np.float32)

    def pauses(self) -> _Bool:
        n = len(self.track.pause_turn) + 1
        cut = np.zeros((self.n_silences, n), bool)
        cut.reshape(-1)[self.row * np.int32(n) + self.track.pause_at.take(self.stop, mode="clip")] = True
        return cut[:, :-1]

    def starts_in(self, first: _Bool, again: _Bool | None) -> npt.NDArray[np.int32]:
        """(S, n_recordings) starts: the first one of a recording where marked, and those behind a marked gap."""
        if again is None:
            return np.repeat(first[None].astype(np.int32), self.n_silences, axis=0)
        return (self._count(again.take(self.gap).nonzero()[0]) + first).astype(np.int32)

    def tokens(self, prefixes_ms: _Int) -> npt.NDArray[np.float32]:
        """(S, P, n_recordings) of the items from each start less the prefix, at least 0, to its stop."""
        ahead = np.zeros(len(self.stop) + 1, np.int32)
        np.cumsum(self.stop - self.start, out=ahead[1:])
        lengths, n_items = np.diff(ahead.take(self.bounds))[:, None], np.diff(self.bounds)[:, None]
        total_ms = FRAME_MS * lengths + prefixes_ms[:, None] * n_items
        begin = self.start - self.gaps._offset.take(self.gap)
        for p, prefix in enumerate(prefixes_ms.tolist()):  # nothing lies before the recording
            (early,) = (begin < -(-prefix // FRAME_MS)).nonzero()
            total_ms[:, p] -= self._count(early, prefix - FRAME_MS * begin[early])
        tokens: npt.NDArray[np.float32] = (total_ms * TOKENS_PER_S / 1000).astype(np.float32)
        return tokens

    def _count(self, stops: _Int, weights: npt.NDArray[Any] | None = None) -> _Int:
        """(S, n_recordings) numbers of these stops, or sums of their weights; for few of all stops."""
        n = len(self.track.offsets) + 1
        cells = self.row[stops] * n + self.gaps._recording_or_none[self.gap[stops]]
        counts = np.bincount(cells, weights, minlength=self.n_silences * n).astype(np.int64)
        return counts.reshape(-1, n)[:, :-1]


def _exactly(value: float) -> np.float32:
    """The least float32 that is not below a number: comparing float32 with it is comparing with the number itself."""
    nearest = np.float32(value)
    return nearest if float(nearest) >= value else np.nextafter(nearest, np.float32(np.inf))


def _floor(ms: _Float) -> _Int:
    return np.floor(ms / FRAME_MS).astype(np.int64)


def _ceil(ms: _Float) -> _Int:
    return np.ceil(ms / FRAME_MS).astype(np.int64)
