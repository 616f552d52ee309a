"""Audio tracks of a session: both sides on one time axis, for interaction metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from rtnb.analysis.interaction import GAP_S, TICK_S, Interaction
from rtnb.audio import Audio, resample
from rtnb.errors import AudioError
from rtnb.trace.timeline import Timeline

RATE_HZ: Final = 16_000
"""Rate of the tracks: that of the voice activity detection."""
MAX_MINUTES: Final = 60.0
"""Longest conversation that is analysed, 0.5 GB of samples (chosen)."""


def interaction(
    source: Any, *, labels: Iterable[tuple[float, float, str]] = (), tick_s: float = TICK_S, gap_s: float = GAP_S
) -> Interaction:
    """Measure the interaction in a session: responses, interruptions, yields, backchannels, overlaps.

    The user's track is the audio that was sent, the agent's the audio as it was played: interrupted answers end where
    they were cut.

    Parameters
    ----------
    source : Session, Playground, EventLog, iterable of log rows, or an object with ``user``, ``agent`` and ``rate_hz``
        The conversation; the last has its two tracks already.
    labels : iterable of (start_s, stop_s, kind)
        Known kinds of user speech: ``backchannel``, ``vocal_tic``, ``non_directed``. Without labels each overlap is
        an interruption.
    tick_s : float, default 0.2
        Resolution of all times, that of the published benchmark.
    gap_s : float, default 1.0
        A shorter silence does not end the user's speech.

    Returns
    -------
    Interaction
        ``.metrics()`` and ``.to_frame()`` are tables, ``.plot()`` draws both tracks with each event.

    Raises
    ------
    AudioError
        No audio of either side, or more than an hour.

    Examples
    --------
    >>> import rtnb
    >>> async def measure():
    ...     async with rtnb.connect("sim", latency="fast") as session:
    ...         await session.say(rtnb.audio.babble("hello there").audio, rate_hz=24_000, paced=False)
    ...         return rtnb.interaction(session)
    >>> import asyncio
    >>> asyncio.run(measure()).user.shape[0] > 0
    True
    """
    options: dict[str, Any] = {"labels": labels, "tick_s": tick_s, "gap_s": gap_s}
    if all(hasattr(source, name) for name in ("user", "agent", "rate_hz")):
        return Interaction.of_tracks(source.user, source.agent, rate_hz=source.rate_hz, **options)
    source = getattr(source, "session", source)
    timeline = Timeline()
    for row in tuple(getattr(source, "log", source)):
        timeline.add(row)
    pieces = [piece for lane in timeline.pieces.values() for piece in lane]
    if not pieces:
        raise AudioError("the session has no audio in its log").with_hint(
            "Over WebRTC the audio does not pass the log: record both sides and use Interaction.of_tracks."
        )
    stop_ms = max(piece.stop_ms for piece in pieces)
    if stop_ms > 60_000 * MAX_MINUTES:
        raise AudioError(
            f"the session lasts {stop_ms / 60_000:.0f} minutes; at most {MAX_MINUTES:g} are analysed"
        ).with_hint("Give a part of it: interaction(session.log[:5000]).")
    user, agent = (_track(timeline.pieces[lane], stop_ms) for lane in ("you", "model"))
    spans = [(piece.start_ms / 1000, piece.stop_ms / 1000) for piece in timeline.pieces["model"]]
    return Interaction.of_tracks(user, agent, rate_hz=RATE_HZ, agent_spans=spans, **options)


def _track(pieces: Iterable[Any], stop_ms: float) -> Audio:
    """Return the pieces of one side at their places; contiguous ones are resampled together, without clicks."""
    track = np.zeros(round(stop_ms * RATE_HZ / 1000) + 1, np.float32)
    runs: list[tuple[float, int, list[Any]]] = []
    free_ms = float("-inf")
    for piece in pieces:
        if piece.start_ms - free_ms > 1 or piece.rate_hz != runs[-1][1]:
            runs.append((piece.start_ms, piece.rate_hz, []))
        runs[-1][2].append(piece.samples)
        free_ms = piece.stop_ms
    for start_ms, rate_hz, samples in runs:
        audio = resample(np.concatenate(samples), from_rate_hz=rate_hz, to_rate_hz=RATE_HZ)
        first = round(start_ms * RATE_HZ / 1000)
        track[first : first + len(audio)] = audio[: len(track) - first]
    return track
