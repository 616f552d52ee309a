"""Sweeps made of numbers: turns with random pauses, so that the truth about every setting is known."""

from dataclasses import replace
from typing import Any

import numpy as np

from rtnb.analysis.conditions import AS_RECORDED, FRAME_PHASES
from rtnb.analysis.sweeping import _LAST_AXIS, Sweep
from rtnb.vad import VadConstants

THRESHOLDS = np.array([0.3, 0.5, 0.7])
SILENCE_FRAMES = np.arange(4, 52)
ROOMS = 10
PREFIXES_MS = np.array([0.0, 100.0, 300.0, 500.0])


def swept(
    *, cut_off: Any, delay_ms: Any, false_triggers: Any, turn_recording: Any, room_h: float, **more: Any
) -> Sweep:
    """Make a sweep of what is given; the last `ROOMS` recordings hold so many hours of room tone each."""
    n_thresholds, n_silences, n_turns = cut_off.shape
    n_recordings = false_triggers.shape[-1]
    prefixes_ms = more.setdefault("prefixes_ms", np.array([300]))
    others = {
        "onset_delay_ms": np.full((n_thresholds, n_turns), 50, np.float32),
        "missed": np.zeros((n_thresholds, n_turns), bool),
        "clipped_ms": np.zeros((n_thresholds, len(prefixes_ms), n_turns), np.float32),
        "pause_cut": np.zeros((n_thresholds, n_silences, 0), bool),
        "self_interruptions": np.zeros_like(false_triggers),
        "billed_tokens": np.zeros((n_thresholds, n_silences, len(prefixes_ms), n_recordings), np.float32),
        "ending_ms": np.full(n_turns, 3000.0),
        "pause_turn": np.zeros(0, int),
        "recordings": np.array([f"clip {k}" for k in range(n_recordings)]),
        "conditions": np.full(n_recordings, AS_RECORDED),
        "speakers": np.full(n_recordings, ""),
        "non_speech_h": np.r_[np.zeros(n_recordings - ROOMS), np.full(ROOMS, room_h)],
        "echo_min": np.zeros(n_recordings),
        "constants": VadConstants(),
    }
    given = {"cut_off": cut_off, "delay_ms": delay_ms.astype(np.float32), "false_triggers": false_triggers}
    return Sweep(**(others | given | more), turn_recording=turn_recording)


def grid(
    n_turns: int,
    *,
    seed: int = 0,
    per_recording: int = 1,
    pause_ms: float = 150.0,
    room_h: float = 0.5,
    triggers_per_h: tuple[float, ...] = (60.0, 10.0, 0.0),
    phase: int = 0,
) -> Sweep:
    """A sweep whose turns have a longest pause each, of `pause_ms` on average (exponential), and 120 ms of fade."""
    rng = np.random.default_rng(seed)
    longest_ms = rng.exponential(pause_ms, n_turns) + 20 * np.random.default_rng([seed, phase]).normal(size=n_turns)
    fade_ms = np.abs(rng.normal(120, 60, n_turns))
    reach_ms = longest_ms + np.array([-40, 0, 40])[:, None]  # a lower threshold hears less of a pause
    silence_ms = 32 * SILENCE_FRAMES
    n_recordings = -(-n_turns // per_recording) + ROOMS  # the last ones hold room tone only
    false = np.zeros((3, len(SILENCE_FRAMES), n_recordings), int)
    share = np.linspace(0, 1, ROOMS + 1)
    false[:, :, -ROOMS:] = np.diff(np.round(np.array(triggers_per_h)[:, None] * room_h * share))[:, None]
    return swept(
        thresholds=THRESHOLDS,
        silence_frames=SILENCE_FRAMES,
        prefixes_ms=PREFIXES_MS,
        cut_off=reach_ms[:, None] >= silence_ms[:, None],
        delay_ms=(fade_ms + np.array([80, 0, -40])[:, None])[:, None].astype(np.float32) + silence_ms[:, None],
        clipped_ms=np.maximum(0, rng.normal(200, 60, n_turns) - PREFIXES_MS[:, None])[None]
        .repeat(3, 0)
        .astype(np.float32),
        false_triggers=false,
        turn_recording=np.arange(n_turns) // per_recording,
        room_h=room_h / ROOMS,
    )


def phases(n_turns: int, **options: Any) -> Sweep:
    """The same turns at four frame phases."""
    sweeps = [grid(n_turns, phase=phase, **options) for phase in range(4)]
    n = len(sweeps[0].recordings)
    fields = {
        name: np.concatenate([getattr(one, name) for one in sweeps], axis=-1)
        for name in (*_LAST_AXIS["turn"], *_LAST_AXIS["recording"])
    }
    fields["turn_recording"] = np.concatenate([one.turn_recording + k * n for k, one in enumerate(sweeps)])
    fields["conditions"] = np.repeat([phase.name for phase in FRAME_PHASES], n)
    return replace(sweeps[0], **fields)
