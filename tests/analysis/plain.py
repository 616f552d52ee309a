"""The sweep spelled out, one setting and one turn after another: slow, and plainly what the metrics mean."""

from collections.abc import Sequence

import numpy as np

from rtnb.analysis.gaps import CUT_OFF_TOLERANCE_MS, TOKENS_PER_S
from rtnb.analysis.listening import Heard
from rtnb.vad import FRAME_MS, Segment, ServerVadMachine, SpeechStarted, VadConstants, server_vad_segments

NAN = float("nan")


def plain_sweep(
    heard: Sequence[Heard],
    thresholds: Sequence[float],
    silence_frames: Sequence[int],
    prefixes_ms: Sequence[float],
    constants: VadConstants,
) -> dict[str, np.ndarray]:
    turns = [(k, turn, _limit(one, i)) for k, one in enumerate(heard) for i, turn in enumerate(one.turns)]
    pauses = [(k, turn, pause) for k, turn, _ in turns for pause in turn.pauses]
    shape = (len(thresholds), len(silence_frames))
    out = {
        "cut_off": np.zeros((*shape, len(turns)), bool),
        "delay_ms": np.zeros((*shape, len(turns)), np.float32),
        "onset_delay_ms": np.zeros((len(thresholds), len(turns)), np.float32),
        "missed": np.zeros((len(thresholds), len(turns)), bool),
        "clipped_ms": np.zeros((len(thresholds), len(prefixes_ms), len(turns)), np.float32),
        "pause_cut": np.zeros((*shape, len(pauses)), bool),
        "false_triggers": np.zeros((*shape, len(heard)), np.int32),
        "self_interruptions": np.zeros((*shape, len(heard)), np.int32),
        "billed_tokens": np.zeros((*shape, len(prefixes_ms), len(heard)), np.float32),
    }
    for t, threshold in enumerate(thresholds):
        for n, (k, turn, _) in enumerate(turns):
            onset = _onset(heard[k].probabilities, turn, threshold, constants)
            out["missed"][t, n] = onset is None
            out["onset_delay_ms"][t, n] = NAN if onset is None else onset.emitted_ms - turn.start_ms
            for p, prefix in enumerate(prefixes_ms):
                lost = turn.end_ms - turn.start_ms if onset is None else FRAME_MS * onset.frame - prefix - turn.start_ms
                out["clipped_ms"][t, p, n] = max(0.0, lost)
        for s, frames in enumerate(silence_frames):
            settings = {"threshold": threshold, "silence_duration_ms": FRAME_MS * frames, "constants": constants}
            found = [server_vad_segments(one.probabilities, **settings) for one in heard]  # type: ignore[arg-type]
            for n, (k, turn, limit) in enumerate(turns):
                stops = [_stopped(one) for one in _of(found[k], heard[k].probabilities, turn, threshold, constants)]
                out["cut_off"][t, s, n] = any(stop < turn.end_ms - CUT_OFF_TOLERANCE_MS for stop in stops)
                late = [stop for stop in stops if turn.end_ms - CUT_OFF_TOLERANCE_MS <= stop <= limit]
                out["delay_ms"][t, s, n] = max(0.0, late[0] - turn.end_ms) if late else NAN
            for n, (k, _, (start, end)) in enumerate(pauses):
                out["pause_cut"][t, s, n] = any(start <= _stopped(one) < end for one in found[k])
            for k, one in enumerate(heard):
                out["false_triggers"][t, s, k] = _starts_in(found[k], one.non_speech)
                out["self_interruptions"][t, s, k] = _starts_in(found[k], one.echo)
                for p, prefix in enumerate(prefixes_ms):
                    kept = [
                        one.audio_end_ms - max(0.0, FRAME_MS * one.start_frame - prefix)
                        for one in found[k]
                        if one.audio_end_ms is not None
                    ]
                    out["billed_tokens"][t, s, p, k] = sum(kept) * TOKENS_PER_S / 1000
    return out


def _limit(one: Heard, i: int) -> float:
    """Until when a stop still ends the turn: the next one's start, or the end of the audio."""
    return one.turns[i + 1].start_ms if i + 1 < len(one.turns) else FRAME_MS * len(one.probabilities)


def _onset(p, turn, threshold, constants) -> SpeechStarted | None:
    """Return the first start of a machine whose first frame is the one that the turn begins in."""
    machine = ServerVadMachine(threshold=threshold, prefix_padding_ms=0, silence_duration_ms=0, constants=constants)
    first = int(turn.start_ms // FRAME_MS)
    machine.reset(frame=first)
    for event in machine.push(p[first:]):
        if isinstance(event, SpeechStarted):
            return event if FRAME_MS * event.frame < turn.end_ms else None
    return None


def _of(segments, p, turn, threshold, constants) -> list[Segment]:
    """The finished segments whose speech, from its first to its last frame at the threshold, overlaps the turn."""
    found = []
    for one in segments:
        if one.stop_frame is None:
            continue
        loud = np.flatnonzero(np.asarray(p[: one.stop_frame], np.float64) >= constants.local(threshold))
        if FRAME_MS * one.start_frame < turn.end_ms and FRAME_MS * (loud[-1] + 1) > turn.start_ms:
            found.append(one)
    return found


def _stopped(one: Segment) -> float:
    return float("inf") if one.audio_end_ms is None else one.audio_end_ms


def _starts_in(segments, spans) -> int:
    return sum(
        any(start <= FRAME_MS * one.start_frame and FRAME_MS * (one.start_frame + 1) <= end for start, end in spans)
        for one in segments
    )
