"""Calibration of the local VAD model: stream recordings to a service under several settings, and fit its events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from tqdm.auto import tqdm

from rtnb.analysis.calibration import Calibration, Observed, fit_constants
from rtnb.analysis.recordings import Recording
from rtnb.analysis.sweeping import setting_of
from rtnb.audio import Audio, codec, ms_to_samples, resample
from rtnb.client.log import EventLog
from rtnb.client.session import Session
from rtnb.errors import AudioError, LocalProtocolError
from rtnb.protocol.values import ServerVad
from rtnb.vad import FRAME_MS

_TRIED = (0.5, 200, 300), (0.3, 500, 300), (0.7, 200, 160), (0.5, 500, 160), (0.3, 200, 160), (0.7, 500, 300)
SETTING: Final = ("threshold", "silence_duration_ms", "prefix_padding_ms")
"""Names of the three values that make a setting of server VAD."""
SETTINGS: Final = tuple(ServerVad(threshold=a, silence_duration_ms=b, prefix_padding_ms=c) for a, b, c in _TRIED)
"""Thresholds, silences and prefixes whose effects can be distinguished; 200 and 500 ms round differently (chosen)."""
_GAP_MS = 800
"""Silence after each clip beyond the silence duration: longer than the delay of any start or stop (chosen)."""


async def calibrate(
    session: Session,
    recordings: Sequence[Recording],
    *,
    settings: Sequence[ServerVad] = SETTINGS,
    paced: bool | float = True,
    deployment: str | None = None,
    progress: bool = True,
) -> Calibration:
    """Measure how a service's server VAD differs from the local model.

    The recordings are streamed once under each setting, with `create_response` and `interrupt_response` off: the
    service reports starts and stops of speech, and creates no response. The local model is fitted to these events.
    Afterwards the session's turn detection is as before, and the new items are deleted. Use a new session: only then
    do service and model get the same audio from the first sample on.

    Parameters
    ----------
    session : Session
        Open and silent.
    recordings : sequence of Recording
        10 to 20 short clips with pauses; more clips give sharper constants, and at least 2 are needed to check the fit
        out of sample. Labels are not needed.
    settings : sequence of ServerVad
        Tried one after another. Default: six whose effects can be distinguished.
    paced : bool or float, default True
        True streams in real time, as services expect; a number that many times faster; False at once, for simulators.
    deployment : str, optional
        Names the service. Default: its host and model.
    progress : bool, default True
        Show a bar.

    Returns
    -------
    Calibration
        With `constants` for `rtnb.sweep`; `save` writes it to a file for this deployment.

    Raises
    ------
    AudioError
        No recordings, or too few starts and stops to identify anything.
    LocalProtocolError
        A call over WebRTC: audio cannot be streamed over its data channel.
    ServiceError
        The service refuses a setting.

    Examples
    --------
    >>> import asyncio, rtnb
    >>> async def measure():
    ...     simulator = rtnb.Simulator(latency="fast", voice="babble")
    ...     speech = [simulator.speech(text).audio for text in ("One", "Two")]
    ...     clips = [rtnb.Recording.of_one_turn(audio, rate_hz=24_000) for audio in speech]
    ...     async with rtnb.connect(simulator) as session:
    ...         return await rtnb.calibrate(session, clips, paced=False, progress=False)
    >>> asyncio.run(measure()).constants.min_speech_frames
    1
    """
    if not recordings:
        raise AudioError("no recordings to calibrate with").with_hint("Give a few short clips of speech with pauses.")
    bar = tqdm(settings, desc="settings", disable=not progress)
    stream, observed = await _observe(session, recordings, bar, paced=paced)
    named = _deployment(session) if deployment is None else deployment
    rate_hz = session.config.input_format.rate_hz
    return await asyncio.to_thread(fit_constants, np.concatenate(stream), observed, rate_hz=rate_hz, deployment=named)


# --- streaming --------------------------------------------------------------------------------------------------------


async def _observe(
    session: Session, clips: Sequence[Recording], settings: Iterable[ServerVad], *, paced: bool | float
) -> tuple[list[Audio], list[Observed]]:
    """Stream clips under each setting; return the audio and the observed events, and leave the session as it was."""
    if session.webrtc:
        raise LocalProtocolError("over WebRTC no audio can be appended").with_hint("Connect by WebSocket.")
    before, first = session.config.turn_detection, session.log.next_number
    stream: list[Audio] = []
    sent = []
    try:
        for setting in settings:
            sent.append(await _stream(session, clips, setting, stream, paced=paced))
        await session.input_audio_buffer.clear()  # its reply comes after all other events
    finally:
        if not session.closed:
            await session.update(turn_detection=before)
            await _delete_items(session, first)
    return stream, [_with_events(one, session.log.since(first)) for one in sent]


async def _stream(
    session: Session, clips: Sequence[Recording], setting: ServerVad, stream: list[Audio], *, paced: bool | float
) -> Observed:
    """Send all clips under one setting; the events of the service are read later."""
    values = {name: setting_of(setting, name) for name in SETTING}
    asked = ServerVad(**values, create_response=False, interrupt_response=False)
    await session.update(turn_detection=asked)
    form, wire = session.config.input_format, codec(session.config.input_format.type)
    at_ms = session.state.input_audio_buffer.total_bytes / form.bytes_per_ms
    if not stream:  # earlier audio is not known here: begin with the service's next frame
        await session.input_audio_buffer.append(np.zeros(round(-at_ms % FRAME_MS * form.rate_hz / 1000), np.float32))
        at_ms += -at_ms % FRAME_MS
    audio, clips_ms = _joined(clips, form.rate_hz, gap_ms=values["silence_duration_ms"] + _GAP_MS)
    stream.append(wire.decode(wire.encode(audio)))  # the audio after the rounding of its format
    await session.say(audio, rate_hz=form.rate_hz, paced=paced, respond=False, trailing_silence_ms=0)
    start_ms = round(at_ms)
    return Observed(
        **values,
        start_ms=start_ms,
        stop_ms=start_ms + len(audio) * 1000 // form.rate_hz,
        starts_ms=(),
        stops_ms=(),
        clips_ms=tuple(round(start_ms + each_ms) for each_ms in clips_ms),
        problems=_differences(asked, session.config.turn_detection),
    )


def _joined(clips: Sequence[Recording], rate_hz: int, *, gap_ms: float) -> tuple[Audio, list[float]]:
    """Return silence, then each clip with a gap behind it, in whole frames; and where each clip begins, ms."""
    gap = np.zeros(ms_to_samples(gap_ms, rate_hz=rate_hz), np.float32)
    pieces, begins_ms = [gap], []
    for clip in clips:
        begins_ms.append(sum(map(len, pieces)) * 1000 / rate_hz)
        pieces += [resample(clip.audio, from_rate_hz=clip.rate_hz, to_rate_hz=rate_hz), gap]
    frame = ms_to_samples(FRAME_MS, rate_hz=rate_hz)
    pieces.append(np.zeros(-sum(map(len, pieces)) % frame, np.float32))
    return np.concatenate(pieces), begins_ms


async def _delete_items(session: Session, first: int) -> None:
    """Delete the items that the streamed audio made."""
    for row in session.log.since(first).filter("input_audio_buffer.committed", direction="received"):
        if (item_id := getattr(row.event, "item_id", None)) in session.state.order:
            await session.conversation.item.delete(item_id)


# --- reading ----------------------------------------------------------------------------------------------------------


def _with_events(sent: Observed, log: EventLog) -> Observed:
    """Add the starts and stops that lie in its audio; there is silence around them."""
    started = (row.event for row in log.filter("input_audio_buffer.speech_started"))
    stopped = (row.event for row in log.filter("input_audio_buffer.speech_stopped"))
    starts_ms = [event.audio_start_ms for event in started]  # type: ignore[attr-defined]
    stops_ms = [event.audio_end_ms for event in stopped]  # type: ignore[attr-defined]
    return replace(
        sent,
        starts_ms=tuple(at for at in starts_ms if sent.start_ms <= at + sent.prefix_padding_ms < sent.stop_ms),
        stops_ms=tuple(at for at in stops_ms if sent.start_ms < at <= sent.stop_ms),
    )


def _differences(asked: ServerVad, effective: Any) -> tuple[str, ...]:
    """Return where the settings in force differ from the requested ones."""
    where = f"threshold {asked.threshold:g}, silence {asked.silence_duration_ms} ms"
    pairs = [(name, getattr(effective, name, None)) for name in (*SETTING, "create_response", "interrupt_response")]
    return tuple(f"not as requested: {where}: {name} is {has!r}" for name, has in pairs if has != getattr(asked, name))


def _deployment(session: Session) -> str:
    """Return host and model, without secrets."""
    facts = getattr(session.transport, "facts", None)
    host = urlsplit(facts.url).hostname if facts is not None and facts.url else None
    return " ".join(str(part) for part in (host, session.config.model) if part) or "unknown"


# --- one setting, one recording ---------------------------------------------------------------------------------------


async def probe(session: Session, recording: Recording, setting: ServerVad, *, paced: bool | float = True) -> Observed:
    """Stream a recording to a service under a setting; return the starts and stops it reported, in ms of the recording.

    The service creates no response. Afterwards the turn detection is as before, and the new items are deleted.

    Parameters
    ----------
    session : Session
        Open and silent.
    recording : Recording
        One short clip.
    setting : ServerVad
        Threshold, silence duration and prefix padding to try.
    paced : bool or float, default True
        As for `calibrate`.

    Raises
    ------
    LocalProtocolError
        A call over WebRTC: audio cannot be streamed over its data channel.
    ServiceError
        The service refuses the setting.
    """
    _, (found,) = await _observe(session, [recording], [setting], paced=paced)
    zero_ms = found.clips_ms[0]
    starts_ms, stops_ms = (tuple(at - zero_ms for at in times) for times in (found.starts_ms, found.stops_ms))
    return replace(found, starts_ms=starts_ms, stops_ms=stops_ms)
